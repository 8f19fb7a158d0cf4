package httpd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/httpd"
)

const publicURL = "https://jobgate.example.com"

// jobsWorld is what the jobs' side stands on.
type jobsWorld struct {
	exchange fakeExchange
	sessions fakeTokens
	called   []string // paths that went to the connections
	log      strings.Builder
}

func (w *jobsWorld) jobs() *httpd.Jobs { return w.jobsWith(func(*httpd.JobsConfig) {}) }

func (w *jobsWorld) jobsWith(change func(*httpd.JobsConfig)) *httpd.Jobs {
	c := httpd.JobsConfig{
		PublicURL: publicURL, Exchange: &w.exchange, Sessions: &w.sessions,
		Calls: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.called = append(w.called, r.RequestURI)
			rw.WriteHeader(http.StatusTeapot)
		}),
		Kinds:   map[string]string{"anthropic": "anthropic", "deploys": "http"},
		Keys:    []byte(`{"keys":[]}`),
		Archive: func(session string, _ time.Time) string { return "mem:// " + session },
		Log:     slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	change(&c)
	return httpd.NewJobs(c)
}

// fakeExchange answers what a test says, and remembers what it was asked.
type fakeExchange struct {
	err     error
	opened  []federation.OpenRequest
	tried   []federation.OpenRequest
	joined  []federation.ConnectRequest
	granted []string
}

func (f *fakeExchange) Open(_ context.Context, r federation.OpenRequest) (federation.Opened, error) {
	f.opened = append(f.opened, r)
	return f.answer(time.Hour)
}

func (f *fakeExchange) Try(_ context.Context, r federation.OpenRequest) (federation.Trial, error) {
	f.tried = append(f.tried, r)
	return federation.Trial{Exchange: "x_1", Mapping: "agents", Connections: f.granted, ExpiresIn: time.Hour, Lease: 15 * time.Minute}, f.err
}

func (f *fakeExchange) Connect(_ context.Context, r federation.ConnectRequest) (federation.Opened, error) {
	f.joined = append(f.joined, r)
	return f.answer(10 * time.Minute)
}

func (f *fakeExchange) answer(good time.Duration) (federation.Opened, error) {
	if f.err != nil {
		return federation.Opened{}, f.err
	}
	return federation.Opened{
		Token: access.NewSecret("jg_the-token"), Connections: f.granted, ExpiresIn: good,
		Session: access.NewSession(access.SessionConfig{
			ID: "s_1", Window: access.Window{Opens: noon, Closes: noon.Add(time.Hour)},
			Policy: &access.Policy{Mapping: "agents", Window: access.WindowSpec{Max: time.Hour, Lease: 15 * time.Minute}},
		}),
	}, nil
}

// fakeTokens knows tokens by their text.
type fakeTokens struct {
	rows    map[string]federation.SessionInfo
	err     error
	revoked []string
}

func (f *fakeTokens) OfToken(_ context.Context, token string) (federation.SessionInfo, access.AccessToken, error) {
	info, ok := f.rows[token]
	switch {
	case f.err != nil:
		return info, access.AccessToken{}, f.err
	case !ok:
		return info, access.AccessToken{}, access.Refuse(access.CodeUnauthenticated, "Jobgate: show a valid access token")
	}
	return info, access.AccessToken{Session: info.ID, Connections: []string{"anthropic"}, Expires: time.Now().Add(time.Hour)}, nil
}

func (f *fakeTokens) Revoke(_ context.Context, token string) error {
	f.revoked = append(f.revoked, token)
	return f.err
}

func exchangeForm(change ...string) string {
	v := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {"a.b.c"},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
	}
	for i := 0; i+1 < len(change); i += 2 {
		v.Set(change[i], change[i+1])
		if change[i+1] == "" {
			v.Del(change[i])
		}
	}
	return v.Encode()
}

func post(t *testing.T, h http.Handler, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, h, "POST", path, body, append([]string{"Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
}

func TestExchange(t *testing.T) {
	w := jobsWorld{exchange: fakeExchange{granted: []string{"anthropic", "deploys"}}}
	got := post(t, w.jobs(), "/oauth/token", exchangeForm("mapping", "agents", "scope", "anthropic  deploys"))
	want := api.Token{
		AccessToken: "jg_the-token", IssuedTokenType: "urn:ietf:params:oauth:token-type:access_token", TokenType: "Bearer", ExpiresIn: 3600,
		Scope: "anthropic deploys", SessionID: "s_1", Mapping: "agents", Lease: 900,
		Connections: []api.Connection{
			{Name: "anthropic", Kind: "anthropic", BaseURL: publicURL + "/anthropic", Env: map[string]string{
				"ANTHROPIC_BASE_URL": publicURL + "/anthropic", "ANTHROPIC_FEDERATION_RULE_ID": "agents", "ANTHROPIC_ORGANIZATION_ID": "jobgate",
				"CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
			}},
			{Name: "deploys", Kind: "http", BaseURL: publicURL + "/deploys", Env: map[string]string{}},
		},
	}
	if diff := cmp.Diff(want, decode[api.Token](t, got, 200)); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if got.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("the answer may be kept: %q", got.Header().Get("Cache-Control"))
	}
	asked := []federation.OpenRequest{{Token: "a.b.c", Mapping: "agents", Scope: []string{"anthropic", "deploys"}}}
	if diff := cmp.Diff(asked, w.exchange.opened); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	idToken := exchangeForm("subject_token_type", "urn:ietf:params:oauth:token-type:id_token", "requested_token_type", "urn:ietf:params:oauth:token-type:access_token")
	if got := post(t, w.jobs(), "/oauth/token", idToken); got.Code != 200 {
		t.Errorf("an ID token: status %d: %s", got.Code, got.Body)
	}
}

func TestBadExchanges(t *testing.T) {
	for _, c := range []struct {
		name, body, media, want string
	}{
		{"empty", "", "", "grant_type"},
		{"another grant", exchangeForm("grant_type", "client_credentials"), "", "grant_type"},
		{"another token type", exchangeForm("subject_token_type", "urn:ietf:params:oauth:token-type:saml2"), "", "subject_token_type"},
		{"no token", exchangeForm("subject_token", ""), "", "subject_token is missing"},
		{"a refresh token is wanted", exchangeForm("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), "", "requested_token_type"},
		{"a field twice", exchangeForm() + "&subject_token=d.e.f", "", `"subject_token" stands there more than once`},
		{"an unknown field twice", exchangeForm() + "&x=1&x=1", "", `"x" stands there more than once`},
		{"no form", exchangeForm() + "&a=%zz", "", "no valid form"},
		{"semicolons", exchangeForm() + ";mapping=agents", "", "no valid form"},
		{"JSON", `{"grant_type":"x"}`, "application/json", "application/x-www-form-urlencoded"},
		{"multipart", exchangeForm(), "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"},
		{"too long", exchangeForm("subject_token", strings.Repeat("a", 64<<10)), "", "65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := jobsWorld{}
			if c.media == "" {
				c.media = "application/x-www-form-urlencoded"
			}
			got := ask(t, w.jobs(), "POST", "/oauth/token", c.body, "Content-Type", c.media)
			e := decode[api.OAuthError](t, got, 400)
			if e.Error != "invalid_request" || !strings.Contains(e.Description, c.want) {
				t.Errorf("got %+v, want invalid_request that names %q", e, c.want)
			}
			if len(w.exchange.opened) > 0 {
				t.Errorf("it was asked for all the same: %+v", w.exchange.opened)
			}
		})
	}
	t.Run("the token in the query does not count", func(t *testing.T) {
		w := jobsWorld{}
		e := decode[api.OAuthError](t, post(t, w.jobs(), "/oauth/token?"+exchangeForm(), ""), 400)
		if e.Error != "invalid_request" {
			t.Errorf("got %+v", e)
		}
	})
}

// No code, whatever it is, makes an exchange answer 401, at either door.
func TestExchangeErrors(t *testing.T) {
	connect := `{"grant_type":"urn:ietf:params:oauth:grant-type:jwt-bearer","assertion":"a.b.c","federation_rule_id":"fdrl_agents"}`
	for _, c := range []struct {
		err    error
		status int
		want   api.OAuthError
		retry  string
	}{
		{&access.Error{Code: access.CodeGrant, Reason: "replayed", Public: "the token was used before", Err: errors.New("detail")},
			400, api.OAuthError{Error: "invalid_grant", Description: "the token was used before"}, ""},
		{access.Refuse(access.CodeTarget, "no mapping serves it"), 400, api.OAuthError{Error: "invalid_target", Description: "no mapping serves it"}, ""},
		{access.Refuse(access.CodeScope, "not granted"), 400, api.OAuthError{Error: "invalid_scope", Description: "not granted"}, ""},
		{access.Refuse(access.CodeGrant, "invalid_grant"), 400, api.OAuthError{Error: "invalid_grant"}, ""},
		{access.Refuse(access.CodeUnauthenticated, "unknown"), 400, api.OAuthError{Error: "invalid_grant", Description: "unknown"}, ""},
		{access.Refuse(access.CodeEnded, "it is over"), 400, api.OAuthError{Error: "invalid_grant", Description: "it is over"}, ""},
		{access.Refuse(access.CodeDenied, "no"), 400, api.OAuthError{Error: "invalid_grant", Description: "no"}, ""},
		{access.Refuse(access.CodeUnavailable, "no keys"), 503, api.OAuthError{Error: "temporarily_unavailable", Description: "no keys"}, "2"},
		{&access.Error{Code: access.CodeUnavailable, Public: "no keys", RetryAfter: 9 * time.Second}, 503,
			api.OAuthError{Error: "temporarily_unavailable", Description: "no keys"}, "10"},
		{access.Refuse(access.CodeRecord, "the disk is full"), 503, api.OAuthError{Error: "temporarily_unavailable", Description: "the disk is full"}, "2"},
		{access.Refuse(access.CodeCanceled, "the caller left"), 503, api.OAuthError{Error: "temporarily_unavailable", Description: "the caller left"}, "2"},
		{errors.New("/dev/vda is on fire"), 500, api.OAuthError{Error: "server_error", Description: "the operator finds the cause in the server's log"}, ""},
	} {
		t.Run(fmt.Sprint(c.err), func(t *testing.T) {
			w := jobsWorld{exchange: fakeExchange{err: c.err}}
			jobs := w.jobs()
			other := httptest.NewRecorder()
			jobs.Connect(other, httptest.NewRequestWithContext(t.Context(), "POST", "/anthropic/v1/oauth/token", strings.NewReader(connect)), "anthropic")
			for _, got := range []*httptest.ResponseRecorder{post(t, jobs, "/oauth/token", exchangeForm()), other} {
				if diff := cmp.Diff(c.want, decode[api.OAuthError](t, got, c.status)); diff != "" {
					t.Errorf("answer (-want +got):\n%s", diff)
				}
				if got.Header().Get("Retry-After") != c.retry || got.Header().Get("Cache-Control") != "no-store" {
					t.Errorf("Retry-After %q, want %q; Cache-Control %q", got.Header().Get("Retry-After"), c.retry, got.Header().Get("Cache-Control"))
				}
			}
			if other.Header().Get("X-Should-Retry") != "false" {
				t.Error("Anthropic's clients are not told to leave it")
			}
			if (c.status == 500) != strings.Contains(w.log.String(), "vda") {
				t.Errorf("log: %q", w.log.String())
			}
		})
	}
}

func TestConnect(t *testing.T) {
	w := jobsWorld{exchange: fakeExchange{granted: []string{"anthropic"}}}
	connect := func(body string) *httptest.ResponseRecorder {
		rw := httptest.NewRecorder()
		w.jobs().Connect(rw, httptest.NewRequestWithContext(t.Context(), "POST", "/anthropic/v1/oauth/token", strings.NewReader(body)), "anthropic")
		return rw
	}
	// A field that is new is no error: clients gain them.
	got := decode[api.Token](t, connect(`{"grant_type":"urn:ietf:params:oauth:grant-type:jwt-bearer","assertion":"a.b.c","federation_rule_id":"agents",
		"organization_id":"o","service_account_id":"sa","workspace_id":"ws","scope":"x"}`), 200)
	if diff := cmp.Diff(api.Token{AccessToken: "jg_the-token", TokenType: "Bearer", ExpiresIn: 600, Scope: "anthropic", SessionID: "s_1", Mapping: "agents", Lease: 900}, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	asked := []federation.ConnectRequest{{Connection: "anthropic", Assertion: "a.b.c", Mapping: "agents", Organization: "o", ServiceAccount: "sa", Workspace: "ws"}}
	if diff := cmp.Diff(asked, w.exchange.joined); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	for name, body := range map[string]string{
		"empty":         "",
		"a list":        "[]",
		"another grant": `{"grant_type":"client_credentials","assertion":"a.b.c"}`,
		"no assertion":  `{"grant_type":"urn:ietf:params:oauth:grant-type:jwt-bearer"}`,
		"two values":    `{"grant_type":"urn:ietf:params:oauth:grant-type:jwt-bearer","assertion":"a"}{}`,
		"too long":      `{"assertion":"` + strings.Repeat("a", 64<<10) + `"}`,
	} {
		if e := decode[api.OAuthError](t, connect(body), 400); e.Error != "invalid_request" || e.Description == "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if len(w.exchange.joined) != 1 {
		t.Errorf("bad ones were asked for all the same: %+v", w.exchange.joined[1:])
	}
}

func TestRevoke(t *testing.T) {
	w := jobsWorld{}
	if got := post(t, w.jobs(), "/oauth/revoke", "token=jg_1&token_type_hint=access_token"); got.Code != 200 || got.Body.Len() > 0 {
		t.Errorf("status %d, %q", got.Code, got.Body)
	}
	if diff := cmp.Diff([]string{"jg_1"}, w.sessions.revoked); diff != "" {
		t.Errorf("revoked (-want +got):\n%s", diff)
	}
	w.sessions.err = access.Refuse(access.CodeUnavailable, "the store is away")
	if e := decode[api.OAuthError](t, post(t, w.jobs(), "/oauth/revoke", "token=jg_1"), 503); e.Error != "temporarily_unavailable" {
		t.Errorf("got %+v", e)
	}
}

func TestIntrospect(t *testing.T) {
	over := openSession("s_2")
	over.State, over.Reason = access.Ended, access.EndClosed
	mine := openSession("s_1")
	mine.Denials = []access.Denial{{Time: noon, Connection: "anthropic", Rule: "commands", Reason: "no", What: "Bash"}}
	w := jobsWorld{sessions: fakeTokens{rows: map[string]federation.SessionInfo{"jg_1": mine, "jg_1b": mine, "jg_2": over}}}
	jobs := w.jobs()
	introspect := func(token, bearer string) api.Introspection {
		return decode[api.Introspection](t, post(t, jobs, "/oauth/introspect", "token="+token, "Authorization", "Bearer "+bearer), 200)
	}

	got := introspect("jg_1", "jg_1b")
	if !got.Active || got.SessionID != "s_1" || got.State != "awake" || got.Archive != "mem:// s_1" || got.Scope != "anthropic" || got.Exp == 0 {
		t.Errorf("one's own: %+v", got)
	}
	if diff := cmp.Diff([]api.ConnectionUsage{{Name: "anthropic", Usage: api.Usage{Requests: 2, InputTokens: 30, OutputTokens: 4}}}, got.Connections); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	if len(got.Denied) != 1 || got.Denied[0].Rule != "commands" {
		t.Errorf("denied: %+v", got.Denied)
	}
	if got := introspect("jg_2", "jg_2"); got.Active || got.EndReason != "closed" || got.Calls != 2 {
		t.Errorf("a session that is over: %+v", got)
	}
	for _, c := range [][2]string{{"jg_2", "jg_1"}, {"jg_9", "jg_1"}, {"jg_1", "jg_9"}, {"jg_1", ""}, {"", "jg_1"}} {
		if diff := cmp.Diff(api.Introspection{}, introspect(c[0], c[1])); diff != "" {
			t.Errorf("%q to the bearer of %q (-want +got):\n%s", c[0], c[1], diff)
		}
	}
	if e := decode[api.OAuthError](t, post(t, jobs, "/oauth/introspect", "token=jg_1"), 400); e.Error != "invalid_request" {
		t.Errorf("without a bearer: %+v", e)
	}
	w.sessions.err = access.Refuse(access.CodeUnavailable, "the store is away")
	if e := decode[api.OAuthError](t, post(t, jobs, "/oauth/introspect", "token=jg_1", "Authorization", "Bearer jg_1"), 503); e.Error != "temporarily_unavailable" {
		t.Errorf("without a store: %+v", e)
	}
}

// The first path segment alone says whose a request is, and a call's path arrives as it was sent.
func TestWhoServesAPath(t *testing.T) {
	for _, c := range []struct {
		method, target string
		status         int
		call           bool
	}{
		{"POST", "/anthropic/v1/messages?beta=true", 418, true},
		{"POST", "/anthropic/v1/oauth/token", 418, true}, // the connection's own door is opened by the way of a call
		{"GET", "/anthropic/a%2fb/../c//d", 418, true},
		{"GET", "/anthropic", 418, true},
		{"GET", "/v11/x", 418, true},
		{"GET", "/", 404, false},
		{"GET", "/v1/mappings", 404, false},
		{"DELETE", "/v1/mappings/agents", 404, false},
		{"GET", "/hooks/slack/interactions", 404, false},
		{"GET", "/oauth", 404, false},
		{"POST", "/oauth/token/", 404, false},
		{"GET", "/oauth/token", 405, false},
		{"GET", "/.env", 404, false},
		{"GET", "/_debug", 404, false},
		{"GET", "/metrics", 418, true}, // no name of ours on this side: a connection, if there is one
		{"GET", "/.well-known/jobgate-archive.json", 200, false},
		{"GET", "/healthz", 200, false},
		{"GET", "/readyz", 200, false},
	} {
		w := jobsWorld{}
		got := ask(t, w.jobs(), c.method, c.target, "")
		if got.Code != c.status {
			t.Errorf("%s %s: status %d, want %d: %s", c.method, c.target, got.Code, c.status, got.Body)
		}
		if c.call && (len(w.called) != 1 || w.called[0] != c.target) || !c.call && len(w.called) > 0 {
			t.Errorf("%s %s: calls %q, is a call: %v", c.method, c.target, w.called, c.call)
		}
		if !c.call && (got.Header().Get("Content-Security-Policy") != "sandbox" || got.Header().Get("X-Content-Type-Options") != "nosniff") {
			t.Errorf("%s %s: headers %v", c.method, c.target, got.Header())
		}
	}
}

func TestBrowsersAreRefused(t *testing.T) {
	w := jobsWorld{}
	for _, target := range []string{"/anthropic/page.html", "/healthz", "/oauth/token"} {
		if got := ask(t, w.jobs(), "GET", target, "", "Sec-Fetch-Mode", "navigate"); got.Code != 403 {
			t.Errorf("a navigation to %s: status %d, want 403", target, got.Code)
		}
	}
	if len(w.called) > 0 {
		t.Errorf("navigations reached the connections: %q", w.called)
	}
}

func TestArchiveKeys(t *testing.T) {
	w := jobsWorld{}
	got := ask(t, w.jobs(), "GET", "/.well-known/jobgate-archive.json", "")
	if got.Header().Get("Content-Type") != "application/jwk-set+json" || !json.Valid(got.Body.Bytes()) {
		t.Errorf("%s: %s", got.Header().Get("Content-Type"), got.Body)
	}
}
