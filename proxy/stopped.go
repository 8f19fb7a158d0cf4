package proxy

import (
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/record"
)

// An operator's stop reaches every call, whenever it began. A call registers with its session first and looks for stops
// then; a stop is in force first and tells the calls that are registered then. So one of both sees the other.

// stopped returns the refusal of a call that an operator has stopped.
func (f *flight) stopped() *access.Error {
	if f.p.c.Stopped == nil {
		return nil
	}
	return f.p.c.Stopped(f.call.Connection, f.s.Mapping)
}

// refuseStopped notes a call that found itself stopped.
func (f *flight) refuseStopped(refusal *access.Error) error {
	d := access.Decision{Rule: refusal.Reason, Reason: refusal.Public}
	f.noteStarted()
	f.note(record.TypeDecision, record.Decision{Subject: "call", Effect: d.Effect.String(), Rule: d.Rule, Reason: f.masked(d.Reason)})
	f.countDenial(d, f.call.Method+" "+f.call.Path)
	return refusal
}

// StopsChanged cuts the call where it is stopped now: questions to people are cancelled, the upstream is left, the
// client is told. The channel is closed when nothing of the call reaches the upstream any more.
func (f *flight) StopsChanged() <-chan struct{} {
	refusal := f.stopped()
	if refusal == nil {
		return nil
	}
	leaving := f.awaitLeaving()
	if leaving != nil {
		f.cut(refusal)
	}
	return leaving
}

// awaitLeaving returns a channel that leave closes, nil where it was called already.
func (f *flight) awaitLeaving() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil
	}
	if f.leaving == nil {
		f.leaving = make(chan struct{})
	}
	return f.leaving
}

// leave says that nothing of the call reaches the upstream any more.
func (f *flight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = true
	if f.leaving != nil {
		close(f.leaving)
		f.leaving = nil
	}
}
