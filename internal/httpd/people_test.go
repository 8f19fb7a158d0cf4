package httpd_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/httpd"
)

func TestWhoMayAsk(t *testing.T) {
	w := newWorld(t)
	withToken := w.people()
	without := w.people(func(c *httpd.PeopleConfig) { c.Token = access.Secret{} })
	for _, c := range []struct {
		name    string
		handler http.Handler
		headers []string
		status  int
	}{
		{"no token", withToken, nil, 401},
		{"the token", withToken, []string{"Authorization", "Bearer " + adminToken}, 200},
		{"the scheme in lower case", withToken, []string{"Authorization", "bearer " + adminToken}, 200},
		{"a wrong token", withToken, []string{"Authorization", "Bearer " + adminToken + "x"}, 401},
		{"a part of the token", withToken, []string{"Authorization", "Bearer " + adminToken[:8]}, 401},
		{"another scheme", withToken, []string{"Authorization", "Basic " + adminToken}, 401},
		{"the token alone", withToken, []string{"Authorization", adminToken}, 401},
		{"the token as cookie", withToken, []string{"Cookie", "token=" + adminToken}, 401},
		{"the token as API key", withToken, []string{"X-Api-Key", adminToken}, 401},
		{"no token is set, none is shown", without, nil, 401},
		{"no token is set, an empty one is shown", without, []string{"Authorization", "Bearer "}, 401},
		{"the socket", withToken.Socket(), nil, 200},
		{"the socket where no token is set", without.Socket(), nil, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ask(t, c.handler, "GET", "/v1/mappings", "", c.headers...)
			if got.Code != c.status {
				t.Fatalf("status %d, want %d: %s", got.Code, c.status, got.Body)
			}
			if c.status == 401 {
				problem(t, got, 401, "unauthenticated")
				if got.Header().Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("WWW-Authenticate is %q, want Bearer", got.Header().Get("WWW-Authenticate"))
				}
			}
		})
	}
}

// Every path of the admin API but its own description asks for the token, whatever its method.
func TestEveryRouteAsksForTheToken(t *testing.T) {
	people := newWorld(t).people()
	open := map[string]bool{"/healthz": true, "/readyz": true, "/metrics": true, "/v1/openapi.yaml": true, "/hooks/slack/interactions": true}
	for _, route := range people.Routes() {
		method, path, _ := strings.Cut(route, " ")
		if got := ask(t, people, method, path, ""); (got.Code == 401) == open[path] {
			t.Errorf("%s without a token: status %d, open to all: %v", route, got.Code, open[path])
		}
	}
}

func TestPeopleSideHeaders(t *testing.T) {
	got := ask(t, newWorld(t).people(), "GET", "/v1/mappings", "")
	for name, want := range map[string]string{
		"X-Content-Type-Options":       "nosniff",
		"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control":                "no-store",
	} {
		if got.Header().Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.Header().Get(name), want)
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	people := newWorld(t).people()
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/", 404, "not_found"},
		{"GET", "/v1/mappings/", 404, "not_found"}, // neither redirected nor cleaned
		{"GET", "//v1/mappings", 404, "not_found"},
		{"GET", "/V1/mappings", 404, "not_found"},
		{"GET", "/v1/mappings/../sessions", 404, "not_found"},
		{"GET", "/anthropic/v1/messages", 404, "not_found"},
		{"GET", "/oauth/token", 404, "not_found"},
		{"PATCH", "/v1/mappings/agents", 405, "method_not_allowed"},
		{"POST", "/v1/sessions", 405, "method_not_allowed"},
		{"GET", "/v1/approvals/a_1/approve", 405, "method_not_allowed"},
	} {
		got := admin(t, people, c.method, c.path, "")
		problem(t, got, c.status, c.code)
	}
}

func TestMappings(t *testing.T) {
	w := newWorld(t, mapping("filed"))
	w.sessions.rows["s_1"] = openSession("s_1")
	people := w.people()
	body := func(m api.Mapping) string {
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}

	created := admin(t, people, "PUT", "/v1/mappings/agents", body(mapping("agents")))
	view := decode[api.MappingView](t, created, 200)
	if view.Revision != 1 || view.Source != "api" || view.By != "admin token" || view.Sessions != 1 || created.Header().Get("ETag") != `"1"` {
		t.Errorf("created: %+v, ETag %s", view, created.Header().Get("ETag"))
	}
	nameless := mapping("agents")
	nameless.Name = ""
	t.Run("a change says what it changes", func(t *testing.T) {
		problem(t, admin(t, people, "PUT", "/v1/mappings/agents", body(nameless)), 428, "conflict")
		problem(t, admin(t, people, "PUT", "/v1/mappings/agents", body(nameless), "If-Match", `"7"`), 412, "conflict")
		problem(t, admin(t, people, "PUT", "/v1/mappings/agents", body(nameless), "If-Match", `"one"`), 400, "invalid_request")
		problem(t, admin(t, people, "PUT", "/v1/mappings/agents", body(nameless), "If-Match", "*"), 400, "invalid_request")
		changed := decode[api.MappingView](t, admin(t, people, "PUT", "/v1/mappings/agents", body(nameless), "If-Match", `"1"`), 200)
		if changed.Revision != 2 || changed.Name != "agents" {
			t.Errorf("changed: %+v", changed)
		}
	})
	t.Run("the file's own", func(t *testing.T) {
		p := problem(t, admin(t, people, "PUT", "/v1/mappings/filed", body(mapping("filed")), "If-Match", `"1"`), 409, "conflict")
		if !strings.Contains(p.Detail, `is from mappings.d/filed.yaml; change it there`) {
			t.Errorf("detail %q does not say where the mapping is from", p.Detail)
		}
	})
	t.Run("delete, and restore what the file has", func(t *testing.T) {
		problem(t, admin(t, people, "DELETE", "/v1/mappings/filed", "", "If-Match", `"5"`), 412, "conflict")
		if got := admin(t, people, "DELETE", "/v1/mappings/filed", "", "If-Match", `"1"`); got.Code != 204 || got.Body.Len() > 0 {
			t.Errorf("delete: status %d, %q", got.Code, got.Body)
		}
		problem(t, admin(t, people, "DELETE", "/v1/mappings/filed", ""), 404, "not_found")
		gone := decode[api.MappingView](t, admin(t, people, "GET", "/v1/mappings/filed", ""), 200)
		if !gone.Deleted || gone.By != "admin token" || gone.Revision != 2 {
			t.Errorf("the tombstone: %+v", gone)
		}
		back := decode[api.MappingView](t, admin(t, people, "POST", "/v1/mappings/filed/restore", ""), 200)
		if back.Deleted || back.Revision != 3 {
			t.Errorf("restored: %+v", back)
		}
		problem(t, admin(t, people, "POST", "/v1/mappings/filed/restore", ""), 409, "conflict")
		problem(t, admin(t, people, "POST", "/v1/mappings/nobody/restore", ""), 404, "not_found")
	})
	list := decode[api.MappingList](t, admin(t, people, "GET", "/v1/mappings", ""), 200)
	if len(list.Items) != 2 || list.Items[0].Name != "agents" || list.Items[1].Name != "filed" {
		t.Errorf("list: %+v", list)
	}
	problem(t, admin(t, people, "GET", "/v1/mappings/nobody", ""), 404, "not_found")
}

func TestBadMappings(t *testing.T) {
	people := newWorld(t).people()
	good, err := json.Marshal(mapping("agents"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, body string
		status     int
		code, want string
	}{
		{"empty", "", 400, "invalid_request", "read JSON"},
		{"no JSON", "name: agents", 400, "invalid_request", "read JSON"},
		{"two values", string(good) + "{}", 400, "invalid_request", "more than one"},
		{"an unknown key", `{"name":"agents","issuer":"github","grant":[]}`, 400, "invalid_request", `"grant"`},
		{"another name", strings.Replace(string(good), "agents", "others", 1), 400, "invalid_request", `names the mapping "others", the path "agents"`},
		{"an unknown issuer", strings.Replace(string(good), "github", "gitlab", 1), 400, "invalid_request", "issuer: "},
		{"an unknown connection", strings.Replace(string(good), "anthropic", "openai", 1), 400, "invalid_request", "grants[0].connection: "},
		{"no tenant", `{"name":"agents","issuer":"github","match":{"ref":"refs/heads/main"},"grants":[{"connection":"anthropic","allow":[]}]}`,
			400, "invalid_request", "match"},
		{"too long", `{"name":"` + strings.Repeat("a", 1<<20) + `"}`, 413, "too_large", "1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := problem(t, admin(t, people, "PUT", "/v1/mappings/agents", c.body), c.status, c.code)
			if !strings.Contains(p.Detail, c.want) {
				t.Errorf("detail %q does not name %q", p.Detail, c.want)
			}
		})
	}
	problem(t, admin(t, people, "GET", "/v1/mappings/agents", ""), 404, "not_found")
}

func TestSessions(t *testing.T) {
	w := newWorld(t)
	over := openSession("s_2")
	over.State, over.Ended, over.Reason, over.InForce = access.Ended, noon, access.EndClosed, 0
	w.sessions.rows["s_1"], w.sessions.rows["s_2"] = openSession("s_1"), over
	people := w.people()

	if all := decode[api.List[api.SessionView]](t, admin(t, people, "GET", "/v1/sessions", ""), 200); len(all.Items) != 2 {
		t.Errorf("all: %+v", all)
	}
	open := decode[api.List[api.SessionView]](t, admin(t, people, "GET", "/v1/sessions?state=open", ""), 200)
	if len(open.Items) != 1 || open.Items[0].ID != "s_1" || open.Items[0].Claims != nil {
		t.Errorf("open: %+v", open)
	}
	problem(t, admin(t, people, "GET", "/v1/sessions?state=ended", ""), 400, "invalid_request")

	one := decode[api.SessionView](t, admin(t, people, "GET", "/v1/sessions/s_1", ""), 200)
	if one.Revision != 3 || one.Usage["anthropic"].Requests != 2 || one.Tally.Denials != 1 || one.Claims["ref"] != "refs/heads/main" || one.Ended != nil {
		t.Errorf("s_1: %+v", one)
	}
	ended := decode[api.SessionView](t, admin(t, people, "GET", "/v1/sessions/s_2", ""), 200)
	if ended.Revision != 1 || ended.EndReason != "closed" || ended.Ended == nil {
		t.Errorf("s_2: %+v", ended)
	}
	problem(t, admin(t, people, "GET", "/v1/sessions/s_3", ""), 404, "not_found")

	if got := admin(t, people, "DELETE", "/v1/sessions/s_1", ""); got.Code != 204 {
		t.Errorf("end: status %d", got.Code)
	}
	if got := ask(t, people.Socket(), "DELETE", "/v1/sessions/s_2", ""); got.Code != 204 {
		t.Errorf("end over the socket: status %d", got.Code)
	}
	want := []string{"s_1 operator admin token", "s_2 operator operator on the control socket"}
	if strings.Join(w.sessions.ended, "\n") != strings.Join(want, "\n") {
		t.Errorf("ended %q, want %q", w.sessions.ended, want)
	}
	problem(t, admin(t, people, "DELETE", "/v1/sessions/s_3", ""), 404, "not_found")
}

func TestApprovals(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"a_1", "a_2", "a_3"} {
		w.desk.rows[id] = question(id)
	}
	people := w.people()

	yes := decode[api.ApprovalView](t, admin(t, people, "POST", "/v1/approvals/a_1/approve", ""), 200)
	if yes.State != "approved" || yes.By != "admin token" || yes.Via != "api" || yes.Decided == nil || yes.Approvers == nil {
		t.Errorf("approved: %+v", yes)
	}
	no := decode[api.ApprovalView](t, ask(t, people.Socket(), "POST", "/v1/approvals/a_2/deny", `{"reason":"not today"}`, "Jobgate-Client", "cli", "X-Forwarded-User", "ana"), 200)
	if no.State != "denied" || no.By != "operator on the control socket" || no.Via != "cli" || no.VoteReason != "not today" {
		t.Errorf("denied: %+v", no)
	}
	p := problem(t, admin(t, people, "POST", "/v1/approvals/a_1/deny", ""), 409, "conflict")
	if !strings.Contains(p.Detail, "already approved by admin token") {
		t.Errorf("detail %q does not say how it ended", p.Detail)
	}
	problem(t, admin(t, people, "POST", "/v1/approvals/a_9/approve", ""), 404, "not_found")
	problem(t, admin(t, people, "POST", "/v1/approvals/a_3/approve", `{"by":"ana"}`), 400, "invalid_request")
	problem(t, admin(t, people, "POST", "/v1/approvals/a_3/approve", `{"reason":"`+strings.Repeat("a", 1<<20)+`"}`), 413, "too_large")
	problem(t, admin(t, people, "GET", "/v1/approvals?state=open", ""), 400, "invalid_request")

	pending := decode[api.List[api.ApprovalView]](t, admin(t, people, "GET", "/v1/approvals?state=pending", ""), 200)
	if len(pending.Items) != 1 || pending.Items[0].ID != "a_3" {
		t.Errorf("pending: %+v", pending)
	}
	if got := decode[api.ApprovalView](t, admin(t, people, "GET", "/v1/approvals/a_3", ""), 200); got.State != "pending" || got.Text != "make deploy" {
		t.Errorf("a_3: %+v", got)
	}
	problem(t, admin(t, people, "GET", "/v1/approvals/a_9", ""), 404, "not_found")
}

// What fails inside is told to the log only; what is away is told as such.
func TestErrorsOfTheInside(t *testing.T) {
	w := newWorld(t)
	w.sessions.rows["s_1"] = openSession("s_1")
	people := w.people()
	w.sessions.err = errors.New("disk /dev/vda is on fire")
	p := problem(t, admin(t, people, "GET", "/v1/sessions", ""), 500, "internal")
	if strings.Contains(p.Detail, "vda") || !strings.Contains(w.log.String(), "vda") {
		t.Errorf("detail %q, log %q: the cause belongs into the log alone", p.Detail, w.log.String())
	}
	w.sessions.err = &access.Error{Code: access.CodeUnavailable, Public: "the store is away", Err: errors.New("no route")}
	if p := problem(t, admin(t, people, "GET", "/v1/sessions", ""), 503, "temporarily_unavailable"); p.Detail != "the store is away" {
		t.Errorf("detail %q", p.Detail)
	}
}

func TestPanicIsAnswered(t *testing.T) {
	w := newWorld(t)
	people := w.people(func(c *httpd.PeopleConfig) { c.Sessions = panicking{w.sessions} })
	if got := admin(t, people, "GET", "/v1/sessions/s_1", ""); got.Code != 500 {
		t.Errorf("status %d, want 500", got.Code)
	}
	if !strings.Contains(w.log.String(), "a handler panicked") {
		t.Errorf("the log does not tell of it: %q", w.log.String())
	}
}

type panicking struct{ *fakeSessions }

func (panicking) Get(context.Context, string) (federation.SessionInfo, error) { panic("impossible") }

func TestHealth(t *testing.T) {
	w := newWorld(t)
	people := w.people()
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/openapi.yaml": 200} {
		if got := ask(t, people, "GET", path, ""); got.Code != want {
			t.Errorf("%s: status %d, want %d", path, got.Code, want)
		}
	}
	w.ready = errors.New("the spool is full")
	got := ask(t, people, "GET", "/readyz", "")
	if got.Code != 503 || strings.Contains(got.Body.String(), "spool") {
		t.Errorf("not ready: status %d, %q", got.Code, got.Body)
	}
	if got := ask(t, people, "GET", "/healthz", ""); got.Code != 200 {
		t.Errorf("a process that is not ready lives all the same: status %d", got.Code)
	}
	bare := w.people(func(c *httpd.PeopleConfig) { c.Slack, c.Metrics, c.Ready = nil, nil, nil })
	problem(t, ask(t, bare, "POST", "/hooks/slack/interactions", ""), 404, "not_found")
	problem(t, ask(t, bare, "GET", "/metrics", ""), 404, "not_found")
	if got := ask(t, bare, "GET", "/readyz", ""); got.Code != 200 {
		t.Errorf("ready without a check: status %d", got.Code)
	}
}
