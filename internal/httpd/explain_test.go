package httpd_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/api"
)

const servedClaims = `{"repository_owner_id":"123456","repository_id":"456789","repository":"octo/tools","ref":"refs/heads/main",
	"event_name":"push","run_id":"1","run_attempt":"1","check_run_id":"2"}`

func TestExplain(t *testing.T) {
	w := newWorld(t, mapping("agents"))
	people := w.people()
	for _, c := range []struct {
		name, body      string
		outcome, reason string
	}{
		{"claims that are served", `{"claims":` + servedClaims + `}`, "granted", ""},
		{"claims of another event", `{"claims":` + strings.Replace(servedClaims, `"push"`, `"issue_comment"`, 1) + `}`, "refused", "no_mapping"},
		{"a token that is none", `{"token":"eyJhbGciOiJub25lIn0.e30.c2VjcmV0c2lnbmF0dXJl"}`, "refused", "alg_not_allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decode[api.Explanation](t, admin(t, people, "POST", "/v1/explain", c.body), 200)
			reason := ""
			if got.Refusal != nil {
				reason = got.Refusal.Reason
			}
			if got.Outcome != c.outcome || reason != c.reason {
				t.Errorf("got %s for %q, want %s for %q", got.Outcome, reason, c.outcome, c.reason)
			}
		})
	}
	for _, c := range []struct{ name, body string }{
		{"no question", `{}`},
		{"two questions", `{"token":"a.b.c","exchange":"x_1"}`},
		{"an unknown key", `{"jwt":"a.b.c"}`},
		{"no JSON", `token=a.b.c`},
		{"claims that are no object", `{"claims":[]}`},
		{"an unknown issuer", `{"claims":{},"issuer":"gitlab"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := problem(t, admin(t, people, "POST", "/v1/explain", c.body), 400, "invalid_request")
			if strings.Contains(p.Detail, "a.b.c") {
				t.Errorf("the answer repeats the token: %s", p.Detail)
			}
		})
	}
	if w.log.Len() > 0 {
		t.Errorf("something was logged: %s", w.log.String())
	}
}

func TestPreviewOfAPut(t *testing.T) {
	w := newWorld(t, mapping("filed"))
	people := w.people()
	body := func(m api.Mapping) string {
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	got := decode[api.MappingPreview](t, admin(t, people, "PUT", "/v1/mappings/agents?dry_run=true", body(mapping("agents"))), 200)
	if !got.Changed || got.Revision != 0 || got.Before != nil || len(got.Ends) != 0 {
		t.Errorf("a new mapping: %+v", got)
	}
	problem(t, admin(t, people, "GET", "/v1/mappings/agents", ""), 404, "not_found")

	decode[api.MappingView](t, admin(t, people, "PUT", "/v1/mappings/agents", body(mapping("agents"))), 200)
	got = decode[api.MappingPreview](t, admin(t, people, "PUT", "/v1/mappings/agents?dry_run=true", body(mapping("agents"))), 200)
	if got.Changed || got.Revision != 1 || got.Before == nil {
		t.Errorf("the same again: %+v", got)
	}
	problem(t, admin(t, people, "PUT", "/v1/mappings/agents?dry_run=true", body(mapping("agents")), "If-Match", `"7"`), 412, "conflict")
	problem(t, admin(t, people, "PUT", "/v1/mappings/agents?dry_run=maybe", body(mapping("agents"))), 400, "invalid_request")
	problem(t, admin(t, people, "PUT", "/v1/mappings/filed?dry_run=true", body(mapping("filed"))), 409, "conflict")
	bad := mapping("agents")
	bad.Grants = nil
	problem(t, admin(t, people, "PUT", "/v1/mappings/agents?dry_run=true", body(bad)), 400, "invalid_request")
}
