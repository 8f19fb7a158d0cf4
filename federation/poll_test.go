package federation_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
)

// jobAPI answers what a test says, and remembers when it was asked.
type jobAPI struct {
	mu    sync.Mutex // guards all below
	state federation.LiveState
	err   error
	asked []time.Duration // since began
	began time.Time
}

func (a *jobAPI) JobEnded(context.Context, access.Identity) (federation.LiveState, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, time.Since(a.began))
	return a.state, a.err
}

func (a *jobAPI) answer(state federation.LiveState, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state, a.err = state, err
}

// times returns when it was asked since it was last looked at.
func (a *jobAPI) times() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.asked
	a.asked, a.began = nil, time.Now()
	return out
}

// poll runs a poller over a world until the test ends.
func poll(t *testing.T, w *world, every time.Duration) *jobAPI {
	t.Helper()
	api := &jobAPI{state: federation.LiveRunning, began: time.Now()}
	p, err := federation.NewPoller(federation.PollConfig{
		Sessions: w.sessions, Liveness: api, Every: func(string) time.Duration { return every },
		Now: w.now, Jitter: func(time.Duration) time.Duration { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return api
}

func TestPollEndsTheSessionsOfAJob(t *testing.T) {
	for _, state := range []federation.LiveState{federation.LiveEnded, federation.LiveSuperseded} {
		inTime(t, func(t *testing.T) {
			w := newWorld(t, agents(), agents(named("others")))
			api := poll(t, w, 15*time.Second)
			a := w.mustOpenUnder("agents", "1/a")
			b := w.mustOpenUnder("others", "1/b")
			c := w.mustOpenUnder("agents", "2/c")
			time.Sleep(time.Minute)
			w.wantCall(a, "")
			w.wantCall(b, "")
			if err := w.sessions.Revoke(t.Context(), c.Token.Reveal()); err != nil {
				t.Fatal(err)
			}
			api.answer(state, nil)
			time.Sleep(time.Minute)
			w.wantCall(a, access.CodeEnded)
			w.wantCall(b, access.CodeEnded)
			info, err := w.sessions.Get(t.Context(), a.Session.ID)
			if err != nil || info.Reason != access.EndJob || info.EndedBy != "the job API of issuer github" {
				t.Errorf("info = %+v, %v", info, err)
			}
			api.times()
			time.Sleep(time.Hour)
			if got := api.times(); got != nil {
				t.Errorf("asked %v after the job's end", got)
			}
		})
	}
}

func (w *world) mustOpenUnder(mapping, token string) federation.Opened {
	w.t.Helper()
	o, err := w.exchange.Open(context.Background(), federation.OpenRequest{Token: token, Mapping: mapping})
	w.must(err)
	return o
}

// A job that runs keeps its session awake without a fresh token, and never beyond its longest duration.
func TestPollRenewsTheLease(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(window(time.Hour, 5*time.Minute)))
		poll(t, w, 15*time.Second)
		o := w.mustOpen("1/a")
		if info, _ := w.sessions.Get(t.Context(), o.Session.ID); info.Sign != federation.LifeToken {
			t.Errorf("sign of life = %q", info.Sign)
		}
		time.Sleep(59 * time.Minute)
		w.wantCall(o, "")
		info, err := w.sessions.Get(t.Context(), o.Session.ID)
		if err != nil || info.Sign != federation.LifeAPI || info.Asleep.After(info.Closes) {
			t.Errorf("info = %+v, %v", info, err)
		}
		time.Sleep(time.Minute)
		w.wantCall(o, access.CodeEnded)
	})
}

// Whatever does not say that the job runs lets the lease run out; a word that it does wakes the session.
func TestPollCannotTell(t *testing.T) {
	limited := &federation.LimitedError{Host: "api", Until: time.Now().Add(24 * time.Hour)}
	for name, answer := range map[string]struct {
		state federation.LiveState
		err   error
	}{
		"unknown":                   {federation.LiveUnknown, nil},
		"failing":                   {federation.LiveUnknown, errors.New("no route to host")},
		"failing, and says running": {federation.LiveRunning, errors.New("cut")},
		"limited":                   {federation.LiveUnknown, limited},
		"no word":                   {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T) {
				w := newWorld(t, agents(window(5*time.Hour, 5*time.Minute)))
				api := poll(t, w, 15*time.Second)
				api.answer(answer.state, answer.err)
				o := w.mustOpen("1/a")
				time.Sleep(5*time.Minute - time.Second)
				w.wantCall(o, "")
				time.Sleep(2 * time.Second)
				w.wantCall(o, access.CodeUnauthenticated)
				api.answer(federation.LiveRunning, nil)
				time.Sleep(6 * time.Minute)
				want := access.Code("")
				if name == "limited" {
					want = access.CodeUnauthenticated
				}
				w.wantCall(o, want)
			})
		})
	}
}

func TestPollSpacing(t *testing.T) {
	const every = 15 * time.Second
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(window(3*time.Hour, 15*time.Minute)))
		api := poll(t, w, every)
		o := w.mustOpen("1/a")

		api.times()
		time.Sleep(10 * time.Minute)
		idle := len(api.times())
		busy := func() int {
			api.times()
			for range 600 {
				o.Session.Count(func(n *access.Tally) { n.Calls++ })
				time.Sleep(time.Second)
			}
			return len(api.times())
		}()
		if idle < 10 || idle > 14 || busy < 36 || busy > 41 {
			t.Errorf("in ten minutes asked %d times of an idle job, %d of a busy one; want about 11 and 40", idle, busy)
		}

		api.answer(federation.LiveUnknown, errors.New("no route to host"))
		time.Sleep(30 * time.Minute)
		if failing := len(api.times()); failing < 8 || failing > 12 {
			t.Errorf("in half an hour asked %d times of an API that is away, want about 10", failing)
		}
	})
}

// Several sessions of one job, and several jobs of one issuer whose limit is used up, are not several questions.
func TestPollAsksOnceForAll(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(), agents(named("others")))
		api := poll(t, w, 15*time.Second)
		w.mustOpenUnder("agents", "1/a")
		w.mustOpenUnder("others", "1/b")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := api.times(); len(got) != 1 {
			t.Errorf("asked at %v of one job with two sessions", got)
		}
		for _, job := range []string{"2/c", "3/d", "4/e", "5/f", "6/g", "7/h", "8/i", "9/j"} {
			w.mustOpenUnder("agents", job)
		}
		api.answer(federation.LiveUnknown, &federation.LimitedError{Host: "api", Until: time.Now().Add(10 * time.Minute)})
		time.Sleep(9 * time.Minute)
		if got := api.times(); len(got) > 4 {
			t.Errorf("asked at %v though the limit is used up", got)
		}
	})
}

func TestPollOfShortLeases(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(window(10*time.Minute, 6*time.Second)))
		poll(t, w, 15*time.Second)
		o := w.mustOpen("1/a")
		for range 50 {
			time.Sleep(10 * time.Second)
			w.wantCall(o, "")
		}
	})
}

// A lease that the API renewed holds over a restart.
func TestPolledLeaseIsWrittenDown(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(window(time.Hour, 5*time.Minute)))
		api := poll(t, w, 15*time.Second)
		o := w.mustOpen("1/a")
		time.Sleep(20 * time.Minute)
		api.answer(federation.LiveUnknown, nil)
		w.restart() // the poller asks the old registry now, which nobody runs
		w.wantCall(o, "")
		time.Sleep(5 * time.Minute)
		w.wantCall(o, access.CodeUnauthenticated)
	})
}

func TestExchangeAsksTheProvider(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		w.live.set(federation.LiveSuperseded, nil)
		_, err := w.open("1/b")
		wantRefused(t, err, access.CodeGrant, "stale_attempt")
		w.wantCall(o, access.CodeEnded)
		w.live.set(federation.LiveEnded, nil)
		_, err = w.open("2/c")
		wantRefused(t, err, access.CodeGrant, "job_ended")
	})
}

// An API that is away is not asked about each of its jobs in turn: the questions of other issuers would wait.
func TestPollOfAnAPIThatIsAway(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(window(5*time.Hour, 2*time.Hour)))
		api := poll(t, w, 15*time.Second)
		api.answer(federation.LiveUnknown, errors.New("no route to host"))
		for n := range 40 {
			w.mustOpen(fmt.Sprintf("%d/%d", n, n))
		}
		time.Sleep(20 * time.Second)
		if got := len(api.times()); got > 12 {
			t.Errorf("asked %d times at first", got)
		}
		time.Sleep(time.Hour)
		if got := len(api.times()); got > 40*12 {
			t.Errorf("asked %d times in an hour", got)
		}
		api.answer(federation.LiveRunning, nil)
		time.Sleep(20 * time.Minute)
		list, err := w.sessions.List(t.Context(), true)
		if err != nil || len(list) != 40 {
			t.Fatalf("%d sessions, %v", len(list), err)
		}
		for _, s := range list {
			if s.Sign != federation.LifeAPI {
				t.Errorf("session %s lives by %q", s.ID, s.Sign)
			}
		}
	})
}
