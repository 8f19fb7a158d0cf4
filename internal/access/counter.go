package access

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultPeriod is how long a limit over several jobs counts where it does not say.
const DefaultPeriod = 24 * time.Hour

// CounterKey names what all jobs of a mapping with the same value of a claim have used of one connection. It has neither
// limits nor overrides in it, so that no change of those begins a counter anew.
type CounterKey struct {
	Mapping    string
	Connection string
	Per        string // a claim
	Value      string // of it
}

// CounterRow is what is kept of a counter.
type CounterRow struct {
	CounterKey
	Ends   time.Time // of the period that runs: from then on it counts from nothing
	Counts Counts
}

// Counter counts over several jobs, within periods. It is safe for concurrent use; its lock is held for a few additions.
type Counter struct {
	key     CounterKey
	changes atomic.Uint64

	mu     sync.Mutex // guards all below
	ends   time.Time
	counts Counts
	turn   uint64 // of the period, so that what was reserved in one is not given back in another
	gone   bool   // nobody keeps it any more
}

// NewCounter returns a counter as it was kept; a row with a key only has counted nothing.
func NewCounter(row CounterRow) *Counter {
	return &Counter{key: row.CounterKey, ends: row.Ends, counts: row.Counts}
}

// Row returns what is to be kept, and a number that grows with every change.
func (c *Counter) Row() (CounterRow, uint64) {
	changes := c.changes.Load() // before the counts: a change that comes between is kept twice, never missed
	c.mu.Lock()
	defer c.mu.Unlock()
	return CounterRow{CounterKey: c.key, Ends: c.ends, Counts: c.counts}, changes
}

// Changes is that number.
func (c *Counter) Changes() uint64 { return c.changes.Load() }

// Retire gives the counter up where its period ended before an instant, and reports whether it did: a session that holds
// it asks for another.
func (c *Counter) Retire(before time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone = c.ends.Before(before); c.gone {
		c.turn++
	}
	return c.gone
}

// Add counts what was used before a crash and not kept.
func (c *Counter) Add(used Counts, period time.Duration, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beginLocked(period, now)
	c.counts.Requests += used.Requests
	c.counts.InputTokens += used.InputTokens
	c.counts.OutputTokens += used.OutputTokens
	c.changes.Add(1)
}

// beginLocked begins a period anew where one is over. A limit whose period was changed counts on until the one that runs
// ends: no change gives back what was used.
func (c *Counter) beginLocked(period time.Duration, now time.Time) {
	if now.Before(c.ends) {
		return
	}
	c.ends, c.counts = PeriodEnd(now, period), Counts{}
	c.turn++
}

// PeriodEnd returns when the period that an instant lies in ends. Periods follow one another without a gap since a
// Monday, midnight UTC: one of 24h is the UTC day, one of 1h the hour, one of 168h the week.
func PeriodEnd(now time.Time, period time.Duration) time.Time {
	monday := time.Unix(4*24*60*60, 0).UTC() // 5 January 1970
	return monday.Add((now.Sub(monday)/period + 1) * period)
}

// reserve counts one request and the output tokens that it may use at most. gone says that the counter is kept no more,
// and nothing was counted.
func (c *Counter) reserve(l SharedLimit, output int64, enforce bool, now time.Time) (s share, gone bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return s, true, nil
	}
	c.beginLocked(l.Period, now)
	if err = c.overLocked(l, output, now); err != nil && enforce {
		return s, false, err
	}
	c.counts.Requests++
	c.counts.OutputTokens += output
	c.changes.Add(1)
	return share{counter: c, turn: c.turn}, false, err
}

func (c *Counter) overLocked(l SharedLimit, output int64, now time.Time) error {
	what, limit, used, ok := c.counts.over(l.Requests, l.InputTokens, l.OutputTokens, output)
	if ok {
		return nil
	}
	who := fmt.Sprintf("mapping %q grants all jobs with %s %q together %d %s on connection %q in %s",
		c.key.Mapping, c.key.Per, c.key.Value, limit, what, c.key.Connection, shortPeriod(l.Period))
	if l.OutputTokens > 0 && output > l.OutputTokens {
		return &Error{Code: CodeLimit, Public: fmt.Sprintf("Jobgate: %s, and this call alone may use %d; ask for fewer max_tokens", who, output)}
	}
	return &Error{Code: CodeLimit, RetryAfter: c.ends.Sub(now), Public: fmt.Sprintf(
		"Jobgate: %s, and %d are used or reserved; it counts anew from %s on", who, used, c.ends.UTC().Format(time.RFC3339))}
}

// shortPeriod writes "24h" for 24h0m0s.
func shortPeriod(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

// share is what one call has reserved of a counter, in one period of it.
type share struct {
	counter *Counter
	turn    uint64
}

// settle changes what was counted for a call. What was reserved in a period that is over stays there.
func (s share) settle(requests, input, output int64) {
	c := s.counter
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn != s.turn {
		return
	}
	c.counts.Requests += requests
	c.counts.InputTokens += input
	c.counts.OutputTokens += output
	c.changes.Add(1)
}

// over returns the first limit that one more request would pass, with what is used of it; ok where it passes none.
func (n Counts) over(requests, input, output, reserved int64) (what string, limit, used int64, ok bool) {
	switch {
	case requests > 0 && n.Requests+1 > requests:
		return "requests", requests, n.Requests, false
	case input > 0 && n.InputTokens >= input:
		return "input tokens", input, n.InputTokens, false
	case output > 0 && (n.OutputTokens >= output || reserved > output-n.OutputTokens):
		return "output tokens", output, n.OutputTokens, false
	}
	return "", 0, 0, true
}
