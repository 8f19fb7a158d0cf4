package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
)

var mintForeign = testkit.MintOptions{Foreign: true}

// connect shows an assertion at a connection's own door, as Anthropic's clients do.
func (w *world) connect(connection, assertion, rule string) (int, api.Token, api.OAuthError) {
	w.t.Helper()
	body, _ := json.Marshal(map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion,
		"federation_rule_id": rule, "organization_id": "any", "service_account_id": "svac_1", "workspace_id": "wrkspc_1"})
	req, err := http.NewRequest("POST", w.base()+"/"+connection+"/v1/oauth/token", bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Anthropic-Beta", "oauth-2025-04-20,oidc-federation-2026-04-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	var ok api.Token
	var bad api.OAuthError
	_ = json.Unmarshal(raw, &ok)
	_ = json.Unmarshal(raw, &bad)
	return resp.StatusCode, ok, bad
}

// status is what a GET of a path gets with a token.
func (w *world) status(token, path string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequest("GET", w.base()+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw)
}

// plainUpstream is a service of kind http.
func plainUpstream(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func twoConnections(t *testing.T) worldConfig {
	t.Helper()
	upstream := plainUpstream(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a file") })
	return worldConfig{
		script:      holding,
		connections: fmt.Sprintf("  - {name: files, kind: http, upstream: %q, credential: {header: authorization, prefix: 'Bearer ', value: 'env:MODEL_KEY'}}", upstream),
		grants:      `      - {connection: files, allow: ["GET /{name}"]}`,
	}
}

// TestFirstDoor is RFC 8693 with its parameters, over the whole server.
func TestFirstDoor(t *testing.T) {
	w := newWorld(t, twoConnections(t))
	job := w.job(nil)
	shown := w.token(job)
	status, token, bad := w.exchange(shown, nil)
	if status != http.StatusOK || !strings.HasPrefix(token.AccessToken, "jg_") || token.TokenType != "Bearer" || token.Scope != "anthropic files" || len(token.Connections) != 2 {
		t.Fatalf("exchange = %d %+v %+v", status, token, bad)
	}
	for _, c := range token.Connections {
		if c.BaseURL != w.base()+"/"+c.Name {
			t.Errorf("the base URL of %s is %s", c.Name, c.BaseURL)
		}
		for name, value := range c.Env {
			if strings.Contains(value, "jg_") || strings.Contains(value, worldKey) {
				t.Errorf("env %s of %s is a token", name, c.Name)
			}
		}
	}
	if status, body := w.status(token.AccessToken, "/files/readme"); status != http.StatusOK || body != "a file" {
		t.Errorf("GET of the http connection = %d %s", status, body)
	}
	w.openFails(shown, "invalid_grant") // shown twice

	status, narrow, _ := w.exchange(w.token(job), url.Values{"scope": {"anthropic"}})
	if status != http.StatusOK || narrow.Scope != "anthropic" || narrow.SessionID != token.SessionID {
		t.Errorf("with a scope = %d %+v", status, narrow)
	}
	if status, body := w.status(narrow.AccessToken, "/files/readme"); status != http.StatusForbidden || !strings.Contains(body, "Jobgate:") {
		t.Errorf("a connection outside of the scope = %d %s", status, body)
	}
	if status, body := w.ask(narrow.AccessToken, "hello"); status != http.StatusOK {
		t.Errorf("a connection of the scope = %d %s", status, body)
	}
	for name, c := range map[string]struct {
		form url.Values
		code string
		says string
	}{
		"a scope that is not granted":  {url.Values{"scope": {"anthropic other"}}, "invalid_scope", "other"},
		"a mapping that is not there":  {url.Values{"mapping": {"nobody"}}, "invalid_target", ""},
		"a token of another type":      {url.Values{"subject_token_type": {"urn:ietf:params:oauth:token-type:saml2"}}, "invalid_request", ""},
		"another grant type":           {url.Values{"grant_type": {"client_credentials"}}, "invalid_request", ""},
		"no token":                     {url.Values{"subject_token": {""}}, "invalid_request", ""},
		"no JWT":                       {url.Values{"subject_token": {"hello"}}, "invalid_grant", ""},
		"an access token of Jobgate's": {url.Values{"subject_token": {token.AccessToken}}, "invalid_grant", ""},
	} {
		status, _, bad := w.exchange(w.token(job), c.form)
		if name == "another grant type" && bad.Error == "unsupported_grant_type" {
			bad.Error = c.code
		}
		if status != http.StatusBadRequest || bad.Error != c.code || !strings.Contains(bad.Description, c.says) {
			t.Errorf("%s = %d %+v, want 400 %s", name, status, bad, c.code)
		}
	}
}

// TestConnectionsDoor is the exchange of Anthropic's clients: the first opens, the others join.
func TestConnectionsDoor(t *testing.T) {
	w := newWorld(t, twoConnections(t))
	shown := w.token(w.job(nil))
	status, first, bad := w.connect("anthropic", shown, "fdrl_agents")
	if status != http.StatusOK || !strings.HasPrefix(first.AccessToken, "jg_") || first.ExpiresIn > 600 || first.ExpiresIn < 500 {
		t.Fatalf("the first = %d %+v %+v", status, first, bad)
	}
	for n := 2; n <= 17; n++ { // one that opened, sixteen that joined
		if status, token, bad := w.connect("anthropic", shown, "agents"); status != http.StatusOK {
			t.Fatalf("use %d of a token = %d %+v", n, status, bad)
		} else if n == 17 {
			if status, body := w.ask(token.AccessToken, "hello"); status != http.StatusOK {
				t.Errorf("a call with the last token = %d %s", status, body)
			}
		}
	}
	if status, _, bad := w.connect("anthropic", shown, "agents"); status != http.StatusBadRequest || bad.Error != "invalid_grant" {
		t.Errorf("the 17th join = %d %+v, want 400 invalid_grant", status, bad)
	}
	w.openFails(shown, "invalid_grant") // it opened already
	if status, body := w.status(first.AccessToken, "/files/readme"); status != http.StatusForbidden {
		t.Errorf("another connection = %d %s", status, body)
	}
	if status, _, bad := w.connect("anthropic", first.AccessToken, "agents"); status != http.StatusBadRequest || bad.Error != "invalid_grant" {
		t.Errorf("a token of this door as assertion = %d %+v", status, bad)
	}
	if sessions := w.sessions("?state=open"); len(sessions) != 1 {
		t.Fatalf("%d sessions, want one", len(sessions))
	}

	job := w.job(map[string]any{"run_id": "5", "check_run_id": "6"})
	_, opened, _ := w.exchange(w.token(job), nil)
	for n := range 20 {
		if status, token, bad := w.connect("anthropic", opened.AccessToken, "agents"); status != http.StatusOK || token.AccessToken == opened.AccessToken {
			t.Fatalf("join %d with a session token = %d %+v", n, status, bad)
		}
	}
	if status, _, bad := w.connect("anthropic", opened.AccessToken, "another"); status != http.StatusBadRequest {
		t.Errorf("a join under another mapping = %d %+v", status, bad)
	}
	must(w, w.admin("DELETE", "/v1/sessions/"+opened.SessionID, nil, nil))
	joined := 0
	for _, l := range w.events(opened.SessionID) {
		if l.Type == record.TypeSessionJoined {
			joined++
			if e := decode[record.SessionJoined](t, l); e.ServiceAccount != "svac_1" || e.Workspace != "wrkspc_1" || e.Connection != "anthropic" {
				t.Errorf("a join is recorded as %+v", e)
			}
		}
	}
	if joined != 20 {
		t.Errorf("%d joins are recorded, want 20", joined)
	}
}

// TestWhichMapping is about jobs that none serves, or several.
func TestWhichMapping(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, mappings: `
  - {name: second, issuer: github, match: {repository_owner_id: "123456", repository_id: "456789"}, grants: [{connection: anthropic, allow: ["POST /v1/messages"]}]}`})
	bad := w.openFails(w.token(w.job(nil)), "invalid_target")
	for _, want := range []string{"agents", "second"} {
		if !strings.Contains(bad.Description, want) {
			t.Errorf("several match: %q does not name %s", bad.Description, want)
		}
	}
	shown := w.token(w.job(nil))
	if status, _, bad := w.exchange(shown, url.Values{"mapping": {"second"}}); status != http.StatusOK {
		t.Errorf("named = %d %+v", status, bad)
	}
	if status, _, bad := w.connect("anthropic", shown, "agents"); status != http.StatusBadRequest || bad.Error != "invalid_grant" {
		t.Errorf("the same token under another mapping = %d %+v, want it replayed", status, bad)
	}
	// The tenant is one that mappings name: told what was wanted.
	branch := w.token(w.job(map[string]any{"ref": "refs/heads/feature"}))
	status, _, told := w.exchange(branch, url.Values{"mapping": {"agents"}})
	if status != http.StatusBadRequest || told.Error != "invalid_target" || !strings.Contains(told.Description, "refs/heads/feature") || !strings.Contains(told.Description, "refs/heads/main") {
		t.Errorf("another branch = %d %+v, want the claim, what it is and what was wanted", status, told)
	}
	// A stranger's token is told nothing but an id to ask an operator with.
	stranger := w.token(w.job(map[string]any{"repository_owner_id": "666", "repository_id": "667", "repository": "mallory/x"}))
	_, _, untold := w.exchange(stranger, url.Values{"mapping": {"agents"}})
	if untold.Error != "invalid_target" || strings.Contains(untold.Description, "refs/heads/main") || strings.Contains(untold.Description, "123456") || !strings.Contains(untold.Description+untold.ExchangeID, "x_") {
		t.Errorf("a stranger is told %+v", untold)
	}
	forged, err := w.issuer.Mint(w.issuer.GitHubClaims(map[string]any{"aud": w.base(), "repository_owner_id": "123456", "repository_id": "456789"}), mintForeign)
	if err != nil {
		t.Fatal(err)
	}
	if bad := w.openFails(forged, "invalid_grant"); strings.Contains(bad.Description, "agents") {
		t.Errorf("a forged token is told %+v", bad)
	}
}

// TestIssueComment is anthropics/claude-code-action on a comment: its event is refused unless the mapping names it. The
// action fetches the token itself, rewrites its file every few minutes, and its processes share one exchanged token.
func TestIssueComment(t *testing.T) {
	comment := map[string]any{"event_name": "issue_comment"}
	t.Run("not named", func(t *testing.T) {
		w := newWorld(t, worldConfig{script: holding, match: `{repository_owner_id: "123456", repository_id: "456789"}`,
			mapping: `    when: claims.event_name == "issue_comment"`})
		status, _, bad := w.connect("anthropic", w.token(w.job(comment)), "agents")
		if status != http.StatusBadRequest || bad.Error != "invalid_target" || !strings.Contains(bad.Description, "event_name") {
			t.Errorf("a comment's job = %d %+v, want it refused with the claim to name", status, bad)
		}
	})
	t.Run("named", func(t *testing.T) {
		w := newWorld(t, worldConfig{script: holding, match: `{repository_owner_id: "123456", repository_id: "456789", event_name: [issue_comment]}`})
		job := w.job(comment)
		var session string
		for refresh := range 4 {
			status, token, bad := w.connect("anthropic", w.token(job), "agents")
			if status != http.StatusOK {
				t.Fatalf("exchange %d = %d %+v", refresh, status, bad)
			}
			one, two := w.send(token.AccessToken, messageBody("one process", true)), w.send(token.AccessToken, messageBody("another", false))
			for _, c := range []*liveCall{one, two} {
				if body := w.wait(c); c.status != http.StatusOK {
					t.Errorf("a call with the shared token = %d %s", c.status, body)
				}
			}
			open := w.sessions("?state=open")
			if len(open) != 1 || session != "" && open[0].ID != session {
				t.Fatalf("after exchange %d there are %d sessions, want the first one", refresh, len(open))
			}
			session = open[0].ID
		}
		if got := w.session(session); got.Usage["anthropic"].Requests != 8 {
			t.Errorf("usage = %+v, want 8 requests of one job", got.Usage)
		}
	})
}

// TestDormant lets a lease pass: calls are asked to exchange again, running streams go on, a fresh token wakes it.
func TestDormant(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, mapping: "    window: {max: 1h, lease: 1s}"})
	job := w.job(nil)
	_, token, _ := w.exchange(w.token(job), nil)
	stream := w.send(token.AccessToken, messageBody("hold", true))
	w.eventually("it sleeps", func() bool { return w.session(token.SessionID).State == "dormant" })
	c := w.send(token.AccessToken, messageBody("hello", false))
	if body := w.wait(c); c.status != http.StatusUnauthorized || c.header.Get("x-should-retry") != "false" || !strings.Contains(body, "authentication_error") {
		t.Errorf("a call of a dormant session = %d %s", c.status, body)
	}
	select {
	case <-stream.done:
		t.Errorf("a running stream was cut: %s", stream.body)
	default:
	}
	if status, _, bad := w.connect("anthropic", token.AccessToken, "agents"); status != http.StatusBadRequest || bad.Error != "invalid_grant" {
		t.Errorf("a join of a dormant session = %d %+v", status, bad)
	}
	if out := w.must("sessions", "ls"); !strings.Contains(out, "dormant") {
		t.Errorf("sessions ls says\n%s", out)
	}
	status, renewed, bad := w.exchange(w.token(job), nil)
	if status != http.StatusOK || renewed.SessionID != token.SessionID {
		t.Fatalf("a fresh token = %d %+v %+v", status, renewed, bad)
	}
	for _, t := range []string{token.AccessToken, renewed.AccessToken} {
		if status, body := w.ask(t, "hello"); status != http.StatusOK {
			w.t.Errorf("after the renewal a call = %d %s", status, body)
		}
	}
}

// TestMaxPasses lets the window close: final for streams, calls and exchanges of the job.
func TestMaxPasses(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, mapping: "    window: {max: 1s, lease: 1s}"})
	job := w.job(nil)
	_, token, _ := w.exchange(w.token(job), nil)
	if token.ExpiresIn > 1 {
		t.Errorf("expires_in is %d, want the window's second", token.ExpiresIn)
	}
	stream := w.send(token.AccessToken, messageBody("hold", true))
	w.wait(stream)
	stream.cutWith(t, "the window reached its longest duration")
	w.refused(token.AccessToken, "the window reached its longest duration")
	w.openFails(w.token(job), "invalid_grant")
	w.endsOfCalls(token.SessionID, "ended")
}

// TestIssuerAway has the issuer's keys out of reach before the first of them was fetched: a client may come again.
func TestIssuerAway(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	token := w.token(w.job(nil))
	w.issuer.SetDown(true)
	for door, ask := range map[string]func() (int, api.Token, api.OAuthError){
		"/oauth/token":              func() (int, api.Token, api.OAuthError) { return w.exchange(token, nil) },
		"/anthropic/v1/oauth/token": func() (int, api.Token, api.OAuthError) { return w.connect("anthropic", token, "agents") },
	} {
		start := time.Now()
		status, _, bad := ask()
		if status != http.StatusServiceUnavailable || bad.Error != "temporarily_unavailable" || time.Since(start) > 9*time.Second {
			t.Errorf("%s = %d %+v after %s, want 503 after five seconds", door, status, bad, time.Since(start))
		}
	}
	w.issuer.SetDown(false)
	w.eventually("the same token opens when the issuer is back", func() bool {
		status, _, _ := w.exchange(token, nil)
		return status == http.StatusOK
	})
}

// TestLimitsOverTokens spends a limit with several tokens of a job, at both doors.
func TestLimitsOverTokens(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, limits: "requests: 4"})
	job := w.job(nil)
	var statuses []int
	for range 3 {
		_, a, _ := w.exchange(w.token(job), nil)
		_, b, _ := w.connect("anthropic", a.AccessToken, "agents")
		for _, token := range []string{a.AccessToken, b.AccessToken} {
			c := w.send(token, messageBody("hello", false))
			if w.wait(c); c.status == http.StatusTooManyRequests && (c.header.Get("Retry-After") == "" || !strings.Contains(c.body, "billing_error")) {
				t.Errorf("a spent limit is answered with %v %s", c.header, c.body)
			}
			statuses = append(statuses, c.status)
		}
	}
	if want := []int{200, 200, 200, 200, 429, 429}; !slices.Equal(statuses, want) {
		t.Errorf("calls = %v, want %v", statuses, want)
	}
}
