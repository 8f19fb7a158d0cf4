package federation_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
)

func (f *faultyStore) SaveStop(ctx context.Context, s access.StopOrder) error {
	f.mu.Lock()
	fail := f.failStop
	f.mu.Unlock()
	if fail {
		return errDisk
	}
	return f.DB.SaveStop(ctx, s)
}

func (f *faultyStore) DeleteStop(ctx context.Context, kind access.StopKind, name string) error {
	f.mu.Lock()
	fail := f.failStop
	f.mu.Unlock()
	if fail {
		return errDisk
	}
	return f.DB.DeleteStop(ctx, kind, name)
}

func order(kind access.StopKind, name string) access.StopOrder {
	return access.StopOrder{Kind: kind, Name: name, Reason: "key leaked", By: "ana"}
}

func (w *world) halt(kind access.StopKind, name string) federation.StopChange {
	w.t.Helper()
	change, err := w.stops.Stop(w.t.Context(), order(kind, name))
	w.must(err)
	return change
}

func (w *world) resume(kind access.StopKind, name string) federation.StopChange {
	w.t.Helper()
	change, err := w.stops.Resume(w.t.Context(), kind, name, "ana")
	w.must(err)
	return change
}

func TestStopHoldsBackWhatItNames(t *testing.T) {
	w := newWorld(t, agents(), agents(named("others")))
	for _, c := range []struct {
		kind       access.StopKind
		name       string
		stopped    []string // "connection mapping"
		passes     []string
		exchanges  bool // of mapping agents pass
		refusalHas string
	}{
		{access.StopConnection, "anthropic", []string{"anthropic agents", "anthropic others"}, []string{"web agents"}, true, `Jobgate: connection "anthropic" is stopped by an operator: key leaked;`},
		{access.StopMapping, "agents", []string{"anthropic agents", "web agents"}, []string{"anthropic others"}, false, `Jobgate: mapping "agents" is stopped by an operator: key leaked;`},
		{access.StopAll, "", []string{"anthropic agents", "web others", "later new"}, nil, false, `Jobgate: everything is stopped by an operator: key leaked;`},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			if change := w.halt(c.kind, c.name); !change.Changed || change.Stop.By != "ana" || change.Stop.At.IsZero() {
				t.Errorf("change = %+v", change)
			}
			for _, call := range c.stopped {
				connection, mapping, _ := strings.Cut(call, " ")
				refusal := w.stops.Refusal(connection, mapping)
				if refusal == nil || refusal.Code != access.CodeStopped || !strings.HasPrefix(refusal.Public, c.refusalHas) {
					t.Errorf("a call on %s = %v, want %q", call, refusal, c.refusalHas)
				}
			}
			for _, call := range c.passes {
				connection, mapping, _ := strings.Cut(call, " ")
				if refusal := w.stops.Refusal(connection, mapping); refusal != nil {
					t.Errorf("a call on %s = %v", call, refusal)
				}
			}
			if _, stopped := w.stops.OfMapping("agents"); stopped == c.exchanges {
				t.Errorf("exchanges of agents: stopped %v", stopped)
			}
			if change := w.resume(c.kind, c.name); !change.Changed || len(change.InForce) != 0 || change.Stop.Reason != "key leaked" {
				t.Errorf("resume = %+v", change)
			}
			if refusal := w.stops.Refusal("anthropic", "agents"); refusal != nil {
				t.Errorf("after it is lifted: %v", refusal)
			}
		})
	}
}

func TestStopOfWhatIsNotThere(t *testing.T) {
	w := newWorld(t, agents())
	for name, c := range map[string]struct {
		order access.StopOrder
		code  access.Code
		text  string
	}{
		"connection": {order(access.StopConnection, "antropic"), access.CodeNotFound, `there is no connection "antropic"; there are: anthropic, web`},
		"mapping":    {order(access.StopMapping, "agent"), access.CodeNotFound, `there is no mapping "agent"; there are: agents`},
		"kind":       {order("world", "agents"), access.CodeInvalid, "a connection, a mapping or all"},
		"all":        {order(access.StopAll, "agents"), access.CodeInvalid, "takes no name"},
		"long":       {access.StopOrder{Kind: access.StopAll, Reason: strings.Repeat("x", 501)}, access.CodeInvalid, "501 bytes"},
		"lines":      {access.StopOrder{Kind: access.StopAll, Reason: "a\nb"}, access.CodeInvalid, "one line"},
		"escape":     {access.StopOrder{Kind: access.StopAll, Reason: "a\x1b[2Jb"}, access.CodeInvalid, "one line"},
	} {
		if _, err := w.stops.Stop(t.Context(), c.order); access.CodeOf(err) != c.code || !strings.Contains(access.PublicText(err), c.text) {
			t.Errorf("%s: stop = %v, want %s %q", name, err, c.code, c.text)
		}
	}
	if _, err := w.stops.Resume(t.Context(), access.StopConnection, "antropic", "ana"); access.CodeOf(err) != access.CodeNotFound {
		t.Errorf("resume of a wrong name = %v", err)
	}
	if change := w.resume(access.StopConnection, "anthropic"); change.Changed || change.Stop.Kind != "" {
		t.Errorf("resume of what is not stopped = %+v", change)
	}
	if len(w.stops.InForce()) != 0 {
		t.Errorf("in force: %+v", w.stops.InForce())
	}
}

func TestStopAgain(t *testing.T) {
	w := newWorld(t, agents())
	first := w.halt(access.StopMapping, "agents")
	w.offset.Store(int64(time.Minute))
	again, err := w.stops.Stop(t.Context(), access.StopOrder{Kind: access.StopMapping, Name: "agents", By: "bo"})
	w.must(err)
	if again.Changed || !again.Stop.At.Equal(first.Stop.At) || again.Stop.By != "ana" || again.Stop.Reason != "key leaked" {
		t.Errorf("stopping again = %+v", again)
	}
	other, err := w.stops.Stop(t.Context(), access.StopOrder{Kind: access.StopMapping, Name: "agents", By: "bo", Reason: "worse"})
	w.must(err)
	if !other.Changed || !other.Stop.At.Equal(first.Stop.At) || other.Stop.By != "bo" || other.Stop.Reason != "worse" || len(other.InForce) != 1 {
		t.Errorf("stopping for another reason = %+v", other)
	}
}

func TestStopsSurviveARestart(t *testing.T) {
	w := newWorld(t, agents())
	at := w.halt(access.StopMapping, "agents").Stop.At
	w.halt(access.StopConnection, "web")
	w.restart()
	got := w.stops.InForce()
	if len(got) != 2 || got[1].Name != "agents" || got[1].Reason != "key leaked" || got[1].By != "ana" || got[1].At.UnixNano() != at.UnixNano() {
		t.Errorf("after a restart: %+v", got)
	}
	// What is not configured any more can be resumed all the same.
	w.file = nil
	w.restart()
	w.resume(access.StopMapping, "agents")
	w.restart()
	if got := w.stops.InForce(); len(got) != 1 || got[0].Name != "web" {
		t.Errorf("after the mapping's: %+v", got)
	}
}

func TestStopWithoutStore(t *testing.T) {
	w := newWorld(t, agents())
	w.faults.set(func(f *faultyStore) { f.failStop = true })
	if _, err := w.stops.Stop(t.Context(), order(access.StopAll, "")); access.CodeOf(err) != access.CodeUnavailable || !strings.Contains(access.PublicText(err), "stop it again") {
		t.Errorf("a stop that cannot be written = %v", err)
	}
	if w.stops.Refusal("anthropic", "agents") == nil {
		t.Error("it is not in force")
	}
	w.faults.set(func(f *faultyStore) { f.failStop = false })
	w.halt(access.StopAll, "")
	w.faults.set(func(f *faultyStore) { f.failStop = true })
	if _, err := w.stops.Resume(t.Context(), access.StopAll, "", "ana"); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("a resume that cannot be written = %v", err)
	}
	if w.stops.Refusal("anthropic", "agents") == nil {
		t.Error("a resume that is not written down took effect")
	}
}

// TestStopRefusesExchanges shows every way to a token, that none of them is used up, and that strangers read nothing.
func TestStopRefusesExchanges(t *testing.T) {
	w := newWorld(t, agents())
	opened := w.mustOpen("1/a")
	joined := w.mustConnect("2/b")
	w.halt(access.StopMapping, "agents")
	const text = `mapping "agents" is stopped by an operator: key leaked; no job gets access until an operator resumes it`
	ways := map[string]func() (federation.Opened, error){
		"a new job":       func() (federation.Opened, error) { return w.open("3/c") },
		"a renewal":       func() (federation.Opened, error) { return w.open("1/d") },
		"a replay":        func() (federation.Opened, error) { return w.open("1/a") },
		"the SDK's":       func() (federation.Opened, error) { return w.connect("4/e") },
		"a join":          func() (federation.Opened, error) { return w.connect("2/b") },
		"an access token": func() (federation.Opened, error) { return w.connect(opened.Token.Reveal()) },
	}
	for name, way := range ways {
		_, err := way()
		t.Run(name, func(t *testing.T) { wantRefused(t, err, access.CodeTarget, access.ReasonStopped, text) })
	}
	if _, err := w.open("!5/a"); strings.Contains(access.PublicText(err), "leaked") {
		t.Errorf("a stranger reads %v", err)
	}
	w.wantCall(opened, "") // the session is as it was
	if events := w.record.all(); slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, "ended") }) {
		t.Errorf("a session has ended: %q", events)
	}
	w.resume(access.StopMapping, "agents")
	for name, way := range ways {
		if _, err := way(); name != "a replay" && err != nil {
			t.Errorf("%s after the stop: %v", name, err)
		}
	}
	w.wantCall(joined, "")
}

// TestLeasesStandStill lets a stop last longer than the lease: whoever was awake is awake afterwards for what was left.
func TestLeasesStandStill(t *testing.T) {
	w := newWorld(t, agents(window(time.Hour, 10*time.Minute)))
	sleeper := w.mustOpen("1/a")
	w.offset.Store(int64(11 * time.Minute))
	job := w.mustOpen("2/b")
	w.offset.Add(int64(4 * time.Minute)) // six minutes of the lease are left
	w.halt(access.StopAll, "")
	w.halt(access.StopMapping, "agents")
	w.offset.Add(int64(20 * time.Minute))
	w.wantCall(job, access.CodeUnauthenticated)
	w.resume(access.StopAll, "")
	w.wantCall(job, access.CodeUnauthenticated) // its mapping is still stopped
	w.resume(access.StopMapping, "agents")
	w.wantCall(job, "")
	w.wantCall(sleeper, access.CodeUnauthenticated)
	w.offset.Add(int64(5 * time.Minute))
	w.wantCall(job, "")
	w.offset.Add(int64(2 * time.Minute))
	w.wantCall(job, access.CodeUnauthenticated)
	// The window runs on: it is over an hour after it was opened, stop or no stop.
	w.halt(access.StopAll, "")
	w.offset.Store(int64(72 * time.Minute))
	w.resume(access.StopAll, "")
	w.wantCall(job, access.CodeEnded)
}

func TestStopsNeedTheirParts(t *testing.T) {
	if _, err := federation.NewStops(t.Context(), federation.StopsConfig{}); err == nil {
		t.Error("a set of stops without a store")
	}
	var none *federation.Stops
	if _, stopped := none.OfMapping("agents"); stopped {
		t.Error("nothing stops a mapping")
	}
}
