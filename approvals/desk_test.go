package approvals_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/jobgate/jobgate/approvals"
	"github.com/jobgate/jobgate/internal/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newDesk(t *testing.T, k approvals.Docket, channels ...approvals.Channel) *approvals.Desk {
	t.Helper()
	d, err := approvals.New(approvals.Config{Docket: k, Channels: channels, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func question(id string) access.Approval {
	return access.Approval{
		ID: id, Session: "ses_1", Call: "call_1", Connection: "anthropic", Mapping: "release-agents", Revision: 3,
		Rule: "commands", Reason: "commands need a yes", Approvers: []string{"sre"}, Digest: "d1",
		Title: "Bash", Text: "rm -rf build", Expires: time.Now().Add(15 * time.Minute),
	}
}

type answer struct {
	a   access.Approval
	err error
}

// ask asks in the background.
func ask(ctx context.Context, d *approvals.Desk, a access.Approval) <-chan answer {
	out := make(chan answer, 1)
	go func() {
		got, err := d.Ask(ctx, a)
		out <- answer{got, err}
	}()
	return out
}

func yes(by string) access.Vote { return access.Vote{State: access.Approved, By: by, Via: "cli"} }
func no(by string) access.Vote  { return access.Vote{State: access.Denied, By: by, Via: "cli"} }

func TestAVoteSettlesTheQuestion(t *testing.T) {
	for _, v := range []access.Vote{yes("Ana (U1)"), no("Ana (U1)")} {
		t.Run(string(v.State), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, newDocket())
				got := ask(t.Context(), d, question("q1"))
				synctest.Wait()
				before := time.Now()
				voted, err := d.Vote(t.Context(), "q1", v)
				if err != nil {
					t.Fatalf("Vote = %v", err)
				}
				a := <-got
				if a.err != nil || a.a.State != v.State || a.a.Vote.By != "Ana (U1)" || a.a.Version != 2 {
					t.Errorf("Ask = %+v, %v, want %s by Ana, version 2", a.a, a.err, v.State)
				}
				if a.a.Vote != voted.Vote || !a.a.Vote.At.Equal(before) || time.Now() != before {
					t.Errorf("the wait took %s and the vote is %+v, want no time and the winner's", time.Since(before), a.a.Vote)
				}
			})
		})
	}
}

func TestOfManyReviewersOneDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDocket()
		desks := []*approvals.Desk{newDesk(t, k), newDesk(t, k)}
		for round := range 1000 {
			oneRound(t, desks, strconv.Itoa(round))
		}
	})
}

func oneRound(t *testing.T, desks []*approvals.Desk, id string) {
	t.Helper()
	q := question(id)
	q.Session = "ses_" + id // every session has its own memory
	got := ask(t.Context(), desks[0], q)
	synctest.Wait()
	var all sync.WaitGroup
	outcomes := make([]answer, 4)
	for i, v := range []access.Vote{yes("ana"), no("ben"), yes("eve"), no("joe")} {
		all.Go(func() {
			a, err := desks[i%2].Vote(t.Context(), id, v)
			outcomes[i] = answer{a, err}
		})
	}
	all.Wait()
	final := (<-got).a
	winners := 0
	for i, o := range outcomes {
		switch {
		case o.err == nil:
			winners++
			if o.a.Vote != final.Vote {
				t.Fatalf("vote %d won with %+v, but the question ended with %+v", i, o.a.Vote, final.Vote)
			}
		case access.CodeOf(o.err) != access.CodeConflict || !strings.Contains(access.PublicText(o.err), final.Outcome()):
			t.Fatalf("vote %d lost with %v, want a conflict that says %q", i, o.err, final.Outcome())
		}
	}
	if winners != 1 {
		t.Fatalf("%d votes won, want 1", winners)
	}
}

func TestANoIsRememberedAndAYesIsNot(t *testing.T) {
	tests := []struct {
		name  string
		vote  access.Vote // zero: let it expire
		after time.Duration
		other bool // ask about another session
		asked bool // anew
	}{
		{name: "denied", vote: no("ana"), asked: false},
		{name: "denied hours ago", vote: no("ana"), after: 5 * time.Hour, asked: false},
		{name: "denied in another session", vote: no("ana"), other: true, asked: true},
		{name: "expired", after: 0, asked: false},
		{name: "expired 9m ago", after: 9 * time.Minute, asked: false},
		{name: "expired 10m ago", after: 10 * time.Minute, asked: true},
		{name: "approved", vote: yes("ana"), asked: true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, newDocket())
				first := ask(t.Context(), d, question("q1"))
				synctest.Wait()
				if tc.vote.State != "" {
					if _, err := d.Vote(t.Context(), "q1", tc.vote); err != nil {
						t.Fatal(err)
					}
				}
				settled := (<-first).a
				time.Sleep(tc.after)
				again := question("q2")
				if tc.other {
					again.Session = "ses_2"
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				second := ask(ctx, d, again)
				synctest.Wait()
				select {
				case got := <-second:
					if tc.asked {
						t.Fatalf("answered %s from memory, want a new question", got.a.Outcome())
					}
					if got.err != nil || got.a.ID != "q1" || got.a.Vote != settled.Vote {
						t.Errorf("Ask = %+v, %v, want the first question's answer %+v", got.a, got.err, settled.Vote)
					}
				default:
					if !tc.asked {
						t.Fatal("a new question was asked, want the answer from memory")
					}
				}
			})
		})
	}
}

func TestExpiryDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, newDocket())
		q := question("q1")
		start := time.Now()
		got := <-ask(t.Context(), d, q)
		if got.err != nil || got.a.State != access.Expired {
			t.Errorf("Ask = %s, %v, want expired", got.a.State, got.err)
		}
		if waited := time.Since(start); waited != 15*time.Minute {
			t.Errorf("waited %s, want 15m", waited)
		}
		_, err := d.Vote(t.Context(), "q1", yes("ana"))
		if access.CodeOf(err) != access.CodeConflict || !strings.Contains(access.PublicText(err), "expired") {
			t.Errorf("late vote = %v, want a conflict that says expired", err)
		}
	})
}

func TestAQuestionThatIsOverBeforeItBeginsIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDocket()
		d := newDesk(t, k)
		q := question("q1")
		q.Expires = time.Now()
		got, err := d.Ask(t.Context(), q)
		if err != nil || got.State != access.Expired || len(k.rows) != 0 {
			t.Errorf("Ask = %s, %v with %d rows, want expired and none", got.State, err, len(k.rows))
		}
	})
}

func TestAClientThatLeavesTakesItsQuestionAlong(t *testing.T) {
	tests := []struct {
		name  string
		cause error
		want  string
	}{
		{"left", context.Canceled, "the client left"},
		{"out of time", context.DeadlineExceeded, "the client's time ran out"},
		{"session over", access.Refuse(access.CodeEnded, "the session is over"), "the session is over"},
		{"unknown cause", errors.New("dial 10.0.0.1: secret"), "the client left"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, newDocket())
				ctx, leave := context.WithCancelCause(t.Context())
				got := ask(ctx, d, question("q1"))
				synctest.Wait()
				leave(tc.cause)
				a := <-got
				if access.CodeOf(a.err) != access.CodeCanceled || !errors.Is(a.err, tc.cause) {
					t.Errorf("Ask = %v, want CodeCanceled because of %v", a.err, tc.cause)
				}
				row, err := d.Get(t.Context(), "q1")
				if err != nil || row.State != access.Cancelled || row.Note != tc.want {
					t.Errorf("docket has %s %q, %v, want cancelled %q", row.State, row.Note, err, tc.want)
				}
			})
		})
	}
}

// hasty is a docket whose caller leaves while a question is being written down.
type hasty struct {
	*docket
	leave context.CancelFunc
}

func (h hasty) CreateApproval(ctx context.Context, a access.Approval) error {
	h.leave()
	return h.docket.CreateApproval(ctx, a)
}

func TestAClientThatLeavesDuringTheWriteLeavesNothingPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		d := newDesk(t, hasty{newDocket(), leave})
		if _, err := d.Ask(ctx, question("q1")); access.CodeOf(err) != access.CodeCanceled {
			t.Errorf("Ask = %v, want CodeCanceled", err)
		}
		if row, err := d.Get(t.Context(), "q1"); err != nil || row.State != access.Cancelled {
			t.Errorf("docket has %q, %v, want cancelled", row.State, err)
		}
	})
}

func TestAVoteAtAnotherReplicaCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDocket()
		here, there := newDesk(t, k), newDesk(t, k)
		got := ask(t.Context(), here, question("q1"))
		synctest.Wait()
		start := time.Now()
		if _, err := there.Vote(t.Context(), "q1", yes("ana")); err != nil {
			t.Fatal(err)
		}
		a := <-got
		if a.err != nil || a.a.State != access.Approved || time.Since(start) > time.Second {
			t.Errorf("Ask = %s, %v after %s, want approved within a second", a.a.State, a.err, time.Since(start))
		}
	})
}

func TestWhatIsNotShownWholeIsApprovedFromTheCommandLineOnly(t *testing.T) {
	for via, allowed := range map[string]bool{"slack": false, "console": false, "": false, "cli": true, "api": true} {
		for _, state := range []access.ApprovalState{access.Approved, access.Denied} {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, newDocket())
				q := question("q1")
				q.Truncated = true
				_ = ask(t.Context(), d, q)
				synctest.Wait()
				_, err := d.Vote(t.Context(), "q1", access.Vote{State: state, By: "ana", Via: via})
				switch want := allowed || state == access.Denied; {
				case want && err != nil:
					t.Errorf("%s via %q = %v, want it to count", state, via, err)
				case !want && (access.CodeOf(err) != access.CodeDenied || !strings.Contains(access.PublicText(err), "cannot be approved from here")):
					t.Errorf("%s via %q = %v, want a refusal", state, via, err)
				}
			})
		}
	}
}

func TestVotesThatSayNothing(t *testing.T) {
	d := newDesk(t, newDocket())
	for name, v := range map[string]access.Vote{
		"no state":  {By: "ana"},
		"pending":   {State: access.Pending, By: "ana"},
		"cancelled": {State: access.Cancelled, By: "ana"},
		"nobody":    {State: access.Approved},
	} {
		if _, err := d.Vote(t.Context(), "q1", v); access.CodeOf(err) != access.CodeInvalid {
			t.Errorf("%s: Vote = %v, want CodeInvalid", name, err)
		}
	}
	if _, err := d.Vote(t.Context(), "q1", yes("ana")); access.CodeOf(err) != access.CodeNotFound {
		t.Errorf("Vote on an unknown question = %v, want CodeNotFound", err)
	}
	if _, err := d.Ask(t.Context(), access.Approval{Session: "s", Expires: time.Now().Add(time.Hour)}); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("Ask without a digest = %v, want CodeInvalid", err)
	}
}

func TestANoHoldsForTheSameCallAskedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, newDocket())
		other := question("q3")
		other.Digest = "d2"
		first, twin, stays := ask(t.Context(), d, question("q1")), ask(t.Context(), d, question("q2")), ask(t.Context(), d, other)
		synctest.Wait()
		if _, err := d.Vote(t.Context(), "q1", no("ana")); err != nil {
			t.Fatal(err)
		}
		for _, got := range []<-chan answer{first, twin} {
			if a := <-got; a.a.State != access.Denied || a.a.Vote.By != "ana" {
				t.Errorf("%s is %s, want denied by ana", a.a.ID, a.a.Outcome())
			}
		}
		select {
		case a := <-stays:
			t.Errorf("another call's question is %s, want it open", a.a.Outcome())
		default:
		}
	})
}

func TestEndsThatCancel(t *testing.T) {
	ends := map[string]func(context.Context, *approvals.Desk) error{
		"session": func(ctx context.Context, d *approvals.Desk) error { return d.CancelSession(ctx, "ses_1", "it is over") },
		"mapping": func(ctx context.Context, d *approvals.Desk) error {
			return d.CancelMapping(ctx, "release-agents", "it is over")
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, newDocket())
				other := question("q2")
				other.Session, other.Mapping = "ses_2", "docs"
				hit, spared := ask(t.Context(), d, question("q1")), ask(t.Context(), d, other)
				synctest.Wait()
				if err := end(t.Context(), d); err != nil {
					t.Fatal(err)
				}
				if a := <-hit; a.err != nil || a.a.State != access.Cancelled || a.a.Note != "it is over" {
					t.Errorf("Ask = %s %q, %v, want cancelled: it is over", a.a.State, a.a.Note, a.err)
				}
				select {
				case a := <-spared:
					t.Errorf("another one's question is %s, want it open", a.a.Outcome())
				default:
				}
			})
		})
	}
}

func TestADocketThatFailsIsNoYes(t *testing.T) {
	down := errors.New("disk is gone")
	t.Run("before", func(t *testing.T) {
		k := newDocket()
		d := newDesk(t, k)
		k.setDown(down)
		if _, err := d.Ask(t.Context(), question("q1")); !errors.Is(err, down) {
			t.Errorf("Ask = %v, want %v", err, down)
		}
	})
	t.Run("meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := newDocket()
			d := newDesk(t, k)
			got := ask(t.Context(), d, question("q1"))
			synctest.Wait()
			k.setDown(down)
			if _, err := d.Vote(t.Context(), "q1", yes("ana")); !errors.Is(err, down) {
				t.Errorf("Vote = %v, want %v", err, down)
			}
			if a := <-got; a.err != nil || a.a.State != access.Expired {
				t.Errorf("Ask = %s, %v, want expired", a.a.State, a.err)
			}
			k.setDown(nil)
			time.Sleep(time.Minute)
			if row, err := d.Get(t.Context(), "q1"); err != nil || row.State != access.Expired {
				t.Errorf("after its return the docket has %s, %v, want expired", row.State, err)
			}
		})
	})
}

func TestCloseCancelsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, newDocket())
		got := ask(t.Context(), d, question("q1"))
		synctest.Wait()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if a := <-got; a.err != nil || a.a.State != access.Cancelled {
			t.Errorf("Ask = %s, %v, want cancelled", a.a.State, a.err)
		}
		if _, err := d.Ask(t.Context(), question("q2")); access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("Ask after Close = %v, want CodeUnavailable", err)
		}
	})
}
