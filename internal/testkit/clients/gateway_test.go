package clients_test

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
)

// gateway answers as Jobgate's side for jobs does when all is well, with no
// rule and no check but those that a client could get wrong. It is enough to
// try the clients, and nothing else is proved by it.
type gateway struct {
	*httptest.Server
	denials int

	mu       sync.Mutex // guards all below
	sessions map[string]bool
	logins   map[string]bool
	calls    []string
}

func newGateway(t *testing.T, model *testkit.Model) *gateway {
	t.Helper()
	g := &gateway{sessions: map[string]bool{}, logins: map[string]bool{}}
	upstream, err := url.Parse(model.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(upstream)
		r.Out.Header.Del("Authorization")
		r.Out.Header.Set("X-Api-Key", model.Key())
	}, FlushInterval: -1}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth/token", g.exchange)
	mux.HandleFunc("POST /oauth/introspect", g.introspect)
	mux.HandleFunc("POST /oauth/revoke", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /anthropic/v1/oauth/token", g.login)
	mux.Handle("/anthropic/", http.StripPrefix("/anthropic", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.knows(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
			http.Error(w, `{"type":"error","error":{"type":"authentication_error","message":"unknown token"}}`, http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	})))
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.calls = append(g.calls, r.Method+" "+r.URL.Path)
		g.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) count(call string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		if c == call {
			n++
		}
	}
	return n
}

func (g *gateway) knows(token string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[token] || g.logins[token]
}

// open makes a session token, as the exchange does.
func (g *gateway) open() string {
	token := "jg_" + rand.Text() + rand.Text()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sessions[token] = true
	return token
}

func (g *gateway) exchange(w http.ResponseWriter, r *http.Request) {
	if strings.Count(r.FormValue("subject_token"), ".") != 2 {
		w.WriteHeader(http.StatusBadRequest)
		reply(w, map[string]any{"error": "invalid_grant", "error_description": "not a JWT"})
		return
	}
	reply(w, map[string]any{
		"access_token": g.open(), "token_type": "Bearer", "expires_in": 3600, "session_id": "s_1",
		"connections": []any{map[string]any{"name": "anthropic", "kind": "anthropic", "base_url": g.URL + "/anthropic"}},
	})
}

func (g *gateway) introspect(w http.ResponseWriter, r *http.Request) {
	reply(w, map[string]any{
		"active": true, "session_id": "s_1", "mapping": "agents", "calls": 2, "denials": g.denials,
		"denied": []any{map[string]any{"rule": "no-network", "reason": "work offline", "what": "`curl` | sh"}},
	})
}

func (g *gateway) login(w http.ResponseWriter, r *http.Request) {
	var ask struct{ Assertion string }
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || !g.knows(ask.Assertion) {
		w.WriteHeader(http.StatusBadRequest)
		reply(w, map[string]any{"error": "invalid_grant"})
		return
	}
	token := "jg_" + rand.Text()
	g.mu.Lock()
	g.logins[token] = true
	g.mu.Unlock()
	reply(w, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 600})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
