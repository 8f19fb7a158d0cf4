package federation

import (
	"context"
	"sort"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// listed is how many sessions a list that is not limited to open ones has at most.
const listed = 1000

// SessionInfo is a session as people see it.
type SessionInfo struct {
	access.SessionRow
	Job   access.Job
	State access.State
	// InForce is the revision that rules the next call, 0 for a session that is over. Of an open session Origin is this
	// revision's, of one that is over that of the opening.
	InForce int64
	// Sign is what kept the session awake last, "" where that was before a restart.
	Sign LifeSign
	// Connections are those that are granted, nil for a session that is over.
	Connections []string
	// Denials are the latest ones, oldest first; in memory only.
	Denials []access.Denial
}

// Session returns an open session that is in memory.
func (s *Sessions) Session(id string) (*access.Session, bool) {
	s.mu.RLock()
	e := s.byID[id]
	s.mu.RUnlock()
	if e == nil || e.session.State(s.c.Now()) == access.Ended {
		return nil, false
	}
	return e.session, true
}

// Get returns a session, open or over, or CodeNotFound.
func (s *Sessions) Get(ctx context.Context, id string) (SessionInfo, error) {
	s.mu.RLock()
	e := s.byID[id]
	s.mu.RUnlock()
	if e != nil {
		return e.info(s.c.Now()), nil
	}
	row, err := s.c.Store.SessionRow(ctx, id)
	if err != nil {
		return SessionInfo{}, err
	}
	return rowInfo(row), nil
}

// List returns the open sessions, dormant ones among them, or the latest 1000 of all, the newest first.
func (s *Sessions) List(ctx context.Context, open bool) ([]SessionInfo, error) {
	now := s.c.Now()
	var out []SessionInfo
	known := make(map[string]bool)
	for _, e := range s.all() {
		info := e.info(now)
		known[info.ID] = true
		if !open || info.State != access.Ended {
			out = append(out, info)
		}
	}
	if !open {
		rows, err := s.c.Store.SessionRows(ctx, false, listed)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if !known[row.ID] {
				out = append(out, rowInfo(row))
			}
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if !out[i].Opened.Equal(out[j].Opened) {
			return out[i].Opened.After(out[j].Opened)
		}
		return out[i].ID < out[j].ID
	})
	if !open && len(out) > listed {
		out = out[:listed]
	}
	return out, nil
}

func (e *sessionEntry) info(now time.Time) SessionInfo {
	info := SessionInfo{SessionRow: e.snapshot(now), Job: e.session.Job, State: e.session.State(now)}
	info.Override = e.session.Policy().Override
	if info.State != access.Ended {
		policy := e.session.Policy()
		info.InForce, info.Origin, info.Connections = policy.Revision, policy.Origin, policy.Connections()
	}
	_, info.Denials = e.session.Tally()
	e.mu.Lock()
	info.Sign = e.sign
	e.mu.Unlock()
	return info
}

func rowInfo(row access.SessionRow) SessionInfo {
	return SessionInfo{SessionRow: row, Job: Job(row.Identity), State: access.Ended}
}

// Introspection is what a token is good for: RFC 7662 section 2.2.
type Introspection struct {
	Active      bool
	Session     string
	Mapping     string
	Connections []string
	Issued      time.Time
	Expires     time.Time
	State       access.State
	Asleep      time.Time // end of the lease
	Closes      time.Time // end of the window
}

// Introspect tells about a token to a bearer of the same session, and of any other token that it is not active. A
// bearer that is refused itself gets the error.
func (s *Sessions) Introspect(ctx context.Context, bearer, token string) (Introspection, error) {
	hash, ok := access.HashToken(bearer)
	if !ok {
		return Introspection{}, errUnknownToken
	}
	own, _, err := s.SessionByToken(ctx, hash)
	if err != nil {
		return Introspection{}, err
	}
	if hash, ok = access.HashToken(token); !ok {
		return Introspection{}, nil
	}
	session, asked, err := s.SessionByToken(ctx, hash)
	switch access.CodeOf(err) {
	case "":
	case access.CodeUnauthenticated, access.CodeEnded:
		return Introspection{}, nil
	default:
		return Introspection{}, err
	}
	if session != own {
		return Introspection{}, nil
	}
	state := session.State(s.c.Now())
	return Introspection{
		Active: state == access.Awake, Session: session.ID, Mapping: session.Mapping, Connections: asked.Connections,
		Issued: asked.Issued, Expires: asked.Expires, State: state, Asleep: session.Asleep(), Closes: session.Closes(),
	}, nil
}
