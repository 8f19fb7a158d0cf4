package federation

import (
	"container/heap"
	"context"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// checkpointEvery is how often counters are written to the ledger: what a crash can lose of them, where the record
	// does not have it either.
	checkpointEvery = time.Second
	pruneEvery      = time.Hour
	// lastWrites bounds what is written after the program was told to stop.
	lastWrites = 5 * time.Second
)

// Run ends sessions when their window closes, forgets those that ended a while ago, writes counters down and repeats
// what the store would not take, until ctx ends; then it writes the counters a last time. It must run once.
func (s *Sessions) Run(ctx context.Context) {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	deadline := time.NewTimer(checkpointEvery)
	defer deadline.Stop()
	for {
		s.expire(ctx)
		deadline.Reset(s.untilDue())
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrites)
			defer cancel()
			s.retryEnds(last)
			s.checkpoint(last)
			return
		case <-tick.C:
			s.retryEnds(ctx)
			s.checkpoint(ctx)
			s.prune(ctx)
		case <-deadline.C:
		case <-s.wake:
		}
	}
}

// due is when to look at a session again: at the end of its window, or when an ended one may be forgotten.
type due struct {
	at    time.Time
	entry *sessionEntry
}

// deadlines is a heap, the earliest first. Entries are not taken out when they become wrong; who comes to one looks.
type deadlines []due

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(due)) }
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = due{}
	*d = (*d)[:last]
	return x
}

// dueLocked adds a deadline, and wakes Run where it is the earliest.
func (s *Sessions) dueLocked(e *sessionEntry, at time.Time) {
	heap.Push(&s.due, due{at, e})
	if s.due[0].entry != e {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (s *Sessions) untilDue() time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.due) == 0 {
		return time.Hour
	}
	return max(0, s.due[0].at.Sub(s.c.Now()))
}

// expire does what is due.
func (s *Sessions) expire(ctx context.Context) {
	now := s.c.Now()
	var ends []ending
	s.mu.Lock()
	for len(s.due) > 0 && !now.Before(s.due[0].at) {
		e := heap.Pop(&s.due).(due).entry
		if reason, at := e.session.EndReason(); reason != "" {
			if !now.Before(at.Add(endedFor)) {
				s.forgetLocked(e, now)
			}
			continue
		}
		if e.session.State(now) == access.Ended {
			ends = append(ends, ending{e, access.EndMax, byWindow})
		}
	}
	s.mu.Unlock()
	s.end(ctx, ends...)
}

// forgetLocked takes an ended session out of memory; the store answers for it from then on. One that the store does
// not have as ended stays, or the job could open again.
func (s *Sessions) forgetLocked(e *sessionEntry, now time.Time) {
	e.mu.Lock()
	tokens, keep := e.tokens, e.unsaved != nil || e.session.Changes() != e.saved
	e.mu.Unlock()
	if keep {
		heap.Push(&s.due, due{now.Add(checkpointEvery), e})
		return
	}
	if s.byID[e.session.ID] != e {
		return
	}
	delete(s.byID, e.session.ID)
	delete(s.byJob, e.row.Key())
	for _, t := range tokens {
		s.removeToken(t.Hash)
	}
}

// retryEnds writes the ends that the store would not take before.
func (s *Sessions) retryEnds(ctx context.Context) {
	var ends []ending
	var rows []access.SessionEnd
	for _, e := range s.all() {
		e.mu.Lock()
		if e.unsaved != nil {
			ends, rows = append(ends, ending{entry: e}), append(rows, *e.unsaved)
		}
		e.mu.Unlock()
	}
	if len(ends) > 0 {
		s.saveEnds(ctx, ends, rows)
	}
}

// checkpoint writes the counters that have changed.
func (s *Sessions) checkpoint(ctx context.Context) {
	type change struct {
		entry   *sessionEntry
		changes uint64
		asleep  time.Time
	}
	var changed []change
	var usage []access.Usage
	for _, e := range s.all() {
		// Read before the counters: a change that comes between is written twice, never missed.
		n := e.session.Changes()
		e.mu.Lock()
		same, tokens, slept := n == e.saved, e.tokens, e.asleep
		if !same {
			tokens = append([]*heldToken(nil), tokens...)
		}
		e.mu.Unlock()
		if same {
			continue
		}
		use := usageOf(e.session, tokens)
		asleep := e.session.Asleep()
		if !asleep.Equal(slept) {
			use.Asleep = asleep
		}
		changed = append(changed, change{e, n, asleep})
		usage = append(usage, use)
	}
	counters := s.counts.changed() // after the sessions' own: see counterBook
	if len(usage)+len(counters.rows) == 0 {
		return
	}
	if err := s.c.Store.SaveUsage(ctx, usage, counters.rows); err != nil {
		s.c.Log.Error("counters could not be written down and are tried again", "sessions", len(usage), "err", err)
		return
	}
	counters.saved()
	for _, c := range changed {
		c.entry.mu.Lock()
		c.entry.saved, c.entry.asleep = c.changes, c.asleep
		c.entry.mu.Unlock()
	}
}

func usageOf(session *access.Session, tokens []*heldToken) access.Usage {
	u := access.Usage{Session: session.ID, Counts: session.Counts()}
	u.Tally, _ = session.Tally()
	for _, t := range tokens {
		if used := time.Unix(0, t.used.Load()); used.After(t.Issued) {
			u.Tokens = append(u.Tokens, access.TokenUse{Hash: t.Hash, Last: used})
		}
	}
	return u
}

func (s *Sessions) prune(ctx context.Context) {
	now := s.c.Now()
	if now.Sub(s.pruned) < pruneEvery {
		return
	}
	s.pruned = now
	s.counts.retire(now.Add(-counterMemory))
	if err := s.c.Store.Prune(ctx); err != nil {
		s.c.Log.Warn("old rows could not be deleted", "err", err)
	}
}
