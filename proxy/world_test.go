package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/inject"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a gateway between a client and its upstreams, all of them real but for sessions, record and people.
type world struct {
	t        testing.TB
	model    *testkit.Model
	proxy    *proxy.Proxy
	url      string
	address  string
	client   *http.Client
	sessions *sessions
	record   *memory
	people   *people
	log      *syncBuffer
	ended    chan proxy.Ended

	session *access.Session
	token   string
}

// options of a world; the zero value is one session with everything allowed on "anthropic" and "plain".
type options struct {
	model    testkit.ModelConfig
	upstream http.Handler // of the connection "plain"; nil has none
	secret   string       // the credential of "plain"; "" has none
	policy   func(*access.Policy)
	limits   proxy.Bounds
	noPeople bool
	asleep   bool
	log      slog.Level
	maskers  *proxy.Maskers
	exchange func(http.ResponseWriter, *http.Request, string)
	now      func() time.Time
	raw      http.Handler // stands in the model's place
	base     string       // of the upstream in the model's place
	recorder proxy.Recorder
	stopped  func(connection, mapping string) *access.Error
	hit      func(access.Hit)
	carries  http.RoundTripper // nil takes the proxy's own
}

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newWorldWith has an upstream of its own behind "anthropic".
func newWorldWith(t testing.TB, o options, upstream http.HandlerFunc) *world {
	t.Helper()
	o.raw = upstream
	return newWorld(t, o)
}

const plainSecret = "sEcr3t/plain+credential=&\"0123456789"

func newWorld(t testing.TB, o options) *world {
	t.Helper()
	w := &world{t: t, sessions: &sessions{known: map[access.TokenHash]opened{}, found: make(chan struct{}, 8192)}, record: newMemory(), people: newPeople(), log: new(syncBuffer)}
	connections := w.connections(&o)
	maskers := o.maskers
	if maskers == nil {
		var err error
		if maskers, err = proxy.NewMaskers(access.NewSecret("placeholder key"), nil); err != nil {
			t.Fatal(err)
		}
	}
	w.ended = make(chan proxy.Ended, 8192)
	tell := func(e proxy.Ended) {
		select {
		case w.ended <- e:
		default: // a benchmark, which does not listen
		}
	}
	cfg := proxy.Config{
		Connections: connections, Sessions: w.sessions, Recorder: w.record, Approver: w.people, Maskers: maskers, Exchange: o.exchange,
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: o.log})), Limits: o.limits, Now: o.now,
		Observe: tell, Stopped: o.stopped, Hit: o.hit, Transport: o.carries,
	}
	if o.recorder != nil {
		cfg.Recorder = o.recorder
	}
	if o.noPeople {
		cfg.Approver = nil
	}
	var err error
	if w.proxy, err = proxy.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.proxy.CloseIdleConnections)
	w.serve()
	w.session, w.token = w.open(o, "s_1")
	return w
}

func (w *world) connections(o *options) []proxy.Connection {
	w.t.Helper()
	model, err := testkit.NewModel(o.model)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = model.Close() })
	w.model = model
	base := model.URL()
	if o.raw != nil {
		base = w.upstream(o.raw)
	}
	if o.base != "" {
		base = o.base
	}
	list := []proxy.Connection{w.connection("anthropic", proxy.KindAnthropic, base, "x-api-key", "", model.Key())}
	if o.upstream != nil {
		list = append(list, w.connection("plain", proxy.KindHTTP, w.upstream(o.upstream), "authorization", "Bearer ", o.secret))
	}
	return list
}

func (w *world) upstream(h http.Handler) string {
	up := httptest.NewUnstartedServer(h)
	up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	up.Start()
	w.t.Cleanup(func() { up.CloseClientConnections(); up.Close() })
	return up.URL
}

func (w *world) connection(name, kind, base, header, prefix, secret string) proxy.Connection {
	w.t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		w.t.Fatal(err)
	}
	c := proxy.Connection{Name: name, Kind: kind, Upstream: u}
	if secret == "" {
		return c
	}
	if c.Placement, err = inject.NewPlacement(header, prefix); err != nil {
		w.t.Fatal(err)
	}
	if c.Credential, err = inject.NewSource("env:KEY", func(string) string { return secret }, time.Now); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) serve() {
	srv := httptest.NewUnstartedServer(w.proxy)
	srv.Config.MaxHeaderBytes = 64 << 10
	srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(w.log, nil), slog.LevelError)
	srv.Start()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 2048}
	w.t.Cleanup(func() { transport.CloseIdleConnections(); srv.CloseClientConnections(); srv.Close() })
	w.url, w.address = srv.URL, srv.Listener.Addr().String()
	w.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// policyOf returns the policy of a world at a revision.
func policyOf(revision int64, change func(*access.Policy)) *access.Policy {
	p := &access.Policy{
		Mapping: "agents", Revision: revision, Window: access.WindowSpec{Max: time.Hour, Lease: 15 * time.Minute},
		Grants: []access.Grant{
			{Connection: "anthropic", Allow: []string{"POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models"}},
			{Connection: "plain", Allow: []string{"GET /a", "HEAD /a", "POST /a", "PUT /a", "GET /a/{x}", "POST /a/{x}"}},
		},
	}
	if change != nil {
		change(p)
	}
	return p
}

func (w *world) open(o options, id string) (*access.Session, string) {
	w.t.Helper()
	now := time.Now()
	asleep := now.Add(15 * time.Minute)
	if o.asleep {
		asleep = now
	}
	p := policyOf(1, o.policy)
	s := access.NewSession(access.SessionConfig{
		ID: id, Window: access.Window{Opens: now, Closes: now.Add(time.Hour)}, Asleep: asleep, Policy: p,
		Identity: access.Identity{Issuer: "github", Provider: "github-actions", Claims: access.Claims{"ref": "refs/heads/main"}},
	})
	return s, w.sessions.add(w.t, s, p.Connections()...)
}

// change puts another revision of the policy in force.
func (w *world) change(revision int64, change func(*access.Policy)) {
	w.session.SetPolicy(policyOf(revision, change))
}

// call sends a request with the session's token in x-api-key.
func (w *world) call(method, path, body string, headers ...string) *http.Response {
	w.t.Helper()
	resp, err := w.try(context.Background(), method, path, strings.NewReader(body), headers...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func (w *world) try(ctx context.Context, method, path string, body io.Reader, headers ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, w.url+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Api-Key", w.token)
	if strings.HasPrefix(path, "/anthropic") {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Anthropic-Version", "2023-06-01")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	return w.client.Do(r)
}

// message is a body of the Messages API.
func message(stream bool, extra string) string {
	return fmt.Sprintf(`{"model":"claude-sonnet-4-5","max_tokens":100,"stream":%t,"tools":[{"name":"Bash","input_schema":{"type":"object"}},{"name":"Read","input_schema":{"type":"object"}}],"messages":[{"role":"user","content":"go"}]%s}`, stream, extra)
}

func read(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the answer: %v (so far %q)", err, b)
	}
	return string(b)
}

// raw sends bytes over TCP and returns all that comes back.
func (w *world) raw(request string) string {
	w.t.Helper()
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = io.WriteString(c, request) }()
	var got bytes.Buffer
	_, _ = io.Copy(&got, c)
	return got.String()
}

// settled waits until n calls have ended.
func (w *world) settled(n int) []proxy.Ended {
	w.t.Helper()
	var list []proxy.Ended
	limit := time.After(20 * time.Second)
	for range n {
		select {
		case e := <-w.ended:
			list = append(list, e)
		case <-limit:
			w.t.Fatalf("only %d of %d calls ended", len(list), n)
		}
	}
	return list
}
