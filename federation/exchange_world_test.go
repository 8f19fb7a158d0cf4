package federation_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/store"
	"github.com/jobgate/jobgate/proxy/record"
)

// world is an exchange with all that it needs, over a real store. CI tokens are written "job/token", such as "1/a".
type world struct {
	t          testing.TB
	path       string
	db         *store.DB
	faults     *faultyStore
	live       *liveness
	record     *recorder
	mappings   *federation.Mappings
	sessions   *federation.Sessions
	exchange   *federation.Exchange
	stops      *federation.Stops
	hits       *federation.Hits
	stop       func()
	auditMu    sync.Mutex // guards audit, sums and auditFails
	sums       []record.Refusals
	auditFails error
	config     federation.ExchangeConfig // of exchange
	other      *federation.Exchange
	audit      []federation.AuditEvent
	file       []api.Mapping
	recovered  federation.Recovered
	unknown    []string     // what Restore returned
	offset     atomic.Int64 // of the clock, nanoseconds
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

func newWorld(t testing.TB, specs ...api.Mapping) *world {
	t.Helper()
	w := &world{
		t: t, path: filepath.Join(t.TempDir(), "jobgate.db"), live: &liveness{}, record: &recorder{}, file: specs,
	}
	w.start()
	return w
}

// start brings everything up as a program would, also after stop.
func (w *world) start() {
	w.t.Helper()
	ctx := context.Background()
	var err error
	if w.db, err = store.Open(ctx, store.Config{URL: "sqlite:" + w.path}); err != nil {
		w.t.Fatal(err)
	}
	w.faults = &faultyStore{DB: w.db}
	w.mappings, err = federation.NewMappings(ctx, federation.MappingsConfig{Store: w.faults, Build: build, Now: w.now})
	w.must(err)
	w.must(w.mappings.Reload(ctx, declared(w.file)))
	w.sessions, err = federation.NewSessions(federation.SessionsConfig{Store: w.faults, Mappings: w.mappings, Recorder: w.record, Now: w.now})
	w.must(err)
	w.unknown, err = w.sessions.Restore(ctx, w.recovered)
	w.must(err)
	w.stops, err = federation.NewStops(ctx, federation.StopsConfig{
		Store: w.faults, Sessions: w.sessions, Connections: []string{"web", "anthropic"}, Mappings: w.mappings.Names, Now: w.now,
	})
	w.must(err)
	w.hits, err = federation.NewHits(ctx, federation.HitsConfig{Store: w.faults, Now: w.now})
	w.must(err)
	w.config = federation.ExchangeConfig{
		Verify: verify, Liveness: w.live, Mappings: w.mappings, Sessions: w.sessions, Store: w.faults, Stops: w.stops, Hits: w.hits, Now: w.now,
		Audit: func(_ context.Context, e federation.AuditEvent) error {
			w.auditMu.Lock()
			defer w.auditMu.Unlock()
			if w.auditFails != nil {
				return w.auditFails
			}
			w.audit = append(w.audit, e)
			return nil
		},
		Refusals: func(_ context.Context, r record.Refusals) error {
			w.auditMu.Lock()
			defer w.auditMu.Unlock()
			if w.auditFails != nil {
				return w.auditFails
			}
			w.sums = append(w.sums, r)
			return nil
		},
		Trail: w.db,
	}
	w.exchange, err = federation.NewExchange(w.config)
	w.must(err)
	run, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); w.sessions.Run(run) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			<-done
			if err := w.db.Close(); err != nil {
				w.t.Error(err)
			}
		})
	}
	w.t.Cleanup(w.stop)
}

func (w *world) restart() { w.t.Helper(); w.stop(); w.start() }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open(token string) (federation.Opened, error) {
	return w.exchange.Open(context.Background(), federation.OpenRequest{Token: token})
}

func (w *world) mustOpen(token string) federation.Opened {
	w.t.Helper()
	o, err := w.open(token)
	w.must(err)
	return o
}

func (w *world) connect(assertion string) (federation.Opened, error) {
	return w.exchange.Connect(context.Background(), federation.ConnectRequest{Connection: "anthropic", Assertion: assertion, Mapping: "agents", Organization: "any"})
}

func (w *world) mustConnect(assertion string) federation.Opened {
	w.t.Helper()
	o, err := w.connect(assertion)
	w.must(err)
	return o
}

// call looks the token up as a call does, and returns "" where it may pass.
func (w *world) call(o federation.Opened) access.Code {
	w.t.Helper()
	hash, ok := access.HashToken(o.Token.Reveal())
	if !ok {
		w.t.Fatalf("%q is no access token", o.Token.Reveal())
	}
	s, _, err := w.sessions.SessionByToken(context.Background(), hash)
	if err == nil {
		err = s.Usable(w.now())
	}
	return access.CodeOf(err)
}

func (w *world) wantCall(o federation.Opened, want access.Code) {
	w.t.Helper()
	if got := w.call(o); got != want {
		w.t.Errorf("call = %q, want %q", got, want)
	}
}

// wantRefused checks the code and reason of a refusal, and that its text holds what it must.
func wantRefused(t testing.TB, err error, code access.Code, reason string, text ...string) {
	t.Helper()
	var e *access.Error
	if !errors.As(err, &e) || e.Code != code || e.Reason != reason {
		t.Fatalf("error = %#v %v, want code %q, reason %q", e, err, code, reason)
	}
	for _, part := range text {
		if !strings.Contains(e.Public, part) {
			t.Errorf("text = %q, want %q in it", e.Public, part)
		}
	}
}

const owner = "123456"

func agents(change ...func(*api.Mapping)) api.Mapping {
	m := api.Mapping{
		Name: "agents", Issuer: "github",
		Match: map[string]api.Values{"repository_owner_id": {owner}, "repository_id": {"456789"}},
		Grants: []api.Grant{
			{Connection: "anthropic", Allow: []string{"POST /v1/messages"}},
			{Connection: "web", Allow: []string{"GET /"}},
		},
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

func named(name string) func(*api.Mapping) { return func(m *api.Mapping) { m.Name = name } }

func window(most, lease time.Duration) func(*api.Mapping) {
	return func(m *api.Mapping) { m.Window = api.Window{Max: api.Duration(most), Lease: api.Duration(lease)} }
}

func build(spec api.Mapping) (*federation.Mapping, error) {
	return federation.NewMapping(spec, federation.MappingConfig{
		Issuers: []federation.Issuer{
			{Name: "github", Provider: "github-actions"}, {Name: "gitlab", Provider: "gitlab"}, {Name: "buildkite", Provider: "buildkite"},
		},
		Connections: map[string]string{"anthropic": "anthropic", "web": "http"},
	})
}

// verify takes "job/token" of the repository that the mapping of agents names, and "!job/token" of a stranger's.
func verify(_ context.Context, token string) (access.Identity, error) {
	repository, repositoryOwner := "456789", owner
	if rest, stranger := strings.CutPrefix(token, "!"); stranger {
		token, repository, repositoryOwner = rest, "1", "2"
	}
	if rest, other := strings.CutPrefix(token, "~"); other { // another repository of the same owner
		token, repository = rest, "1"
	}
	job, id, ok := strings.Cut(token, "/")
	if !ok {
		return access.Identity{}, &access.Error{Code: access.CodeGrant, Reason: "malformed", Public: "invalid_grant", Err: errors.New("secret detail")}
	}
	return access.Identity{
		Issuer: "github", IssuerURL: "https://token.actions.githubusercontent.com", Provider: "github-actions",
		Subject: "repo:o/r:ref:refs/heads/main", JobKey: access.JobKey("run_id=" + job), TokenID: "jti:" + id,
		Claims: access.Claims{
			"repository": "o/r", "repository_id": repository, "repository_owner_id": repositoryOwner, "run_id": job,
			"run_attempt": "1", "check_run_id": "7", "ref": "refs/heads/main", "event_name": "push",
		},
		IssuedAt: time.Now(), Expires: time.Now().Add(5 * time.Minute),
	}, nil
}

type liveness struct {
	mu    sync.Mutex // guards all below
	state federation.LiveState
	err   error
	asked int
}

func (l *liveness) set(state federation.LiveState, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.err = state, err
}

func (l *liveness) JobEnded(context.Context, access.Identity) (federation.LiveState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.state, l.err
}

// recorder writes down what it is told.
type recorder struct {
	mu     sync.Mutex // guards all below
	events []string
	fail   error
	opened func(*access.Session) // called before SessionOpened returns
}

func (r *recorder) add(format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	r.events = append(r.events, fmt.Sprintf(format, args...))
	return nil
}

func (r *recorder) failing(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.events...)
}

func (r *recorder) SessionOpened(_ context.Context, s *access.Session, o federation.Opening) error {
	if r.opened != nil {
		r.opened(s)
	}
	return r.add("opened %s at %s for %s", s.Identity.JobKey, o.Door, strings.Join(o.Connections, " "))
}

func (r *recorder) SessionJoined(_ context.Context, s *access.Session, o federation.Opening) error {
	return r.add("joined %s at %s for %s renewed=%v", s.Identity.JobKey, o.Door, strings.Join(o.Connections, " "), o.Renewed)
}

func (r *recorder) SessionEnded(_ context.Context, s *access.Session, reason access.EndReason, by string) {
	_ = r.add("ended %s %s by %s", s.Identity.JobKey, reason, by)
}

// faultyStore fails where it is told to.
type faultyStore struct {
	*store.DB
	mu       sync.Mutex // guards all below
	failEnds bool
	failSave bool
	failStop bool
	reads    int // of TokenByHash
}

func (f *faultyStore) set(change func(*faultyStore)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

var errDisk = &access.Error{Code: access.CodeUnavailable, Public: "the store does not answer", Err: errors.New("disk is full")}

func (f *faultyStore) EndSessions(ctx context.Context, ends []access.SessionEnd, counters []access.CounterRow) error {
	f.mu.Lock()
	fail := f.failEnds
	f.mu.Unlock()
	if fail {
		return errDisk
	}
	return f.DB.EndSessions(ctx, ends, counters)
}

func (f *faultyStore) SaveMappings(ctx context.Context, changes []access.MappingChange) error {
	f.mu.Lock()
	fail := f.failSave
	f.mu.Unlock()
	if fail {
		return errDisk
	}
	return f.DB.SaveMappings(ctx, changes)
}

func (f *faultyStore) TokenByHash(ctx context.Context, hash access.TokenHash) (access.StoredToken, bool, error) {
	f.mu.Lock()
	f.reads++
	f.mu.Unlock()
	return f.DB.TokenByHash(ctx, hash)
}
