package federation_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

func matching(name string, values ...any) func(*api.Mapping) {
	return func(m *api.Mapping) { m.Match[name] = values }
}

// TestPlan replays exchanges of a real store against changed sets.
func TestPlan(t *testing.T) {
	w := newWorld(t, agents())
	w.mustOpen("1/a")         // served
	w.mustOpen("1/b")         // renewed: the same job
	_, _ = w.open("1/a")      // replayed: no mapping decides that
	_, _ = w.open("~2/c")     // another repository of the owner
	_, _ = w.open("~2/d")     // the same job again
	_, _ = w.open("~3/e")     // and another
	_, _ = w.open("!4/f")     // a stranger
	_, _ = w.open("nonsense") // nobody
	_, _ = w.exchange.Open(t.Context(), federation.OpenRequest{Token: "5/g", Mapping: "agents", Scope: []string{"web", "database"}})
	w.mustConnect("6/h")                                               // names its mapping
	later := func() time.Time { return time.Now().Add(2 * time.Hour) } // the tokens are old by then
	plan := func(r api.PlanRequest) api.Plan {
		t.Helper()
		out, err := federation.Planner{Mappings: w.mappings, Trail: w.db, Now: later}.Plan(t.Context(), r)
		w.must(err)
		return out
	}
	group := func(g api.PlanGroup) string {
		out := fmt.Sprintf("%d %s then %q plan %q", g.Jobs, g.Repository, g.Then, g.Plan)
		for _, c := range g.Failed {
			out += fmt.Sprintf(" %s %s got %s wanted %s", c.Kind, c.On, c.Got, c.Wanted)
		}
		return out
	}
	wider := agents(matching("repository_id", "456789", "1"))
	narrower := agents(matching("ref", "refs/heads/next"))
	fewer := agents(func(m *api.Mapping) { m.Grants = m.Grants[1:] })
	old := agents(func(m *api.Mapping) { m.MaxAge = api.Duration(time.Minute) })
	out := agents(func(m *api.Mapping) {
		m.Overrides = []api.Override{{Name: "out", Match: map[string]api.Values{"run_id": {"1"}}, Deny: true}}
	})
	other := agents(named("other"))
	for _, c := range []struct {
		name                   string
		request                api.PlanRequest
		lose, gain, elsewhere  []string
		served, refused, other int
		changes                string
	}{
		{"what is in force", api.PlanRequest{Mappings: []api.Mapping{agents()}}, nil, nil, nil, 2, 4, 1, "[]"},
		{"wider", api.PlanRequest{Mappings: []api.Mapping{wider}}, nil, []string{`2 o/r then "" plan "agents"`}, nil, 2, 2, 1, "[{agents changed}]"},
		{"narrower", api.PlanRequest{Mappings: []api.Mapping{narrower}}, []string{`2 o/r then "agents" plan "" match ref got 'refs/heads/main' wanted 'refs/heads/next'`}, nil, nil, 0, 4, 1, "[{agents changed}]"},
		{"without one grant", api.PlanRequest{Mappings: []api.Mapping{fewer}}, []string{`1 o/r then "agents" plan ""`}, nil, nil, 1, 4, 1, "[{agents changed}]"},
		{"an age that was young enough then", api.PlanRequest{Mappings: []api.Mapping{old}}, nil, nil, nil, 2, 4, 1, "[{agents changed}]"},
		{"an override that takes one out", api.PlanRequest{Mappings: []api.Mapping{out}}, []string{`1 o/r then "agents" plan "" override out got run_id '1' wanted no job that the override takes out`}, nil, nil, 1, 4, 1, "[{agents changed}]"},
		{"another name, in the file", api.PlanRequest{Mappings: []api.Mapping{other}, WholeFile: true}, []string{`1 o/r then "agents" plan ""`}, nil, []string{`1 o/r then "agents" plan "other"`}, 0, 4, 1, "[{agents deleted} {other new}]"},
		{"one beside it", api.PlanRequest{Mappings: []api.Mapping{other}}, []string{`1 o/r then "agents" plan ""`}, nil, nil, 1, 4, 1, "[{other new}]"},
		{"none", api.PlanRequest{Without: []string{"agents"}}, []string{`1 o/r then "agents" plan ""`, `1 o/r then "agents" plan ""`}, nil, nil, 0, 4, 1, "[{agents deleted}]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := plan(c.request)
			for _, l := range []struct {
				what string
				got  api.PlanGroups
				want []string
			}{{"lose", out.Lose, c.lose}, {"gain", out.Gain, c.gain}, {"elsewhere", out.Elsewhere, c.elsewhere}} {
				var got []string
				for _, g := range l.got.Items {
					got = append(got, group(g))
				}
				if fmt.Sprint(got) != fmt.Sprint(l.want) {
					t.Errorf("%s = %q, want %q", l.what, got, l.want)
				}
			}
			if out.Served != c.served || out.Refused != c.refused || out.Other != c.other || out.Jobs != 6 || fmt.Sprint(out.Changes) != c.changes {
				t.Errorf("served %d refused %d other %d of %d, changes %v; want %+v", out.Served, out.Refused, out.Other, out.Jobs, out.Changes, c)
			}
		})
	}
	// Nothing was changed.
	if info, err := w.mappings.Get("agents"); err != nil || info.Row.Revision != 1 {
		t.Errorf("agents = %+v, %v", info, err)
	}
	for _, c := range []struct {
		name string
		r    api.PlanRequest
		code access.Code
	}{
		{"too far back", api.PlanRequest{Days: 15}, access.CodeInvalid},
		{"no such mapping", api.PlanRequest{Without: []string{"nobody"}}, access.CodeInvalid},
	} {
		if _, err := (federation.Planner{Mappings: w.mappings, Trail: w.db}).Plan(t.Context(), c.r); access.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := (federation.Planner{Mappings: w.mappings, Trail: w.db}).Plan(t.Context(), api.PlanRequest{Mappings: []api.Mapping{agents(), agents()}}); err == nil {
		t.Error("two mappings of one name are taken")
	}
}

// A mapping of the file that was deleted through the API stays deleted in a plan of the file, as it does at a reload.
func TestPlanOfATombstone(t *testing.T) {
	w := newWorld(t, agents())
	_, _ = w.open("~1/a")
	w.must(w.mappings.Delete(t.Context(), "agents", 0, "ana"))
	p := federation.Planner{Mappings: w.mappings, Trail: w.db}
	wider := agents(matching("repository_id", "456789", "1"))
	out, err := p.Plan(t.Context(), api.PlanRequest{Mappings: []api.Mapping{wider}, WholeFile: true})
	if err != nil || out.Gain.Jobs != 0 || len(out.Changes) != 0 {
		t.Errorf("plan %+v, %v", out, err)
	}
}
