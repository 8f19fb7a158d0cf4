package federation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// SessionStore keeps sessions, their ledgers and their access tokens.
type SessionStore interface {
	SessionRow(ctx context.Context, id string) (access.SessionRow, error)
	SessionRows(ctx context.Context, open bool, limit int) ([]access.SessionRow, error)
	SessionOfJob(ctx context.Context, key access.LedgerKey) (access.SessionRow, bool, error)
	TokenByHash(ctx context.Context, hash access.TokenHash) (access.StoredToken, bool, error)
	TokensOfSession(ctx context.Context, session string) ([]access.StoredToken, error)
	EndSessions(ctx context.Context, ends []access.SessionEnd, counters []access.CounterRow) error
	SaveUsage(ctx context.Context, usage []access.Usage, counters []access.CounterRow) error
	CounterRows(ctx context.Context) ([]access.CounterRow, error)
	UndoOpening(ctx context.Context, session string) error
	Prune(ctx context.Context) error
}

// Opening is how a session was opened, or was joined or renewed later.
type Opening struct {
	Exchange    string // id of the exchange
	Door        string // "/oauth/token", or the connection's own
	Connections []string
	Token       access.TokenHash // of the access token that was given out
	Renewed     bool             // by a fresh CI token of the same job
	// What a connection's own exchange was given beside the assertion, as it came.
	Organization, ServiceAccount, Workspace string
}

// Recorder writes down what happens to sessions. A session or token of which that fails is not given out. SessionEnded
// must not fail: it keeps what it cannot write yet.
type Recorder interface {
	SessionOpened(ctx context.Context, s *access.Session, o Opening) error
	SessionJoined(ctx context.Context, s *access.Session, o Opening) error
	SessionEnded(ctx context.Context, s *access.Session, reason access.EndReason, by string)
}

// SessionsConfig is what a registry is made of.
type SessionsConfig struct {
	Store    SessionStore     // required
	Mappings *Mappings        // required; the registry is told of its changes from New on
	Recorder Recorder         // required
	Now      func() time.Time // nil takes time.Now
	Log      *slog.Logger     // nil discards
}

const (
	// shards divide the tokens, so that look-ups of one do not wait for the insertion of another.
	shards = 64
	// tokensPerSession is how many unexpired access tokens a session has at most.
	tokensPerSession = 64
	// unknownFor is how long a token that nobody knows is not asked for again; endedFor the same for one whose session
	// is over; missesKept how many of both are kept.
	unknownFor = 2 * time.Second
	endedFor   = 10 * time.Minute
	missesKept = 4096
)

// Sessions is the registry of sessions: every open one is in memory, and a call looks its token up there.
//
// [Sessions.Restore] comes first, [Sessions.Run] must run. It is safe for concurrent use.
type Sessions struct {
	c      SessionsConfig
	tokens [shards]tokenShard
	counts counterBook // what jobs count together
	misses missCache
	told   toldJobs
	wake   chan struct{} // to Run: an earlier deadline

	hurried chan struct{} // to the poller: a session whose lease is shorter than it looks around in

	mu    sync.RWMutex // guards all below
	byID  map[string]*sessionEntry
	byJob map[access.LedgerKey]*sessionEntry
	due   deadlines

	judging sync.Mutex // held while a policy is chosen and set, so that an older one never comes last
	pruned  time.Time  // by Run only
}

type tokenShard struct {
	mu   sync.RWMutex // guards held
	held map[access.TokenHash]*heldToken
}

type heldToken struct {
	access.AccessToken
	entry *sessionEntry
	used  atomic.Int64 // nanoseconds since 1970
}

// sessionEntry is a session in memory.
type sessionEntry struct {
	session *access.Session
	row     access.SessionRow // as it was opened or read
	names   []string          // jobNames

	mu      sync.Mutex // guards all below
	tokens  []*heldToken
	sign    LifeSign           // the latest, "" where it was before a restart
	saved   uint64             // session.Changes() when they were last written down
	asleep  time.Time          // end of the lease when it was last written down
	unsaved *access.SessionEnd // an end that the store does not have yet
	endedBy string
}

// NewSessions returns an empty registry.
func NewSessions(c SessionsConfig) (*Sessions, error) {
	if c.Store == nil || c.Mappings == nil || c.Recorder == nil {
		return nil, errors.New("federation: SessionsConfig needs Store, Mappings and Recorder")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sessions{
		c: c, wake: make(chan struct{}, 1), hurried: make(chan struct{}, 1),
		byID: make(map[string]*sessionEntry), byJob: make(map[access.LedgerKey]*sessionEntry),
		misses: missCache{kept: make(map[access.TokenHash]miss)},
	}
	for i := range s.tokens {
		s.tokens[i].held = make(map[access.TokenHash]*heldToken)
	}
	c.Mappings.sessions.Store(s)
	return s, nil
}

// SessionByToken returns the session of an access token, awake or dormant, and what the token is good for. A token that
// is unknown or expired is CodeUnauthenticated, one whose session is over CodeEnded with the reason. It reads memory,
// and the store once for a token that memory does not have.
func (s *Sessions) SessionByToken(ctx context.Context, hash access.TokenHash) (*access.Session, access.AccessToken, error) {
	held := s.held(hash)
	if held == nil {
		var err error
		if held, err = s.readToken(ctx, hash); err != nil {
			return nil, access.AccessToken{}, err
		}
	}
	now := s.c.Now()
	session := held.entry.session
	switch {
	case session.State(now) == access.Ended:
		return nil, access.AccessToken{}, session.Usable(now)
	case !now.Before(held.Expires):
		return nil, access.AccessToken{}, errExpiredToken
	}
	held.used.Store(now.UnixNano())
	return session, held.AccessToken, nil
}

var (
	errUnknownToken = access.Refuse(access.CodeUnauthenticated, "Jobgate: the access token is not known; exchange a CI token for a new one")
	errExpiredToken = access.Refuse(access.CodeUnauthenticated, "Jobgate: the access token has expired; exchange a CI token for a new one")
)

func (s *Sessions) shard(hash *access.TokenHash) *tokenShard { return &s.tokens[hash[0]%shards] }

func (s *Sessions) held(hash access.TokenHash) *heldToken {
	shard := s.shard(&hash)
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	return shard.held[hash]
}

// readToken asks the store for a token that memory does not have: of a session that ended a while ago, or that another
// process opened.
func (s *Sessions) readToken(ctx context.Context, hash access.TokenHash) (*heldToken, error) {
	if err := s.misses.get(hash, s.c.Now()); err != nil {
		return nil, err
	}
	token, found, err := s.c.Store.TokenByHash(ctx, hash)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, s.misses.put(hash, errUnknownToken, s.c.Now(), unknownFor)
	}
	entry, over, err := s.byIDOrStore(ctx, token.Session)
	if err != nil {
		return nil, err
	}
	if entry == nil {
		return nil, s.misses.put(hash, endedError(over), s.c.Now(), endedFor)
	}
	if held := s.held(hash); held != nil {
		return held, nil
	}
	now := s.c.Now()
	token.Expires = rebase(token.Expires, now)
	if !now.Before(token.Expires) {
		return nil, s.misses.put(hash, errExpiredToken, now, unknownFor)
	}
	return s.addToken(entry, token.AccessToken, token.LastUsed, nil), nil
}

func endedError(row access.SessionRow) error {
	return &access.Error{Code: access.CodeEnded, Reason: string(row.Reason),
		Public: fmt.Sprintf("Jobgate: the session of mapping %q is over: %s", row.Mapping, row.Reason.Text())}
}

// rebase gives a time that was read from the store a monotonic reading, so that a step of the clock does not move it.
func rebase(t, now time.Time) time.Time { return now.Add(t.Sub(now)) }

// addToken puts a token into memory and takes those away that made room for it.
func (s *Sessions) addToken(e *sessionEntry, token access.AccessToken, used time.Time, dropped []access.TokenHash) *heldToken {
	held := &heldToken{AccessToken: token, entry: e}
	held.used.Store(used.UnixNano())
	e.mu.Lock()
	kept := e.tokens[:0]
	for _, old := range e.tokens {
		if !hasHash(dropped, old.Hash) && old.Hash != token.Hash {
			kept = append(kept, old)
		}
	}
	clear(e.tokens[len(kept):])
	e.tokens = append(kept, held)
	e.mu.Unlock()
	for i := range dropped {
		s.removeToken(dropped[i])
	}
	shard := s.shard(&token.Hash)
	shard.mu.Lock()
	shard.held[token.Hash] = held
	shard.mu.Unlock()
	return held
}

func (s *Sessions) removeToken(hash access.TokenHash) {
	shard := s.shard(&hash)
	shard.mu.Lock()
	delete(shard.held, hash)
	shard.mu.Unlock()
}

func hasHash(list []access.TokenHash, hash access.TokenHash) bool {
	for i := range list {
		if list[i] == hash {
			return true
		}
	}
	return false
}

// room returns the tokens that must go before one more is given out: those that have expired, and the one unused
// longest where there are too many.
func (e *sessionEntry) room(now time.Time) []access.TokenHash {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []access.TokenHash
	var oldest *heldToken
	live := 0
	for _, t := range e.tokens {
		if !now.Before(t.Expires) {
			out = append(out, t.Hash)
			continue
		}
		live++
		if oldest == nil || t.used.Load() < oldest.used.Load() {
			oldest = t
		}
	}
	if live >= tokensPerSession {
		out = append(out, oldest.Hash)
	}
	return out
}

// register puts a session into memory. Where another call was faster, its entry is returned.
func (s *Sessions) register(e *sessionEntry) *sessionEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.byID[e.session.ID]; have != nil {
		return have
	}
	e.names, e.asleep = jobNames(e.row.Identity), e.row.Asleep
	s.byID[e.session.ID], s.byJob[e.row.Key()] = e, e
	s.dueLocked(e, e.session.Closes())
	if e.session.Policy().Window.Lease < pollLook*pollLease {
		select {
		case s.hurried <- struct{}{}:
		default:
		}
	}
	return e
}

// ofJob returns the session that a job has under a mapping: an entry that is open, or the row of one that is over, or
// neither.
func (s *Sessions) ofJob(ctx context.Context, key access.LedgerKey) (*sessionEntry, access.SessionRow, error) {
	s.mu.RLock()
	e := s.byJob[key]
	s.mu.RUnlock()
	if e != nil {
		return s.openOrOver(e)
	}
	row, found, err := s.c.Store.SessionOfJob(ctx, key)
	if err != nil || !found {
		return nil, access.SessionRow{}, err
	}
	return s.fromRow(ctx, row)
}

// byIDOrStore returns a session likewise; one that never was is CodeNotFound.
func (s *Sessions) byIDOrStore(ctx context.Context, id string) (*sessionEntry, access.SessionRow, error) {
	s.mu.RLock()
	e := s.byID[id]
	s.mu.RUnlock()
	if e != nil {
		return s.openOrOver(e)
	}
	row, err := s.c.Store.SessionRow(ctx, id)
	if err != nil {
		return nil, row, err
	}
	return s.fromRow(ctx, row)
}

func (s *Sessions) openOrOver(e *sessionEntry) (*sessionEntry, access.SessionRow, error) {
	now := s.c.Now()
	if e.session.State(now) != access.Ended {
		return e, access.SessionRow{}, nil
	}
	return nil, e.snapshot(now), nil
}

func (s *Sessions) fromRow(ctx context.Context, row access.SessionRow) (*sessionEntry, access.SessionRow, error) {
	if !row.Ended.IsZero() {
		return nil, row, nil
	}
	e, err := s.load(ctx, row, nil)
	if err != nil {
		return nil, row, err
	}
	return s.openOrOver(e)
}

// snapshot returns the row as it would be written now.
func (e *sessionEntry) snapshot(now time.Time) access.SessionRow {
	row := e.row
	row.Closes, row.Asleep = e.session.Closes(), e.session.Asleep()
	row.Counts = e.session.Counts()
	row.Tally, _ = e.session.Tally()
	row.Reason, row.Ended = e.session.EndReason()
	if row.Reason == "" && !now.Before(row.Closes) { // Run comes to it in a moment
		row.Reason, row.Ended = access.EndMax, row.Closes
	}
	e.mu.Lock()
	row.EndedBy = e.endedBy
	e.mu.Unlock()
	return row
}

// missCache remembers for a moment which tokens led nowhere. It is bounded: a full one forgets any.
type missCache struct {
	mu   sync.Mutex // guards kept
	kept map[access.TokenHash]miss
}

type miss struct {
	err   error
	until time.Time
}

func (c *missCache) get(hash access.TokenHash, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.kept[hash]
	if !ok || !now.Before(m.until) {
		return nil
	}
	return m.err
}

func (c *missCache) put(hash access.TokenHash, err error, now time.Time, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for old := range c.kept {
		if len(c.kept) < missesKept {
			break
		}
		delete(c.kept, old)
	}
	c.kept[hash] = miss{err: err, until: now.Add(d)}
	return err
}
