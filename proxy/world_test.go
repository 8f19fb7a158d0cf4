package proxy_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/inject"
	"github.com/jobgate/jobgate/proxy/record"
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
		Observe: tell,
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

// sessions finds sessions by token.
type sessions struct {
	mu    sync.Mutex
	known map[access.TokenHash]opened
	found chan struct{} // gets one for every token that was known
}

type opened struct {
	s     *access.Session
	token access.AccessToken
}

func (f *sessions) add(t testing.TB, s *access.Session, connections ...string) string {
	t.Helper()
	token, hash, err := access.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[hash] = opened{s, access.AccessToken{Hash: hash, Session: s.ID, Connections: connections}}
	return token
}

func (f *sessions) SessionByToken(_ context.Context, h access.TokenHash) (*access.Session, access.AccessToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o, ok := f.known[h]; ok {
		select {
		case f.found <- struct{}{}:
		default:
		}
		return o.s, o.token, nil
	}
	return nil, access.AccessToken{}, access.Refuse(access.CodeUnauthenticated, "Jobgate: show a valid access token of an open session")
}

// memory is a record in memory. It chains what it gets, as the real one does.
type memory struct {
	mu     sync.Mutex
	cond   *sync.Cond
	chains map[string]*record.Chain
	events []record.Event
	waited []bool
	lines  map[string][]byte
	fail   func(record.Event) error
}

func newMemory() *memory {
	m := &memory{chains: map[string]*record.Chain{}, lines: map[string][]byte{}}
	m.cond = sync.NewCond(&m.mu)
	return m
}

var errDisk = errors.New("no space left on device")

func (m *memory) Append(_ context.Context, session string, wait bool, events ...record.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.cond.Broadcast()
	for _, e := range events {
		if m.fail != nil {
			if err := m.fail(e); err != nil {
				return err
			}
		}
	}
	c := m.chains[session]
	if c == nil {
		c = record.NewChain(session)
		m.chains[session] = c
	}
	for _, e := range events {
		var err error
		if m.lines[session], err = c.Append(m.lines[session], e); err != nil {
			return err
		}
		m.events, m.waited = append(m.events, e), append(m.waited, wait)
	}
	return nil
}

func (m *memory) failOn(kind string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = func(e record.Event) error {
		if e.Type == kind {
			return errDisk
		}
		return nil
	}
}

// types returns the types of what is recorded; responses that follow each other are one.
func (m *memory) types() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for _, e := range m.events {
		list = append(list, e.Type)
	}
	return slices.Compact(list)
}

func (m *memory) await(t testing.TB, kind string, n int) []record.Event {
	t.Helper()
	stop := time.AfterFunc(20*time.Second, func() { m.mu.Lock(); m.cond.Broadcast(); m.mu.Unlock() })
	defer stop.Stop()
	until := time.Now().Add(20 * time.Second)
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		var found []record.Event
		for _, e := range m.events {
			if e.Type == kind {
				found = append(found, e)
			}
		}
		if len(found) >= n {
			return found
		}
		if time.Now().After(until) {
			t.Fatalf("the record has %d events %q, want %d", len(found), kind, n)
		}
		m.cond.Wait()
	}
}

// text is all lines of all sessions.
func (m *memory) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, lines := range m.lines {
		b.Write(lines)
	}
	return b.String()
}

// people answers questions as a test says.
type people struct {
	mu     sync.Mutex
	asked  []access.Approval
	answer func(context.Context, access.Approval) (access.Approval, error)
	arrive chan access.Approval
	reply  chan access.Vote
}

func newPeople() *people {
	return &people{arrive: make(chan access.Approval, 64), reply: make(chan access.Vote, 64)}
}

func (p *people) Ask(ctx context.Context, a access.Approval) (access.Approval, error) {
	p.mu.Lock()
	p.asked = append(p.asked, a)
	answer := p.answer
	p.mu.Unlock()
	if answer != nil {
		return answer(ctx, a)
	}
	p.arrive <- a
	select {
	case v := <-p.reply:
		return a.Settle(v)
	case <-ctx.Done():
		cause := access.PublicText(context.Cause(ctx))
		a.State, a.Vote = access.Cancelled, access.Vote{State: access.Cancelled, Reason: cause}
		return a, &access.Error{Code: access.CodeCanceled, Public: "the question was cancelled", Err: context.Cause(ctx)}
	}
}

func (p *people) questions() []access.Approval {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

func vote(state access.ApprovalState) access.Vote {
	return access.Vote{State: state, By: "Ana", Via: "cli", At: time.Now()}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
