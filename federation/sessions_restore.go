package federation

import (
	"context"
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
)

// byStart is who ends a session that a start finds to be over.
const byStart = "restart"

// Recovered is what the records of sessions that have not ended say: by session and connection, what was used. A
// session without calls is there with an empty map.
type Recovered map[string]map[string]access.Counts

// Restore takes up the sessions that the store has as open, after Mappings.Reload and before anything is served. Of
// the counters in ledger and record the larger ones hold, so that a crash refills no limit. Sessions whose time has
// passed, or whose mapping is gone or matches no more, are ended; where the store has the end and the record has not,
// the record gets it. nil says that there are no records to compare with. It returns the ids of records whose
// session the store does not know.
func (s *Sessions) Restore(ctx context.Context, recovered Recovered) (unknown []string, err error) {
	counters, err := s.c.Store.CounterRows(ctx)
	if err != nil {
		return nil, err
	}
	s.counts.load(counters)
	rows, err := s.c.Store.SessionRows(ctx, true, 0)
	if err != nil {
		return nil, err
	}
	open := make(map[string]bool, len(rows))
	for _, row := range rows {
		open[row.ID] = true
		if err := s.restore(ctx, row, recovered); err != nil {
			return nil, fmt.Errorf("restore session %s: %w", row.ID, err)
		}
	}
	for id := range recovered {
		if open[id] {
			continue
		}
		found, err := s.endRecord(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("restore session %s: %w", id, err)
		}
		if !found {
			unknown = append(unknown, id)
		}
	}
	return unknown, nil
}

func (s *Sessions) restore(ctx context.Context, row access.SessionRow, recovered Recovered) error {
	counts, recorded := recovered[row.ID]
	if recovered != nil && !recorded && len(row.Counts) == 0 {
		// The process died between the store and the record: no token of this session was ever given out.
		return s.c.Store.UndoOpening(ctx, row.ID)
	}
	s.recount(row, counts)
	e, err := s.load(ctx, row, counts)
	if err != nil {
		return err
	}
	if recovered != nil && !recorded {
		s.c.Log.Error("a session that was used has no record and is ended", "session", row.ID)
		s.end(ctx, ending{e, access.EndOperator, "restart without its record"})
	}
	return nil
}

// load makes a row of the store a session in memory. One that is over by now is ended on the way.
func (s *Sessions) load(ctx context.Context, row access.SessionRow, recorded map[string]access.Counts) (*sessionEntry, error) {
	tokens, err := s.c.Store.TokensOfSession(ctx, row.ID)
	if err != nil {
		return nil, err
	}
	policy, reason := s.c.Mappings.judge(row.Mapping, row.Identity, row.Opened)
	if policy == nil {
		policy = &access.Policy{Mapping: row.Mapping, Revision: row.Revision} // grants nothing
	}
	session := s.fromStore(row, policy, larger(row.Counts, recorded))
	e := s.register(&sessionEntry{session: session, row: row})
	if e.session != session {
		return e, nil
	}
	now := s.c.Now()
	for _, t := range tokens {
		if t.Expires = rebase(t.Expires, now); now.Before(t.Expires) {
			s.addToken(e, t.AccessToken, t.LastUsed, nil)
		}
	}
	switch {
	case session.State(now) == access.Ended:
		s.end(ctx, ending{e, access.EndMax, byWindow})
	case reason != "":
		s.end(ctx, ending{e, reason, byStart})
	default:
		s.rejudge(ctx, e) // the mapping may have been changed since it was judged
	}
	return e, nil
}

// fromStore gives the times of a row a monotonic reading. Neither window nor lease is longer than it was to be, even
// where the clock was set back while the process was down.
func (s *Sessions) fromStore(row access.SessionRow, policy *access.Policy, counts map[string]access.Counts) *access.Session {
	now := s.c.Now()
	longest := row.Closes.Sub(row.Opened)
	closes := now.Add(min(row.Closes.Sub(now), longest))
	opens := closes.Add(-longest)
	if shorter := opens.Add(policy.Window.Max); policy.Window.Max > 0 && shorter.Before(closes) {
		closes = shorter
	}
	asleep := rebase(row.Asleep, now)
	if lease := now.Add(policy.Window.Lease); policy.Window.Lease > 0 && lease.Before(asleep) {
		asleep = lease
	}
	return access.NewSession(access.SessionConfig{
		ID: row.ID, Identity: row.Identity, Job: Job(row.Identity), Policy: policy, Counts: counts, Tally: row.Tally, Counter: s.counts.get,
		Window: access.Window{Opens: opens, Closes: closes}, Asleep: asleep,
	})
}

func larger(a, b map[string]access.Counts) map[string]access.Counts {
	out := make(map[string]access.Counts, len(a)+len(b))
	for name, n := range a {
		out[name] = n
	}
	for name, n := range b {
		have := out[name]
		out[name] = access.Counts{
			Requests:     max(have.Requests, n.Requests),
			InputTokens:  max(have.InputTokens, n.InputTokens),
			OutputTokens: max(have.OutputTokens, n.OutputTokens),
		}
	}
	return out
}

// endRecord writes the end into the record of a session that is over in the store only.
func (s *Sessions) endRecord(ctx context.Context, id string) (found bool, err error) {
	row, err := s.c.Store.SessionRow(ctx, id)
	if access.CodeOf(err) == access.CodeNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	session := s.fromStore(row, &access.Policy{Mapping: row.Mapping, Revision: row.Revision}, row.Counts)
	session.End(row.Reason, row.Ended)
	s.c.Recorder.SessionEnded(ctx, session, row.Reason, row.EndedBy)
	return true, nil
}
