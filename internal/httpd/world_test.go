package httpd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/httpd"
)

const adminToken = "an-admin-token-of-the-test"

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// world is what the people's side stands on. The mappings are the real ones over a store in memory.
type world struct {
	mappings *federation.Mappings
	sessions *fakeSessions
	desk     *fakeDesk
	stops    *fakeStops
	hits     *fakeHits
	ready    error
	log      bytes.Buffer
}

func newWorld(t *testing.T, file ...api.Mapping) *world {
	t.Helper()
	w := &world{sessions: &fakeSessions{rows: map[string]federation.SessionInfo{}}, desk: &fakeDesk{rows: map[string]access.Approval{}}, stops: &fakeStops{}, hits: &fakeHits{}}
	build := func(spec api.Mapping) (*federation.Mapping, error) {
		return federation.NewMapping(spec, federation.MappingConfig{
			Issuers:     []federation.Issuer{{Name: "github", Provider: "github-actions"}},
			Connections: map[string]string{"anthropic": "anthropic"},
			Groups:      []string{"sre"},
		})
	}
	var err error
	w.mappings, err = federation.NewMappings(t.Context(), federation.MappingsConfig{
		Store: &mappingRows{rows: map[string]access.MappingRow{}}, Build: build, Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	var declared []federation.Declared
	for _, spec := range file {
		declared = append(declared, federation.Declared{Spec: spec, Origin: access.Origin{From: "mappings.d/" + spec.Name + ".yaml", Revision: "sha256:5ec1"}})
	}
	if err := w.mappings.Reload(t.Context(), declared); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) people(change ...func(*httpd.PeopleConfig)) *httpd.People {
	c := httpd.PeopleConfig{
		Mappings: w.mappings, Sessions: w.sessions, Desk: w.desk, Stops: w.stops, Hits: w.hits, Explainer: w.explainer(), Token: access.NewSecret(adminToken),
		Slack:   http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusAccepted) }),
		Metrics: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "some_metric 1\n") }),
		Archive: func(session string, _ time.Time) string { return "mem:// " + session },
		Ready:   func(context.Context) error { return w.ready },
		Log:     slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	for _, f := range change {
		f(&c)
	}
	return httpd.NewPeople(c)
}

func (w *world) explainer() *federation.Explainer {
	v, err := federation.NewVerifier(federation.VerifierConfig{Audience: "https://jobgate.example.com", Now: func() time.Time { return noon },
		Issuers: []federation.Issuer{{Name: "github", Provider: "github-actions"}}})
	if err != nil {
		panic(err)
	}
	x, err := federation.NewExplainer(federation.ExplainerConfig{Verifier: v, Mappings: w.mappings.InForce, Now: func() time.Time { return noon }})
	if err != nil {
		panic(err)
	}
	return x
}

func mapping(name string) api.Mapping {
	return api.Mapping{
		Name: name, Issuer: "github", Match: map[string]api.Values{"repository_owner_id": {"123456"}, "repository_id": {"456789"}},
		Grants: []api.Grant{{Connection: "anthropic", Allow: []string{"POST /v1/messages"}}},
	}
}

// mappingRows is a store of mappings in memory.
type mappingRows struct {
	mu   sync.Mutex // guards rows
	rows map[string]access.MappingRow
}

func (m *mappingRows) MappingRows(context.Context) ([]access.MappingRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []access.MappingRow
	for _, r := range m.rows {
		out = append(out, r)
	}
	return out, nil
}

func (m *mappingRows) SaveMappings(_ context.Context, changes []access.MappingChange) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		if m.rows[c.Row.Name].Revision != c.From {
			return access.Refuse(access.CodeConflict, "another change was first")
		}
	}
	for _, c := range changes {
		m.rows[c.Row.Name] = c.Row
	}
	return nil
}

func (m *mappingRows) MappingRevision(_ context.Context, name string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows[name].Revision, nil
}

type fakeSessions struct {
	rows  map[string]federation.SessionInfo
	err   error
	ended []string // "id reason by"
}

func (f *fakeSessions) List(_ context.Context, open bool) ([]federation.SessionInfo, error) {
	var out []federation.SessionInfo
	for _, s := range f.rows {
		if !open || s.State != access.Ended {
			out = append(out, s)
		}
	}
	return out, f.err
}

func (f *fakeSessions) Get(_ context.Context, id string) (federation.SessionInfo, error) {
	s, ok := f.rows[id]
	if !ok {
		return s, access.Refuse(access.CodeNotFound, "there is no such session")
	}
	return s, f.err
}

func (f *fakeSessions) End(_ context.Context, id string, reason access.EndReason, by string) error {
	if _, ok := f.rows[id]; !ok {
		return access.Refuse(access.CodeNotFound, "there is no such session")
	}
	f.ended = append(f.ended, id+" "+string(reason)+" "+by)
	return f.err
}

func openSession(id string) federation.SessionInfo {
	return federation.SessionInfo{
		SessionRow: access.SessionRow{
			ID: id, Mapping: "agents", Revision: 1, Opened: noon, Closes: noon.Add(time.Hour), Asleep: noon.Add(15 * time.Minute),
			Identity: access.Identity{Issuer: "github", Provider: "github-actions", JobKey: "run_id=1", Claims: access.Claims{"ref": "refs/heads/main"}},
			Counts:   map[string]access.Counts{"anthropic": {Requests: 2, InputTokens: 30, OutputTokens: 4}},
			Tally:    access.Tally{Calls: 2, Denials: 1},
		},
		State: access.Awake, InForce: 3,
	}
}

type fakeDesk struct {
	rows  map[string]access.Approval
	votes []access.Vote
}

func (f *fakeDesk) List(_ context.Context, state access.ApprovalState) ([]access.Approval, error) {
	var out []access.Approval
	for _, a := range f.rows {
		if state == "" || a.State == state {
			out = append(out, a)
		}
	}
	return out, nil
}

func (f *fakeDesk) Get(_ context.Context, id string) (access.Approval, error) {
	a, ok := f.rows[id]
	if !ok {
		return a, access.Refuse(access.CodeNotFound, "there is no such question")
	}
	return a, nil
}

func (f *fakeDesk) Vote(ctx context.Context, id string, v access.Vote) (access.Approval, error) {
	a, err := f.Get(ctx, id)
	if err != nil {
		return a, err
	}
	v.At = noon
	f.votes = append(f.votes, v)
	settled, err := a.Settle(v)
	if err == nil {
		f.rows[id] = settled
	}
	return settled, err
}

func question(id string) access.Approval {
	return access.Approval{ID: id, State: access.Pending, Session: "s_1", Title: "Bash", Text: "make deploy", Asked: noon, Expires: noon.Add(time.Minute)}
}

// ask sends one request to a handler. Headers are pairs.
func ask(t *testing.T, h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// admin sends one request with the admin token.
func admin(t *testing.T, h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, h, method, target, body, append(headers, "Authorization", "Bearer "+adminToken)...)
}

// problem reads an answer that must be problem details with a status and a code.
func problem(t *testing.T, w *httptest.ResponseRecorder, status int, code string) api.Problem {
	t.Helper()
	var p api.Problem
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("status %d, content type %q, want problem details: %s", w.Code, got, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("read %q: %v", w.Body, err)
	}
	if w.Code != status || p.Status != status || p.Type != "urn:jobgate:problem:"+code {
		t.Errorf("got status %d, %+v; want %d and code %s", w.Code, p, status, code)
	}
	return p
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	var v T
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return v
}
