package testkit

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"sync"
	"time"
)

// ModelConfig says what the Messages API is like. The zero value serves
// ScriptSay("Hello.") to the bearer of a random key.
type ModelConfig struct {
	// Key is the API key that callers must show. Empty: a random one, which
	// Model.Key tells.
	Key string
	// Bearer takes the key from `Authorization: Bearer` in place of
	// `x-api-key`, as Anthropic does for OAuth tokens.
	Bearer bool
	// Script answers POST /v1/messages. Nil: ScriptSay("Hello.").
	Script Script
	// Pacing is used for responses that set none of their own.
	Pacing Pacing
	// Lax turns off the checks of the history (tool results, thinking
	// signatures); those of the envelope stay.
	Lax bool
	// Now is the clock of Request.Time and of the rate limit headers. Nil:
	// time.Now.
	Now func() time.Time
}

// Model is an emulator of Anthropic's Messages API: good enough for the
// Claude Agent SDK, the claude CLI and @anthropic-ai/sdk to run agent loops
// against it.
type Model struct {
	srv    *server
	key    string
	bearer bool
	pacing Pacing
	lax    bool
	now    func() time.Time

	mu       sync.Mutex // guards all below
	script   Script
	requests []*received
	issued   map[string]string // thinking signature -> its text
}

// received is one request and what was sent back.
type received struct {
	request Request
	sent    bytes.Buffer
}

// maxSent is how much of one response is kept for Model.Sent, so that an
// endless stream does not eat the memory.
const maxSent = 8 << 20

// NewModel starts the emulator. The caller closes it.
func NewModel(cfg ModelConfig) (*Model, error) {
	m := &Model{
		key: cfg.Key, bearer: cfg.Bearer, pacing: cfg.Pacing, lax: cfg.Lax, now: cfg.Now,
		script: cfg.Script, issued: map[string]string{},
	}
	if m.key == "" {
		m.key = "sk-ant-api03-" + random(48)
	}
	if m.script == nil {
		m.script = ScriptSay("Hello.")
	}
	if m.now == nil {
		m.now = time.Now
	}
	srv, err := listen(http.HandlerFunc(m.serve))
	if err != nil {
		return nil, err
	}
	m.srv = srv
	return m, nil
}

// URL is the base URL, without a path.
func (m *Model) URL() string { return m.srv.url }

// Key is the credential that callers must show.
func (m *Model) Key() string { return m.key }

// Close cuts what is in flight and ends the emulator.
func (m *Model) Close() error { return m.srv.Close() }

// SetScript replaces the script for the requests that come from now on.
func (m *Model) SetScript(s Script) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.script = s
}

// Requests are all requests received until now, in the order of their
// arrival: refused ones and those to unknown paths too.
func (m *Model) Requests() []Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Request, len(m.requests))
	for n, r := range m.requests {
		all[n] = r.request
	}
	return all
}

// Sent is the body that was sent so far for the n-th of Requests (at most
// 8 MiB of it), as it lay on the wire before any gzip. Nil where there is no
// such request.
func (m *Model) Sent(n int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n < 0 || n >= len(m.requests) {
		return nil
	}
	return slices.Clone(m.requests[n].sent.Bytes())
}

// Reset forgets the requests received until now.
func (m *Model) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = nil
}

func (m *Model) serve(w http.ResponseWriter, r *http.Request) {
	req, bodyErr := readRequest(r, m.now())
	got := &received{request: req}
	m.mu.Lock()
	m.requests = append(m.requests, got)
	script := m.script
	m.mu.Unlock()

	m.setHeaders(w.Header(), req.ID)
	out := &wire{w: w, r: r, model: m, got: got}
	switch {
	case !m.authentic(req):
		out.fail(http.StatusUnauthorized, "authentication_error", m.authHint())
	case bodyErr != nil:
		out.fail(bodyErr.status, bodyErr.kind, bodyErr.message)
	case r.Method == http.MethodPost && r.URL.Path == "/v1/messages":
		m.serveMessages(out, req, script)
	case r.Method == http.MethodPost && r.URL.Path == "/v1/messages/count_tokens":
		m.serveCount(out, req)
	case r.Method == http.MethodGet && r.URL.Path == "/v1/models":
		out.json(http.StatusOK, modelList())
	default:
		out.fail(http.StatusNotFound, "not_found_error", "Not found")
	}
}

func (m *Model) serveMessages(out *wire, req Request, script Script) {
	if refusal := m.check(req); refusal != nil {
		out.fail(refusal.status, refusal.kind, refusal.message)
		return
	}
	resp := script(req)
	resp.complete(req)
	m.remember(resp.Blocks)
	if resp.Pacing == nil {
		resp.Pacing = &m.pacing
	}
	out.respond(req, resp)
}

// serveCount estimates as the API's documentation does: about four bytes a
// token.
func (m *Model) serveCount(out *wire, req Request) {
	if refusal := checkEnvelope(req); refusal != nil {
		out.fail(refusal.status, refusal.kind, refusal.message)
		return
	}
	out.json(http.StatusOK, map[string]any{"input_tokens": len(req.Raw)/4 + 1})
}

func (m *Model) authentic(req Request) bool {
	if m.bearer {
		return req.Header.Get("Authorization") == "Bearer "+m.key
	}
	return req.Header.Get("X-Api-Key") == m.key
}

func (m *Model) authHint() string {
	if m.bearer {
		return "Invalid bearer token"
	}
	return "invalid x-api-key"
}

// setHeaders sets what Anthropic's edge adds to every answer, so that a
// gateway can be seen to drop it.
func (m *Model) setHeaders(h http.Header, requestID string) {
	reset := m.now().Add(time.Minute).UTC().Format(time.RFC3339)
	for _, name := range []string{"Requests", "Tokens", "Input-Tokens", "Output-Tokens"} {
		h.Set("Anthropic-Ratelimit-"+name+"-Limit", "4000")
		h.Set("Anthropic-Ratelimit-"+name+"-Remaining", "3999")
		h.Set("Anthropic-Ratelimit-"+name+"-Reset", reset)
	}
	h.Set("Request-Id", requestID)
	h.Set("Anthropic-Organization-Id", "5d1e0f5c-7a3b-4f0e-9a53-0d6f0c1f7f10")
	h.Set("Cf-Ray", random(16)+"-FRA")
	h.Set("Via", "1.1 google")
	h.Set("Server", "cloudflare")
	h.Add("Set-Cookie", "_cfuvid="+random(16)+"; path=/; HttpOnly; Secure; SameSite=None")
}

func modelList() map[string]any {
	entry := func(id, name string) map[string]any {
		return map[string]any{"type": "model", "id": id, "display_name": name, "created_at": "2025-10-01T00:00:00Z"}
	}
	return map[string]any{
		"data": []any{
			entry("claude-sonnet-4-5", "Claude Sonnet 4.5"),
			entry("claude-haiku-4-5", "Claude Haiku 4.5"),
		},
		"has_more": false, "first_id": "claude-sonnet-4-5", "last_id": "claude-haiku-4-5",
	}
}

// random is n characters of lower-case hex.
func random(n int) string {
	b := make([]byte, (n+1)/2)
	_, _ = rand.Read(b) // never fails: documented by crypto/rand
	return hex.EncodeToString(b)[:n]
}

// newSignature looks like the signature of a thinking block.
func newSignature() string {
	b := make([]byte, 96)
	_, _ = rand.Read(b) // never fails: documented by crypto/rand
	return base64.StdEncoding.EncodeToString(b)
}
