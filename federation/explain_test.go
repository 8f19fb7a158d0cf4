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

	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// explainer is one over these mappings, of an issuer that can be reached.
func explainer(t testing.TB, w *rig, mappings ...*federation.Mapping) *federation.Explainer {
	t.Helper()
	x, err := federation.NewExplainer(federation.ExplainerConfig{
		Verifier: w.Verifier, Now: w.clock.Now, Mappings: func() []*federation.Mapping { return mappings },
		Connections: map[string]string{"anthropic": "anthropic"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// conditional are mappings that use every kind of condition.
func conditional() map[string]func(*api.Mapping) {
	return map[string]func(*api.Mapping){
		"as written": nil,
		"no event":   func(m *api.Mapping) { delete(m.Match, "event_name") },
		"owner only": func(m *api.Mapping) {
			m.Match = map[string]api.Values{"repository_owner_id": {"123456"}}
			m.When = ""
		},
		"overrides": func(m *api.Mapping) {
			m.Overrides = []api.Override{
				{Match: map[string]api.Values{"repository_id": {"7"}}, Deny: true}, {Match: map[string]api.Values{"ref": {"refs/heads/main"}}, Mode: "observe"},
			}
		},
		"everything": func(m *api.Mapping) {
			m.Require, m.Forbid = []string{"environment", "actor_id"}, []string{"base_ref"}
			m.Deny = map[string]api.Values{"actor_id": {"13", "14"}}
			m.Equal = [][]string{{"workflow_ref", "job_workflow_ref"}, {"run_id", "run_attempt"}}
			m.Paths = []api.PathCondition{{Path: []string{"repository"}, Value: api.Values{"octo-org/octo-repo"}}, {Path: []string{"sha"}, Present: true}}
			m.Subject, m.MaxAge, m.JobKey = "repo:", api.Duration(10*time.Second), "run"
		},
		"a when that fails": func(m *api.Mapping) { m.When = `claims.environment == "prod"` },
	}
}

// Whatever the claims are, Examine holds all exactly where Match does, and fails for the reasons that Explain gives.
func TestExamineAgreesWithMatch(t *testing.T) {
	values := map[string][]any{
		"repository_owner_id": {"123456", "2", json.Number("123456"), absent}, "repository_id": {"456789", "1", absent},
		"ref": {"refs/heads/main", "refs/pull/1/merge", absent, nil}, "event_name": {"push", "issue_comment", absent},
		"check_run_id": {"2", absent, ""}, "environment": {"prod", absent, ""}, "runner_environment": {"github-hosted", "self-hosted", absent},
		"actor_id": {"12", "13", absent}, "workflow_ref": {"a", "b", absent}, "job_workflow_ref": {"a", absent}, "head_ref": {"", "x"},
		"base_ref": {absent, "main"}, "sub": {"repo:o/r", "user:o"}, "sha": {"1", absent},
	}
	names := slices.Sorted(maps.Keys(values))
	for name, change := range conditional() {
		m := mapping(t, change)
		held := 0
		for seed := range 3000 {
			claims, n := access.Claims{}, seed
			for _, claim := range names {
				n = (n*1103515245 + 12345) & 0x7fffffff
				claims[claim] = values[claim][0]
				if (n>>8)%4 == 0 {
					claims[claim] = values[claim][(n>>16)%len(values[claim])]
				}
			}
			id := job(claims)
			if seed%7 == 0 {
				id.IssuedAt = start
			}
			var failed, want []string
			for _, c := range m.Examine(id, start) {
				if !c.Held {
					failed = append(failed, c.Reason)
				}
				if c.Held != (c.Reason == "") || c.Got == "" && c.Kind != "when" || c.Wanted == "" {
					t.Fatalf("%s: condition %+v of %v", name, c, claims)
				}
			}
			for _, err := range m.Explain(id, start) {
				want = append(want, reasonOf(err))
			}
			if (len(failed) == 0) != (m.Match(id, start) == nil) {
				t.Fatalf("%s: Examine fails %v, Match says %v of %v", name, failed, m.Match(id, start), claims)
			}
			if !sameReasons(failed, want) {
				t.Fatalf("%s: Examine fails %v, Explain %v of %v", name, failed, want, claims)
			}
			if len(failed) == 0 {
				held++
			}
		}
		if held == 0 {
			t.Errorf("%s: nobody was served", name)
		}
	}
}

// sameReasons compares the kinds of reasons: a claim that two conditions need is one line of the one and two of the other.
func sameReasons(a, b []string) bool {
	unique := func(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }
	return slices.Equal(unique(a), unique(b))
}

func TestExplainToken(t *testing.T) {
	w := newRig(t)
	x := explainer(t, w, mapping(t, nil))
	for _, test := range []struct {
		name            string
		token           string
		verified        bool
		outcome, reason string
		mappings        int
		detail          string
	}{
		{"a job that is served", w.token(nil), true, "granted", "", 1, ""},
		{"white space around it", "\n" + w.token(nil) + " \n", true, "granted", "", 1, ""},
		{"another ref", w.token(map[string]any{"ref": "refs/heads/next"}), true, "refused", "no_mapping", 1, "no mapping serves"},
		{"a wrong audience", w.token(map[string]any{"aud": "https://other.example.test"}), false, "refused", "aud_mismatch", 1, "'https://other.example.test', want " + audience},
		{"an old token", w.token(map[string]any{"iat": start.Unix() - 900, "nbf": start.Unix() - 900, "exp": start.Unix() - 600}), false, "refused", "expired", 1, "at 20"},
		{"an unknown issuer", w.token(map[string]any{"iss": "https://else.example.test"}), false, "refused", "unknown_issuer", 0, "else.example.test"},
		{"a forged one", w.signed("key-1", rsaKey("attacker"), nil), false, "refused", "bad_signature", 0, ""},
		{"no token", "not a token", false, "refused", "malformed", 0, "three parts"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := x.Explain(t.Context(), api.ExplainRequest{Token: test.token})
			if err != nil {
				t.Fatal(err)
			}
			reason, detail, advice := "", "", ""
			if got.Refusal != nil {
				reason, detail, advice = got.Refusal.Reason, got.Refusal.Detail, got.Refusal.Advice
			}
			if got.Verified != test.verified || got.Outcome != test.outcome || reason != test.reason || len(got.Mappings) != test.mappings || !strings.Contains(detail, test.detail) {
				t.Errorf("got verified %v, %s, %s (%s), %d mappings", got.Verified, got.Outcome, reason, detail, len(got.Mappings))
			}
			if !test.verified && (advice == "" || got.Suggestion != "" || got.Mapping != "") {
				t.Errorf("a token that did not verify: advice %q, suggestion %q, mapping %q", advice, got.Suggestion, got.Mapping)
			}
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			for part := range strings.SplitSeq(strings.TrimSpace(test.token), ".") {
				if len(part) > 10 && strings.Contains(string(text), part) {
					t.Errorf("the explanation holds a part of the token: %s", text)
				}
			}
		})
	}
}

func TestExplainGrants(t *testing.T) {
	w := newRig(t)
	m := mapping(t, nil)
	got, err := explainer(t, w, m).Explain(t.Context(), api.ExplainRequest{Token: w.token(nil)})
	if err != nil {
		t.Fatal(err)
	}
	one := got.Mappings[0]
	if got.Mapping != m.Name() || !one.Serves || one.Failed != 0 || one.Mode != "enforce" || one.Window == nil || time.Duration(one.Window.Max) != 2*time.Hour || len(one.Grants) != 2 {
		t.Errorf("got %+v", got)
	}
	if got.JobKey == "" || got.Claims["repository_id"] != "456789" {
		t.Errorf("the job is %q, %v", got.JobKey, got.Claims)
	}
}

func TestExplainClaims(t *testing.T) {
	w := newRig(t)
	x := explainer(t, w, mapping(t, nil))
	claims := func(change func(map[string]any)) json.RawMessage {
		c := map[string]any{"repository_owner_id": "123456", "repository_id": "456789", "repository": "octo-org/octo-repo", "ref": "refs/heads/main",
			"event_name": "push", "runner_environment": "github-hosted", "run_id": "1", "run_attempt": "1", "check_run_id": "2"}
		if change != nil {
			change(c)
		}
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for _, test := range []struct {
		name    string
		r       api.ExplainRequest
		outcome string
		reason  string
		code    access.Code
	}{
		{"of the only issuer", api.ExplainRequest{Claims: claims(nil)}, "granted", "", ""},
		{"of a named issuer", api.ExplainRequest{Claims: claims(nil), Issuer: "github"}, "granted", "", ""},
		{"with iss", api.ExplainRequest{Claims: claims(func(c map[string]any) { c["iss"] = githubURL })}, "granted", "", ""},
		{"long expired", api.ExplainRequest{Claims: claims(func(c map[string]any) { c["iat"], c["exp"] = 1, 2 })}, "granted", "", ""},
		{"an id as a number", api.ExplainRequest{Claims: claims(func(c map[string]any) { c["repository_id"] = 456789 })}, "refused", "claim_type", ""},
		{"no run", api.ExplainRequest{Claims: claims(func(c map[string]any) { delete(c, "run_id") })}, "refused", "wrong_token_kind", ""},
		{"another issuer", api.ExplainRequest{Claims: claims(nil), Issuer: "gitlab"}, "", "", access.CodeInvalid},
		{"a foreign iss", api.ExplainRequest{Claims: claims(func(c map[string]any) { c["iss"] = "https://x" })}, "", "", access.CodeInvalid},
		{"a list", api.ExplainRequest{Claims: json.RawMessage(`[1]`)}, "", "", access.CodeInvalid},
		{"a name twice", api.ExplainRequest{Claims: json.RawMessage(`{"ref":"a","ref":"b"}`)}, "", "", access.CodeInvalid},
		{"an exchange without a server", api.ExplainRequest{Exchange: "x_1"}, "", "", access.CodeInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := x.Explain(t.Context(), test.r)
			if access.CodeOf(err) != test.code {
				t.Fatalf("Explain = %v, want code %q", err, test.code)
			}
			reason := ""
			if got.Refusal != nil {
				reason = got.Refusal.Reason
			}
			if err == nil && (got.Outcome != test.outcome || reason != test.reason || got.Verified) {
				t.Errorf("got %s for %q, verified %v; want %s for %q", got.Outcome, reason, got.Verified, test.outcome, test.reason)
			}
		})
	}
}

// Every change that is named serves the job once it is made, loosens no tenant, and warns where strangers come in.
func TestNearestChange(t *testing.T) {
	w := newRig(t)
	byRepository := func(m *api.Mapping) { delete(m.Match, "repository_owner_id") }
	noEvent := func(m *api.Mapping) { delete(m.Match, "event_name") }
	for _, test := range []struct {
		name    string
		mapping func(*api.Mapping)
		claims  map[string]any
		yaml    string // "" where no change may be named
		warns   string
		advice  string
	}{
		{"another branch", nil, map[string]any{"ref": "refs/heads/next"}, "match:\n  ref: [refs/heads/main, refs/heads/next]\n", "", ""},
		{"a branch that is not protected", nil, map[string]any{"ref": "refs/heads/next", "ref_protected": "false"}, "match:\n  ref: [refs/heads/main, refs/heads/next]\n", "not protected", ""},
		{"another event", nil, map[string]any{"event_name": "schedule"}, "match:\n  event_name: [push, workflow_dispatch, schedule]\n", "", ""},
		{"an event of strangers", nil, map[string]any{"event_name": "issue_comment"}, "match:\n  event_name: [push, workflow_dispatch, issue_comment]\n", "without write access", ""},
		{"an event of strangers, by default", noEvent, map[string]any{"event_name": "pull_request_target"}, "match:\n  event_name: pull_request_target\n", "without write access", ""},
		{"another repository of the owner", nil, map[string]any{"repository_id": "7"}, "match:\n  repository_id: [\"456789\", \"7\"]\n", "every job of '7'", ""},
		{"another repository, and no owner is named", byRepository, map[string]any{"repository_id": "7"}, "", "", "do not widen it"},
		{"another owner", nil, map[string]any{"repository_owner_id": "7"}, "", "", "do not widen it"},
		{"another owner and another branch", nil, map[string]any{"repository_owner_id": "7", "ref": "refs/heads/x"}, "", "", "do not widen it"},
		{"a token without the job", nil, map[string]any{"check_run_id": nil}, "job_key: run\n", "names the run and not the job", ""},
		{"its when", nil, map[string]any{"runner_environment": "self-hosted"}, "", "", "its when keeps this job out"},
		{"an environment that the job has not", func(m *api.Mapping) { m.Match["environment"] = api.Values{"prod"} }, nil, "", "", "give the job an environment"},
		{"a value of control characters", nil, map[string]any{"ref": "refs/heads/a\u001b[2J\u202e"}, "", "", "none that a suggestion repeats"},
		{"a value that YAML would read otherwise", func(m *api.Mapping) { m.Match["environment"] = api.Values{"prod"} }, map[string]any{"environment": "yes: [x]"}, "match:\n  environment: [prod, 'yes: [x]']\n", "", ""},
		{"what is denied", func(m *api.Mapping) { m.Deny = map[string]api.Values{"actor_id": {"12"}} }, nil, "", "", "on purpose"},
		{"what is forbidden", func(m *api.Mapping) { m.Forbid = []string{"actor"} }, nil, "", "", "on purpose"},
		{"too old", func(m *api.Mapping) { m.MaxAge = api.Duration(time.Second) }, nil, "", "", "fresh one"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := explainer(t, w, mapping(t, test.mapping)).Explain(t.Context(), api.ExplainRequest{Token: w.token(test.claims)})
			if err != nil || len(got.Mappings) != 1 || got.Outcome != "refused" {
				t.Fatalf("got %+v, %v", got, err)
			}
			one := got.Mappings[0]
			text, warnings := "", ""
			if one.Change != nil {
				text, warnings = one.Change.YAML, strings.Join(one.Change.Warnings, "\n")
			}
			if text != test.yaml {
				t.Errorf("change %q, want %q", text, test.yaml)
			}
			if (warnings == "") != (test.warns == "") || !strings.Contains(warnings, test.warns) {
				t.Errorf("warnings %q, want %q", warnings, test.warns)
			}
			if advice := strings.Join(one.Advice, "\n"); (advice == "") != (test.advice == "") || !strings.Contains(advice, test.advice) {
				t.Errorf("advice %q, want %q", advice, test.advice)
			}
			if text == "" {
				return
			}
			changed := spec(t, test.mapping)
			if err := yaml.Unmarshal([]byte(text), &changed); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			m, err := federation.NewMapping(changed, deployment())
			if err != nil {
				t.Fatalf("the changed mapping is refused: %v", err)
			}
			id, err := w.Verify(t.Context(), w.token(test.claims))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Match(id, start); err != nil {
				t.Errorf("the changed mapping does not serve the job: %v", err)
			}
		})
	}
}

func TestExplainOrder(t *testing.T) {
	w := newRig(t)
	rename := func(name string, change func(*api.Mapping)) *federation.Mapping {
		return mapping(t, func(m *api.Mapping) {
			m.Name = name
			if change != nil {
				change(m)
			}
		})
	}
	stranger := rename("stranger", func(m *api.Mapping) {
		m.Match, m.When = map[string]api.Values{"repository_owner_id": {"9"}}, ""
	})
	far := rename("far", func(m *api.Mapping) {
		m.Match["ref"], m.Match["event_name"] = api.Values{"refs/heads/x"}, api.Values{"schedule"}
	})
	elsewhere := rename("elsewhere", func(m *api.Mapping) { m.Issuer = "ghes" })
	got, err := explainer(t, w, stranger, far, elsewhere, rename("near", nil), rename("near-too", nil)).Explain(t.Context(), api.ExplainRequest{Token: w.token(nil)})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range got.Mappings {
		order = append(order, m.Name)
	}
	if want := []string{"near", "near-too", "far", "stranger"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	if got.Refusal == nil || got.Refusal.Reason != "ambiguous" || !strings.Contains(got.Refusal.Detail, "near, near-too") {
		t.Errorf("two that serve: %+v", got.Refusal)
	}
	if !slices.Contains(got.Notes, "of mappings of other issuers, 1 are not shown") {
		t.Errorf("notes %q", got.Notes)
	}
}

func TestExplainNamedMapping(t *testing.T) {
	w := newRig(t)
	rename := func(name string) *federation.Mapping { return mapping(t, func(m *api.Mapping) { m.Name = name }) }
	x := explainer(t, w, rename("one"), rename("two"), mapping(t, func(m *api.Mapping) { m.Name, m.Issuer = "else", "ghes" }))
	for name, reason := range map[string]string{"one": "", "two": "", "": "ambiguous", "three": "unknown_mapping", "else": "no_mapping"} {
		got, err := x.Explain(t.Context(), api.ExplainRequest{Token: w.token(nil), Mapping: name})
		if err != nil {
			t.Fatal(err)
		}
		if reason == "" && (got.Outcome != "granted" || got.Mapping != name || len(got.Mappings) != 1) || reason != "" && (got.Refusal == nil || got.Refusal.Reason != reason) {
			t.Errorf("mapping %q: %s, %+v, %d mappings; want %q", name, got.Outcome, got.Refusal, len(got.Mappings), reason)
		}
	}
}

// What the provider says of a job counts as it does in an exchange.
func TestExplainAsksTheProvider(t *testing.T) {
	for _, test := range []struct {
		state    federation.LiveState
		err      error
		required bool
		outcome  string
	}{
		{federation.LiveRunning, nil, true, "granted"},
		{federation.LiveUnknown, nil, false, "granted"},
		{federation.LiveUnknown, nil, true, "refused"},
		{federation.LiveEnded, nil, false, "refused"},
		{federation.LiveSuperseded, nil, false, "refused"},
		{"", errors.New("the provider is away"), false, "granted"},
		{"", errors.New("the provider is away"), true, "refused"},
	} {
		w := newWorld(t, agents(func(m *api.Mapping) { m.Live = test.required }))
		w.live.set(test.state, test.err)
		rig := newRig(t)
		rig.clock.set(time.Now())
		x, err := federation.NewExplainer(federation.ExplainerConfig{Verifier: rig.Verifier, Mappings: w.mappings.InForce, Exchange: w.exchange})
		if err != nil {
			t.Fatal(err)
		}
		got, err := x.Explain(t.Context(), api.ExplainRequest{Token: rig.token(nil)})
		if err != nil || got.Outcome != test.outcome || test.outcome == "refused" && got.Refusal.Reason != "job_ended" {
			t.Errorf("%+v: %s, %+v, %v", test, got.Outcome, got.Refusal, err)
		}
	}
}

// The refusal that a job reads is that of the mapping that was most likely meant for it.
func TestRefusalIsOfTheNearest(t *testing.T) {
	far := func(m *api.Mapping) {
		m.Match["ref"], m.Match["event_name"] = api.Values{"refs/heads/x"}, api.Values{"schedule"}
	}
	near := func(m *api.Mapping) { m.Match["ref"] = api.Values{"refs/heads/next"} }
	stranger := func(m *api.Mapping) { m.Match = map[string]api.Values{"repository_owner_id": {"77"}} }
	w := newWorld(t, agents(named("a-far"), far), agents(named("b-near"), near), agents(named("c-far"), far), agents(named("d-stranger"), stranger))
	_, err := w.open("1/a")
	wantRefused(t, err, access.CodeTarget, "claim_mismatch", "mapping b-near: claim ref is 'refs/heads/main', wanted 'refs/heads/next' (exchange x_")
}

// A token is not used up by an explanation, and one that was used is told so.
func TestExplainOpensNothing(t *testing.T) {
	w := newWorld(t, agents())
	rig := newRig(t, func(c *federation.VerifierConfig) { c.Now = time.Now })
	x, err := federation.NewExplainer(federation.ExplainerConfig{Verifier: rig.Verifier, Mappings: w.mappings.InForce, Exchange: w.exchange})
	if err != nil {
		t.Fatal(err)
	}
	rig.clock.set(time.Now())
	token := rig.token(nil)
	open, err := federation.NewExchange(federation.ExchangeConfig{Verify: rig.Verify, Mappings: w.mappings, Sessions: w.sessions, Store: w.db})
	if err != nil {
		t.Fatal(err)
	}
	explained := func() api.Explanation {
		t.Helper()
		e, err := x.Explain(t.Context(), api.ExplainRequest{Token: token})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for range 2 {
		if e := explained(); e.Outcome != "granted" || e.Mapping != "agents" {
			t.Fatalf("before the exchange: %+v", e)
		}
	}
	w.halt(access.StopMapping, "agents")
	if e := explained(); e.Outcome != "refused" || e.Refusal.Reason != "stopped" || !strings.Contains(e.Refusal.Detail, "key leaked") {
		t.Errorf("while it is stopped: %+v, %+v", e.Outcome, e.Refusal)
	}
	w.resume(access.StopMapping, "agents")
	if list, err := w.sessions.List(t.Context(), false); err != nil || len(list) != 0 {
		t.Fatalf("explaining opened %v, %v", list, err)
	}
	opened, err := open.Open(t.Context(), federation.OpenRequest{Token: token})
	if err != nil {
		t.Fatalf("the explained token does not open: %v", err)
	}
	if e := explained(); e.Outcome != "refused" || e.Refusal.Reason != "replayed" || !strings.Contains(e.Refusal.Detail, opened.Session.ID) {
		t.Errorf("after the exchange: %+v, %+v", e.Outcome, e.Refusal)
	}
	if err := w.sessions.End(t.Context(), opened.Session.ID, access.EndOperator, "test"); err != nil {
		t.Fatal(err)
	}
	token = rig.token(map[string]any{"jti": "another"})
	if e := explained(); e.Outcome != "refused" || e.Refusal.Reason != "window_over" || !strings.Contains(e.Refusal.Detail, "an operator closed it") {
		t.Errorf("after the end: %+v, %+v", e.Outcome, e.Refusal)
	}
}

func TestExplainExchange(t *testing.T) {
	w := newWorld(t, agents(func(m *api.Mapping) { m.Match["ref"] = api.Values{"refs/heads/next"} }))
	x, err := federation.NewExplainer(federation.ExplainerConfig{Verifier: newRig(t).Verifier, Mappings: w.mappings.InForce, Exchange: w.exchange})
	if err != nil {
		t.Fatal(err)
	}
	last := func() string { return w.audit[len(w.audit)-1].Exchange }
	if _, err := w.open("1/a"); err == nil {
		t.Fatal("the job was served")
	}
	got, err := x.Explain(t.Context(), api.ExplainRequest{Exchange: last()})
	if err != nil {
		t.Fatal(err)
	}
	if got.Then == nil || got.Then.Outcome != "refused" || got.Then.Reason != "claim_mismatch" || !strings.Contains(got.Then.Detail, "claim ref is 'refs/heads/main'") ||
		!got.Verified || len(got.Mappings) != 1 || got.Mappings[0].Change == nil {
		t.Errorf("a refused exchange: %+v, %+v", got, got.Then)
	}
	if _, err := w.open("no token"); err == nil {
		t.Fatal("it opened")
	}
	if got, err = x.Explain(t.Context(), api.ExplainRequest{Exchange: last()}); err != nil || got.Verified || got.Refusal == nil || got.Refusal.Reason != "malformed" || got.Outcome != "refused" {
		t.Errorf("a token that did not verify: %+v, %v", got, err)
	}
	if _, err := x.Explain(t.Context(), api.ExplainRequest{Exchange: "x_unknown"}); access.CodeOf(err) != access.CodeNotFound || !strings.Contains(err.Error(), "log") {
		t.Errorf("an unknown exchange: %v", err)
	}
}

func TestSuggest(t *testing.T) {
	w := newRig(t)
	for _, test := range []struct {
		name    string
		claims  map[string]any
		want    string // a part of the match
		warning string
	}{
		{"a push", nil, "match:\n  event_name: push\n  ref: refs/heads/main\n  repository_id: \"456789\"\n  repository_owner_id: \"123456\"\n", ""},
		{"an environment", map[string]any{"environment": "prod"}, "environment: prod\n", ""},
		{"a comment", map[string]any{"event_name": "issue_comment"}, "event_name: issue_comment\n", "without write access"},
		{"a pull request", map[string]any{"event_name": "pull_request", "ref": "refs/pull/7/merge", "head_ref": "x"}, "match:\n  event_name: pull_request\n  repository_id:", "without write access"},
		{"no job in the token", map[string]any{"check_run_id": nil}, "job_key: run\n", "names the run"},
		{"a hostile ref", map[string]any{"ref": "refs/heads/\u001b]0;x\u0007\nname: other"}, "match:\n  event_name: push\n  repository_id:", "not pinned"},
	} {
		t.Run(test.name, func(t *testing.T) {
			id, err := w.Verify(t.Context(), w.token(test.claims))
			if err != nil {
				t.Fatal(err)
			}
			s, err := federation.Suggest(id, nil, deployment().Connections)
			if err != nil {
				t.Fatal(err)
			}
			text, err := s.YAML()
			if err != nil || !strings.Contains(text, test.want) {
				t.Errorf("got %q, %v; want in it %q", text, err, test.want)
			}
			warnings := strings.Join(s.Warnings, "\n")
			if (warnings == "") != (test.warning == "") || !strings.Contains(warnings, test.warning) {
				t.Errorf("warnings %q, want %q", warnings, test.warning)
			}
			for _, r := range text {
				if r != '\n' && (r < 0x20 || r > 0x7e) {
					t.Errorf("the suggestion has the character %q:\n%s", r, text)
				}
			}
			servesAsWritten(t, text, id)
		})
	}
}

// servesAsWritten reads a suggestion as a file would be, and looks whether it serves the job that it was made of.
func servesAsWritten(t *testing.T, text string, id access.Identity) {
	t.Helper()
	var written api.Mapping
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&written); err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	m, err := federation.NewMapping(written, deployment())
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	if err := m.Match(id, start); err != nil {
		t.Errorf("%s\ndoes not serve the job: %v", text, err)
	}
}

// Of every provider whose tokens are in the vectors a suggestion is a mapping that is taken and serves the job.
func TestSuggestForProviders(t *testing.T) {
	issuers := map[string]federation.Issuer{}
	for _, issuer := range deployment().Issuers {
		issuers[issuer.Provider] = issuer
	}
	for _, test := range []struct {
		provider string
		claims   access.Claims
	}{
		{"gitlab", access.Claims{"namespace_id": "1", "project_id": "2", "job_namespace_id": "1", "job_project_id": "2", "job_id": "3", "pipeline_id": "4",
			"ref_path": "refs/heads/main", "pipeline_source": "push", "project_path": "g/p"}},
		{"gitlab", access.Claims{"namespace_id": "1", "project_id": "2", "job_namespace_id": "8", "job_project_id": "9", "job_id": "3", "pipeline_id": "4",
			"pipeline_source": "merge_request_event", "project_path": "g/p"}},
		{"buildkite", access.Claims{"organization_id": "0184990a", "pipeline_id": "77", "pipeline_slug": "p", "job_id": "3", "build_branch": "main", "build_source": "webhook"}},
		{"jenkins", access.Claims{"sub": "https://jenkins.example.test/job/x/", "build_number": json.Number("7")}},
		{"google-cloud-build", access.Claims{"sub": "1234567890", "email": "x@y.example"}},
		{"circleci", access.Claims{"oidc.circleci.com/org-id": "o-1", "oidc.circleci.com/project-id": "p-1", "oidc.circleci.com/job-id": "j", "oidc.circleci.com/ssh-rerun": true}},
	} {
		t.Run(test.provider+" "+fmt.Sprint(test.claims["pipeline_source"]), func(t *testing.T) {
			issuer := issuers[test.provider]
			id := access.Identity{Issuer: issuer.Name, IssuerURL: issuer.URL, Provider: test.provider, Claims: test.claims, JobKey: "x", IssuedAt: start}
			s, err := federation.Suggest(id, nil, deployment().Connections)
			if err != nil {
				t.Fatal(err)
			}
			text, err := s.YAML()
			if err != nil {
				t.Fatal(err)
			}
			servesAsWritten(t, text, id)
			if dangerous := test.claims["pipeline_source"] == "merge_request_event" || test.provider == "circleci"; dangerous && len(s.Warnings) == 0 {
				t.Errorf("no warning:\n%s", text)
			}
		})
	}
}

func TestPreview(t *testing.T) {
	w := newWorld(t, filed())
	put := func(spec api.Mapping, revision int64) {
		t.Helper()
		_, err := w.mappings.Put(t.Context(), spec, revision, "test")
		w.must(err)
	}
	if p, err := w.mappings.Preview(agents(), 0); err != nil || !p.Changed || p.Row.Revision != 0 || len(p.Ends)+p.Stay != 0 {
		t.Errorf("a new mapping: %+v, %v", p, err)
	}
	put(agents(), 0)
	opened, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/a", Mapping: "agents"})
	w.must(err)
	for _, test := range []struct {
		name    string
		spec    api.Mapping
		changed bool
		ends    string // a part of why, "" where the session stays
	}{
		{"nothing", agents(), false, ""},
		{"other grants", agents(func(m *api.Mapping) { m.Grants = m.Grants[:1] }), true, ""},
		{"another ref", agents(func(m *api.Mapping) { m.Match["ref"] = api.Values{"refs/heads/next"} }), true, "claim ref is 'refs/heads/main'"},
	} {
		p, err := w.mappings.Preview(test.spec, 1)
		if err != nil || p.Changed != test.changed || p.Row.Revision != 1 || p.Before.Name != "agents" {
			t.Errorf("%s: %+v, %v", test.name, p, err)
			continue
		}
		switch {
		case test.ends == "" && (p.Stay != 1 || len(p.Ends) != 0):
			t.Errorf("%s: %d stay, %v end", test.name, p.Stay, p.Ends)
		case test.ends != "" && (len(p.Ends) != 1 || p.Ends[0].ID != opened.Session.ID || !strings.Contains(p.Ends[0].Why, test.ends)):
			t.Errorf("%s: %d stay, %v end", test.name, p.Stay, p.Ends)
		}
	}
	w.wantCall(opened, "")
	if info, err := w.mappings.Get("agents"); err != nil || info.Row.Revision != 1 {
		t.Errorf("a preview changed the mapping: %+v, %v", info, err)
	}
	for name, err := range map[string]error{
		"the file's own": second(w.mappings.Preview(filed(), 0)), "an old revision": second(w.mappings.Preview(agents(), 7)),
	} {
		if access.CodeOf(err) != access.CodeConflict {
			t.Errorf("%s: %v, want a conflict", name, err)
		}
	}
}

// filed is a mapping of the configuration file, of a repository of its own.
func filed() api.Mapping {
	return agents(named("filed"), repository("2"))
}

func second[T any](_ T, err error) error { return err }
