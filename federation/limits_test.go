package federation_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

func TestLimitsForms(t *testing.T) {
	for text, want := range map[string]access.Limits{
		"{requests: 500, models: [claude-*]}": {Requests: 500, Models: []string{"claude-*"}},
		"{per: job, requests: 500}":           {Requests: 500},
		"{}":                                  {},
		"{per: repository_id, requests: 500}": {Shared: []access.SharedLimit{{Per: "repository_id", Period: 24 * time.Hour, Requests: 500}}},
		"[{requests: 5, models: [claude-a]}, {per: repository_id, period: 1h, output_tokens: 9}, {per: repository_owner_id, period: 168h, input_tokens: 7}]": {
			Requests: 5, Models: []string{"claude-a"}, Shared: []access.SharedLimit{
				{Per: "repository_id", Period: time.Hour, OutputTokens: 9}, {Per: "repository_owner_id", Period: 168 * time.Hour, InputTokens: 7}}},
	} {
		var l api.LimitsList
		if err := yaml.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		m := mapping(t, func(m *api.Mapping) { m.Grants[0].Limits = l })
		if diff := cmp.Diff(want, m.Policy(1).Grants[0].Limits); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
		raw, err := l.MarshalJSON()
		var back api.LimitsList
		if err == nil {
			err = back.UnmarshalJSON(raw)
		}
		if diff := cmp.Diff(l, back); err != nil || diff != "" {
			t.Errorf("%s in JSON: %v\n%s", raw, err, diff)
		}
	}
	for _, text := range []string{`{"requets": 5}`, `[{"requests": 5, "x": 1}]`, `5`, `"x"`} {
		if err := new(api.LimitsList).UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestNewMappingRefusesLimits(t *testing.T) {
	for _, test := range []struct {
		limits     api.LimitsList
		path, want string
	}{
		{api.LimitsList{{Per: "repositry_id", Requests: 1}}, "grants[0].limits.per", "no claim"},
		{api.LimitsList{{Per: "repository_id"}}, "grants[0].limits", "limits nothing"},
		{api.LimitsList{{Per: "repository_id", Requests: -1}}, "grants[0].limits.requests", "negative"},
		{api.LimitsList{{Per: "repository_id", Requests: 1, Period: api.Duration(7 * time.Hour)}}, "grants[0].limits.period", "a part of a day"},
		{api.LimitsList{{Per: "repository_id", Requests: 1, Period: api.Duration(time.Second)}}, "grants[0].limits.period", "a part of a day"},
		{api.LimitsList{{Per: "repository_id", Requests: 1, Period: api.Duration(800 * time.Hour)}}, "grants[0].limits.period", "up to 744h"},
		{api.LimitsList{{Requests: 1, Period: api.Duration(time.Hour)}}, "grants[0].limits.period", "write per"},
		{api.LimitsList{{Requests: 1}, {Per: "job", Requests: 1}}, "grants[0].limits[1]", "twice"},
		{api.LimitsList{{Per: "actor_id", Requests: 1}, {Per: "actor_id", Requests: 1, Period: api.Duration(time.Hour)}}, "grants[0].limits[1]", "twice"},
		{api.LimitsList{{Requests: 1, Models: []string{"a"}}, {Per: "actor_id", Requests: 1, Models: []string{"b"}}}, "grants[0].limits[1].models", "write them once"},
	} {
		_, err := federation.NewMapping(spec(t, func(m *api.Mapping) { m.Grants[0].Limits = test.limits }), deployment())
		var field *api.FieldError
		if !errors.As(err, &field) || field.Path != test.path || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %s: ... %s", test.limits, err, test.path, test.want)
		}
	}
	gitlab := func(m *api.Mapping) {
		m.Issuer, m.When, m.Match = "gitlab", "", map[string]api.Values{"project_id": {"2"}}
		m.Grants[0].Limits = api.LimitsList{{Per: "groups_direct", Requests: 1}}
	}
	if _, err := federation.NewMapping(spec(t, gitlab), deployment()); err == nil || !strings.Contains(err.Error(), "by a string or an integer") {
		t.Errorf("per a list: %v", err)
	}
}

func TestLintLimits(t *testing.T) {
	per := func(claim string) []federation.Finding {
		return lint(t, spec(t, func(m *api.Mapping) {
			clean(m)
			m.Grants[0].Limits = api.LimitsList{{Requests: 5}, {Per: claim, OutputTokens: 5}}
		}))
	}
	for _, claim := range []string{"repository_id", "actor_id", "run_id"} {
		if got := per(claim); len(got) != 0 {
			t.Errorf("per %s: %+v", claim, got)
		}
	}
	for _, claim := range []string{"repository", "ref", "repo_property_team"} {
		if got := per(claim); len(got) != 1 || got[0].Lint != "per-not-id" || got[0].Path != "grants[0].limits[1].per" {
			t.Errorf("per %s: %+v", claim, got)
		}
	}
}

// shared is a mapping of the owner's repositories, whose limits are per repository.
func shared(requests, tokens int64, change ...func(*api.Mapping)) api.Mapping {
	return agents(append([]func(*api.Mapping){func(m *api.Mapping) {
		delete(m.Match, "repository_id")
		m.Grants[0].Limits = api.LimitsList{{Per: "repository_id", Requests: requests, OutputTokens: tokens}}
	}}, change...)...)
}

// reserve reserves as a call does.
func (w *world) reserve(o federation.Opened, output int64) (access.Hold, error) {
	p := o.Session.Policy()
	g, _ := p.Grant("anthropic")
	return o.Session.Reserve("anthropic", g.Limits, output, p.Mode == access.Enforce, w.now())
}

func (w *world) wantSpent(o federation.Opened, text ...string) {
	w.t.Helper()
	_, err := w.reserve(o, 1)
	var e *access.Error
	if !errors.As(err, &e) || e.Code != access.CodeLimit {
		w.t.Errorf("reserve = %v, want a spent limit", err)
		return
	}
	for _, part := range text {
		if !strings.Contains(e.Public, part) {
			w.t.Errorf("%q has no %q", e.Public, part)
		}
	}
	if left := access.PeriodEnd(w.now(), 24*time.Hour).Sub(w.now()); (e.RetryAfter - left).Abs() > time.Minute {
		w.t.Errorf("retry after %s, want %s", e.RetryAfter, left)
	}
}

func (w *world) mustReserve(o federation.Opened, output int64) access.Hold {
	w.t.Helper()
	h, err := w.reserve(o, output)
	w.must(err)
	return h
}

// Two jobs of one repository share what it may use, another repository has its own; no restart, renewal, change or
// deletion gives any of it back, and a day later it is.
func TestSharedLimit(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, shared(3, 0))
		first, second, other := w.mustOpen("1/a"), w.mustOpen("2/b"), w.mustOpen("~3/c")
		w.mustReserve(first, 1)
		w.mustReserve(second, 1)
		w.mustReserve(first, 1)
		says := []string{`mapping "agents" grants all jobs with repository_id "456789" together 3 requests on connection "anthropic" in 24h`, "3 are used", "counts anew from"}
		w.wantSpent(first, says...)
		w.wantSpent(second, says...)
		w.mustReserve(other, 1)
		again := w.mustOpen("1/d")
		w.wantSpent(again)
		w.restart()
		fourth := w.mustOpen("4/e")
		w.wantSpent(fourth, says...)
		w.reload(shared(3, 0, window(30*time.Minute, time.Minute), func(m *api.Mapping) {
			m.Overrides = []api.Override{{Match: map[string]api.Values{"repository_id": {"456789"}}, Window: &api.Window{Max: api.Duration(time.Minute)}}}
		}))
		w.wantSpent(fourth)
		w.reload()
		w.reload(shared(3, 0))
		fifth := w.mustOpen("5/f")
		w.wantSpent(fifth)
		w.reload(shared(4, 0)) // one more, and no more
		w.mustReserve(fifth, 1)
		w.reload(shared(3, 0))
		w.wantSpent(fifth)
		time.Sleep(24 * time.Hour)
		next := w.mustOpen("6/g")
		w.mustReserve(next, 1)
	})
}

// A stream reserves what it may use, and gives back what it did not; in the next period nothing of it is left.
func TestSharedReservation(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, shared(0, 1000, window(48*time.Hour, 48*time.Hour)))
		a, b := w.mustOpen("1/a"), w.mustOpen("2/b")
		stream := w.mustReserve(a, 900)
		if _, err := w.reserve(b, 200); access.CodeOf(err) != access.CodeLimit {
			t.Errorf("beyond what is left: %v", err)
		}
		a.Session.Settle(stream, 10, 100)
		small := w.mustReserve(b, 900)
		b.Session.Release(small)
		late := w.mustReserve(b, 900)
		_, err := w.reserve(a, 2000)
		var e *access.Error
		if !errors.As(err, &e) || e.RetryAfter != 0 || !strings.Contains(e.Public, "ask for fewer max_tokens") {
			t.Errorf("a call beyond the whole limit: %v", err)
		}
		time.Sleep(24 * time.Hour)
		whole := w.mustReserve(a, 1000)
		b.Session.Settle(late, 10, 0) // of yesterday: it gives nothing back today
		if _, err := w.reserve(b, 1); access.CodeOf(err) != access.CodeLimit {
			t.Errorf("yesterday's stream gave back today's tokens: %v", err)
		}
		a.Session.Settle(whole, 0, 0)
	})
}

// After a kill the record has calls that no row has: they are counted, though the mapping has gone meanwhile, and also
// for a job whose session ends with it.
func TestSharedLimitAfterKill(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, shared(10, 0))
		first, other := w.mustOpen("1/a"), w.mustOpen("~2/b")
		for range 2 {
			w.mustReserve(first, 1)
		}
		w.mustReserve(other, 1)
		w.recovered = federation.Recovered{first.Session.ID: {"anthropic": {Requests: 9, OutputTokens: 2}}, other.Session.ID: {"anthropic": {Requests: 1}}}
		file := w.file
		w.file = nil
		w.restart()
		w.recovered = nil
		w.reload(file...)
		third := w.mustOpen("3/c")
		w.mustReserve(third, 1) // the tenth
		w.wantSpent(third, "10 are used")
		w.mustReserve(w.mustOpen("~4/d"), 1)
	})
}

// Many calls of several jobs on one counter: none too many passes, and none too few.
func TestSharedLimitRace(t *testing.T) {
	w := newWorld(t, shared(100, 0))
	var sessions []federation.Opened
	for i := range 4 {
		sessions = append(sessions, w.mustOpen(fmt.Sprintf("%d/%d", i, i)))
	}
	var passed, released sync.Map
	var work sync.WaitGroup
	for i := range 16 {
		work.Go(func() {
			for n := range 50 {
				h, err := w.reserve(sessions[(i+n)%4], 10)
				if err != nil {
					continue
				}
				if n%5 == 0 {
					sessions[(i+n)%4].Session.Release(h)
					released.Store(i*100+n, true)
					continue
				}
				sessions[(i+n)%4].Session.Settle(h, 1, 2)
				passed.Store(i*100+n, true)
			}
		})
	}
	work.Wait()
	count := 0
	passed.Range(func(any, any) bool { count++; return true })
	if count != 100 {
		t.Errorf("%d calls passed, want 100", count)
	}
	w.wantSpent(sessions[0])
	w.stop() // which writes the counters a last time
	w.start()
	rows, err := w.db.CounterRows(t.Context())
	want := access.Counts{Requests: 100, InputTokens: 100, OutputTokens: 200}
	if err != nil || len(rows) != 1 || rows[0].Counts != want {
		t.Errorf("rows = %+v, %v", rows, err)
	}
}

// A mapping that counts by a claim serves no job without it, from the change on.
func TestCountedByClaim(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		by := func(claim string) func(*api.Mapping) {
			return func(m *api.Mapping) { m.Grants[0].Limits = api.LimitsList{{Per: claim, Requests: 5}} }
		}
		w.reload(agents(by("environment_node_id")))
		w.wantCall(o, access.CodeEnded)
		_, err := w.open("2/b")
		wantRefused(t, err, access.CodeTarget, "claim_missing", "its limits are counted per environment_node_id, which the token does not have")
	})
	m := mapping(t, func(m *api.Mapping) { m.Grants[0].Limits = api.LimitsList{{Per: "environment_node_id", Requests: 5}} })
	id := job(nil)
	conditions := m.Examine(id, start)
	if last := conditions[len(conditions)-1]; last.Kind != "limits" || last.On != "environment_node_id" || last.Held {
		t.Errorf("the last condition is %+v", last)
	}
}

// What is only observed is counted and passes.
func TestSharedLimitObserved(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, shared(1, 0, func(m *api.Mapping) { m.Mode = "observe" }))
		o := w.mustOpen("1/a")
		w.mustReserve(o, 1)
		if _, err := w.reserve(o, 1); access.CodeOf(err) != access.CodeLimit {
			t.Errorf("what is observed says %v", err)
		}
		if got := o.Session.CountsOf("anthropic").Requests; got != 2 {
			t.Errorf("%d requests are counted", got)
		}
	})
}

func TestPeriodEnd(t *testing.T) {
	at := func(text string) time.Time {
		when, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, test := range []struct {
		now    string
		period time.Duration
		want   string
	}{
		{"2026-11-25T13:14:15Z", 24 * time.Hour, "2026-11-26T00:00:00Z"},
		{"2026-11-25T00:00:00Z", 24 * time.Hour, "2026-11-26T00:00:00Z"},
		{"2026-11-25T13:14:15Z", time.Hour, "2026-11-25T14:00:00Z"},
		{"2026-11-25T13:14:15Z", 6 * time.Hour, "2026-11-25T18:00:00Z"},
		{"2026-11-25T13:14:15Z", 168 * time.Hour, "2026-11-30T00:00:00Z"}, // a Monday
		{"2026-11-25T23:30:00-05:00", 24 * time.Hour, "2026-11-27T00:00:00Z"},
	} {
		if got := access.PeriodEnd(at(test.now), test.period); !got.Equal(at(test.want)) {
			t.Errorf("PeriodEnd(%s, %s) = %s, want %s", test.now, test.period, got, test.want)
		}
	}
}
