package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jobgate/jobgate/proxy/record"
)

// session is one record that is being written, or waits to be stored: a session's, or an audit stream.
type session struct {
	id string

	mu    sync.Mutex // guards the fields below, and is held from an event's hash to its place in the queue: that keeps the order
	chain *record.Chain
	epoch uint64 // of the spool, when the chain was last in step with it
	last  *batch // where the newest event is
	ended bool   // session.ended is written, nothing may follow

	// The rest is guarded by spool.stateMu.
	state   state
	runs    []run     // where the events lie that are in no part yet
	oldest  time.Time // when the first of them was written
	lost    int64     // events that could not be written and that no gap event speaks of yet
	lostWhy string
}

// state is what has to be known of a session to go on after a restart. It follows from the events that are written and is part of every
// snapshot.
type state struct {
	Session     string                   `json:"session"`
	Opened      string                   `json:"opened"` // the first line
	OpenedAt    time.Time                `json:"opened_at"`
	Seq         uint64                   `json:"seq"`
	Head        digest                   `json:"head"`
	Calls       map[string]string        `json:"calls,omitempty"` // in flight: call id to connection
	Counts      map[string]record.Counts `json:"counts,omitempty"`
	Totals      Totals                   `json:"totals"`
	Audit       AuditTotals              `json:"audit,omitzero"`  // of an audit stream
	Ended       string                   `json:"ended,omitempty"` // the last line
	Interrupted bool                     `json:"interrupted,omitempty"`
	OpeningDone bool                     `json:"opening_done,omitempty"`
	Parts       []Part                   `json:"parts,omitempty"`
	Sealed      uint64                   `json:"sealed,omitempty"` // last seq that lies in a part
	Bytes       int64                    `json:"bytes"`            // of all lines
	SealedBytes int64                    `json:"sealed_bytes,omitempty"`
}

// Totals are what a session's events add up to.
type Totals struct {
	Calls     int64 `json:"calls"`     // call.started
	Denials   int64 `json:"denials"`   // decisions whose effect is deny
	Approvals int64 `json:"approvals"` // approval.asked
	Missing   int64 `json:"missing"`   // what gap events say is missing
}

// run is a stretch of one session's frames that follow each other in a segment.
type run struct {
	seg         *segment
	off, end    int64
	first, last uint64 // seq
}

// maxRun bounds how much is read again when a part ends inside a run.
const maxRun = 1 << 20

// add takes an event into account that was written at seq, with its line and its hash.
func (s *state) add(e record.Event, line []byte, seq uint64, head [sha256.Size]byte) {
	s.Seq, s.Head, s.Bytes = seq, head, s.Bytes+int64(len(line)+1)
	switch e.Type {
	case record.TypeSessionOpened, record.TypeAuditOpened:
		s.Opened, s.OpenedAt = string(line), e.Time.UTC()
	case record.TypeSessionEnded, record.TypeAuditEnded:
		s.Ended = string(line)
	case record.TypeExchange, record.TypeRefusals, record.TypeAct:
		s.Audit.add(e)
	case record.TypeCallStarted:
		s.startCall(e)
	case record.TypeDecision:
		if d, ok := as[record.Decision](e.Data); ok && d.Effect == "deny" {
			s.Totals.Denials++
		}
	case record.TypeApprovalAsked:
		s.Totals.Approvals++
	case record.TypeCallSent:
		if d, ok := as[record.CallSent](e.Data); ok {
			s.count(s.Calls[e.Call], d.Counts)
		}
	case record.TypeCallEnded:
		s.endCall(e)
	case record.TypeGap:
		if d, ok := as[record.Gap](e.Data); ok {
			s.Totals.Missing += d.Missing
		}
	}
}

func (s *state) startCall(e record.Event) {
	s.Totals.Calls++
	if s.Calls == nil {
		s.Calls = map[string]string{}
	}
	d, _ := as[record.CallStarted](e.Data)
	s.Calls[e.Call] = d.Connection
}

func (s *state) endCall(e record.Event) {
	d, ok := as[record.CallEnded](e.Data)
	if !ok {
		return
	}
	connection := s.Calls[e.Call]
	if connection == "" {
		connection = d.Connection
	}
	s.count(connection, d.Counts)
	s.Interrupted = s.Interrupted || d.Reason == record.ReasonInterrupted
	delete(s.Calls, e.Call)
}

func (s *state) count(connection string, c record.Counts) {
	if connection == "" || c == (record.Counts{}) {
		return
	}
	if s.Counts == nil {
		s.Counts = map[string]record.Counts{}
	}
	s.Counts[connection] = c
}

// stored takes a part into account that lies in the bucket.
func (s *state) stored(p Part) {
	s.Parts, s.Sealed, s.SealedBytes = append(s.Parts, p), p.LastSeq, s.SealedBytes+p.Bytes
}

// unsealed is how many bytes of lines lie in no part yet.
func (s *state) unsealed() int64 { return s.Bytes - s.SealedBytes }

func (s *state) clone() state {
	c := *s
	c.Calls, c.Counts, c.Parts = maps.Clone(s.Calls), maps.Clone(s.Counts), slices.Clone(s.Parts)
	return c
}

// digest is a SHA-256, which in JSON is lower-case hex.
type digest [sha256.Size]byte

func (d digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *digest) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(d) {
		return fmt.Errorf("head %q is no SHA-256", text)
	}
	copy(d[:], raw)
	return nil
}

// interrupt returns the events that end the calls in flight.
func (s *state) interrupt(at time.Time, detail string) []record.Event {
	var events []record.Event
	for _, call := range slices.Sorted(maps.Keys(s.Calls)) {
		connection := s.Calls[call]
		data := record.CallEnded{Connection: connection, Reason: record.ReasonInterrupted, Detail: detail, Counts: s.Counts[connection]}
		events = append(events, record.Event{Type: record.TypeCallEnded, Call: call, Time: at, Data: data})
	}
	return events
}

// place notes where an event's frame lies, after the event was added to the state.
func (s *session) place(seg *segment, off, size int64, now time.Time) {
	seq := s.state.Seq
	seg.live += size
	if s.state.Sealed+1 == seq {
		s.oldest = now
	}
	if n := len(s.runs); n > 0 {
		r := &s.runs[n-1]
		if r.seg == seg && r.end == off && r.last+1 == seq && off-r.off < maxRun {
			r.end, r.last = off+size, seq
			return
		}
	}
	s.runs = append(s.runs, run{seg: seg, off: off, end: off + size, first: seq, last: seq})
}

// release forgets the runs whose events, up to seq, are no longer needed.
func (s *session) release(seq uint64) {
	n := 0
	for n < len(s.runs) && s.runs[n].last <= seq {
		s.runs[n].seg.live -= s.runs[n].end - s.runs[n].off
		n++
	}
	s.runs = slices.Delete(s.runs, 0, n)
}

// complete reports whether every event that is in no part yet can be read from the spool.
func (s *session) complete() bool {
	next := s.state.Sealed + 1
	for _, r := range s.runs {
		if r.first > next {
			return false
		}
		next = r.last + 1
	}
	return next == s.state.Seq+1
}

// as returns data as the struct T, whether it came by value or by pointer.
func as[T any](data any) (T, bool) {
	switch d := data.(type) {
	case T:
		return d, true
	case *T:
		if d != nil {
			return *d, true
		}
	}
	var zero T
	return zero, false
}
