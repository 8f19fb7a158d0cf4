package federation_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
)

func hashOf(t testing.TB, o federation.Opened) access.TokenHash {
	t.Helper()
	hash, ok := access.HashToken(o.Token.Reveal())
	if !ok {
		t.Fatal("no access token")
	}
	return hash
}

func TestSessionByTokenReadsTheStoreOnce(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		for range 100 {
			w.wantCall(o, "")
		}
		if w.faults.reads != 0 {
			t.Errorf("%d reads of the store for a known token, want none", w.faults.reads)
		}
		_, stranger, _ := access.NewToken(strings.NewReader(strings.Repeat("x", 32)))
		for range 100 {
			_, _, err := w.sessions.SessionByToken(t.Context(), stranger)
			if access.CodeOf(err) != access.CodeUnauthenticated {
				t.Fatalf("error = %v", err)
			}
		}
		if w.faults.reads != 1 {
			t.Errorf("%d reads of the store for an unknown token, want 1", w.faults.reads)
		}
		time.Sleep(3 * time.Second)
		_, _, _ = w.sessions.SessionByToken(t.Context(), stranger)
		if w.faults.reads != 2 {
			t.Errorf("%d reads of the store, want another one after a moment", w.faults.reads)
		}
	})
}

func TestSessionByTokenAllocatesNothing(t *testing.T) {
	w := newWorld(t, agents())
	hash, ctx := hashOf(t, w.mustOpen("1/a")), t.Context()
	if n := testing.AllocsPerRun(1000, func() { _, _, _ = w.sessions.SessionByToken(ctx, hash) }); n != 0 {
		t.Errorf("%v allocations a look-up, want none", n)
	}
}

// watcher notes whether the store had the end already when it was told.
type watcher struct{ ended chan access.EndReason }

func (w watcher) SessionEnded(r access.EndReason) { w.ended <- r }
func (w watcher) PolicyChanged()                  {}
func (w watcher) StopsChanged() <-chan struct{}   { return nil }

func TestEndCutsFirstAndIsWrittenLater(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		cut := watcher{make(chan access.EndReason, 1)}
		o.Session.Watch(cut)
		w.faults.set(func(f *faultyStore) { f.failEnds = true })
		w.must(w.sessions.End(t.Context(), o.Session.ID, access.EndOperator, "Ana"))
		if reason := <-cut.ended; reason != access.EndOperator {
			t.Errorf("reason = %q", reason)
		}
		_, err := w.open("1/b")
		wantRefused(t, err, access.CodeGrant, "window_over") // although the store does not know
		time.Sleep(time.Hour)                                // it is not forgotten before the store has it
		w.wantCall(o, access.CodeEnded)
		_, err = w.open("1/b")
		wantRefused(t, err, access.CodeGrant, "window_over", "an operator closed it")
		w.faults.set(func(f *faultyStore) { f.failEnds = false })
		time.Sleep(2 * time.Second)
		row, err := w.db.SessionRow(t.Context(), o.Session.ID)
		if err != nil || row.Reason != access.EndOperator || row.EndedBy != "Ana" {
			t.Errorf("row = %+v, %v", row, err)
		}
	})
}

func TestEndedSessionsLeaveMemory(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		w.must(w.sessions.End(t.Context(), o.Session.ID, access.EndClosed, "job"))
		if row, err := w.db.SessionRow(t.Context(), o.Session.ID); err != nil || row.Reason != access.EndClosed {
			t.Errorf("row = %+v, %v, want the end written when End returns", row, err)
		}
		w.wantCall(o, access.CodeEnded)
		if w.faults.reads != 0 {
			t.Errorf("%d reads, want the end answered from memory", w.faults.reads)
		}
		time.Sleep(11 * time.Minute)
		for range 10 {
			w.wantCall(o, access.CodeEnded)
		}
		if w.faults.reads != 1 {
			t.Errorf("%d reads, want one of the store, which remembers the end", w.faults.reads)
		}
		info, err := w.sessions.Get(t.Context(), o.Session.ID)
		if err != nil || info.State != access.Ended || info.Reason != access.EndClosed || info.EndedBy != "job" {
			t.Errorf("info = %+v, %v", info, err)
		}
		_, err = w.open("1/b")
		wantRefused(t, err, access.CodeGrant, "window_over", "the job closed its session")
	})
}

func TestEndJob(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(), agents(named("others")))
		a := w.mustOpenAgents("1/a")
		b, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/b", Mapping: "others"})
		w.must(err)
		other := w.mustOpenAgents("2/c")
		if n := w.sessions.EndJob(t.Context(), "github", "run_id=1", "webhook"); n != 2 {
			t.Errorf("%d sessions ended, want 2", n)
		}
		w.wantCall(a, access.CodeEnded)
		w.wantCall(b, access.CodeEnded)
		w.wantCall(other, "")
		if n := w.sessions.EndJob(t.Context(), "gitlab", "run_id=2", "webhook"); n != 0 {
			t.Errorf("%d sessions of another issuer ended", n)
		}
	})
}

func TestCountsSurvive(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		now := time.Now()
		_, _ = o.Session.Reserve("anthropic", access.Limits{}, 100, true, now)
		o.Session.Count(func(tally *access.Tally) { tally.Calls = 5 })
		time.Sleep(1500 * time.Millisecond)
		row, err := w.db.SessionRow(t.Context(), o.Session.ID)
		if err != nil || row.Counts["anthropic"] != (access.Counts{Requests: 1, OutputTokens: 100}) || row.Tally.Calls != 5 {
			t.Errorf("after a second: %+v, %v", row, err)
		}
		_, _ = o.Session.Reserve("anthropic", access.Limits{}, 100, true, now)
		w.recovered = federation.Recovered{o.Session.ID: {"anthropic": {Requests: 1, OutputTokens: 900}, "web": {Requests: 7}}}
		w.restart() // which writes the counters a last time
		s, ok := w.sessions.Session(o.Session.ID)
		if !ok {
			t.Fatal("the session is gone")
		}
		want := map[string]access.Counts{"anthropic": {Requests: 2, OutputTokens: 900}, "web": {Requests: 7}}
		if diff := cmp.Diff(want, s.Counts()); diff != "" {
			t.Errorf("counts (-want +got)\n%s", diff)
		}
		if tally, _ := s.Tally(); tally.Calls != 5 {
			t.Errorf("tally = %+v", tally)
		}
		w.wantCall(o, "")
		renewed := w.mustOpen("1/b") // refills nothing
		if diff := cmp.Diff(want, renewed.Session.Counts()); diff != "" {
			t.Errorf("counts after a renewal (-want +got)\n%s", diff)
		}
	})
}

func TestCountsAfterTheEnd(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		hold, _ := o.Session.Reserve("anthropic", access.Limits{}, 100, true, time.Now())
		w.must(w.sessions.End(t.Context(), o.Session.ID, access.EndClosed, "job"))
		o.Session.Settle(hold, 10, 40) // the call that was cut is settled after the end
		time.Sleep(2 * time.Second)
		row, err := w.db.SessionRow(t.Context(), o.Session.ID)
		if err != nil || row.Counts["anthropic"] != (access.Counts{Requests: 1, InputTokens: 10, OutputTokens: 40}) {
			t.Errorf("row = %+v, %v", row, err)
		}
	})
}

func TestRestart(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		short, long := w.mustOpen("1/a"), w.mustOpen("2/b")
		joined := w.mustConnect("2/b")
		w.stop()
		time.Sleep(5 * time.Minute)
		w.start()
		w.wantCall(short, "")
		w.wantCall(joined, "")
		time.Sleep(5*time.Minute + time.Second)
		w.wantCall(joined, access.CodeUnauthenticated) // 600 s, the restart included
		time.Sleep(5 * time.Minute)
		w.wantCall(short, access.CodeUnauthenticated) // dormant
		if o := w.mustOpen("2/c"); o.Session.ID != long.Session.ID {
			t.Error("a restart made a second session of a job")
		}
		w.stop()
		time.Sleep(time.Hour)
		w.start()
		w.wantCall(short, access.CodeEnded)
		w.wantCall(long, access.CodeEnded)
		if got := w.record.all(); len(got) != 6 {
			t.Errorf("record = %q, want both ended", got)
		}
	})
}

func TestRestartWithTheClockSetBack(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		w.stop()
		w.offset.Store(int64(-10 * time.Hour))
		w.start()
		s, ok := w.sessions.Session(o.Session.ID)
		if !ok {
			t.Fatal("the session is gone")
		}
		if left := s.Closes().Sub(w.now()); left > time.Hour {
			t.Errorf("the window is open for %v, want its length at most", left)
		}
		if left := s.Asleep().Sub(w.now()); left > 15*time.Minute {
			t.Errorf("the lease lasts %v, want its length at most", left)
		}
	})
}

func TestRestoreComparesWithTheRecord(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		unrecorded, used, ended := w.mustOpen("1/a"), w.mustOpen("2/b"), w.mustOpen("3/c")
		_, _ = used.Session.Reserve("anthropic", access.Limits{}, 100, true, time.Now())
		w.record.failing(context.Canceled) // the process dies before the record has the end
		w.must(w.sessions.End(t.Context(), ended.Session.ID, access.EndOperator, "Ana"))
		w.record.failing(nil)
		w.recovered = federation.Recovered{ended.Session.ID: nil, "ses_lost": nil}
		w.restart()
		if diff := cmp.Diff([]string{"ses_lost"}, w.unknown); diff != "" {
			t.Errorf("unknown (-want +got)\n%s", diff)
		}
		w.wantCall(unrecorded, access.CodeUnauthenticated)
		w.mustOpen("1/a") // its opening was undone
		w.wantCall(used, access.CodeEnded)
		if diff := cmp.Diff([]string{
			"ended run_id=2 operator by restart without its record", "ended run_id=3 operator by Ana",
			"opened run_id=1 at /oauth/token for anthropic web",
		}, w.record.all()[3:]); diff != "" {
			t.Errorf("record (-want +got)\n%s", diff)
		}
	})
}

func TestList(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		for n := range 3 {
			w.mustOpen(fmt.Sprintf("%d/%d", n, n))
			time.Sleep(time.Minute)
		}
		list := func(open bool) (out []string) {
			infos, err := w.sessions.List(t.Context(), open)
			w.must(err)
			for _, info := range infos {
				out = append(out, fmt.Sprint(info.Identity.JobKey, " ", info.State, " ", info.Reason))
			}
			return out
		}
		infos, err := w.sessions.List(t.Context(), true)
		w.must(err)
		w.must(w.sessions.End(t.Context(), infos[1].ID, access.EndClosed, "job"))
		time.Sleep(12 * time.Minute)
		open := []string{"run_id=2 awake ", "run_id=0 dormant "}
		if diff := cmp.Diff(open, list(true)); diff != "" {
			t.Errorf("open (-want +got)\n%s", diff)
		}
		all := []string{"run_id=2 awake ", "run_id=1 ended closed", "run_id=0 dormant "}
		if diff := cmp.Diff(all, list(false)); diff != "" {
			t.Errorf("all (-want +got)\n%s", diff)
		}
		if _, err := w.sessions.Get(t.Context(), "ses_nobody"); access.CodeOf(err) != access.CodeNotFound {
			t.Errorf("Get = %v", err)
		}
		if err := w.sessions.End(t.Context(), "ses_nobody", access.EndOperator, ""); access.CodeOf(err) != access.CodeNotFound {
			t.Errorf("End = %v", err)
		}
	})
}

func TestRevokeAndIntrospect(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		a, b := w.mustOpen("1/a"), w.mustOpen("2/b")
		joined := w.mustConnect("1/a")
		ask := func(bearer, token federation.Opened) federation.Introspection {
			t.Helper()
			i, err := w.sessions.Introspect(t.Context(), bearer.Token.Reveal(), token.Token.Reveal())
			w.must(err)
			return i
		}
		if i := ask(a, joined); !i.Active || i.Session != a.Session.ID || !cmp.Equal(i.Connections, []string{"anthropic"}) || i.State != access.Awake {
			t.Errorf("introspection = %+v", i)
		}
		if i := ask(b, joined); !cmp.Equal(i, federation.Introspection{}) {
			t.Errorf("of another session: %+v, want nothing", i)
		}
		w.must(w.sessions.Revoke(t.Context(), "nonsense"))
		w.must(w.sessions.Revoke(t.Context(), joined.Token.Reveal()))
		w.must(w.sessions.Revoke(t.Context(), joined.Token.Reveal()))
		w.wantCall(a, access.CodeEnded)
		if _, err := w.sessions.Introspect(t.Context(), a.Token.Reveal(), a.Token.Reveal()); access.CodeOf(err) != access.CodeEnded {
			t.Errorf("error = %v", err)
		}
		synctest.Wait()
		if got := w.record.all(); got[len(got)-1] != "ended run_id=1 closed by job" {
			t.Errorf("record = %q", got)
		}
	})
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	w := newWorld(t, agents())
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() { _, _ = w.open(fmt.Sprintf("%d/%d", n%4, n)) })
	}
	wg.Wait()
	w.stop()
	goleak.VerifyNone(t, before)
}

func BenchmarkSessionByToken(b *testing.B) {
	w := newWorld(b, agents())
	hashes := make([]access.TokenHash, 256)
	for i := range hashes {
		hashes[i] = hashOf(b, w.mustOpen(fmt.Sprintf("%d/%d", i, i)))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, _, err := w.sessions.SessionByToken(context.Background(), hashes[i%len(hashes)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpen is 32 jobs at a time, each exchange on disk when it is answered.
func BenchmarkOpen(b *testing.B) {
	w := newWorld(b, agents())
	next := make(chan int, 1)
	next <- 0
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := <-next
			next <- n + 1
			if _, err := w.open(fmt.Sprintf("%d/%d", n, n)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
}
