package federation_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

func reason(text string) func(*api.Mapping) {
	return func(m *api.Mapping) {
		m.Grants[0].Rules = []api.Rule{{Name: "r", Effect: "deny", When: `model == "x"`, Reason: text}}
	}
}

func repository(id string) func(*api.Mapping) {
	return func(m *api.Mapping) { m.Match["repository_id"] = api.Values{id} }
}

// rows describes the mappings: "name revision source" and how they were deleted.
func (w *world) rows() (out []string) {
	w.t.Helper()
	list, err := w.mappings.List()
	w.must(err)
	for _, info := range list {
		line := fmt.Sprintf("%s %d %s", info.Row.Name, info.Row.Revision, info.Row.Source)
		if !info.Row.Live() {
			line += " deleted via " + string(info.Row.DeletedVia)
		}
		out = append(out, line)
	}
	return out
}

func (w *world) wantRows(want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.rows()); diff != "" {
		w.t.Errorf("mappings (-want +got)\n%s", diff)
	}
}

// declared is what a configuration file says.
func declared(specs []api.Mapping) (out []federation.Declared) {
	for _, spec := range specs {
		out = append(out, federation.Declared{Spec: spec, Origin: access.Origin{From: "configuration file", Revision: "sha256:c0ff"}})
	}
	return out
}

// reload puts a file in force, as SIGHUP does.
func (w *world) reload(specs ...api.Mapping) {
	w.t.Helper()
	w.file = specs
	w.must(w.mappings.Reload(w.t.Context(), declared(specs)))
}

func TestReload(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(), agents(named("others")))
		w.wantRows("agents 1 file", "others 1 file")
		w.restart()
		w.wantRows("agents 1 file", "others 1 file") // unchanged
		w.reload(agents(reason("new")))
		w.wantRows("agents 2 file", "others 2 file deleted via file")
		w.restart()
		w.wantRows("agents 2 file", "others 2 file deleted via file")
		w.reload(agents(reason("new")), agents(named("others"))) // put back, it lives again
		w.wantRows("agents 2 file", "others 3 file")
	})
}

func TestReloadIsAllOrNothing(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		for name, tt := range map[string]struct {
			specs []api.Mapping
			path  string
		}{
			"unknown connection": {[]api.Mapping{agents(named("first")), agents(func(m *api.Mapping) { m.Grants[1].Connection = "prod" })}, "mappings[1].grants[1].connection"},
			"name twice":         {[]api.Mapping{agents(), agents()}, "mappings[1].name"},
		} {
			err := w.mappings.Reload(t.Context(), declared(tt.specs))
			var field *api.FieldError
			if !errors.As(err, &field) || field.Path != tt.path {
				t.Errorf("%s: error = %v, want it at %s", name, err, tt.path)
			}
		}
		w.faults.set(func(f *faultyStore) { f.failSave = true })
		if err := w.mappings.Reload(t.Context(), nil); access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("error = %v", err)
		}
		w.wantRows("agents 1 file")
		w.wantCall(o, "")
	})
}

func TestTombstone(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		w.must(w.mappings.Delete(t.Context(), "agents", 0, "Ana"))
		w.wantCall(o, access.CodeEnded)
		for range 2 {
			w.wantRows("agents 2 file deleted via api")
			_, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "2/b", Mapping: "agents"})
			wantRefused(t, err, access.CodeTarget, "unknown_mapping")
			w.reload(agents(reason("changed in the file"))) // it stays deleted over reloads
			w.restart()                                     // and restarts
		}
		if err := w.mappings.Delete(t.Context(), "agents", 0, "Ana"); access.CodeOf(err) != access.CodeNotFound {
			t.Errorf("Delete = %v", err)
		}
		info, err := w.mappings.Restore(t.Context(), "agents", "Ana")
		if err != nil || info.Spec.Grants[0].Rules[0].Reason != "changed in the file" || info.Row.Revision != 3 {
			t.Errorf("restored = %+v, %v", info, err)
		}
		w.wantRows("agents 3 file")
		w.restart()
		w.wantRows("agents 3 file")
		w.mustOpen("2/b")
		w.wantCall(o, access.CodeEnded) // what ended stays ended
		_, err = w.open("1/c")
		wantRefused(t, err, access.CodeGrant, "window_over", "its mapping was deleted")
		_, err = w.mappings.Restore(t.Context(), "agents", "Ana")
		wantRefused(t, err, access.CodeConflict, "", "not deleted")
	})
}

func TestTombstoneGoesWithTheFile(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		w.must(w.mappings.Delete(t.Context(), "agents", 1, "Ana"))
		w.reload()
		w.wantRows("agents 3 file deleted via file")
		_, err := w.mappings.Restore(t.Context(), "agents", "Ana")
		wantRefused(t, err, access.CodeConflict, "", "put it back there")
		w.reload(agents())
		w.wantRows("agents 4 file")
		w.mustOpen("1/a")
	})
}

func TestPut(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		put := func(ifMatch int64, spec api.Mapping) error {
			_, err := w.mappings.Put(t.Context(), spec, ifMatch, "Ana")
			return err
		}
		mine := agents(named("mine"))
		wantRefused(t, put(0, agents()), access.CodeConflict, "", "configuration file")
		wantRefused(t, put(7, mine), access.CodeConflict, access.ReasonRevision) // there is none
		w.must(put(0, mine))
		w.wantRows("agents 1 file", "mine 1 api")
		wantRefused(t, put(0, mine), access.CodeConflict, federation.ReasonIfMatch, "at 1")
		w.must(put(1, mine))
		wantRefused(t, put(1, mine), access.CodeConflict, access.ReasonRevision, "at 2")
		w.restart()
		w.wantRows("agents 1 file", "mine 2 api")
		wantRefused(t, w.mappings.Delete(t.Context(), "mine", 1, "Ana"), access.CodeConflict, access.ReasonRevision)
		w.must(w.mappings.Delete(t.Context(), "mine", 2, "Ana"))
		w.restart()
		w.wantRows("agents 1 file", "mine 3 api deleted via api")
		_, err := w.mappings.Restore(t.Context(), "mine", "Ana")
		w.must(err)
		w.must(w.mappings.Delete(t.Context(), "mine", 0, "Ana"))
		w.must(put(0, mine)) // made anew, its revisions go on
		w.wantRows("agents 1 file", "mine 6 api")
		w.reload(agents(), mine) // goes over to the file
		w.wantRows("agents 1 file", "mine 7 file")
		wantRefused(t, put(7, mine), access.CodeConflict, "", "configuration file")
		var field *api.FieldError
		if err := put(0, agents(named("Bad Name"))); !errors.As(err, &field) || field.Path != "name" {
			t.Errorf("error = %v, want a field", err)
		}
		w.must(w.mappings.Delete(t.Context(), "agents", 0, "Ana"))
		wantRefused(t, put(0, agents()), access.CodeConflict, "", "configuration file")
		if _, err := w.mappings.Get("nobody"); access.CodeOf(err) != access.CodeNotFound {
			t.Errorf("Get = %v", err)
		}
	})
}

func TestChangeReachesSessions(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(), agents(named("others")))
		o := w.mustOpenAgents("1/a")
		other, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/b", Mapping: "others"})
		w.must(err)
		w.reload(agents(reason("new"), window(30*time.Minute, time.Minute)), agents(named("others"), repository("1")))
		w.wantCall(other, access.CodeEnded) // matches no more
		if reason, _ := other.Session.EndReason(); reason != access.EndMismatch {
			t.Errorf("reason = %q", reason)
		}
		if p := o.Session.Policy(); p.Revision != 2 || p.Grants[0].Rules[0].Reason != "new" {
			t.Errorf("policy = %+v", p)
		}
		w.wantCall(o, "")
		time.Sleep(30 * time.Minute) // the shorter window holds for what is open
		w.wantCall(o, access.CodeEnded)
		time.Sleep(time.Second)
		if got := w.record.all(); got[len(got)-1] != "ended run_id=1 max by window" {
			t.Errorf("record = %q", got)
		}
	})
}

func TestMaxAgeIsForTheOpening(t *testing.T) {
	inTime(t, func(t *testing.T) {
		young := func(m *api.Mapping) { m.MaxAge = api.Duration(time.Minute) }
		w := newWorld(t, agents(young))
		o := w.mustOpen("1/a")
		time.Sleep(10 * time.Minute)
		w.reload(agents(young, reason("new"))) // the token is old by now, the session is not judged by that
		w.wantCall(o, "")
		w.restart()
		w.wantCall(o, "")
	})
}

func TestRestartFindsMappingGone(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(), agents(named("others")))
		o := w.mustOpenAgents("1/a")
		other, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/b", Mapping: "others"})
		w.must(err)
		w.file = []api.Mapping{agents(repository("1"))}
		w.restart()
		w.wantCall(o, access.CodeEnded)
		w.wantCall(other, access.CodeEnded)
		for id, want := range map[string]access.EndReason{o.Session.ID: access.EndMismatch, other.Session.ID: access.EndDeleted} {
			if info, err := w.sessions.Get(t.Context(), id); err != nil || info.Reason != want {
				t.Errorf("ended with %q, %v, want %q", info.Reason, err, want)
			}
		}
	})
}

func TestDeleteWithoutTheStore(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		w.faults.set(func(f *faultyStore) { f.failSave, f.failEnds = true, true })
		err := w.mappings.Delete(t.Context(), "agents", 0, "Ana")
		wantRefused(t, err, access.CodeUnavailable, "", "delete it again")
		w.wantCall(o, access.CodeEnded) // revoked all the same
		_, err = w.exchange.Open(t.Context(), federation.OpenRequest{Token: "2/b", Mapping: "agents"})
		wantRefused(t, err, access.CodeTarget, "unknown_mapping")
		w.faults.set(func(f *faultyStore) { f.failSave, f.failEnds = false, false })
		w.reload(agents()) // does not bring it back
		_, err = w.exchange.Open(t.Context(), federation.OpenRequest{Token: "2/b", Mapping: "agents"})
		wantRefused(t, err, access.CodeTarget, "unknown_mapping")
		w.must(w.mappings.Delete(t.Context(), "agents", 0, "Ana"))
		w.wantRows("agents 2 file deleted via api")
		_, err = w.mappings.Restore(t.Context(), "agents", "Ana")
		w.must(err)
		w.mustOpen("2/b")
	})
}

// TestDeleteWhileRecording deletes the mapping between a session's insert and its registration.
func TestDeleteWhileRecording(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		var opened *access.Session
		w.record.opened = func(s *access.Session) {
			opened = s
			if err := w.mappings.Delete(t.Context(), "agents", 0, "Ana"); err != nil {
				t.Error(err)
			}
		}
		_, err := w.open("1/a")
		wantRefused(t, err, access.CodeGrant, string(access.EndDeleted), "its mapping was deleted")
		if reason, _ := opened.EndReason(); reason != access.EndDeleted {
			t.Errorf("reason = %q, want the session ended", reason)
		}
	})
}

// TestExchangeRacesDelete holds that no session outlives its mapping, however the two meet.
func TestExchangeRacesDelete(t *testing.T) {
	w := newWorld(t)
	var before, after atomic.Int64
	var workers sync.WaitGroup
	for worker := range 2 {
		workers.Go(func() {
			for round := range 500 {
				if w.raceDelete(fmt.Sprint("agents-", worker), worker*500+round, round%8) {
					before.Add(1)
				} else {
					after.Add(1)
				}
			}
		})
	}
	workers.Wait()
	if rows, err := w.db.SessionRows(t.Context(), true, 0); err != nil || len(rows) != 0 {
		t.Errorf("%d sessions are open in the store, %v", len(rows), err)
	}
	t.Logf("%d exchanges came first, %d were refused", before.Load(), after.Load())
}

// raceDelete lets one exchange meet one deletion, which begins a few reads of the store later, and reports whether the
// exchange was answered.
func (w *world) raceDelete(mapping string, job, later int) bool {
	ctx := context.Background()
	if _, err := w.mappings.Put(ctx, agents(named(mapping)), 0, "test"); err != nil {
		w.t.Error(err)
		return false
	}
	var o federation.Opened
	var refused error
	var wg sync.WaitGroup
	wg.Go(func() {
		o, refused = w.exchange.Open(ctx, federation.OpenRequest{Token: fmt.Sprintf("%d/%d", job, job), Mapping: mapping})
	})
	wg.Go(func() {
		for range later {
			_, _ = w.db.MappingRevision(ctx, mapping)
		}
		if err := w.mappings.Delete(ctx, mapping, 0, "test"); err != nil {
			w.t.Error(err)
		}
	})
	wg.Wait()
	if refused != nil {
		return false
	}
	if reason, _ := o.Session.EndReason(); reason != access.EndDeleted {
		w.t.Errorf("job %d: the session outlived its mapping (%q)", job, reason)
	}
	w.wantCall(o, access.CodeEnded)
	return true
}

// TestExchangeRacesChange holds that a session is ruled by the latest revision, however the two meet.
func TestExchangeRacesChange(t *testing.T) {
	w := newWorld(t)
	_, err := w.mappings.Put(t.Context(), agents(), 0, "test")
	w.must(err)
	for round := range int64(100) {
		var o federation.Opened
		var wg sync.WaitGroup
		wg.Go(func() {
			var err error
			if o, err = w.open(fmt.Sprintf("%d/%d", round, round)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := w.mappings.Put(t.Context(), agents(reason(fmt.Sprint(round))), round+1, "test"); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if t.Failed() {
			return
		}
		if got := o.Session.Policy().Revision; got != round+2 {
			t.Fatalf("the session is ruled by revision %d, want %d", got, round+2)
		}
		w.must(w.sessions.End(t.Context(), o.Session.ID, access.EndClosed, "test"))
	}
}

// BenchmarkDelete is how long it takes to cut 1,000 sessions that watch.
func BenchmarkDelete(b *testing.B) {
	w := newWorld(b)
	var cut time.Duration
	job := 0
	for b.Loop() {
		b.StopTimer()
		_, err := w.mappings.Put(b.Context(), agents(), 0, "test")
		w.must(err)
		ended := watcher{make(chan access.EndReason, 1000)}
		for range 1000 {
			w.mustOpen(fmt.Sprintf("%d/%d", job, job)).Session.Watch(ended)
			job++
		}
		b.StartTimer()
		begin := time.Now()
		done := make(chan time.Duration)
		go func() {
			for range 1000 {
				<-ended.ended
			}
			done <- time.Since(begin)
		}()
		w.must(w.mappings.Delete(b.Context(), "agents", 0, "test"))
		cut += <-done
	}
	b.ReportMetric(float64(cut.Milliseconds())/float64(b.N), "ms/cut")
}
