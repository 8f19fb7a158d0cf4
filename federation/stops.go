package federation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// stopWait is how long a stop waits for the calls that it cut to have left their upstreams. They are not asked: their
	// connections are closed.
	stopWait = 10 * time.Second
	// stopReason bounds an operator's reason, in bytes: jobs read it in one line.
	stopReason = 500
)

// StopStore keeps what is stopped.
type StopStore interface {
	Stops(ctx context.Context) ([]access.StopOrder, error)
	SaveStop(ctx context.Context, s access.StopOrder) error
	DeleteStop(ctx context.Context, kind access.StopKind, name string) error
}

// StopsConfig is what a set of stops is made of.
type StopsConfig struct {
	Store       StopStore       // required
	Sessions    *Sessions       // required: their calls are cut
	Connections []string        // names that can be stopped
	Mappings    func() []string // likewise, as they are now; required
	Now         func() time.Time
	Log         *slog.Logger // nil discards
}

// Stops is the kill switch: what operators have stopped. A stop is in force in memory before anything else happens, and
// in the store before [Stops.Stop] returns. It is safe for concurrent use; Refusal and OfMapping read one snapshot and
// never wait.
type Stops struct {
	c   StopsConfig
	set atomic.Pointer[stopSet]
	mu  sync.Mutex // held by one change of set and store
}

// stopSet is what is stopped at one instant. It does not change.
type stopSet struct {
	all                   *stopInForce
	connections, mappings map[string]*stopInForce
}

type stopInForce struct {
	access.StopOrder
	refusal *access.Error
}

// StopInfo is a stop as people see it.
type StopInfo struct {
	access.StopOrder
	Sessions int // open ones that it holds back
}

// StopChange is what a stop or its lifting did.
type StopChange struct {
	Stop    StopInfo // in force, or lifted; its Kind is empty where there was none to lift
	Changed bool     // false: it was so before
	Cut     int      // calls that were under way
	InForce []StopInfo
}

// NewStops reads what the store has: it is in force when NewStops returns.
func NewStops(ctx context.Context, c StopsConfig) (*Stops, error) {
	if c.Store == nil || c.Sessions == nil || c.Mappings == nil {
		return nil, errors.New("federation: StopsConfig needs Store, Sessions and Mappings")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	rows, err := c.Store.Stops(ctx)
	if err != nil {
		return nil, err
	}
	s := &Stops{c: c}
	s.set.Store(newStopSet(rows))
	for _, row := range rows {
		c.Log.Warn("a stop is in force: its calls are refused until it is resumed",
			"kind", row.Kind, "name", row.Name, "by", row.By, "since", row.At, "reason", row.Reason)
	}
	return s, nil
}

func newStopSet(rows []access.StopOrder) *stopSet {
	set := &stopSet{connections: make(map[string]*stopInForce), mappings: make(map[string]*stopInForce)}
	for _, row := range rows {
		held := &stopInForce{StopOrder: row, refusal: row.Refusal()}
		switch row.Kind {
		case access.StopConnection:
			set.connections[row.Name] = held
		case access.StopMapping:
			set.mappings[row.Name] = held
		default: // a kind that a newer program wrote: better too much than too little
			set.all = held
		}
	}
	return set
}

func (s *stopSet) of(connection, mapping string) *stopInForce {
	if s.all != nil {
		return s.all
	}
	if held := s.mappings[mapping]; held != nil {
		return held
	}
	return s.connections[connection]
}

func (s *stopSet) rows() []access.StopOrder {
	var out []access.StopOrder
	if s.all != nil {
		out = append(out, s.all.StopOrder)
	}
	for _, of := range []map[string]*stopInForce{s.connections, s.mappings} {
		for _, held := range of {
			out = append(out, held.StopOrder)
		}
	}
	slices.SortFunc(out, func(a, b access.StopOrder) int {
		return strings.Compare(string(a.Kind)+" "+a.Name, string(b.Kind)+" "+b.Name)
	})
	return out
}

func (s *stopSet) find(kind access.StopKind, name string) (access.StopOrder, bool) {
	for _, row := range s.rows() {
		if row.Kind == kind && row.Name == name {
			return row, true
		}
	}
	return access.StopOrder{}, false
}

// Refusal returns why a call must not pass, nil where nothing stops it.
func (s *Stops) Refusal(connection, mapping string) *access.Error {
	if held := s.set.Load().of(connection, mapping); held != nil {
		return held.refusal
	}
	return nil
}

// OfMapping returns the stop that holds back everything of a mapping.
func (s *Stops) OfMapping(mapping string) (access.StopOrder, bool) {
	if s == nil {
		return access.StopOrder{}, false
	}
	if held := s.set.Load().of("", mapping); held != nil {
		return held.StopOrder, true
	}
	return access.StopOrder{}, false
}

// InForce returns what is stopped: all, connections and mappings by name.
func (s *Stops) InForce() []access.StopOrder { return s.set.Load().rows() }

// List returns what is stopped, with the sessions that it holds back.
func (s *Stops) List() []StopInfo {
	var out []StopInfo
	for _, row := range s.InForce() {
		out = append(out, s.info(row))
	}
	return out
}

func (s *Stops) info(stop access.StopOrder) StopInfo {
	info, now := StopInfo{StopOrder: stop}, s.c.Now()
	for _, e := range s.c.Sessions.all() {
		if e.session.State(now) != access.Ended && heldBy(e.session, stop) {
			info.Sessions++
		}
	}
	return info
}

// StoppedBy reports whether a stop holds back calls of the session.
func (s SessionInfo) StoppedBy(stop access.StopOrder) bool {
	return holds(stop, s.Mapping, s.Connections)
}

func heldBy(session *access.Session, stop access.StopOrder) bool {
	return holds(stop, session.Mapping, session.Policy().Connections())
}

func holds(stop access.StopOrder, mapping string, connections []string) bool {
	switch stop.Kind {
	case access.StopConnection:
		return slices.Contains(connections, stop.Name)
	case access.StopMapping:
		return mapping == stop.Name
	}
	return true
}

// Stop puts a stop in force. When it returns without an error the stop is written down, every call that it concerns was
// cut, and none of them sends anything to its upstream any more. Stopping again keeps the time of the first, and takes
// a new reason. A name that does not exist is CodeNotFound, a bad reason CodeInvalid; with CodeUnavailable the stop is
// in force, and something about it is not done yet.
func (s *Stops) Stop(ctx context.Context, stop access.StopOrder) (StopChange, error) {
	if err := s.check(&stop); err != nil {
		return StopChange{}, err
	}
	change, leaving, err := s.put(ctx, stop)
	if err == nil {
		err = awaitLeaving(ctx, change.Stop.StopOrder, leaving)
	}
	change.Cut = len(leaving)
	s.c.Log.Warn("stopped", "kind", stop.Kind, "name", stop.Name, "by", stop.By, "reason", stop.Reason, "calls_cut", change.Cut, "again", !change.Changed, "err", err)
	return change, err
}

// put holds the lock. Memory comes first: a store that hangs must not keep calls running.
func (s *Stops) put(ctx context.Context, stop access.StopOrder) (StopChange, []<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.set.Load()
	before, again := set.find(stop.Kind, stop.Name)
	stop.At = s.c.Now()
	if again {
		stop.At = before.At
		if stop.Reason == "" || stop.Reason == before.Reason {
			stop.Reason, stop.By = before.Reason, before.By
		}
	}
	rows := slices.DeleteFunc(set.rows(), func(r access.StopOrder) bool { return r.Kind == stop.Kind && r.Name == stop.Name })
	s.set.Store(newStopSet(append(rows, stop)))
	var leaving []<-chan struct{}
	for _, e := range s.c.Sessions.all() {
		leaving = append(leaving, e.session.StopsChanged()...)
	}
	change := StopChange{Stop: s.info(stop), Changed: !again || before.Reason != stop.Reason, InForce: s.List()}
	if err := s.c.Store.SaveStop(context.WithoutCancel(ctx), stop); err != nil {
		return change, leaving, &access.Error{Code: access.CodeUnavailable, Err: err, Public: fmt.Sprintf(
			"%s is stopped in this process, but this could not be written down: stop it again, or a restart lifts it", stop)}
	}
	return change, leaving, nil
}

// awaitLeaving waits until the calls that were cut have left their upstreams.
func awaitLeaving(ctx context.Context, stop access.StopOrder, leaving []<-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
	defer cancel()
	for i, left := range leaving {
		select {
		case <-left:
		case <-ctx.Done():
			return access.Refuse(access.CodeUnavailable, fmt.Sprintf(
				"%s is stopped, and %d of the calls that were under way have not come to their end yet", stop, len(leaving)-i))
		}
	}
	return nil
}

// Resume lifts a stop; one that is not there is no error. Sessions go on where their windows are open: a window runs
// on during a stop, a lease that nobody could renew does not.
func (s *Stops) Resume(ctx context.Context, kind access.StopKind, name, by string) (StopChange, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.set.Load()
	stop, found := set.find(kind, name)
	if !found {
		stop = access.StopOrder{Kind: kind, Name: name}
		if err := s.check(&stop); err != nil {
			return StopChange{}, err
		}
		return StopChange{InForce: s.List()}, nil
	}
	if err := s.c.Store.DeleteStop(context.WithoutCancel(ctx), kind, name); err != nil {
		return StopChange{}, &access.Error{Code: access.CodeUnavailable, Err: err, Public: fmt.Sprintf(
			"%s stays stopped, since its lifting could not be written down; try again", stop)}
	}
	info := s.info(stop)
	rows := slices.DeleteFunc(set.rows(), func(r access.StopOrder) bool { return r.Kind == kind && r.Name == name })
	next := newStopSet(rows)
	s.thaw(stop, next)
	s.set.Store(next)
	s.c.Log.Warn("resumed", "kind", kind, "name", name, "by", by, "stopped_since", stop.At, "still_stopped", len(rows))
	return StopChange{Stop: info, Changed: true, InForce: s.List()}, nil
}

// thaw gives the sessions their leases back that nothing holds back any more. A stopped connection refused no exchange.
func (s *Stops) thaw(lifted access.StopOrder, left *stopSet) {
	if lifted.Kind == access.StopConnection {
		return
	}
	now := s.c.Now()
	for _, e := range s.c.Sessions.all() {
		if heldBy(e.session, lifted) && left.of("", e.session.Mapping) == nil {
			e.session.Resume(lifted.At, now)
		}
	}
}

// check says whether such a stop can be: the name exists, and the reason is one line.
func (s *Stops) check(stop *access.StopOrder) error {
	stop.Reason = strings.TrimSpace(stop.Reason)
	switch {
	case len(stop.Reason) > stopReason:
		return access.Refuse(access.CodeInvalid, fmt.Sprintf("the reason has %d bytes; %d are read", len(stop.Reason), stopReason))
	case !utf8.ValidString(stop.Reason) || strings.ContainsFunc(stop.Reason, unicode.IsControl):
		return access.Refuse(access.CodeInvalid, "the reason must be one line of text: jobs read it")
	}
	var names []string
	switch stop.Kind {
	case access.StopAll:
		if stop.Name == "" {
			return nil
		}
		return access.Refuse(access.CodeInvalid, "a stop of everything takes no name")
	case access.StopConnection:
		names = slices.Sorted(slices.Values(s.c.Connections))
	case access.StopMapping:
		names = slices.Sorted(slices.Values(s.c.Mappings()))
	default:
		return access.Refuse(access.CodeInvalid, "what is stopped is a connection, a mapping or all")
	}
	if slices.Contains(names, stop.Name) {
		return nil
	}
	there := "there is none"
	if len(names) > 0 {
		there = "there are: " + strings.Join(names, ", ")
	}
	return access.Refuse(access.CodeNotFound, fmt.Sprintf("there is no %s %q; %s", stop.Kind, cutText(stop.Name, 64), there))
}
