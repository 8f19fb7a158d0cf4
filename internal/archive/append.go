package archive

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jobgate/jobgate/proxy/record"
)

// Why events are missing, as gap events say it.
const (
	gapWrite = "the spool could not be written"
	gapFull  = "the spool is full and the bucket is away"
)

// Begin starts a session's record with its session.opened event, which is written when Begin returns, and has the opening signed and
// stored soon.
func (a *Archive) Begin(ctx context.Context, id string, e record.Event) error {
	if e.Type != record.TypeSessionOpened || !validSession(id) {
		return fmt.Errorf("begin record of session %q with a %s event: want a session.opened event and an id of letters, digits, _ and -", id, e.Type)
	}
	if a.spool.full(a.spool.limit) && !a.cfg.goOn() {
		return fmt.Errorf("begin record of session %s: %w", id, ErrFull)
	}
	s := a.newSession(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.addSession(s) {
		return fmt.Errorf("begin record of session %s: it has one already", id)
	}
	// A wait that is cut short would leave it open whether the record exists. The writer answers as soon as the disk does.
	if err := a.append(context.WithoutCancel(ctx), s, e); err != nil {
		a.dropSession(s)
		return fmt.Errorf("begin record of session %s: %w", id, err)
	}
	return nil
}

// Append adds events to a session's record, in their order. With wait it returns when they are written (with durability "power": on the
// disk), so that what they announce may be done; an error then means that it must not. Without wait an error says that an earlier event
// of this session is lost, or this one: end what is being recorded.
func (a *Archive) Append(ctx context.Context, id string, wait bool, events ...record.Event) error {
	s := a.session(id)
	if s == nil {
		return fmt.Errorf("record of session %s: %w", id, ErrUnknown)
	}
	for _, e := range events {
		if e.Type == record.TypeSessionOpened || e.Type == record.TypeSessionEnded {
			return fmt.Errorf("record of session %s: %s is written by Begin and End only", id, e.Type)
		}
	}
	b, err := a.accept(ctx, s, &wait, events)
	if b != nil && wait {
		err = b.wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("record of session %s: %w", id, err)
	}
	return nil
}

// accept queues events of a session that is open. It returns no batch where they were dropped, and sets wait where it must be waited for.
func (a *Archive) accept(ctx context.Context, s *session, wait *bool, events []record.Event) (*batch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, ErrEnded
	}
	if dropped, err := a.admit(s, *wait, events); dropped || err != nil {
		return nil, err
	}
	return a.queue(ctx, s, wait, events)
}

// admit decides what becomes of events when the spool is full. What ends a call is always taken, so that a record closes in order, and
// what people do, who must be able to take access away; what
// belongs to a running stream is taken for a while longer, so that it can end in order.
func (a *Archive) admit(s *session, wait bool, events []record.Event) (dropped bool, err error) {
	if !a.spool.full(a.spool.limit) || len(events) > 0 && (events[0].Type == record.TypeCallEnded || events[0].Type == record.TypeAct) {
		return false, nil
	}
	if a.cfg.goOn() {
		a.spool.stateMu.Lock()
		defer a.spool.stateMu.Unlock()
		s.lost, s.lostWhy = s.lost+int64(len(events)), gapFull
		return true, nil
	}
	if wait || a.spool.full(a.spool.limit+a.spool.limit/4) {
		return false, ErrFull
	}
	return false, nil
}

// End writes the last event of a session, after a call.ended for each call that has none, and has the rest uploaded and the manifest
// signed and stored. Nothing can be appended afterwards.
func (a *Archive) End(ctx context.Context, id string, e record.Event) error {
	data, ok := as[record.SessionEnded](e.Data)
	if e.Type != record.TypeSessionEnded || !ok {
		return fmt.Errorf("end record of session %s with a %s event: want a session.ended event", id, e.Type)
	}
	s := a.session(id)
	if s == nil {
		return fmt.Errorf("end record of session %s: %w", id, ErrUnknown)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return fmt.Errorf("end record of session %s: %w", id, ErrEnded)
	}
	ctx = context.WithoutCancel(ctx)
	if s.last != nil {
		// What was queued decides which calls are open. A write that failed is counted already.
		<-s.last.done
	}
	a.spool.stateMu.Lock()
	events := s.state.interrupt(e.Time, "the session ended first")
	data.Interrupted = data.Interrupted || s.state.Interrupted || len(events) > 0
	a.spool.stateMu.Unlock()
	e.Data = data
	if err := a.append(ctx, s, append(events, e)...); err != nil {
		return fmt.Errorf("end record of session %s: %w", id, err)
	}
	s.ended = true
	return nil
}

// append queues events and waits until they are written. The session's lock is held.
func (a *Archive) append(ctx context.Context, s *session, events ...record.Event) error {
	wait := true
	b, err := a.queue(ctx, s, &wait, events)
	if err != nil {
		return err
	}
	return b.wait(ctx)
}

// queue chains the events, behind a gap event where some were lost, and hands them to the writer. After a loss nobody goes on before the
// gap event is written, so wait is set: that tells a stream that the disk is still full. The session's lock is held.
func (a *Archive) queue(ctx context.Context, s *session, wait *bool, events []record.Event) (*batch, error) {
	for {
		b, err := a.tryQueue(ctx, s, wait, events)
		if !errors.Is(err, errStale) {
			return b, err
		}
	}
}

func (a *Archive) tryQueue(ctx context.Context, s *session, wait *bool, events []record.Event) (b *batch, err error) {
	a.align(s)
	a.spool.stateMu.Lock()
	gap, why := s.lost, s.lostWhy
	a.spool.stateMu.Unlock()
	if gap > 0 {
		e := record.Event{Type: record.TypeGap, Time: a.cfg.Now(), Data: record.Gap{Reason: why, Missing: gap}}
		events, *wait = append([]record.Event{e}, events...), true
	}
	f := frames.Get().(*frameBuffer)
	defer f.put()
	seq, head := s.chain.Head()
	if err = f.encode(s, *wait, events); err == nil {
		b, err = a.spool.put(ctx, f.buf, f.entries, s.epoch, true)
	}
	if err != nil {
		s.chain = record.ResumeChain(s.id, seq, head)
		return nil, err
	}
	s.last = b
	return b, nil
}

// align puts the chain back to what is written when a write failed since the last event.
func (a *Archive) align(s *session) {
	epoch := a.spool.epoch.Load()
	if s.epoch == epoch {
		return
	}
	a.spool.stateMu.Lock()
	defer a.spool.stateMu.Unlock()
	s.chain, s.epoch = record.ResumeChain(s.id, s.state.Seq, s.state.Head), epoch
}

// frameBuffer is where events are encoded outside of any lock but the session's.
type frameBuffer struct {
	buf     []byte
	entries []entry
}

var frames = sync.Pool{New: func() any { return new(frameBuffer) }}

func (f *frameBuffer) encode(s *session, wait bool, events []record.Event) error {
	for _, e := range events {
		start := len(f.buf)
		f.buf = beginFrame(f.buf, kindEvent, s.id)
		line := len(f.buf)
		var err error
		if f.buf, err = s.chain.Append(f.buf, e); err != nil {
			return err
		}
		if err := endFrame(f.buf, start); err != nil {
			return err
		}
		seq, head := s.chain.Head()
		f.entries = append(f.entries, entry{s: s, kind: kindEvent, start: start, end: len(f.buf), line: line, event: e, seq: seq, head: head, waited: wait})
	}
	return nil
}

func (f *frameBuffer) put() {
	clear(f.entries)
	f.entries = f.entries[:0]
	f.buf = f.buf[:0]
	if cap(f.buf) <= keepBuffer {
		frames.Put(f)
	}
}
