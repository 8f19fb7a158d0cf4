package approvals_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jobgate/jobgate/approvals"
	"github.com/jobgate/jobgate/internal/access"
)

// board is a channel that fails as told.
type board struct {
	name string

	mu     sync.Mutex // guards all below
	fail   func(try int) error
	slow   time.Duration
	tries  []time.Time
	posted map[string]string // question by ts
	shown  map[string]access.ApprovalState
}

func newBoard(name string) *board {
	return &board{name: name, posted: map[string]string{}, shown: map[string]access.ApprovalState{}}
}

func (b *board) failing(fail func(try int) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail, b.tries = fail, nil
}

func (b *board) try(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tries = append(b.tries, time.Now())
	if b.fail != nil {
		if err := b.fail(len(b.tries)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (b *board) Post(ctx context.Context, a access.Approval) (channel, ts string, err error) {
	if err := b.try(ctx); err != nil {
		return "", "", err
	}
	time.Sleep(b.slow) // in a bubble only, where it takes no time
	b.mu.Lock()
	defer b.mu.Unlock()
	ts = b.name + strconv.Itoa(len(b.posted))
	b.posted[ts], b.shown[a.ID] = a.ID, a.State
	return b.name, ts, nil
}

func (b *board) Settle(ctx context.Context, channel, ts string, a access.Approval) error {
	if err := b.try(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if channel != b.name || b.posted[ts] != a.ID {
		return fmt.Errorf("%s is asked to update %s/%s for %s", b.name, channel, ts, a.ID)
	}
	b.shown[a.ID] = a.State
	return nil
}

func (b *board) shows(id string) access.ApprovalState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shown[id]
}

func (b *board) pauses() (out []time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := 1; i < len(b.tries); i++ {
		out = append(out, b.tries[i].Sub(b.tries[i-1]))
	}
	return out
}

var errAway = errors.New("the channel is away")

func away(int) error { return errAway }

func until(n int, err error) func(int) error {
	return func(try int) error {
		if try <= n {
			return err
		}
		return nil
	}
}

func TestEveryEndIsShown(t *testing.T) {
	ends := map[access.ApprovalState]func(context.Context, *approvals.Desk, context.CancelFunc) error{
		access.Approved: func(ctx context.Context, d *approvals.Desk, _ context.CancelFunc) error {
			_, err := d.Vote(ctx, "q1", yes("ana"))
			return err
		},
		access.Denied: func(ctx context.Context, d *approvals.Desk, _ context.CancelFunc) error {
			_, err := d.Vote(ctx, "q1", no("ana"))
			return err
		},
		access.Expired: func(context.Context, *approvals.Desk, context.CancelFunc) error {
			time.Sleep(15 * time.Minute)
			return nil
		},
		access.Cancelled: func(_ context.Context, _ *approvals.Desk, leave context.CancelFunc) error { leave(); return nil },
	}
	for state, end := range ends {
		t.Run(string(state), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, two := newBoard("one"), newBoard("two")
				d := newDesk(t, newDocket(), one, two)
				ctx, leave := context.WithCancel(t.Context())
				got := ask(ctx, d, question("q1"))
				synctest.Wait()
				for _, b := range []*board{one, two} {
					if s := b.shows("q1"); s != access.Pending {
						t.Fatalf("%s shows %q, want pending", b.name, s)
					}
				}
				if err := end(t.Context(), d, leave); err != nil {
					t.Fatal(err)
				}
				<-got
				synctest.Wait()
				for _, b := range []*board{one, two} {
					if s := b.shows("q1"); s != state {
						t.Errorf("%s shows %q, want %s", b.name, s, state)
					}
				}
				leave()
			})
		})
	}
}

func TestAChannelThatIsAwayIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, down := newBoard("up"), newBoard("down")
		down.failing(until(8, errAway))
		d := newDesk(t, newDocket(), up, down)
		got := ask(t.Context(), d, question("q1"))
		synctest.Wait()
		if up.shows("q1") != access.Pending || down.shows("q1") != "" {
			t.Fatalf("shown as %q and %q, want pending in one channel", up.shows("q1"), down.shows("q1"))
		}
		time.Sleep(10 * time.Minute)
		if s := down.shows("q1"); s != access.Pending {
			t.Errorf("after its return the channel shows %q, want pending", s)
		}
		want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
		for i, p := range down.pauses() {
			if p != want[i]*time.Second {
				t.Errorf("pause %d is %s, want %ds", i, p, want[i])
			}
		}
		if _, err := d.Vote(t.Context(), "q1", yes("ana")); err != nil {
			t.Fatal(err)
		}
		<-got
		synctest.Wait()
		if up.shows("q1") != access.Approved || down.shows("q1") != access.Approved {
			t.Errorf("shown as %q and %q, want approved in both", up.shows("q1"), down.shows("q1"))
		}
	})
}

func TestAnOutcomeCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("b")
		d := newDesk(t, newDocket(), b)
		got := ask(t.Context(), d, question("q1"))
		synctest.Wait()
		b.failing(until(3, &access.Error{Code: access.CodeUnavailable, RetryAfter: 20 * time.Second}))
		if _, err := d.Vote(t.Context(), "q1", no("ana")); err != nil {
			t.Fatal(err)
		}
		<-got
		time.Sleep(59 * time.Second)
		if s := b.shows("q1"); s != access.Pending {
			t.Errorf("after 59s the channel shows %q, want pending", s)
		}
		time.Sleep(2 * time.Second)
		if s := b.shows("q1"); s != access.Denied {
			t.Errorf("after three waits of 20s it shows %q, want denied", s)
		}
	})
}

func TestWhatIsSettledBeforeItIsShownIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("b")
		b.failing(away)
		d := newDesk(t, newDocket(), b)
		got := ask(t.Context(), d, question("q1"))
		synctest.Wait()
		if _, err := d.Vote(t.Context(), "q1", yes("ana")); err != nil {
			t.Fatal(err)
		}
		if a := <-got; a.a.State != access.Approved {
			t.Errorf("Ask = %s, want approved although the channel is away", a.a.State)
		}
		b.failing(nil)
		time.Sleep(time.Hour)
		if s := b.shows("q1"); s != "" {
			t.Errorf("the channel shows %q, want nothing", s)
		}
	})
}

func TestWhatIsSettledWhileItIsPostedIsUpdated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("b")
		b.slow = 10 * time.Second
		d := newDesk(t, newDocket(), b)
		got := ask(t.Context(), d, question("q1"))
		time.Sleep(time.Second)
		if _, err := d.Vote(t.Context(), "q1", yes("ana")); err != nil {
			t.Fatal(err)
		}
		<-got
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := b.shows("q1"); s != access.Approved {
			t.Errorf("the channel shows %q, want approved", s)
		}
	})
}

func TestWhatCannotSucceedIsTriedOnce(t *testing.T) {
	for _, code := range []access.Code{access.CodeInvalid, access.CodeNotFound} {
		synctest.Test(t, func(t *testing.T) {
			b := newBoard("b")
			b.failing(func(int) error { return access.Refuse(code, "no") })
			d := newDesk(t, newDocket(), b)
			got := ask(t.Context(), d, question("q1"))
			<-got
			if n := len(b.pauses()) + 1; n != 1 {
				t.Errorf("%s: tried %d times, want once", code, n)
			}
		})
	}
}

func TestTheDocketMayBeAwayWhenThePlaceIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, b := newDocket(), newBoard("b")
		b.slow = time.Second
		d := newDesk(t, k, b)
		got := ask(t.Context(), d, question("q1"))
		synctest.Wait()
		k.setDown(errors.New("disk is gone"))
		time.Sleep(10 * time.Second)
		k.setDown(nil)
		time.Sleep(time.Minute)
		if _, err := d.Vote(t.Context(), "q1", yes("ana")); err != nil {
			t.Fatal(err)
		}
		<-got
		synctest.Wait()
		if s := b.shows("q1"); s != access.Approved {
			t.Errorf("the channel shows %q, want approved", s)
		}
	})
}

func TestCloseShowsWhatItCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, down := newBoard("up"), newBoard("down")
		d := newDesk(t, newDocket(), up, down)
		got := ask(t.Context(), d, question("q1"))
		synctest.Wait()
		down.failing(away)
		start := time.Now()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("Close took %s, want one attempt at each channel", waited)
		}
		if a := <-got; a.a.State != access.Cancelled {
			t.Errorf("Ask = %s, want cancelled", a.a.State)
		}
		if s := up.shows("q1"); s != access.Cancelled {
			t.Errorf("the channel shows %q, want cancelled", s)
		}
	})
}

func TestARestartCancelsWhatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, b := newDocket(), newBoard("b")
		old, late := question("old"), question("late")
		late.Digest, late.Expires = "d2", time.Now().Add(time.Minute)
		for _, q := range []access.Approval{old, late} {
			q.State, q.Version = access.Pending, 1
			channel, ts, err := b.Post(t.Context(), q)
			if err := errors.Join(err, k.CreateApproval(t.Context(), q), k.SetApprovalPost(t.Context(), q.ID, channel, ts)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		d := newDesk(t, k, b)
		live := question("live")
		live.Digest = "d3"
		got := ask(t.Context(), d, live)
		synctest.Wait()
		if err := d.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for id, want := range map[string]access.ApprovalState{"old": access.Cancelled, "late": access.Expired, "live": access.Pending} {
			row, err := d.Get(t.Context(), id)
			if err != nil || row.State != want || b.shows(id) != want {
				t.Errorf("%s is %s and shown as %s, %v, want %s", id, row.State, b.shows(id), err, want)
			}
		}
		if row, _ := d.Get(t.Context(), "old"); row.Note != "the server restarted; the client asks again" {
			t.Errorf("the note says %q", row.Note)
		}
		select {
		case a := <-got:
			t.Errorf("the question that waits is %s", a.a.Outcome())
		default:
		}
	})
}
