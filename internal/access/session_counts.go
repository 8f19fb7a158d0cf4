package access

import (
	"fmt"
	"time"
)

// Hold is what a call has reserved: of its job's counters, and of those that it shares with other jobs.
type Hold struct {
	connection string
	output     int64
	shares     []share
}

// Reserve counts one request and the output tokens that it may use at most. A limit that would be passed refuses with
// CodeLimit and counts nothing; with enforce false it is counted all the same and the refusal is returned beside the
// hold. A hold is given back with Release, or with Settle.
func (s *Session) Reserve(connection string, limits Limits, outputTokens int64, enforce bool, now time.Time) (Hold, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.countsLocked(connection)
	first := s.overLocked(c, limits, connection, outputTokens, now)
	if first != nil && enforce {
		return Hold{}, first
	}
	h := Hold{connection: connection, output: outputTokens}
	for _, l := range limits.Shared {
		part, err := s.reserveSharedLocked(connection, l, outputTokens, enforce, now)
		if err != nil && enforce {
			for _, p := range h.shares {
				p.settle(-1, 0, -outputTokens)
			}
			return Hold{}, err
		}
		if first == nil {
			first = err
		}
		if part.counter != nil {
			h.shares = append(h.shares, part)
		}
	}
	c.Requests++
	c.OutputTokens += outputTokens
	s.changes.Add(1)
	return h, first
}

// reserveSharedLocked reserves of one counter. A job without the claim cannot be counted, and is refused.
func (s *Session) reserveSharedLocked(connection string, l SharedLimit, output int64, enforce bool, now time.Time) (share, error) {
	value, ok := s.Identity.Claims.Value(l.Per)
	if !ok {
		return share{}, Refuse(CodeLimit, fmt.Sprintf("Jobgate: mapping %q limits connection %q per %s, and the job's token has no such claim to count by", s.Mapping, connection, l.Per))
	}
	at := [2]string{connection, l.Per}
	for {
		c := s.shared[at]
		if c == nil {
			c = s.counter(CounterKey{Mapping: s.Mapping, Connection: connection, Per: l.Per, Value: value})
			s.shared[at] = c
		}
		part, gone, err := c.reserve(l, output, enforce, now)
		if !gone {
			return part, err
		}
		delete(s.shared, at)
	}
}

func (s *Session) overLocked(c *Counts, limits Limits, connection string, outputTokens int64, now time.Time) error {
	what, limit, used, ok := c.over(limits.Requests, limits.InputTokens, limits.OutputTokens, outputTokens)
	if ok {
		return nil
	}
	return &Error{Code: CodeLimit, RetryAfter: s.closes.Sub(now), Public: fmt.Sprintf(
		"Jobgate: mapping %q grants this job %d %s on connection %q, and %d are used or reserved; the limit is not refilled before the window ends at %s",
		s.Mapping, limit, what, connection, used, s.closes.UTC().Format(time.RFC3339))}
}

// Release takes back a request that was reserved and not sent, and returns the job's counters after it.
func (s *Session) Release(h Hold) Counts { return s.give(h, -1, 0, -h.output) }

// Settle replaces a reservation by what was used, and returns the job's counters after it.
func (s *Session) Settle(h Hold, inputTokens, outputTokens int64) Counts {
	return s.give(h, 0, inputTokens, outputTokens-h.output)
}

func (s *Session) give(h Hold, requests, input, output int64) Counts {
	for _, p := range h.shares {
		p.settle(requests, input, output)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.countsLocked(h.connection)
	c.Requests += requests
	c.InputTokens += input
	c.OutputTokens += output
	s.changes.Add(1)
	return *c
}

func (s *Session) countsLocked(connection string) *Counts {
	c := s.counts[connection]
	if c == nil {
		c = new(Counts)
		s.counts[connection] = c
	}
	return c
}

// CountsOf returns what was used of one connection.
func (s *Session) CountsOf(connection string) Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.counts[connection]; c != nil {
		return *c
	}
	return Counts{}
}

// Counts returns what was used, by connection.
func (s *Session) Counts() map[string]Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]Counts, len(s.counts))
	for name, c := range s.counts {
		out[name] = *c
	}
	return out
}

// Changes grows with every change of counters, tally and lease: who writes them down compares it with what it was.
func (s *Session) Changes() uint64 { return s.changes.Load() }

// Count changes the tally.
func (s *Session) Count(change func(*Tally)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.tally)
	s.changes.Add(1)
}

// Tally returns what happened so far, and the latest denials, at most twenty, oldest first.
func (s *Session) Tally() (Tally, []Denial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tally, append([]Denial(nil), s.denials...)
}

// Denied counts a refusal and keeps it for the summary.
func (s *Session) Denied(d Denial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.Denials++
	s.changes.Add(1)
	if len(s.denials) == keptDenials {
		s.denials = append(s.denials[:0], s.denials[1:]...)
	}
	s.denials = append(s.denials, d)
}
