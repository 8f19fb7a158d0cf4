package federation_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// inTime runs a test whose clock only moves while everything waits.
func inTime(t *testing.T, test func(t *testing.T)) { t.Helper(); synctest.Test(t, test) }

func TestOpen(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		if o.ExpiresIn != time.Hour || o.Joined || o.Renewed || !strings.HasPrefix(o.Exchange, "x_") || !strings.HasPrefix(o.Session.ID, "ses_") {
			t.Errorf("opened = %+v", o)
		}
		if diff := cmp.Diff([]string{"anthropic", "web"}, o.Connections); diff != "" {
			t.Errorf("connections (-want +got)\n%s", diff)
		}
		w.wantCall(o, "")
		if diff := cmp.Diff([]string{"opened run_id=1 at /oauth/token for anthropic web"}, w.record.all()); diff != "" {
			t.Errorf("record (-want +got)\n%s", diff)
		}
		info, err := w.sessions.Get(t.Context(), o.Session.ID)
		if err != nil || info.State != access.Awake || info.InForce != 1 || info.Door != federation.ExchangeDoor || info.Job.Repository != "o/r" {
			t.Errorf("info = %+v, %v", info, err)
		}
	})
}

func TestScope(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/a", Scope: []string{"web", "web"}})
		w.must(err)
		if diff := cmp.Diff([]string{"web"}, o.Connections); diff != "" {
			t.Errorf("connections (-want +got)\n%s", diff)
		}
		_, err = w.exchange.Open(t.Context(), federation.OpenRequest{Token: "2/b", Scope: []string{"web", "prod"}})
		wantRefused(t, err, access.CodeScope, "scope", `no connection "prod"`, "(exchange x_")
		w.mustOpen("2/b") // a refusal does not use the token up
	})
}

func TestReplay(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		_, err := w.open("1/a")
		wantRefused(t, err, access.CodeGrant, access.ReasonReplayed, "replayed")
		_, err = w.open("2/a") // the same token id, whatever else it says
		wantRefused(t, err, access.CodeGrant, access.ReasonReplayed)
		w.restart()
		_, err = w.open("1/a")
		wantRefused(t, err, access.CodeGrant, access.ReasonReplayed)
		w.wantCall(o, "")
	})
}

func TestRenewal(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		first := w.mustOpen("1/a")
		time.Sleep(14 * time.Minute)
		second := w.mustOpen("1/b")
		if second.Session != first.Session || !second.Renewed || second.ExpiresIn != 46*time.Minute {
			t.Errorf("second = %+v, want the session of the first, and its window", second)
		}
		time.Sleep(14 * time.Minute)
		w.wantCall(first, "") // the lease was renewed, and the earlier token is still good
		w.wantCall(second, "")
		time.Sleep(2 * time.Minute)
		w.wantCall(first, access.CodeUnauthenticated) // dormant
		third := w.mustOpen("1/c")
		w.wantCall(first, "")
		time.Sleep(30 * time.Minute)
		for _, o := range []federation.Opened{first, second, third} {
			w.wantCall(o, access.CodeEnded) // an hour after the first exchange
		}
		_, err := w.open("1/d")
		wantRefused(t, err, access.CodeGrant, "window_over", "longest duration", `"agents"`)
		synctest.Wait()
		want := []string{
			"opened run_id=1 at /oauth/token for anthropic web",
			"joined run_id=1 at /oauth/token for anthropic web renewed=true",
			"joined run_id=1 at /oauth/token for anthropic web renewed=true",
			"ended run_id=1 max by window",
		}
		if diff := cmp.Diff(want, w.record.all()); diff != "" {
			t.Errorf("record (-want +got)\n%s", diff)
		}
	})
}

func TestEndIsSticky(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(), agents(named("others")))
		open := func(token, mapping string) (federation.Opened, error) {
			return w.exchange.Open(t.Context(), federation.OpenRequest{Token: token, Mapping: mapping})
		}
		o, err := open("1/a", "agents")
		w.must(err)
		w.must(w.sessions.End(t.Context(), o.Session.ID, access.EndClosed, "job"))
		w.must(w.sessions.End(t.Context(), o.Session.ID, access.EndMax, "window")) // stays as it ended
		w.wantCall(o, access.CodeEnded)
		for range 2 {
			_, err = open("1/b", "agents")
			wantRefused(t, err, access.CodeGrant, "window_over", "the job closed its session")
			_, err = w.connect("1/b")
			wantRefused(t, err, access.CodeGrant, "window_over")
			_, err = w.connect("1/a")
			wantRefused(t, err, access.CodeGrant, "window_over")
			_, err = w.connect(o.Token.Reveal())
			wantRefused(t, err, access.CodeGrant, string(access.EndClosed))
			w.restart()
			w.wantCall(o, access.CodeEnded)
		}
		if _, err = open("1/b", "others"); err != nil { // per mapping
			t.Error(err)
		}
		if _, err = open("2/c", "agents"); err != nil { // per job
			t.Error(err)
		}
	})
}

func TestTokensOfASession(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(window(2*time.Hour, 2*time.Hour)))
		var all []federation.Opened
		for n := range 64 {
			all = append(all, w.mustOpen(fmt.Sprintf("1/%d", n)))
			time.Sleep(time.Second)
		}
		for i, o := range all {
			if i != 7 {
				w.wantCall(o, "")
			}
		}
		w.mustOpen("1/65th")
		w.wantCall(all[7], access.CodeUnauthenticated) // the one unused longest
		w.wantCall(all[0], "")
		w.restart()
		w.wantCall(all[7], access.CodeUnauthenticated)
		w.wantCall(all[8], "")
	})
}

func TestConnectOpens(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o, err := w.exchange.Connect(t.Context(), federation.ConnectRequest{Connection: "anthropic", Assertion: "1/a", Mapping: "fdrl_agents"})
		w.must(err)
		if diff := cmp.Diff([]string{"anthropic"}, o.Connections); diff != "" || o.ExpiresIn != 600*time.Second {
			t.Errorf("expires in %v, connections (-want +got)\n%s", o.ExpiresIn, diff)
		}
		if diff := cmp.Diff([]string{"opened run_id=1 at /anthropic/v1/oauth/token for anthropic"}, w.record.all()); diff != "" {
			t.Errorf("record (-want +got)\n%s", diff)
		}
		_, err = w.connect(o.Token.Reveal())
		wantRefused(t, err, access.CodeGrant, "no_assertion")
		time.Sleep(10 * time.Minute)
		w.wantCall(o, access.CodeUnauthenticated)
		again := w.mustConnect("1/b") // a fresh token renews
		if !again.Renewed || again.Session != o.Session {
			t.Errorf("again = %+v", again)
		}
		_, err = w.exchange.Connect(t.Context(), federation.ConnectRequest{Connection: "anthropic", Assertion: "1/c"})
		wantRefused(t, err, access.CodeInvalid, "", "federation_rule_id")
		_, err = w.exchange.Connect(t.Context(), federation.ConnectRequest{Connection: "prod", Assertion: "1/c", Mapping: "agents"})
		wantRefused(t, err, access.CodeScope, "scope")
		time.Sleep(49*time.Minute + 30*time.Second)
		w.mustOpen("1/x")
		if late := w.mustConnect("1/d"); late.ExpiresIn != 30*time.Second {
			t.Errorf("expires in %v, want no longer than the window", late.ExpiresIn)
		}
	})
}

func TestJoinByCIToken(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(), agents(named("others")))
		o, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/a", Mapping: "agents", Scope: []string{"web"}})
		w.must(err)
		time.Sleep(time.Minute)
		asleep := o.Session.Asleep()
		for range 16 { // at any granted connection, whichever door took it first
			joined := w.mustConnect("1/a")
			if joined.Session != o.Session || !joined.Joined || joined.Renewed {
				t.Fatalf("joined = %+v", joined)
			}
			w.wantCall(joined, "")
		}
		_, err = w.connect("1/a")
		wantRefused(t, err, access.CodeGrant, access.ReasonJoins)
		if !o.Session.Asleep().Equal(asleep) {
			t.Error("a join renewed the lease")
		}
		_, err = w.exchange.Connect(t.Context(), federation.ConnectRequest{Connection: "anthropic", Assertion: "1/a", Mapping: "others"})
		wantRefused(t, err, access.CodeGrant, access.ReasonReplayed)
		if n := len(w.record.all()); n != 17 {
			t.Errorf("%d events, want every join recorded", n)
		}
	})
}

func (w *world) mustOpenAgents(token string) federation.Opened {
	w.t.Helper()
	o, err := w.exchange.Open(context.Background(), federation.OpenRequest{Token: token, Mapping: "agents"})
	w.must(err)
	return o
}

func TestJoinEnds(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(window(time.Hour, 2*time.Minute)))
		w.mustConnect("1/a")
		time.Sleep(3 * time.Minute)
		_, err := w.connect("1/a")
		wantRefused(t, err, access.CodeGrant, "", "sleeps") // dormant
		w.mustConnect("1/b")
		w.mustConnect("1/a") // awake again
		time.Sleep(time.Minute + 30*time.Second)
		w.mustConnect("1/c")
		time.Sleep(time.Minute + 30*time.Second)
		_, err = w.connect("1/a") // 6 minutes after it was made
		wantRefused(t, err, access.CodeGrant, "expired")
	})
}

func TestJoinByAccessToken(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(), agents(named("others")))
		o := w.mustOpenAgents("1/a")
		for range 20 { // without the limit of CI tokens
			joined := w.mustConnect(o.Token.Reveal())
			if joined.ExpiresIn != 600*time.Second || !joined.Joined {
				t.Fatalf("joined = %+v", joined)
			}
		}
		narrow, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/b", Mapping: "agents", Scope: []string{"web"}})
		w.must(err)
		_, err = w.connect(narrow.Token.Reveal())
		wantRefused(t, err, access.CodeScope, "scope")
		_, err = w.exchange.Connect(t.Context(), federation.ConnectRequest{Connection: "anthropic", Assertion: o.Token.Reveal(), Mapping: "others"})
		wantRefused(t, err, access.CodeTarget, "other_mapping")
		_, err = w.connect(o.Token.Reveal()[:20])
		wantRefused(t, err, access.CodeGrant, "malformed")
		unknown, _, _ := access.NewToken(strings.NewReader(strings.Repeat("x", 32)))
		_, err = w.connect(unknown)
		wantRefused(t, err, access.CodeGrant, "", "invalid_grant (exchange x_")
		time.Sleep(16 * time.Minute)
		_, err = w.connect(o.Token.Reveal())
		wantRefused(t, err, access.CodeGrant, "", "sleeps")
		w.mustOpenAgents("1/c")
		w.mustConnect(o.Token.Reveal())
	})
}

// TestDoorsAtOnce shows one CI token from several processes of a job at the same time.
func TestDoorsAtOnce(t *testing.T) {
	w := newWorld(t, agents())
	var wg sync.WaitGroup
	sessions := make([]*access.Session, 10)
	for i := range sessions {
		wg.Go(func() {
			o, err := w.connect("1/a")
			if err != nil {
				t.Error(err)
				return
			}
			sessions[i] = o.Session
		})
	}
	wg.Wait()
	for _, s := range sessions {
		if s != sessions[0] {
			t.Fatal("one CI token has two sessions")
		}
	}
}

func TestChoice(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(), agents(named("others")))
		_, err := w.open("1/a")
		wantRefused(t, err, access.CodeTarget, "ambiguous", "agents, others")
		_, err = w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/a", Mapping: "nobody"})
		wantRefused(t, err, access.CodeTarget, "unknown_mapping", `no mapping "nobody"`)
		o, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/a", Mapping: "others"})
		w.must(err)
		if o.Session.Mapping != "others" {
			t.Errorf("mapping = %q", o.Session.Mapping)
		}
		_, err = w.open("~3/c")
		wantRefused(t, err, access.CodeTarget, "claim_mismatch", "repository_id")
	})
}

// TestStrangersLearnNothing holds that details are for tenants that a mapping names.
func TestStrangersLearnNothing(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		for _, tt := range []struct {
			token, mapping string
			code           access.Code
		}{
			{"!1/a", "", access.CodeTarget}, {"!1/a", "agents", access.CodeTarget}, {"!1/a", "nobody", access.CodeTarget}, {"nonsense", "", access.CodeGrant},
		} {
			_, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: tt.token, Mapping: tt.mapping})
			w.wantBare(err, tt.code)
			if tt.mapping != "" {
				_, err = w.exchange.Connect(t.Context(), federation.ConnectRequest{Connection: "anthropic", Assertion: tt.token, Mapping: tt.mapping})
				w.wantBare(err, tt.code)
			}
		}
		if last := w.audit[len(w.audit)-1]; last.Outcome != "refused" || last.Reason != "malformed" || !strings.Contains(last.Err.Error(), "secret detail") {
			t.Errorf("audit = %+v, want all of it", last)
		}
	})
}

func (w *world) wantBare(err error, code access.Code) {
	w.t.Helper()
	var e *access.Error
	if !errors.As(err, &e) || e.Code != code {
		w.t.Fatalf("error = %v", err)
	}
	if want := fmt.Sprintf("%s (exchange %s)", code, w.audit[len(w.audit)-1].Exchange); e.Public != want {
		w.t.Errorf("text = %q, want %q", e.Public, want)
	}
}

func TestLiveness(t *testing.T) {
	inTime(t, func(t *testing.T) {
		strict := agents(named("strict"), func(m *api.Mapping) { m.Live = true })
		w := newWorld(t, agents(), strict)
		open := func(token, mapping string) error {
			_, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: token, Mapping: mapping})
			return err
		}
		w.live.set(federation.LiveEnded, nil)
		wantRefused(t, open("1/a", "agents"), access.CodeGrant, "job_ended")
		w.live.set(federation.LiveSuperseded, nil)
		wantRefused(t, open("1/a", "agents"), access.CodeGrant, "stale_attempt")
		w.live.set(federation.LiveUnknown, nil)
		wantRefused(t, open("1/a", "strict"), access.CodeGrant, "job_ended")
		w.must(open("1/a", "agents"))
		w.live.set(federation.LiveUnknown, errors.New("provider is away"))
		wantRefused(t, open("1/b", "strict"), access.CodeUnavailable, "job_ended")
		w.must(open("1/b", "agents"))
		w.live.set(federation.LiveRunning, nil)
		w.must(open("1/c", "strict"))
		w.live.set(federation.LiveEnded, nil)
		wantRefused(t, open("1/d", "strict"), access.CodeGrant, "job_ended") // and ends what is open
		w.live.set(federation.LiveRunning, nil)
		wantRefused(t, open("1/d", "strict"), access.CodeGrant, "window_over", "job is over")
	})
}

func TestUnrecordable(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		w.record.failing(errors.New("spool is full"))
		_, err := w.open("1/a")
		wantRefused(t, err, access.CodeUnavailable, "unrecordable")
		if list, err := w.sessions.List(t.Context(), false); err != nil || len(list) != 0 {
			t.Errorf("sessions = %v, %v, want none", list, err)
		}
		w.record.failing(nil)
		o := w.mustOpen("1/a") // the same token again: it opened nothing
		w.record.failing(errors.New("spool is full"))
		asleep := o.Session.Asleep()
		time.Sleep(time.Minute)
		_, err = w.open("1/b")
		wantRefused(t, err, access.CodeUnavailable, "unrecordable")
		_, err = w.connect("1/a")
		wantRefused(t, err, access.CodeUnavailable, "unrecordable")
		if !o.Session.Asleep().Equal(asleep) {
			t.Error("an exchange that was not recorded renewed the lease")
		}
	})
}

func TestAudit(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		w.mustOpen("1/a")
		w.mustOpen("1/b")
		w.mustConnect("1/b")
		_, _ = w.open("1/b")
		var got []string
		for _, e := range w.audit {
			got = append(got, strings.TrimSpace(fmt.Sprint(e.Outcome, " ", e.Door, " ", e.Mapping, " ", e.Code, " ", e.Reason)))
			if e.Exchange == "" || e.Identity.JobKey != "run_id=1" || e.Time.IsZero() {
				t.Errorf("event = %+v", e)
			}
		}
		want := []string{
			"opened /oauth/token agents", "renewed /oauth/token agents", "joined /anthropic/v1/oauth/token agents",
			"refused /oauth/token agents invalid_grant replayed",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("audit (-want +got)\n%s", diff)
		}
	})
}

func TestAudited(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		var ids []string
		for range 600 {
			_, err := w.open("nonsense")
			var refused *access.Error
			if !errors.As(err, &refused) {
				t.Fatal(err)
			}
			ids = append(ids, refused.Exchange)
		}
		if e, ok := w.exchange.Audited(o.Exchange); !ok || e.Session != o.Session.ID {
			t.Errorf("event = %+v, %v: strangers pushed it out", e, ok)
		}
		if e, ok := w.exchange.Audited(ids[599]); !ok || e.Reason != "malformed" {
			t.Errorf("event = %+v, %v", e, ok)
		}
		if _, ok := w.exchange.Audited(ids[0]); ok {
			t.Error("the memory of refusals has no bound")
		}
	})
}

// TestClientLeavesTheQueue holds that an exchange which waits for another of its job ends with its client.
func TestClientLeavesTheQueue(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		recording := make(chan struct{})
		w.record.opened = func(*access.Session) { <-recording }
		var first federation.Opened
		var wg sync.WaitGroup
		wg.Go(func() { first, _ = w.open("1/a") })
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			_, err := w.exchange.Open(ctx, federation.OpenRequest{Token: "1/b"})
			wantRefused(t, err, access.CodeCanceled, "")
		})
		var third federation.Opened
		wg.Go(func() { third, _ = w.open("1/c") })
		synctest.Wait()
		leave()
		synctest.Wait()
		close(recording)
		wg.Wait()
		if first.Session == nil || third.Session != first.Session || !third.Renewed {
			t.Errorf("first = %+v, third = %+v, want the third to renew the first", first, third)
		}
	})
}

// TestOneSessionAJob lets many processes of few jobs exchange, join and end at once: a job never has two sessions, and
// none after its first has ended.
func TestOneSessionAJob(t *testing.T) {
	w := newWorld(t, agents())
	var mu sync.Mutex // guards sessions
	sessions := make(map[access.JobKey]string)
	note := func(o federation.Opened, err error) {
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		key := o.Session.Identity.JobKey
		if before := sessions[key]; before != "" && before != o.Session.ID {
			t.Errorf("job %s has sessions %s and %s", key, before, o.Session.ID)
		}
		sessions[key] = o.Session.ID
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for n := range 40 {
				job := (worker + n) % 5
				fresh := fmt.Sprintf("%d/%d-%d", job, worker, n)
				switch n % 4 {
				case 0:
					note(w.open(fresh))
				case 1:
					note(w.connect(fresh))
					note(w.connect(fresh))
				case 2:
					o, err := w.open(fresh)
					note(o, err)
					if err == nil {
						note(w.connect(o.Token.Reveal()))
					}
				case 3:
					if n > 30 {
						w.sessions.EndJob(context.Background(), "github", access.JobKey(fmt.Sprint("run_id=", job)), "test")
					}
				}
			}
		})
	}
	wg.Wait()
	if len(sessions) != 5 {
		t.Errorf("%d jobs have sessions, want 5", len(sessions))
	}
	for job := range 5 {
		_, err := w.open(fmt.Sprintf("%d/last-%d", job, job))
		wantRefused(t, err, access.CodeGrant, "window_over")
	}
}

// TestTry tells what an exchange would answer, opens nothing, and leaves the token good.
func TestTry(t *testing.T) {
	w := newWorld(t, agents(window(time.Hour, time.Minute)))
	try := func(token string) (federation.Trial, error) {
		return w.exchange.Try(t.Context(), federation.OpenRequest{Token: token})
	}
	for range 2 {
		trial, err := try("1/a")
		if err != nil || trial.Mapping != "agents" || trial.Session != "" || trial.ExpiresIn != time.Hour || trial.Lease != time.Minute || len(trial.Connections) != 2 {
			t.Fatalf("Try = %+v, %v", trial, err)
		}
		if e, found := w.exchange.Audited(trial.Exchange); !found || e.Outcome != "tried" || e.Session != "" {
			t.Errorf("the audit has %+v", e)
		}
	}
	opened := w.mustOpen("1/a")
	_, err := try("1/a")
	wantRefused(t, err, access.CodeGrant, access.ReasonReplayed)
	trial, err := try("1/b")
	if err != nil || trial.Session != opened.Session.ID {
		t.Errorf("a fresh token of the job: %+v, %v", trial, err)
	}
	_, err = try("!1/c")
	wantRefused(t, err, access.CodeTarget, "no_mapping")
	w.live.set(federation.LiveEnded, nil)
	_, err = try("2/d")
	wantRefused(t, err, access.CodeGrant, "job_ended")
}

// TestProvidersAreNotAskedForNothing: a job that shows a used token, or tries over and over, does not use up what the
// provider lets an operator ask.
func TestProvidersAreNotAskedForNothing(t *testing.T) {
	w := newWorld(t, agents(window(time.Hour, time.Minute)))
	asked := func() int {
		w.live.mu.Lock()
		defer w.live.mu.Unlock()
		return w.live.asked
	}
	w.mustOpen("1/a")
	if n := asked(); n != 1 {
		t.Fatalf("an opening asks %d times", n)
	}
	for range 3 {
		_, err := w.open("1/a")
		wantRefused(t, err, access.CodeGrant, access.ReasonReplayed)
	}
	if n := asked() - 1; n != 0 {
		t.Errorf("used tokens ask %d times", n)
	}
	for range 3 {
		if _, err := w.exchange.Try(t.Context(), federation.OpenRequest{Token: "1/b"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked() - 1; n != 0 {
		t.Errorf("trials right behind an opening ask %d times", n)
	}
	w.offset.Add(int64(10 * time.Second))
	for range 3 {
		_, _ = w.exchange.Try(t.Context(), federation.OpenRequest{Token: "1/b"})
	}
	if n := asked() - 1; n != 1 {
		t.Errorf("trials some seconds later ask %d times", n)
	}
}
