package httpd_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

type fakeHits struct {
	counts  []access.HitCount
	samples []access.HitSamples
	days    int
}

func (f *fakeHits) Days() int { return 30 }

func (f *fakeHits) Of(_ context.Context, _ string, days int) ([]access.HitCount, []access.HitSamples, error) {
	f.days = days
	return f.counts, f.samples, nil
}

// lineOf is what the test looks at of a line.
func lineOf(r api.RuleHits) map[string]any {
	out := map[string]any{"mode": r.Mode}
	for name, n := range map[string]int64{"hits": r.Hits, "denied": r.Denied, "overruled": r.Overruled, "asked": r.Asked, "approved": r.Approved,
		"refused": r.Refused, "expired": r.Expired, "cancelled": r.Cancelled, "would_deny": r.WouldDeny, "would_ask": r.WouldAsk} {
		if n > 0 {
			out[name] = n
		}
	}
	if r.Gone {
		out["gone"] = true
	}
	return out
}

func TestMappingHits(t *testing.T) {
	spec := mapping("agents")
	spec.Grants[0].Limits = api.LimitsList{{Requests: 5, Models: []string{"claude-*"}}}
	spec.Grants[0].Rules = []api.Rule{
		{Name: "no-network", Effect: "deny", When: `tool.name == "WebFetch"`, Mode: "observe"},
		{Name: "releases", Effect: "approve", When: `tool.name == "Bash"`, Approvers: []string{"sre"}},
		{Name: "unused", Effect: "deny", When: `tool.name == "Never"`},
	}
	w := newWorld(t, spec)
	count := func(connection, rule string, outcome access.Outcome, n int64) {
		w.hits.counts = append(w.hits.counts, access.HitCount{Mapping: "agents", Connection: connection, Rule: rule, Outcome: outcome, N: n, Last: noon, Day: 1})
	}
	count("", "", access.OutcomeOpened, 2)
	count("", "", access.OutcomeRenewed, 3)
	count("", "", access.OutcomeTurnedAway, 1)
	count("anthropic", "", access.OutcomeCall, 10)
	count("anthropic", "", access.OutcomeCall, 5) // another day
	count("anthropic", "", access.OutcomeWouldDeny, 4)
	count("anthropic", "no-network", access.OutcomeWouldDeny, 4)
	count("anthropic", "releases", access.OutcomeAsked, 6)
	count("anthropic", "releases", access.OutcomeApproved, 3)
	count("anthropic", "releases", access.OutcomeRefused, 1)
	count("anthropic", "releases", access.OutcomeExpired, 1)
	count("anthropic", "releases", access.OutcomeCancelled, 1)
	count("anthropic", "releases", access.OutcomeOverruled, 2)
	count("anthropic", "allow", access.OutcomeDenied, 7)
	count("anthropic", "removed", access.OutcomeDenied, 1)
	count("web", "grant", access.OutcomeDenied, 2)
	w.hits.samples = []access.HitSamples{{Mapping: "agents", Connection: "anthropic", Rule: "no-network",
		Samples: []access.HitSample{{Time: noon, Session: "ses_1", Call: "c_1", Outcome: access.OutcomeWouldDeny, What: "tool use WebFetch"}}}}

	got := decode[api.MappingHits](t, admin(t, w.people(), "GET", "/v1/mappings/agents/hits", ""), http.StatusOK)
	if got.Days != 7 || w.hits.days != 7 || got.Exchange != (api.ExchangeUse{Opened: 2, Renewed: 3, Refused: 1}) || got.LastUsed == nil || !got.LastUsed.Equal(noon) {
		t.Errorf("hits = %+v", got)
	}
	if got.Enforce != (api.Enforcement{Observing: true, WouldDeny: 4}) {
		t.Errorf("enforce = %+v", got.Enforce)
	}
	lines := map[string]map[string]any{}
	for _, r := range got.Rules {
		lines[r.Connection+" "+r.Part+" "+r.Rule] = lineOf(r)
	}
	want := map[string]map[string]any{
		"anthropic grant ":          {"mode": "enforce", "hits": int64(15), "would_deny": int64(4)},
		"anthropic allow ":          {"mode": "enforce", "hits": int64(7), "denied": int64(7)},
		"anthropic models ":         {"mode": "enforce"},
		"anthropic limits ":         {"mode": "enforce"},
		"anthropic rule no-network": {"mode": "observe", "hits": int64(4), "would_deny": int64(4)},
		"anthropic rule releases": {"mode": "enforce", "hits": int64(8), "asked": int64(6), "approved": int64(3), "refused": int64(1), "expired": int64(1),
			"cancelled": int64(1), "overruled": int64(2)},
		"anthropic rule unused":  {"mode": "enforce"},
		"anthropic rule removed": {"mode": "", "hits": int64(1), "denied": int64(1), "gone": true},
		"web not granted ":       {"mode": "", "hits": int64(2), "denied": int64(2)},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	for _, r := range got.Rules {
		if (len(r.Samples) == 1) != (r.Rule == "no-network") {
			t.Errorf("samples of %q: %+v", r.Rule, r.Samples)
		}
	}
}

func TestMappingHitsAreRefused(t *testing.T) {
	p := newWorld(t, mapping("agents")).people()
	problem(t, admin(t, p, "GET", "/v1/mappings/other/hits", ""), http.StatusNotFound, "not_found")
	for _, days := range []string{"0", "31", "-1", "x", "1.5"} {
		problem(t, admin(t, p, "GET", "/v1/mappings/agents/hits?days="+days, ""), http.StatusBadRequest, "invalid_request")
	}
	_ = decode[api.MappingHits](t, admin(t, p, "GET", "/v1/mappings/agents/hits?days=30", ""), http.StatusOK)
}
