package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/proxy/record"
)

func newSpool(cfg Config, written func([]entry), snapshot func() ([]byte, error)) *spool {
	return &spool{
		dir: cfg.Dir, open: cfg.openFile, log: cfg.Log, now: cfg.Now, limit: cfg.SpoolMax, turn: cfg.segmentBytes, power: cfg.Durability == DurabilityPower,
		written: written, snapshot: snapshot, pending: newBatch(nil),
		wake: make(chan struct{}, 1), toSync: make(chan struct{}, 1), quit: make(chan struct{}),
	}
}

// abandon closes the files of a spool that was not started.
func (p *spool) abandon() error {
	all := p.old
	if p.cur != nil {
		all = append(all, p.cur)
	}
	var err error
	for _, seg := range all {
		err = errors.Join(err, seg.f.Close())
	}
	return err
}

// snapshot is the body of a segment's first frame. Only what is written counts: sessions whose opening is still queued are not in it.
func (a *Archive) snapshot() ([]byte, error) {
	states := []state{}
	all := a.all()
	a.spool.stateMu.Lock()
	for _, s := range all {
		if s.state.Seq > 0 {
			states = append(states, s.state.clone())
		}
	}
	a.spool.stateMu.Unlock()
	return json.Marshal(states)
}

// recovery reads the spool again.
type recovery struct {
	a     *Archive
	clean bool // the last frame says that the process ended in order
}

// recover reads all segments, checks that nothing is missing, and goes on in a new segment.
func (a *Archive) recover() error {
	numbers, err := findSegments(a.cfg.Dir)
	if err != nil {
		return err
	}
	r := recovery{a: a, clean: true}
	next := 1
	for i, n := range numbers {
		if err := r.segment(n, i == len(numbers)-1); err != nil {
			return fmt.Errorf("recover spool: %w", err)
		}
		next = n + 1
	}
	for _, s := range a.sessions {
		if !s.complete() {
			return fmt.Errorf("recover spool %s: events of session %s after %d are missing; put the segment back that was taken away", a.cfg.Dir, s.id, s.state.Sealed)
		}
		if err := r.resume(s); err != nil {
			return fmt.Errorf("recover spool: %w", err)
		}
	}
	snapshot, err := a.snapshot()
	if err != nil {
		return fmt.Errorf("recover spool: %w", err)
	}
	a.spool.cur, err = a.spool.createSegment(next, snapshot)
	if err != nil {
		return fmt.Errorf("recover spool: %w", err)
	}
	a.spool.bytes.Add(a.spool.cur.size)
	if err := a.spool.sync(); err != nil {
		return fmt.Errorf("recover spool: %w", err)
	}
	a.spool.makeReserve()
	return nil
}

// segment reads one file. Only the last one may break off: the others were on the disk before their successor was made.
func (r *recovery) segment(n int, last bool) (err error) {
	p := r.a.spool
	path := segmentPath(p.dir, n)
	f, err := p.open(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	size, err := f.Size()
	if err != nil {
		return err
	}
	seg := &segment{number: n, path: path, f: f, size: int64(len(segmentMagic))}
	var frames frameReader
	first, err := firstFrame(&frames, f, size)
	if errors.Is(err, errTorn) && last {
		// The process went away while it made this segment. Nothing else is in it.
		return errors.Join(f.Close(), os.Remove(path))
	}
	if err != nil {
		return fmt.Errorf("%s: %w at its start", path, err)
	}
	for fr, err := first, error(nil); err != io.EOF; fr, err = frames.next() {
		if errors.Is(err, errTorn) && last {
			r.a.cfg.Log.Warn("spool ends in a torn frame, which is cut off", "file", path, "offset", seg.size, "bytes", size-seg.size)
			if err := errors.Join(f.Truncate(seg.size), f.Sync()); err != nil {
				return err
			}
			break
		}
		if err == nil {
			err = r.frame(seg, fr)
		}
		if err != nil {
			return fmt.Errorf("%s at offset %d: %w", path, seg.size, err)
		}
		seg.size += fr.size
	}
	p.old = append(p.old, seg)
	p.bytes.Add(seg.size)
	return nil
}

func firstFrame(frames *frameReader, f file, size int64) (frame, error) {
	magic := make([]byte, len(segmentMagic))
	if size < int64(len(magic)) {
		return frame{}, errTorn
	}
	if _, err := f.ReadAt(magic, 0); err != nil {
		return frame{}, err
	}
	frames.reset(f, int64(len(magic)), size)
	fr, err := frames.next()
	if err == io.EOF || err == nil && (string(magic) != segmentMagic || fr.kind != kindSnapshot) {
		err = errTorn
	}
	return fr, err
}

func (r *recovery) frame(seg *segment, fr frame) error {
	r.clean = fr.kind == kindClose || fr.kind == kindSnapshot && r.clean
	switch fr.kind {
	case kindSnapshot:
		return r.load(fr.body)
	case kindEvent:
		return r.event(seg, fr)
	case kindClose:
		return nil
	}
	s := r.a.sessions[fr.session]
	if s == nil && fr.kind == kindDone {
		return nil
	}
	if s == nil {
		return fmt.Errorf("a frame of session %s, which was not opened", fr.session)
	}
	switch fr.kind {
	case kindOpening:
		s.state.OpeningDone = true
	case kindPart:
		var p Part
		if err := json.Unmarshal(fr.body, &p); err != nil {
			return err
		}
		s.state.stored(p)
		s.release(p.LastSeq)
	case kindDone:
		r.forget(s)
	}
	return nil
}

// load takes a snapshot as the truth. Segments that were between this one and the one before may be gone.
func (r *recovery) load(body []byte) error {
	var states []state
	if err := json.Unmarshal(body, &states); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	known := map[string]bool{}
	for _, st := range states {
		known[st.Session] = true
		s := r.a.sessions[st.Session]
		if s == nil {
			s = r.a.newSession(st.Session)
			r.a.sessions[s.id] = s
		}
		s.state = st
		s.release(st.Sealed)
	}
	for _, s := range r.a.sessions {
		if !known[s.id] {
			r.forget(s)
		}
	}
	return nil
}

func (r *recovery) forget(s *session) {
	s.release(s.state.Seq)
	delete(r.a.sessions, s.id)
}

func (r *recovery) event(seg *segment, fr frame) error {
	line, ok := bytes.CutSuffix(fr.body, []byte("\n"))
	if !ok {
		return errors.New("an event without a newline")
	}
	l, err := record.ParseLine(line)
	if err != nil {
		return err
	}
	s := r.a.sessions[fr.session]
	if s == nil {
		s = r.a.newSession(fr.session)
		r.a.sessions[s.id] = s
	}
	if l.Session != s.id || l.Seq != s.state.Seq+1 || l.Prev != s.state.Head {
		return fmt.Errorf("event %d of session %s does not follow event %d", l.Seq, l.Session, s.state.Seq)
	}
	var data any
	if l.Type != record.TypeResponse && l.Type != record.TypeToolUse { // most of a record, and the state needs nothing of them
		if data, err = l.Data(); err != nil {
			return err
		}
	}
	s.state.add(record.Event{Type: l.Type, Call: l.Call, Time: l.Time, Data: data}, line, l.Seq, l.Hash())
	s.place(seg, seg.size, fr.size, r.a.cfg.Now())
	return nil
}

// resume puts a session back to work.
func (r *recovery) resume(s *session) error {
	s.chain = record.ResumeChain(s.id, s.state.Seq, s.state.Head)
	s.ended = s.state.Ended != ""
	if !s.ended && !r.clean {
		s.state.Interrupted = true
	}
	if record.IsAudit(s.id) {
		r.a.audit.recovered = append(r.a.audit.recovered, s)
		return r.a.sweep(r.a.location(s.state))
	}
	opened, err := parseLine[record.SessionOpened](s.state.Opened)
	if err != nil {
		return fmt.Errorf("session %s: %w", s.id, err)
	}
	r.a.recovered = append(r.a.recovered, RecoveredSession{
		Session: s.id, Opened: opened, InFlight: slices.Sorted(maps.Keys(s.state.Calls)),
		Counts: maps.Clone(s.state.Counts), Totals: s.state.Totals, Ended: s.ended,
	})
	return r.a.sweep(r.a.location(s.state))
}

// endInterrupted ends the calls that were in flight, and has every session looked at.
func (a *Archive) endInterrupted(ctx context.Context) error {
	if err := a.endInterruptedAudit(ctx); err != nil {
		return err
	}
	slices.SortFunc(a.recovered, func(x, y RecoveredSession) int { return strings.Compare(x.Session, y.Session) })
	for _, r := range a.recovered {
		s := a.sessions[r.Session]
		a.up.schedule(s)
		events := s.state.interrupt(a.cfg.Now(), "the server went away")
		if len(events) == 0 || r.Ended {
			continue
		}
		s.mu.Lock()
		err := a.append(ctx, s, events...)
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("end the calls of session %s that were in flight: %w", r.Session, err)
		}
	}
	return nil
}

func parseLine[T any](raw string) (T, error) {
	var v T
	l, err := record.ParseLine([]byte(raw))
	if err == nil {
		err = l.Decode(&v)
	}
	return v, err
}
