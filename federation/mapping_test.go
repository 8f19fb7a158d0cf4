package federation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

func deployment() federation.MappingConfig {
	return federation.MappingConfig{
		Issuers: []federation.Issuer{
			{Name: "github", Provider: "github-actions"},
			{Name: "ghes", Provider: "github-actions", URL: "https://ghes.example.test/_services/token"},
			{Name: "gitlab", Provider: "gitlab"},
			{Name: "jenkins", Provider: "jenkins", URL: "https://jenkins.example.test/oidc"},
			{Name: "google", Provider: "google-cloud-build"},
			{Name: "buildkite", Provider: "buildkite"},
			{Name: "circleci", Provider: "circleci", URL: "https://oidc.circleci.com"},
		},
		Connections: map[string]string{"anthropic": "anthropic", "deploys": "http"},
		Groups:      []string{"sre"},
		Features:    map[string][]string{"anthropic": {"web_search", "files"}},
	}
}

// releaseAgents is a mapping as people write it.
const releaseAgents = `
name: release-agents
issuer: github
match:
  repository_owner_id: "123456"
  repository_id: "456789"
  ref: refs/heads/main
  event_name: [push, workflow_dispatch]
when: claims.runner_environment == "github-hosted"
window: {max: 2h, lease: 10m}
grants:
  - connection: anthropic
    allow: ["POST /v1/messages", "POST /v1/messages/count_tokens"]
    limits: {requests: 500, output_tokens: 2000000, models: ["claude-*"]}
    features: [web_search]
    on_deny: stop
    mask: {requests: true, responses: false}
    rules:
      - name: no-network-tools
        effect: deny
        when: tool.name in ["WebFetch", "WebSearch"]
        reason: agents of this mapping work without the network
      - name: commands
        effect: approve
        when: tool.name == "Bash" && !(tool.input.command in ["make test", "npm ci"])
        approvers: [sre]
        mode: observe
  - connection: deploys
    allow: ["POST /v1/deploys/{id}"]
`

// spec reads a mapping, changed.
func spec(t testing.TB, change func(*api.Mapping)) api.Mapping {
	t.Helper()
	var m api.Mapping
	if err := yaml.Unmarshal([]byte(releaseAgents), &m); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&m)
	}
	return m
}

func mapping(t testing.TB, change func(*api.Mapping)) *federation.Mapping {
	t.Helper()
	m, err := federation.NewMapping(spec(t, change), deployment())
	if err != nil {
		t.Fatalf("NewMapping: %v", err)
	}
	return m
}

func TestPolicy(t *testing.T) {
	m := mapping(t, nil)
	off := false
	want := &access.Policy{
		Mapping: "release-agents", Revision: 7, Window: access.WindowSpec{Max: 2 * time.Hour, Lease: 10 * time.Minute},
		Grants: []access.Grant{{
			Connection: "anthropic", Allow: []string{"POST /v1/messages", "POST /v1/messages/count_tokens"},
			Limits:   access.Limits{Requests: 500, OutputTokens: 2000000, Models: []string{"claude-*"}},
			Features: []string{"web_search"}, OnDeny: access.Stop, MaskRequests: true, MaskResponses: &off,
			Rules: []access.Rule{
				{Name: "no-network-tools", Effect: access.Deny, When: `tool.name in ["WebFetch", "WebSearch"]`, Reason: "agents of this mapping work without the network"},
				{Name: "commands", Effect: access.Ask, When: `tool.name == "Bash" && !(tool.input.command in ["make test", "npm ci"])`,
					Approvers: []string{"sre"}, Timeout: 15 * time.Minute, Mode: access.Observe},
			},
		}, {Connection: "deploys", Allow: []string{"POST /v1/deploys/{id}"}}},
	}
	if d := cmp.Diff(want, m.Policy(7)); d != "" {
		t.Errorf("policy (-want +got):\n%s", d)
	}
	if m.Name() != "release-agents" || m.Issuer() != "github" || m.RequiresLiveness() {
		t.Errorf("mapping %q of issuer %q, liveness %v", m.Name(), m.Issuer(), m.RequiresLiveness())
	}
	if d := cmp.Diff(spec(t, nil), m.Spec()); d != "" {
		t.Errorf("spec (-want +got):\n%s", d)
	}
}

func TestWindowDefaults(t *testing.T) {
	for _, test := range []struct {
		max, lease, wantMax, wantLease time.Duration
	}{
		{0, 0, time.Hour, 15 * time.Minute},
		{10 * time.Minute, 0, 10 * time.Minute, 10 * time.Minute},
		{time.Second, time.Second, time.Second, time.Second},
		{time.Hour, 2 * time.Hour, time.Hour, time.Hour},
		{5 * 24 * time.Hour, 0, 5 * 24 * time.Hour, 15 * time.Minute},
	} {
		m := mapping(t, func(m *api.Mapping) {
			m.Window = api.Window{Max: api.Duration(test.max), Lease: api.Duration(test.lease)}
		})
		if got, want := m.Policy(1).Window, (access.WindowSpec{Max: test.wantMax, Lease: test.wantLease}); got != want {
			t.Errorf("window of max %s, lease %s = %v, want %v", test.max, test.lease, got, want)
		}
	}
}

func TestNewMappingRefuses(t *testing.T) {
	match := func(name string, values ...any) func(*api.Mapping) {
		return func(m *api.Mapping) { m.Match[name] = values }
	}
	rule := func(change func(*api.Rule)) func(*api.Mapping) {
		return func(m *api.Mapping) { change(&m.Grants[0].Rules[1]) }
	}
	grant := func(change func(*api.Grant)) func(*api.Mapping) {
		return func(m *api.Mapping) { change(&m.Grants[0]) }
	}
	off := false
	for _, test := range []struct {
		name       string
		change     func(*api.Mapping)
		path, want string
	}{
		{"no name", func(m *api.Mapping) { m.Name = "" }, "name", "small letter"},
		{"a name in capitals", func(m *api.Mapping) { m.Name = "Release" }, "name", "small letter"},
		{"a name with a line end", func(m *api.Mapping) { m.Name = "release\n" }, "name", "small letter"},
		{"a long name", func(m *api.Mapping) { m.Name = strings.Repeat("a", 64) }, "name", "small letter"},
		{"unknown issuer", func(m *api.Mapping) { m.Issuer = "travis" }, "issuer", "write one of: github, ghes"},
		{"unknown mode", func(m *api.Mapping) { m.Mode = "audit" }, "mode", "enforce or observe"},

		{"no match", func(m *api.Mapping) { m.Match = nil }, "match", "every job"},
		{"names only", func(m *api.Mapping) {
			m.Match = map[string]api.Values{"repository": {"octo-org/octo-repo"}, "ref": {"refs/heads/main"}}
		}, "match", "pin an immutable id: one of enterprise_id, repository_owner_id, repository_id"},
		{"names only, of an enterprise's issuer", func(m *api.Mapping) {
			m.Issuer, m.Match = "circleci", map[string]api.Values{"oidc.circleci.com/vcs-ref": {"refs/heads/main"}}
		}, "match", "pin an immutable id"},
		{"unknown claim", match("repositry_id", "1"), "match.repositry_id", `no claim "repositry_id"`},
		{"an id without quotes", match("repository_id", int64(456789)), "match.repository_id", `quote it: "456789"`},
		{"a truth value without quotes", match("ref_protected", true), "match.ref_protected", `quote it: "true"`},
		{"null", match("ref", nil), "match.ref", "is a string"},
		{"a name for an id", match("repository_id", "octo-org/octo-repo"), "match.repository_id", "not a name"},
		{"an empty id", match("repository_id", ""), "match.repository_id", "no id"},
		{"a short ref", match("ref", "main"), "match.ref", "write refs/heads/main"},
		{"no value", match("ref"), "match.ref", "no value"},
		{"a line end", match("ref", "refs/heads/main\n"), "match.ref", "control characters"},
		{"a prefix without a rest", match("repo_property_", "x"), "match.repo_property_", "no claim"},
		{"a list claim", func(m *api.Mapping) {
			m.Issuer, m.Match, m.When = "gitlab", map[string]api.Values{"project_id": {"20"}, "groups_direct": {"g"}}, ""
		}, "match.groups_direct", "use when"},
		{"a quoted integer", func(m *api.Mapping) {
			m.Issuer, m.Match, m.When = "gitlab", map[string]api.Values{"project_id": {"20"}, "runner_id": {"1"}}, ""
		}, "match.runner_id", "without quotes"},
		{"a quoted boolean", func(m *api.Mapping) {
			m.Issuer, m.When = "circleci", ""
			m.Match = map[string]api.Values{"oidc.circleci.com/org-id": {"x"}, "oidc.circleci.com/ssh-rerun": {"false"}}
		}, "match.oidc.circleci.com/ssh-rerun", "without quotes"},

		{"require of an unknown claim", func(m *api.Mapping) { m.Require = []string{"ref", "x"} }, "require[1]", "no claim"},
		{"forbid of an unknown claim", func(m *api.Mapping) { m.Forbid = []string{"x"} }, "forbid[0]", "no claim"},
		{"equal of one", func(m *api.Mapping) { m.Equal = [][]string{{"ref"}} }, "equal[0]", "the two"},
		{"equal of an unknown claim", func(m *api.Mapping) { m.Equal = [][]string{{"ref", "x"}} }, "equal[0]", "no claim"},
		{"deny of an unknown claim", func(m *api.Mapping) { m.Deny = map[string]api.Values{"x": {"y"}} }, "deny.x", "no claim"},
		{"a path to nowhere", func(m *api.Mapping) { m.Paths = []api.PathCondition{{Present: true}} }, "paths[0].path", "empty"},
		{"a path without a condition", func(m *api.Mapping) { m.Paths = []api.PathCondition{{Path: []string{"ref"}}} }, "paths[0]", "neither"},
		{"a path from an unknown claim", func(m *api.Mapping) { m.Paths = []api.PathCondition{{Path: []string{"x"}, Present: true}} }, "paths[0].path", "no claim"},

		{"when that does not parse", func(m *api.Mapping) { m.When = "claims.ref ==" }, "when", "line 1"},
		{"when of another scope", func(m *api.Mapping) { m.When = `tool.name == "x"` }, "when", "undeclared reference to 'tool'"},
		{"when over an unknown claim", func(m *api.Mapping) { m.When = `claims.repositry == "x"` }, "when", `no claim "repositry"`},
		{"an unknown job key", func(m *api.Mapping) { m.JobKey = "attempt" }, "job_key", "job (the default) or run"},
		{"job_key: run where it means nothing", func(m *api.Mapping) {
			m.Issuer, m.Match, m.When, m.JobKey = "gitlab", map[string]api.Values{"project_id": {"20"}}, "", "run"
		}, "job_key", "leave it out"},
		{"unbound where tokens name a job", func(m *api.Mapping) { m.Bound = &off }, "job_bound", "leave job_bound out"},
		{"bound where they do not", func(m *api.Mapping) {
			m.Issuer, m.Match, m.When = "google", map[string]api.Values{"sub": {"112233"}}, ""
		}, "job_bound", "job_bound: false"},
		{"an age below a second", func(m *api.Mapping) { m.MaxAge = 5 }, "max_age", "at least 1s"},
		{"a negative window", func(m *api.Mapping) { m.Window.Max = -1 }, "window.max", "at least 1s"},
		{"a lease below a second", func(m *api.Mapping) { m.Window.Lease = api.Duration(time.Millisecond) }, "window.lease", "at least 1s"},

		{"no grants", func(m *api.Mapping) { m.Grants = nil }, "grants", "none"},
		{"unknown connection", grant(func(g *api.Grant) { g.Connection = "openai" }), "grants[0].connection", "write one of: anthropic, deploys"},
		{"one connection twice", func(m *api.Mapping) { m.Grants[1].Connection = "anthropic" }, "grants[1].connection", "twice"},
		{"an entry without a method", grant(func(g *api.Grant) { g.Allow[1] = "/v1/messages" }), "grants[0].allow[1]", "METHOD /path/{template}"},
		{"an entry with a query", grant(func(g *api.Grant) { g.Allow[0] = "GET /v1?x" }), "grants[0].allow[0]", "METHOD"},
		{"a negative limit", grant(func(g *api.Grant) { g.Limits[0].InputTokens = -1 }), "grants[0].limits.input_tokens", "negative"},
		{"a star in the middle", grant(func(g *api.Grant) { g.Limits[0].Models = []string{"claude-*-5"} }), "grants[0].limits.models[0]", "ends in *"},
		{"unknown feature", grant(func(g *api.Grant) { g.Features = []string{"web_serach"} }), "grants[0].features[0]", "write one of: web_search, files"},
		{"unknown on_deny", grant(func(g *api.Grant) { g.OnDeny = "warn" }), "grants[0].on_deny", "tell, stop or fail"},

		{"a rule without a name", rule(func(r *api.Rule) { r.Name = "" }), "grants[0].rules[1].name", "small letter"},
		{"one rule name twice", rule(func(r *api.Rule) { r.Name = "no-network-tools" }), "grants[0].rules[1].name", "another rule's"},
		{"a rule called like a part of the grant", rule(func(r *api.Rule) { r.Name = "limits" }), "grants[0].rules[1].name", "write another"},
		{"unknown effect", rule(func(r *api.Rule) { r.Effect = "ask" }), "grants[0].rules[1].effect", "deny or approve"},
		{"effect allow", rule(func(r *api.Rule) { r.Effect = "allow" }), "grants[0].rules[1].effect", "no allow"},
		{"a rule's unknown mode", rule(func(r *api.Rule) { r.Mode = "x" }), "grants[0].rules[1].mode", "enforce or observe"},
		{"a rule without a condition", rule(func(r *api.Rule) { r.When = "" }), "grants[0].rules[1].when", "empty"},
		{"a rule's unknown field", rule(func(r *api.Rule) { r.When = `tool.nmae == "x"` }), "grants[0].rules[1].when", "undefined field 'nmae'"},
		{"a rule's unknown claim", rule(func(r *api.Rule) { r.When = `claims.x == "x"` }), "grants[0].rules[1].when", `no claim "x"`},
		{"a rule that can never speak", rule(func(r *api.Rule) { r.When = `mcp.method == "x"` }), "grants[0].rules[1].when", "have no mcp"},
		{"a tool rule on an http connection", func(m *api.Mapping) {
			m.Grants[1].Rules = []api.Rule{{Name: "x", Effect: "deny", When: `tool.name == "Bash"`}}
		}, "grants[1].rules[0].when", "kind http have no tool"},
		{"a bad regular expression", rule(func(r *api.Rule) { r.When = `tool.name.matches("(")` }), "grants[0].rules[1].when", "line 1"},
		{"nobody to ask", rule(func(r *api.Rule) { r.Approvers = nil }), "grants[0].rules[1].approvers", "write one of: sre"},
		{"an unknown group", rule(func(r *api.Rule) { r.Approvers = []string{"sre", "ops"} }), "grants[0].rules[1].approvers[1]", `"ops" is no group`},
		{"a short timeout", rule(func(r *api.Rule) { r.Timeout = 5 }), "grants[0].rules[1].timeout", "at least 1s"},
		{"a deny that asks", rule(func(r *api.Rule) { r.Effect = "deny" }), "grants[0].rules[1]", "asks nobody"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := federation.NewMapping(spec(t, test.change), deployment())
			var field *api.FieldError
			if !errors.As(err, &field) {
				t.Fatalf("NewMapping = %v, want an *api.FieldError", err)
			}
			if field.Path != test.path || !strings.Contains(err.Error(), test.want) {
				t.Errorf("NewMapping = %v, want %s: ... %s", err, test.path, test.want)
			}
		})
	}
}

func TestNewMappingTakes(t *testing.T) {
	off := false
	for name, change := range map[string]func(*api.Mapping){
		"an owner alone":         func(m *api.Mapping) { m.Match = map[string]api.Values{"repository_owner_id": {"123456"}} },
		"names on an own server": func(m *api.Mapping) { m.Issuer, m.Match = "ghes", map[string]api.Values{"repository": {"a/b"}} },
		"a custom property":      func(m *api.Mapping) { m.Match["repo_property_team"] = api.Values{"sre"} },
		"job_key: run":           func(m *api.Mapping) { m.JobKey = "run" },
		"job_key: job":           func(m *api.Mapping) { m.JobKey = "job" },
		"an empty allow list":    func(m *api.Mapping) { m.Grants[0].Allow = nil },
		"the token's own times":  func(m *api.Mapping) { m.When = "claims.exp - claims.iat < 600" },
		"observe":                func(m *api.Mapping) { m.Mode = "observe" },
		"an empty value":         func(m *api.Mapping) { m.Match["head_ref"] = api.Values{""} },
		"a customer's own claims": func(m *api.Mapping) {
			m.Issuer, m.Match = "jenkins", map[string]api.Values{"is_release": {true}, "n": {int64(1)}}
		},
		"a service account": func(m *api.Mapping) {
			m.Issuer, m.Match, m.When, m.Bound = "google", map[string]api.Values{"sub": {"1"}}, "", &off
		},
		"a claim that may be null": func(m *api.Mapping) {
			m.Issuer, m.Match = "buildkite", map[string]api.Values{"pipeline_id": {"x"}, "build_tag": {nil, "v1"}}
		},
	} {
		if _, err := federation.NewMapping(spec(t, change), deployment()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := deployment()
	c.CheckAllow = func(entry string) error { return fmt.Errorf("not %q", entry) }
	if _, err := federation.NewMapping(spec(t, nil), c); err == nil || !strings.Contains(err.Error(), `grants[0].allow[0]: not "POST /v1/messages"`) {
		t.Errorf("NewMapping with a check of its own = %v", err)
	}
}

// job is the identity of a push to main.
func job(changes access.Claims) access.Identity {
	claims := access.Claims{
		"sub": "repo:octo-org/octo-repo:ref:refs/heads/main", "repository_owner_id": "123456", "repository_id": "456789",
		"ref": "refs/heads/main", "head_ref": "", "event_name": "push", "runner_environment": "github-hosted", "repository": "octo-org/octo-repo",
		"run_id": "1", "run_attempt": "1", "check_run_id": "2", "actor": "octocat", "actor_id": "12",
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == absent })
	return access.Identity{Issuer: "github", IssuerURL: githubURL, Provider: "github-actions", Claims: claims, IssuedAt: start.Add(-20 * time.Second)}
}

// absent takes a claim away.
const absent = "\x00absent"

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		name    string
		mapping func(*api.Mapping)
		claims  access.Claims
		want    string
		says    string
	}{
		{"a push to main", nil, nil, "ok", ""},
		{"another value of the list", nil, access.Claims{"event_name": "workflow_dispatch"}, "ok", ""},
		{"another branch", nil, access.Claims{"ref": "refs/heads/evil"}, "claim_mismatch",
			"mapping release-agents: claim ref is 'refs/heads/evil', wanted 'refs/heads/main'"},
		{"what people wrote is cleaned", nil, access.Claims{"ref": "refs/heads/\"\n\u0441"}, "claim_mismatch", "claim ref is 'refs/heads/'??'"},
		{"an event that is not named", nil, access.Claims{"event_name": "pull_request"}, "claim_mismatch", "wanted one of 'push', 'workflow_dispatch'"},
		{"no ref", nil, access.Claims{"ref": absent}, "claim_missing", "needs claim ref"},
		{"absence comes first", nil, access.Claims{"ref": absent, "repository_id": "1"}, "claim_missing", "needs claim ref"},
		{"the owner is compared first", nil, access.Claims{"repository_owner_id": "6", "ref": "x"}, "claim_mismatch", "claim repository_owner_id is '6'"},
		{"a number", nil, access.Claims{"repository_id": json.Number("456789")}, "claim_type", "claim repository_id is 456789"},
		{"a list", nil, access.Claims{"ref": []any{"refs/heads/main"}}, "claim_type", ""},
		{"null", nil, access.Claims{"ref": nil}, "claim_type", "claim ref is null"},
		{"when is false", nil, access.Claims{"runner_environment": "self-hosted"}, "claim_mismatch", "its when is not true"},
		{"when fails", nil, access.Claims{"runner_environment": absent}, "claim_mismatch", "its when fails"},

		{"an untrusted event", func(m *api.Mapping) { delete(m.Match, "event_name") }, access.Claims{"event_name": "pull_request_target"}, "untrusted_event",
			"name the values of event_name in match"},
		{"an event of tomorrow", func(m *api.Mapping) { delete(m.Match, "event_name") }, access.Claims{"event_name": "brand_new"}, "untrusted_event", ""},
		{"no event", func(m *api.Mapping) { delete(m.Match, "event_name") }, access.Claims{"event_name": absent}, "untrusted_event", ""},
		{"a trusted event", func(m *api.Mapping) { delete(m.Match, "event_name") }, access.Claims{"event_name": "schedule"}, "ok", ""},
		{"a pull request's ref under another event", func(m *api.Mapping) {
			delete(m.Match, "event_name")
			delete(m.Match, "ref")
		}, access.Claims{"ref": "refs/pull/5/merge"}, "untrusted_event", ""},
		{"a head_ref under another event", func(m *api.Mapping) { delete(m.Match, "event_name") }, access.Claims{"head_ref": "patch"}, "untrusted_event", ""},
		{"when does not lift the denial", func(m *api.Mapping) {
			delete(m.Match, "event_name")
			m.When = `claims.event_name == "issue_comment"`
		}, access.Claims{"event_name": "issue_comment"}, "untrusted_event", ""},
		{"naming the event does", func(m *api.Mapping) { m.Match["event_name"] = api.Values{"issue_comment"} }, access.Claims{"event_name": "issue_comment"}, "ok", ""},
		{"naming a pull request, too", func(m *api.Mapping) {
			m.Match["event_name"], m.Match["ref"] = api.Values{"pull_request"}, api.Values{"refs/pull/5/merge"}
		}, access.Claims{"event_name": "pull_request", "ref": "refs/pull/5/merge", "head_ref": "patch"}, "ok", ""},

		{"require", func(m *api.Mapping) { m.Require = []string{"environment"} }, nil, "claim_missing", "needs claim environment"},
		{"require of an empty one", func(m *api.Mapping) { m.Require = []string{"environment"} }, access.Claims{"environment": ""}, "claim_missing", ""},
		{"require that holds", func(m *api.Mapping) { m.Require = []string{"environment"} }, access.Claims{"environment": "prod"}, "ok", ""},
		{"forbid", func(m *api.Mapping) { m.Forbid = []string{"environment"} }, access.Claims{"environment": "prod"}, "untrusted_event", "forbids"},
		{"deny", func(m *api.Mapping) { m.Deny = map[string]api.Values{"actor": {"bot", "octocat"}} }, nil, "untrusted_event", "denies"},
		{"deny of another", func(m *api.Mapping) { m.Deny = map[string]api.Values{"actor": {"bot"}} }, nil, "ok", ""},
		{"deny of what is left out", func(m *api.Mapping) { m.Deny = map[string]api.Values{"actor": {"bot"}} }, access.Claims{"actor": absent}, "claim_missing", ""},
		{"equal", func(m *api.Mapping) { m.Equal = [][]string{{"run_id", "run_attempt"}} }, nil, "ok", ""},
		{"unequal", func(m *api.Mapping) { m.Equal = [][]string{{"run_id", "check_run_id"}} }, nil, "claim_mismatch", "must be equal"},
		{"subject", func(m *api.Mapping) { m.Subject = "repo:" }, nil, "ok", ""},
		{"another subject", func(m *api.Mapping) { m.Subject = "env:" }, nil, "wrong_token_kind", ""},
		{"old", func(m *api.Mapping) { m.MaxAge = api.Duration(10 * time.Second) }, nil, "too_old", "issued 20s ago"},
		{"young", func(m *api.Mapping) { m.MaxAge = api.Duration(20 * time.Second) }, nil, "ok", ""},
		{"a token without its job", nil, access.Claims{"check_run_id": absent}, "claim_missing", "job_key: run"},
		{"where that is accepted", func(m *api.Mapping) { m.JobKey = "run" }, access.Claims{"check_run_id": absent}, "ok", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := mapping(t, test.mapping).Match(job(test.claims), start)
			if got := reasonOf(err); got != test.want {
				t.Fatalf("Match = %s (%v), want %s", got, err, test.want)
			}
			if err == nil {
				return
			}
			if text := access.PublicText(err); !strings.Contains(text, test.says) || strings.ContainsAny(text, "\"\\\n") {
				t.Errorf("Match says %q, want %q in it", text, test.says)
			}
			if code := access.CodeOf(err); code != access.CodeTarget && test.want != "too_old" {
				t.Errorf("code = %s", code)
			}
		})
	}
}

func TestMatchOtherIssuer(t *testing.T) {
	id := job(nil)
	id.Issuer = "ghes"
	if got := reasonOf(mapping(t, nil).Match(id, start)); got != "unknown_issuer" {
		t.Errorf("Match of another issuer's job = %s", got)
	}
	id = job(nil)
	id.Provider = "gitlab"
	if got := reasonOf(mapping(t, nil).Match(id, start)); got != "unknown_issuer" {
		t.Errorf("Match of another provider's job = %s", got)
	}
}

func TestGitLabFork(t *testing.T) {
	m := mapping(t, func(m *api.Mapping) {
		m.Issuer, m.When = "gitlab", ""
		m.Match = map[string]api.Values{"job_project_id": {"20"}, "pipeline_source": {"merge_request_event"}}
	})
	id := access.Identity{Issuer: "gitlab", Provider: "gitlab", Claims: access.Claims{
		"job_project_id": "20", "project_id": "20", "pipeline_source": "merge_request_event", "job_id": "1",
	}}
	if err := m.Match(id, start); err != nil {
		t.Errorf("a merge request of the project itself: %v", err)
	}
	id.Claims["project_id"] = "1002"
	if got := reasonOf(m.Match(id, start)); got != "untrusted_event" {
		t.Errorf("a fork's merge request = %s, want untrusted_event", got)
	}
}

func TestExplain(t *testing.T) {
	m := mapping(t, nil)
	if got := m.Explain(job(nil), start); got != nil {
		t.Errorf("Explain of a match = %v", got)
	}
	var got []string
	for _, err := range m.Explain(job(access.Claims{"repository_id": "1", "ref": absent, "event_name": "x", "runner_environment": "y"}), start) {
		got = append(got, reasonOf(err)+" "+strings.Fields(access.PublicText(err))[3])
	}
	want := []string{"claim_missing needs", "claim_mismatch repository_id", "claim_mismatch event_name", "claim_mismatch when"}
	if !slices.Equal(got, want) {
		t.Errorf("Explain = %q, want %q", got, want)
	}
}

func TestPinsTenant(t *testing.T) {
	byOwner := func(m *api.Mapping) { delete(m.Match, "repository_id") }
	byNothing := func(m *api.Mapping) { m.Issuer, m.Match = "ghes", map[string]api.Values{"repository": {"a/b"}} }
	of := func(issuer string, claims access.Claims) access.Identity {
		id := job(claims)
		id.Issuer = issuer
		return id
	}
	for _, test := range []struct {
		name    string
		mapping func(*api.Mapping)
		id      access.Identity
		want    bool
	}{
		{"the repository", nil, of("github", nil), true},
		{"another repository of the owner", nil, of("github", access.Claims{"repository_id": "1"}), true},
		{"a stranger", nil, of("github", access.Claims{"repository_id": "1", "repository_owner_id": "2"}), false},
		{"a stranger who took the names", byOwner, of("github", access.Claims{"repository_owner_id": "2"}), false},
		{"a claim of another type", byOwner, of("github", access.Claims{"repository_owner_id": json.Number("123456")}), false},
		{"no owner", byOwner, of("github", access.Claims{"repository_owner_id": absent}), false},
		{"another issuer", nil, of("ghes", nil), false},
		{"an own server", byNothing, of("ghes", nil), true},
		{"github.com for the own server", byNothing, of("github", nil), false},
	} {
		if got := mapping(t, test.mapping).PinsTenant(test.id); got != test.want {
			t.Errorf("PinsTenant of %s = %v, want %v", test.name, got, test.want)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	m, id := mapping(b, nil), job(nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Match(id, start); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleMapping_Match() {
	m, err := federation.NewMapping(api.Mapping{
		Name: "release-agents", Issuer: "github",
		Match:  map[string]api.Values{"repository_id": {"456789"}, "ref": {"refs/heads/main"}},
		Grants: []api.Grant{{Connection: "anthropic", Allow: []string{"POST /v1/messages"}}},
	}, federation.MappingConfig{
		Issuers:     []federation.Issuer{{Name: "github", Provider: "github-actions"}},
		Connections: map[string]string{"anthropic": "anthropic"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Match(job(nil), start))
	fmt.Println(m.Match(job(access.Claims{"ref": "refs/heads/fix"}), start))
	fmt.Println(m.Match(job(access.Claims{"event_name": "issue_comment"}), start))
	// Output:
	// <nil>
	// mapping release-agents: claim ref is 'refs/heads/fix', wanted 'refs/heads/main'
	// mapping release-agents: event 'issue_comment' can be started by people without write access; to accept such jobs all the same, name the values of event_name in match
}
