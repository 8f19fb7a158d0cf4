package federation_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// organization is a mapping for the repositories of one owner that have a property, with exceptions for some.
const organization = `
name: octo-agents
issuer: github
match:
  repository_owner_id: "123456"
  repo_property_agents: allowed
  event_name: [push, workflow_dispatch]
window: {max: 1h, lease: 10m}
grants:
  - connection: anthropic
    allow: ["POST /v1/messages"]
    limits: {requests: 100, output_tokens: 100000}
  - connection: deploys
    allow: ["GET /v1/deploys"]
    limits: {requests: 10}
overrides:
  - name: payments
    match: {repository_id: "1"}
    mode: observe
    grants:
      - connection: anthropic
        allow: ["POST /v1/messages"]
        limits: {requests: 5, output_tokens: 1000}
  - match: {repository_id: ["2", "3"]}
    window: {max: 30m}
  - name: archived
    match: {repository_id: "4"}
    deny: true
  - name: later
    match: {repository_id: "1", repository_owner_id: "123456"}
    mode: enforce
`

func organizationSpec(t testing.TB, change func(*api.Mapping)) api.Mapping {
	t.Helper()
	var m api.Mapping
	if err := yaml.Unmarshal([]byte(organization), &m); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&m)
	}
	return m
}

func TestOverride(t *testing.T) {
	m, err := federation.NewMapping(organizationSpec(t, nil), deployment())
	if err != nil {
		t.Fatal(err)
	}
	property := access.Claims{"repo_property_agents": "allowed", "repository_owner_id": "123456"}
	of := func(repository any) access.Identity {
		c := access.Claims{"repository_id": repository}
		for k, v := range property {
			c[k] = v
		}
		return job(c)
	}
	for _, test := range []struct {
		repository string
		override   string
		mode       access.Mode
		window     access.WindowSpec
		granted    []string
		requests   int64
	}{
		{"9", "", access.Enforce, access.WindowSpec{Max: time.Hour, Lease: 10 * time.Minute}, []string{"anthropic", "deploys"}, 100},
		{"1", "payments", access.Observe, access.WindowSpec{Max: time.Hour, Lease: 10 * time.Minute}, []string{"anthropic"}, 5},
		{"3", "overrides[1]", access.Enforce, access.WindowSpec{Max: 30 * time.Minute, Lease: 15 * time.Minute}, []string{"anthropic", "deploys"}, 100},
	} {
		id := of(test.repository)
		if err := m.Match(id, start); err != nil {
			t.Errorf("repository %s: %v", test.repository, err)
		}
		p := m.PolicyFor(id, 3)
		g, _ := p.Grant("anthropic")
		if p.Override != test.override || p.Mode != test.mode || p.Window != test.window || p.Revision != 3 || p.Mapping != "octo-agents" ||
			!slices.Equal(p.Connections(), test.granted) || g.Limits.Requests != test.requests {
			t.Errorf("repository %s: policy %+v", test.repository, p)
		}
	}
	err = m.Match(of("4"), start)
	wantRefused(t, err, access.CodeTarget, "denied_by_override", "its override archived takes out jobs with repository_id '4'")
	missing := of("9")
	delete(missing.Claims, "repo_property_agents")
	wantRefused(t, m.Match(missing, start), access.CodeTarget, "claim_missing",
		"it needs claim repo_property_agents", "give the repository a value of the custom property agents", "put that property into OIDC tokens")
	stranger := of("1")
	stranger.Claims["repository_owner_id"] = "666"
	if m.Match(stranger, start) == nil {
		t.Error("an override lets in a repository of another owner")
	}
}

// An override that names a trigger lifts no denial: that is for the mapping's own match.
func TestOverrideLiftsNoDenial(t *testing.T) {
	m, err := federation.NewMapping(organizationSpec(t, func(m *api.Mapping) {
		delete(m.Match, "event_name")
		m.Overrides[0].Match["event_name"] = api.Values{"issue_comment"}
	}), deployment())
	if err != nil {
		t.Fatal(err)
	}
	id := job(access.Claims{"repository_id": "1", "repo_property_agents": "allowed", "repository_owner_id": "123456", "event_name": "issue_comment"})
	wantRefused(t, m.Match(id, start), access.CodeTarget, "untrusted_event")
}

func TestNewMappingRefusesOverrides(t *testing.T) {
	for _, test := range []struct {
		name       string
		change     func(*api.Override)
		path, want string
	}{
		{"no match", func(o *api.Override) { o.Match = nil }, "overrides[1].match", "every job of the mapping"},
		{"an unknown claim", func(o *api.Override) { o.Match["repositry_id"] = api.Values{"1"} }, "overrides[1].match.repositry_id", "no claim"},
		{"a name for an id", func(o *api.Override) { o.Match["repository_id"] = api.Values{"octo/tools"} }, "overrides[1].match.repository_id", "not a name"},
		{"an id without quotes", func(o *api.Override) { o.Match["repository_id"] = api.Values{int64(2)} }, "overrides[1].match.repository_id", "quote it"},
		{"no value", func(o *api.Override) { o.Match["repository_id"] = nil }, "overrides[1].match.repository_id", "no value"},
		{"nothing changed", func(o *api.Override) { o.Window = nil }, "overrides[1]", "changes nothing"},
		{"deny and more", func(o *api.Override) { o.Deny = true }, "overrides[1].deny", "leave them out"},
		{"a mode that is none", func(o *api.Override) { o.Mode = "audit" }, "overrides[1].mode", "enforce or observe"},
		{"a short window", func(o *api.Override) { o.Window.Max = 1 }, "overrides[1].window.max", "at least 1s"},
		{"no grants", func(o *api.Override) { o.Grants = []api.Grant{} }, "overrides[1].grants", "none"},
		{"a grant on nothing", func(o *api.Override) { o.Grants = []api.Grant{{Connection: "x"}} }, "overrides[1].grants[0].connection", "no connection"},
		{"a rule that is none", func(o *api.Override) {
			o.Grants = []api.Grant{{Connection: "anthropic", Rules: []api.Rule{{Name: "a", Effect: "deny", When: "x"}}}}
		}, "overrides[1].grants[0].rules[0].when", "undeclared"},
		{"a name that is none", func(o *api.Override) { o.Name = "A B" }, "overrides[1].name", "small letter"},
		{"a name twice", func(o *api.Override) { o.Name = "payments" }, "overrides[1].name", "another override's"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := federation.NewMapping(organizationSpec(t, func(m *api.Mapping) { test.change(&m.Overrides[1]) }), deployment())
			var field *api.FieldError
			if !errors.As(err, &field) || field.Path != test.path || !strings.Contains(err.Error(), test.want) {
				t.Errorf("NewMapping = %v, want %s: ... %s", err, test.path, test.want)
			}
		})
	}
}

func TestLintOverrides(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*api.Mapping)
		want   []string
	}{
		{"as written", nil, []string{"unreachable overrides[3] | override payments before it"}},
		{"another owner's", func(m *api.Mapping) { m.Overrides[3].Match = map[string]api.Values{"repository_owner_id": {"9"}} },
			[]string{"unreachable overrides[3].match.repository_owner_id | serves no job"}},
		{"by name", func(m *api.Mapping) { m.Overrides[3].Match = map[string]api.Values{"repository": {"octo/tools"}} },
			[]string{"override-not-pinned overrides[3].match | match one of enterprise_id, repository_owner_id, repository_id, actor_id"}},
		{"grants without a limit", func(m *api.Mapping) { m.Overrides, m.Overrides[0].Grants[0].Limits = m.Overrides[:3], nil },
			[]string{"no-limit overrides[0].grants[0] | without a bound"}},
		{"a long window", func(m *api.Mapping) {
			m.Overrides = m.Overrides[:3]
			m.Overrides[1].Window.Max = api.Duration(8 * time.Hour)
		},
			[]string{"long-window overrides[1].window.max | 6h"}},
		{"a property alone", func(m *api.Mapping) { m.Overrides, m.Issuer = nil, "ghes"; delete(m.Match, "repository_owner_id") },
			[]string{"property-alone match.repo_property_agents | match one of enterprise_id, repository_owner_id, repository_id beside it", "no-tenant match | "}},
		{"a property alone in when", func(m *api.Mapping) {
			m.Overrides, m.Issuer, m.When = nil, "ghes", `claims.repo_property_agents == "allowed"`
			delete(m.Match, "repository_owner_id")
			delete(m.Match, "repo_property_agents")
		}, []string{"property-alone when | every owner can have one", "no-tenant match | "}},
		{"a part of a property", func(m *api.Mapping) { m.Overrides, m.When = nil, `claims.repo_property_teams.contains("sre")` },
			[]string{"property-text when | compare the whole text", "claim-pattern when | "}},
		{"the whole of a property", func(m *api.Mapping) { m.Overrides, m.When = nil, `claims.repo_property_teams in ["sre", "sre,web"]` }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			findings := lint(t, organizationSpec(t, test.change))
			ok := len(findings) == len(test.want)
			for i := 0; ok && i < len(findings); i++ {
				head, text, _ := strings.Cut(test.want[i], " | ")
				ok = findings[i].Lint+" "+findings[i].Path == head && strings.Contains(findings[i].Text, text)
			}
			if !ok {
				t.Errorf("got %+v\nwant %q", findings, test.want)
			}
		})
	}
}

// What explain says of a job that an override is for.
func TestExplainOverride(t *testing.T) {
	w := newRig(t)
	m, err := federation.NewMapping(organizationSpec(t, nil), deployment())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		repository string
		outcome    string
		override   string
		condition  api.MappingCondition
		grants     int
		mode       string
	}{
		{"9", "granted", "", api.MappingCondition{}, 2, "enforce"},
		{"1", "granted", "payments", api.MappingCondition{Kind: "override", On: "payments", Held: true, Got: "repository_id '1'", Wanted: "mode, grants of the override hold"}, 1, "observe"},
		{"4", "refused", "", api.MappingCondition{Kind: "override", On: "archived", Got: "repository_id '4'", Wanted: "no job that the override takes out", Reason: "denied_by_override"}, 0, ""},
	} {
		token := w.token(map[string]any{"repository_id": test.repository, "repository_owner_id": "123456", "repo_property_agents": "allowed"})
		got, err := explainer(t, w, m).Explain(t.Context(), api.ExplainRequest{Token: token})
		if err != nil {
			t.Fatal(err)
		}
		one := got.Mappings[0]
		last := one.Conditions[len(one.Conditions)-1]
		if test.condition.Kind == "" {
			last = api.MappingCondition{}
		}
		if got.Outcome != test.outcome || one.Override != test.override || last != test.condition || len(one.Grants) != test.grants || one.Mode != test.mode {
			t.Errorf("repository %s: %s, %+v", test.repository, got.Outcome, one)
		}
		if test.outcome == "refused" && (one.Change != nil || len(one.Advice) != 1 || !strings.Contains(one.Advice[0], "override archived takes this job out on purpose")) {
			t.Errorf("change %v, advice %q", one.Change, one.Advice)
		}
	}
}

func only(connection string) func(*api.Mapping) {
	return func(m *api.Mapping) {
		m.Overrides = []api.Override{{Name: "one", Match: map[string]api.Values{"repository_id": {"456789"}},
			Grants: []api.Grant{{Connection: connection, Allow: []string{"GET /"}}}}}
	}
}

func takenOut(m *api.Mapping) {
	m.Overrides = []api.Override{{Name: "out", Match: map[string]api.Values{"repository_id": {"456789"}}, Deny: true}}
}

// A change of an override reaches open sessions as a change of the mapping does.
func TestOverrideReachesSessions(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		o := w.mustOpen("1/a")
		info := func() federation.SessionInfo {
			t.Helper()
			info, err := w.sessions.Get(t.Context(), o.Session.ID)
			w.must(err)
			return info
		}
		if got := info(); got.Override != "" {
			t.Errorf("override = %q", got.Override)
		}
		w.reload(agents(only("web")))
		if got := info(); got.Override != "one" || got.InForce != 2 || !slices.Equal(o.Session.Policy().Connections(), []string{"web"}) {
			t.Errorf("override = %q, grants %v", got.Override, o.Session.Policy().Connections())
		}
		if _, err := w.connect("1/b"); access.CodeOf(err) != access.CodeScope {
			t.Errorf("a connection that the override does not grant: %v", err)
		}
		second := w.mustOpen("2/c")
		if !slices.Equal(second.Connections, []string{"web"}) {
			t.Errorf("connections = %v", second.Connections)
		}
		w.restart()
		if got := info(); got.Override != "one" {
			t.Errorf("after a restart override = %q", got.Override)
		}
		w.reload(agents(takenOut))
		w.wantCall(o, access.CodeEnded)
		w.wantCall(second, access.CodeEnded)
		if got, err := w.sessions.Get(t.Context(), second.Session.ID); err != nil || got.Reason != access.EndMismatch || got.SessionRow.Override == "" {
			t.Errorf("session = %+v, %v", got.SessionRow, err)
		}
		_, err := w.open("3/d")
		wantRefused(t, err, access.CodeTarget, "denied_by_override", "override out takes out jobs with repository_id '456789'")
	})
}

// Preview says what a change of an override would end.
func TestPreviewOfOverride(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t)
		_, err := w.mappings.Put(t.Context(), agents(), 0, "test")
		w.must(err)
		o := w.mustOpen("1/a")
		p, err := w.mappings.Preview(agents(only("web")), 0)
		if err != nil || len(p.Ends) != 0 || p.Stay != 1 {
			t.Errorf("preview = %+v, %v", p, err)
		}
		p, err = w.mappings.Preview(agents(takenOut), 0)
		if err != nil || len(p.Ends) != 1 || p.Ends[0].ID != o.Session.ID || !strings.Contains(p.Ends[0].Why, "override out takes out") {
			t.Errorf("preview = %+v, %v", p, err)
		}
		time.Sleep(20 * time.Minute) // virtual
		w.mustOpen("1/b")
		short := agents(func(m *api.Mapping) {
			m.Overrides = []api.Override{{Match: map[string]api.Values{"repository_id": {"456789"}}, Window: &api.Window{Max: api.Duration(10 * time.Minute)}}}
		})
		p, err = w.mappings.Preview(short, 0)
		if err != nil || len(p.Ends) != 1 || !strings.Contains(p.Ends[0].Why, "window.max of 10m0s is over") {
			t.Errorf("preview = %+v, %v", p, err)
		}
	})
}
