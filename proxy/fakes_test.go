package proxy_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/record"
)

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
