package access

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// State is what a session is at one instant. It is computed, never stored.
type State string

const (
	// Awake serves calls.
	Awake State = "awake"
	// Dormant had no sign of life for a lease: new calls wait for a fresh token, running streams go on.
	Dormant State = "dormant"
	// Ended is final.
	Ended State = "ended"
)

// EndReason says why a session ended.
type EndReason string

const (
	EndClosed   EndReason = "closed"          // by the job
	EndJob      EndReason = "job_ended"       // the provider says that the job is over
	EndMax      EndReason = "max"             // the window's length
	EndDeleted  EndReason = "mapping_deleted" // revoked
	EndMismatch EndReason = "mapping_changed" // the claims match the mapping no more
	EndOperator EndReason = "operator"        // by a person
	EndUnsaid   EndReason = "unrecorded"      // the exchange could not be recorded: nobody was given its token
)

// Text explains an end to the job's owner.
func (r EndReason) Text() string {
	switch r {
	case EndClosed:
		return "the job closed its session"
	case EndJob:
		return "the CI provider reports that the job is over"
	case EndMax:
		return "the window reached its longest duration"
	case EndDeleted:
		return "its mapping was deleted"
	case EndMismatch:
		return "its mapping was changed and matches this job no more"
	case EndOperator:
		return "an operator closed it"
	case EndUnsaid:
		return "its exchange could not be recorded, and nobody was given its token"
	}
	return "it ended (" + string(r) + ")"
}

// Window is the time in which a session may be awake: from Opens up to, not including, Closes.
type Window struct {
	Opens, Closes time.Time
}

// Contains reports whether t lies in the window.
func (w Window) Contains(t time.Time) bool { return !t.Before(w.Opens) && t.Before(w.Closes) }

// Counts are what a job has used of one connection.
type Counts struct {
	Requests     int64 `json:"requests"`
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
}

// Tally counts what happened in a session, for the job's summary and the archive.
type Tally struct {
	Calls     int64 `json:"calls"`
	Denials   int64 `json:"denials"`
	Observed  int64 `json:"would_have_denied"`
	Asked     int64 `json:"asked"`
	Approved  int64 `json:"approved"`
	Refused   int64 `json:"denied"`
	Expired   int64 `json:"expired"`
	Cancelled int64 `json:"cancelled"`
}

// Denial is one refusal as the job's summary shows it; the texts are masked.
type Denial struct {
	Time       time.Time `json:"time"`
	Connection string    `json:"connection"`
	Rule       string    `json:"rule"`
	Reason     string    `json:"reason"`
	What       string    `json:"what"`
}

const keptDenials = 20

// Watcher is told what happens to the session that it watches. Its methods are called without the session's lock,
// must not block, and may be called from any goroutine.
type Watcher interface {
	SessionEnded(EndReason)
	PolicyChanged()
	// StopsChanged says that operators have stopped something. It returns nil where what the watcher does may go on,
	// and else a channel that is closed once nothing of it reaches an upstream any more.
	StopsChanged() <-chan struct{}
}

// Session is the job window. The exported fields do not change; the rest is guarded and lives in memory only: the
// store and the record keep what must survive.
type Session struct {
	ID       string
	Mapping  string
	Identity Identity
	Job      Job
	Window   Window

	policy  atomic.Pointer[Policy]
	counter func(CounterKey) *Counter
	changes atomic.Uint64

	mu       sync.Mutex // guards all below
	asleep   time.Time  // dormant from then on
	closes   time.Time  // Window.Closes or, after a change of the mapping, earlier
	ended    EndReason
	endedAt  time.Time
	counts   map[string]*Counts
	shared   map[[2]string]*Counter // by connection and claim
	tally    Tally
	denials  []Denial
	watchers map[uint64]Watcher
	nextID   uint64
	quiet    chan struct{} // closed once it has ended and nobody watches
}

// SessionConfig is what a session begins with.
type SessionConfig struct {
	ID       string
	Identity Identity
	Job      Job
	Window   Window
	Asleep   time.Time // end of the first lease
	Policy   *Policy
	Counts   map[string]Counts // what the job's ledger holds already
	Tally    Tally
	// Counter returns the counter that the session shares with other jobs. It does no I/O. nil counts for this session alone.
	Counter func(CounterKey) *Counter
}

// NewSession returns an awake session. Times with a monotonic reading keep it, so that a step of the wall clock does
// not move the window.
func NewSession(c SessionConfig) *Session {
	s := &Session{
		ID: c.ID, Mapping: c.Policy.Mapping, Identity: c.Identity, Job: c.Job, Window: c.Window,
		asleep: c.Asleep, closes: c.Window.Closes, tally: c.Tally,
		counts: make(map[string]*Counts, len(c.Counts)), watchers: make(map[uint64]Watcher),
		quiet: make(chan struct{}), shared: make(map[[2]string]*Counter), counter: c.Counter,
	}
	if s.counter == nil {
		s.counter = func(key CounterKey) *Counter { return NewCounter(CounterRow{CounterKey: key}) }
	}
	for name, n := range c.Counts {
		s.counts[name] = &Counts{Requests: n.Requests, InputTokens: n.InputTokens, OutputTokens: n.OutputTokens}
	}
	s.policy.Store(c.Policy)
	return s
}

// Policy returns what rules the next call.
func (s *Session) Policy() *Policy { return s.policy.Load() }

// SetPolicy puts a new revision in force and tells the watchers. A shorter window takes effect at once; a longer one
// does not lengthen a session that is open.
func (s *Session) SetPolicy(p *Policy) {
	s.mu.Lock()
	s.policy.Store(p)
	if closes := s.Window.Opens.Add(p.Window.Max); closes.Before(s.closes) {
		s.closes = closes
	}
	watchers := s.watchersLocked()
	s.mu.Unlock()
	for _, w := range watchers {
		w.PolicyChanged()
	}
}

// StopsChanged tells the watchers, and returns what those that must end close when they have.
func (s *Session) StopsChanged() []<-chan struct{} {
	s.mu.Lock()
	watchers := s.watchersLocked()
	s.mu.Unlock()
	var leaving []<-chan struct{}
	for _, w := range watchers {
		if left := w.StopsChanged(); left != nil {
			leaving = append(leaving, left)
		}
	}
	return leaving
}

// Resume gives the lease back the time since a stop began: nobody could renew it meanwhile. What slept before stays
// asleep; no lease is longer than a new one, and none reaches beyond the window.
func (s *Session) Resume(since, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stateLocked(now) == Ended || !s.asleep.After(since) {
		return
	}
	until := now.Add(min(s.asleep.Sub(since), s.policy.Load().Window.Lease))
	if until.After(s.closes) {
		until = s.closes
	}
	if until.After(s.asleep) {
		s.asleep = until
		s.changes.Add(1)
	}
}

// State returns what the session is at an instant.
func (s *Session) State(now time.Time) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stateLocked(now)
}

func (s *Session) stateLocked(now time.Time) State {
	switch {
	case s.ended != "" || !now.Before(s.closes):
		return Ended
	case !now.Before(s.asleep):
		return Dormant
	}
	return Awake
}

// Closes returns when the window is over at the latest.
func (s *Session) Closes() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closes
}

// Asleep returns when the lease runs out.
func (s *Session) Asleep() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asleep
}

// Renew takes a sign of life at now: the session is awake for another lease, never beyond its window. It returns the
// end of the lease, and false for a session that is over.
func (s *Session) Renew(now time.Time) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stateLocked(now) == Ended {
		return time.Time{}, false
	}
	if until := now.Add(s.policy.Load().Window.Lease); until.After(s.asleep) {
		s.asleep = until
	}
	if s.asleep.After(s.closes) {
		s.asleep = s.closes
	}
	s.changes.Add(1)
	return s.asleep, true
}

// End ends the session and tells the watchers, once: it reports whether this call ended it.
func (s *Session) End(reason EndReason, now time.Time) bool {
	s.mu.Lock()
	if s.ended != "" {
		s.mu.Unlock()
		return false
	}
	s.ended, s.endedAt = reason, now
	watchers := s.watchersLocked()
	if len(watchers) == 0 {
		close(s.quiet)
	}
	s.mu.Unlock()
	for _, w := range watchers {
		w.SessionEnded(reason)
	}
	return true
}

// EndReason returns why and when the session ended, "" while it is open.
func (s *Session) EndReason() (EndReason, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended, s.endedAt
}

// Usable returns nil while calls may be served, CodeUnauthenticated for a dormant session and CodeEnded for one that
// is over.
func (s *Session) Usable(now time.Time) error {
	s.mu.Lock()
	state, reason := s.stateLocked(now), s.ended
	s.mu.Unlock()
	switch state {
	case Awake:
		return nil
	case Dormant:
		return Refuse(CodeUnauthenticated, "Jobgate: the session sleeps since its lease ran out; show a fresh CI token of the same job")
	}
	if reason == "" {
		reason = EndMax
	}
	return &Error{Code: CodeEnded, Reason: string(reason), Public: fmt.Sprintf("Jobgate: the session of mapping %q is over: %s", s.Mapping, reason.Text())}
}

// Watch registers a watcher until the returned function is called. A session that has ended already tells it at once.
func (s *Session) Watch(w Watcher) (stop func()) {
	s.mu.Lock()
	if reason := s.ended; reason != "" {
		s.mu.Unlock()
		w.SessionEnded(reason)
		return func() {}
	}
	id := s.nextID
	s.nextID++
	s.watchers[id] = w
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, watching := s.watchers[id]; !watching {
			return
		}
		delete(s.watchers, id)
		if s.ended != "" && len(s.watchers) == 0 {
			close(s.quiet)
		}
	}
}

// Quiet returns a channel that is closed once the session has ended and nobody watches it any more: no call of it is
// under way.
func (s *Session) Quiet() <-chan struct{} { return s.quiet }

func (s *Session) watchersLocked() []Watcher {
	out := make([]Watcher, 0, len(s.watchers))
	for _, w := range s.watchers {
		out = append(out, w)
	}
	return out
}
