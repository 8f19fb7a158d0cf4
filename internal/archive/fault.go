package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// fail tells everybody whose event is lost, and cuts the segment back to its last good byte. What nobody waited for is counted, and a gap
// event will speak of it.
func (p *spool) fail(b *batch, err error) {
	err = fmt.Errorf("%w: %w", ErrSpool, err)
	p.mu.Lock()
	p.epoch.Add(1)
	next := p.pending
	p.pending = newBatch(nil)
	close(next.taken)
	p.stateMu.Lock()
	countLost(b.entries)
	countLost(next.entries)
	first := p.failure == nil
	p.failure = err
	p.stateMu.Unlock()
	p.mu.Unlock()
	err = errors.Join(err, p.cutTail())
	if first {
		p.log.Error("spool cannot be written, calls are refused", "dir", p.dir, "err", err)
	}
	for _, lost := range [2]*batch{b, next} {
		lost.err, lost.buf, lost.entries = err, nil, nil
		close(lost.done)
	}
}

// cutTail takes away what a failed write left behind the last good frame: whole frames of it would be read at the next start.
func (p *spool) cutTail() error {
	if !p.tail {
		return nil
	}
	if err := p.cur.f.Truncate(p.cur.size); err != nil {
		return err
	}
	p.tail = false
	return nil
}

// countLost notes in the sessions what nobody will know of otherwise. spool.stateMu is held.
func countLost(entries []entry) {
	for i := range entries {
		e := &entries[i]
		if e.kind != kindEvent {
			continue
		}
		e.s.lost += e.missing()
		if !e.waited {
			e.s.lost, e.s.lostWhy = e.s.lost+1, gapWrite
		}
	}
}

// reserveBytes is kept for the frames that say what is stored: on a disk that the spool itself has filled, nothing could be deleted without
// them.
const reserveBytes = 512 << 10

func (p *spool) reservePath() string { return filepath.Join(p.dir, "reserve") }

// makeReserve takes the reserve again, if there is room. It does without where there is none.
func (p *spool) makeReserve() {
	if info, err := os.Stat(p.reservePath()); err == nil && info.Size() == reserveBytes {
		return
	}
	if err := os.WriteFile(p.reservePath(), make([]byte, reserveBytes), 0o600); err != nil {
		os.Remove(p.reservePath())
	}
}

// useReserve gives the reserve back to the disk and reports whether there was one.
func (p *spool) useReserve() bool { return os.Remove(p.reservePath()) == nil }
