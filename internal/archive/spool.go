package archive

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jobgate/jobgate/proxy/record"
)

const (
	segmentSize = 64 << 20
	// maxPending bounds the queue before the writer. Who finds it full waits.
	maxPending = 8 << 20
	// syncDelay is how long an event may lie in the kernel's memory only, where durability is "process".
	syncDelay = 20 * time.Millisecond
	// keepBuffer is the largest buffer that is kept for the next batch.
	keepBuffer = 1 << 20
)

// spool is the write-ahead log. One goroutine writes, one brings to the disk what was written.
type spool struct {
	dir   string
	open  func(name string, flag int) (file, error)
	log   *slog.Logger
	now   func() time.Time
	power bool  // an event is written when it is on the disk, not only in the kernel
	limit int64 // bytes on the disk above which the spool is full
	turn  int64 // bytes of a segment above which a new one begins

	written  func([]entry) // tells the uploader what is written; called by the writer
	snapshot func() ([]byte, error)

	mu      sync.Mutex // guards pending, spare, closed, and writes to epoch
	pending *batch
	epoch   atomic.Uint64 // grows when a write failed: what was queued then is lost, and chains must go back
	spare   *batch        // empty, with memory; nil where there is none
	closed  bool

	stateMu sync.Mutex // guards the sessions' states and the segments; taken after mu where both are held
	cur     *segment
	old     []*segment
	bytes   atomic.Int64 // of all segments
	dirty   bool         // cur has bytes that are not on the disk yet
	failure error        // of the last write or sync, nil when it went well

	tail   bool       // bytes of a failed write may lie behind the last good frame; the writer's own
	syncMu sync.Mutex // held through a sync and the deletions that it allows; taken before all others

	wake   chan struct{}
	toSync chan struct{}
	quit   chan struct{}
	wg     sync.WaitGroup
}

// batch is what the writer writes with one write(2). Whoever waits for an event waits for its batch.
type batch struct {
	buf     []byte
	entries []entry
	taken   chan struct{} // closed when the writer has it: there is room in the queue again
	done    chan struct{} // closed when it is written, or err says why not
	err     error
}

func newBatch(buf []byte) *batch {
	return &batch{buf: buf, taken: make(chan struct{}), done: make(chan struct{})}
}

func (b *batch) wait(ctx context.Context) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the spool: %w", ctx.Err())
	}
}

// entry is a frame in a batch, and what is known once it is written.
type entry struct {
	s      *session
	kind   byte
	start  int // in the buffer
	end    int
	line   int // where the event's line begins
	event  record.Event
	seq    uint64
	head   [sha256.Size]byte
	waited bool // somebody waits for it and will know when it is lost
	part   Part
}

// frees reports whether a batch says that something is stored, so that space can be given back once it is written.
func (b *batch) frees() bool {
	return slices.ContainsFunc(b.entries, func(e entry) bool { return e.kind != kindEvent })
}

// missing is how many lost events the entry speaks of. They count as told once it is queued, and as lost again if it is lost itself.
func (e *entry) missing() int64 {
	if e.kind != kindEvent || e.event.Type != record.TypeGap {
		return 0
	}
	gap, _ := as[record.Gap](e.event.Data)
	return gap.Missing
}

// errStale says that the chain has to go back first: a write failed since it was in step.
var errStale = errors.New("the chain is behind a failed write")

// put queues frames that belong together. Events come with the epoch of their chain and are refused with errStale when it is over.
func (p *spool) put(ctx context.Context, frames []byte, entries []entry, epoch uint64, events bool) (*batch, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.pending.buf) >= maxPending {
		taken := p.pending.taken
		p.mu.Unlock()
		var err error
		select {
		case <-taken:
		case <-ctx.Done():
			err = fmt.Errorf("wait for room in the spool's queue: %w", ctx.Err())
		}
		p.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	if p.closed {
		return nil, ErrClosed
	}
	if events && epoch != p.epoch.Load() {
		return nil, errStale
	}
	b := p.pending
	base := len(b.buf)
	b.buf = append(b.buf, frames...)
	for _, e := range entries {
		e.start, e.end, e.line = e.start+base, e.end+base, e.line+base
		b.entries = append(b.entries, e)
		if n := e.missing(); n > 0 {
			p.stateMu.Lock()
			e.s.lost -= n
			p.stateMu.Unlock()
		}
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return b, nil
}

// putState queues a frame that is no event and waits until it is written.
func (p *spool) putState(ctx context.Context, s *session, kind byte, part Part) error {
	var body []byte
	if kind == kindPart {
		var err error
		if body, err = json.Marshal(part); err != nil {
			return err
		}
	}
	id := ""
	if s != nil {
		id = s.id
	}
	buf, err := appendFrame(nil, kind, id, body)
	if err != nil {
		return err
	}
	b, err := p.put(ctx, buf, []entry{{s: s, kind: kind, end: len(buf), part: part, waited: true}}, 0, false)
	if err != nil {
		return err
	}
	return b.wait(ctx)
}

func (p *spool) start() {
	p.wg.Go(p.writeLoop)
	p.wg.Go(p.syncLoop)
}

// stop lets the writer finish what is queued and waits for it.
func (p *spool) stop() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	close(p.quit)
	p.wg.Wait()
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	err := p.cur.f.Sync()
	for _, seg := range append(p.old, p.cur) {
		err = errors.Join(err, seg.f.Close())
	}
	if err != nil {
		return fmt.Errorf("close spool: %w", err)
	}
	return nil
}

func (p *spool) writeLoop() {
	for {
		quit := false
		select {
		case <-p.wake:
		case <-p.quit:
			quit = true
		}
		for b := p.take(); b != nil; b = p.take() {
			p.write(b)
		}
		if quit {
			return
		}
	}
}

func (p *spool) take() *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.pending
	if len(b.entries) == 0 {
		return nil
	}
	p.pending, p.spare = p.spare, nil
	if p.pending == nil {
		p.pending = newBatch(nil)
	}
	close(b.taken)
	return b
}

// write brings a batch into the current segment, or fails it with everything that was queued behind it.
func (p *spool) write(b *batch) {
	err := p.tryWrite(b)
	if errors.Is(err, syscall.ENOSPC) && b.frees() && p.useReserve() {
		err = p.tryWrite(b)
	}
	if err != nil {
		p.fail(b, err)
		return
	}
	p.apply(b)
	close(b.done)
	p.written(b.entries)
	p.recycle(b)
	select {
	case p.toSync <- struct{}{}:
	default:
	}
}

func (p *spool) tryWrite(b *batch) error {
	if err := p.cutTail(); err != nil {
		return err
	}
	if err := p.rotate(); err != nil {
		return err
	}
	p.tail = true
	if _, err := p.cur.f.WriteAt(b.buf, p.cur.size); err != nil {
		return err
	}
	if p.power {
		if err := p.cur.f.Sync(); err != nil {
			return err
		}
	}
	p.tail = false
	return nil
}

// apply makes known what is written now.
func (p *spool) apply(b *batch) {
	now := p.now()
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	off := p.cur.size
	for i := range b.entries {
		e := &b.entries[i]
		switch e.kind {
		case kindEvent:
			line := b.buf[e.line : e.end-1]
			e.s.state.add(e.event, line, e.seq, e.head)
			e.s.place(p.cur, off+int64(e.start), int64(e.end-e.start), now)
		case kindPart:
			e.s.state.stored(e.part)
			e.s.release(e.part.LastSeq)
			e.s.oldest = now
		case kindOpening:
			e.s.state.OpeningDone = true
		}
	}
	p.cur.size += int64(len(b.buf))
	p.bytes.Add(int64(len(b.buf)))
	p.dirty, p.failure = true, nil
}

// recycle keeps the memory for a later batch. Nobody reads it any more: those who wait look at done and err only.
func (p *spool) recycle(b *batch) {
	spare := newBatch(b.buf[:0])
	clear(b.entries)
	spare.entries = b.entries[:0]
	b.buf, b.entries = nil, nil
	if cap(spare.buf) > keepBuffer {
		return
	}
	p.mu.Lock()
	p.spare = spare
	p.mu.Unlock()
}

// rotate begins a new segment when the current one is full.
func (p *spool) rotate() error {
	if p.cur.size-p.cur.base < p.turn {
		return nil
	}
	// Everything before the new segment is on the disk before the new one can make it superfluous.
	if err := p.cur.f.Sync(); err != nil {
		return err
	}
	snapshot, err := p.snapshot()
	if err != nil {
		return err
	}
	seg, err := p.createSegment(p.cur.number+1, snapshot)
	if err != nil {
		return err
	}
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	p.old, p.cur = append(p.old, p.cur), seg
	p.bytes.Add(seg.size)
	return nil
}

// full reports whether the spool has reached a limit.
func (p *spool) full(limit int64) bool { return p.bytes.Load() >= limit }
