package federation

import (
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// counterMemory is how long a counter is kept after its period: that of its row in the store.
const counterMemory = 24 * time.Hour

// counterBook has every counter that jobs share in memory: a call never asks the store for one. Rows are written in the
// transaction that writes the sessions' own counters, and read after those, so that what a session's row has is in the
// counter's: after a crash the rest is what the record has more than the row.
type counterBook struct {
	mu   sync.RWMutex // guards held
	held map[access.CounterKey]*bookedCounter
}

type bookedCounter struct {
	*access.Counter
	saved uint64 // its changes when it was last written; guarded by the book's mu
}

// get returns the counter of a key, a new one where there was none.
func (b *counterBook) get(key access.CounterKey) *access.Counter {
	b.mu.RLock()
	c := b.held[key]
	b.mu.RUnlock()
	if c != nil {
		return c.Counter
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.held[key]; c != nil {
		return c.Counter
	}
	c = &bookedCounter{Counter: access.NewCounter(access.CounterRow{CounterKey: key})}
	b.putLocked(key, c)
	return c.Counter
}

func (b *counterBook) putLocked(key access.CounterKey, c *bookedCounter) {
	if b.held == nil {
		b.held = make(map[access.CounterKey]*bookedCounter)
	}
	b.held[key] = c
}

func (b *counterBook) load(rows []access.CounterRow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, row := range rows {
		b.putLocked(row.CounterKey, &bookedCounter{Counter: access.NewCounter(row)})
	}
}

// changedCounters are rows to write.
type changedCounters struct {
	book    *counterBook
	rows    []access.CounterRow
	changes []uint64
}

// changed returns the counters that are not written down as they are.
func (b *counterBook) changed() changedCounters {
	out := changedCounters{book: b}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, c := range b.held {
		if c.Changes() == c.saved {
			continue
		}
		row, n := c.Row()
		out.rows, out.changes = append(out.rows, row), append(out.changes, n)
	}
	return out
}

// saved notes that the rows are written.
func (c changedCounters) saved() {
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	for i, row := range c.rows {
		if held := c.book.held[row.CounterKey]; held != nil && held.saved < c.changes[i] {
			held.saved = c.changes[i]
		}
	}
}

// retire forgets the counters whose period ended before an instant.
func (b *counterBook) retire(before time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, c := range b.held {
		if c.Retire(before) {
			delete(b.held, key)
		}
	}
}

// recount adds to the counters what a session used and its row does not have, before the process died: by its record. It
// counts in the period that runs now, rather twice than not at all.
func (s *Sessions) recount(row access.SessionRow, recorded map[string]access.Counts) {
	policy, _ := s.c.Mappings.judge(row.Mapping, row.Identity, row.Opened)
	for connection, used := range larger(row.Counts, recorded) {
		had := row.Counts[connection]
		more := access.Counts{Requests: used.Requests - had.Requests, InputTokens: used.InputTokens - had.InputTokens, OutputTokens: used.OutputTokens - had.OutputTokens}
		if more == (access.Counts{}) {
			continue
		}
		for per, period := range s.counts.countedBy(policy, row, connection) {
			value, _ := row.Identity.Claims.Value(per)
			s.counts.get(access.CounterKey{Mapping: row.Mapping, Connection: connection, Per: per, Value: value}).Add(more, period, s.c.Now())
		}
	}
}

// countedBy returns the claims by which a session is counted on a connection, with their periods: those of the policy,
// and those of which there is a counter, should the mapping be gone or have changed while the process was down.
func (b *counterBook) countedBy(policy *access.Policy, row access.SessionRow, connection string) map[string]time.Duration {
	out := make(map[string]time.Duration)
	b.mu.RLock()
	for key := range b.held {
		if value, ok := row.Identity.Claims.Value(key.Per); ok && key.Mapping == row.Mapping && key.Connection == connection && key.Value == value {
			out[key.Per] = access.DefaultPeriod
		}
	}
	b.mu.RUnlock()
	if grant, ok := policy.Grant(connection); ok {
		for _, l := range grant.Limits.Shared {
			if _, ok := row.Identity.Claims.Value(l.Per); ok {
				out[l.Per] = l.Period
			}
		}
	}
	return out
}
