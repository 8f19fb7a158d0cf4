package archive

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

func (p *spool) syncLoop() {
	for {
		select {
		case <-p.quit:
			return
		case <-p.toSync:
		}
		timer := time.NewTimer(syncDelay)
		select {
		case <-p.quit:
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := p.sync(); err != nil {
			p.log.Error("spool cannot be synced", "dir", p.dir, "err", err)
		}
	}
}

// sync brings what is written to the disk, then deletes the segments that are of no more use: the frames that say so are durable now.
func (p *spool) sync() error {
	p.syncMu.Lock()
	defer p.syncMu.Unlock()
	p.stateMu.Lock()
	cur, dirty := p.cur, p.dirty
	p.dirty = false
	var idle []*segment
	for _, seg := range p.old {
		if seg.live == 0 {
			idle = append(idle, seg)
		}
	}
	p.stateMu.Unlock()
	if dirty {
		if err := cur.f.Sync(); err != nil {
			p.stateMu.Lock()
			p.dirty, p.failure = true, err
			p.stateMu.Unlock()
			return fmt.Errorf("%w: sync: %w", ErrSpool, err)
		}
	}
	return p.remove(idle)
}

func (p *spool) remove(idle []*segment) error {
	var err error
	for _, seg := range idle {
		err = errors.Join(err, seg.f.Close(), os.Remove(seg.path))
		p.stateMu.Lock()
		p.bytes.Add(-seg.size)
		p.old = slices.DeleteFunc(p.old, func(s *segment) bool { return s == seg })
		p.stateMu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("delete spool segment: %w", err)
	}
	if len(idle) > 0 {
		p.makeReserve()
	}
	return nil
}
