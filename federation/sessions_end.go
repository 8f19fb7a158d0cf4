package federation

import (
	"context"
	"fmt"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// byWindow is who ends a session whose time is up.
const byWindow = "window"

// ending is an end that is about to happen.
type ending struct {
	entry  *sessionEntry
	reason access.EndReason
	by     string
}

// End ends a session; one that is over stays as it ended. CodeNotFound where there never was one.
func (s *Sessions) End(ctx context.Context, id string, reason access.EndReason, by string) error {
	e, _, err := s.byIDOrStore(ctx, id)
	if err != nil || e == nil {
		return err
	}
	s.end(ctx, ending{e, reason, by})
	return nil
}

// EndJob ends the sessions of a job, whatever mapping opened them, and returns how many: the provider says that the
// job is over.
func (s *Sessions) EndJob(ctx context.Context, issuer string, job access.JobKey, by string) int {
	return s.endWhere(ctx, access.EndJob, by, func(e *sessionEntry) bool {
		return e.row.Identity.Issuer == issuer && e.row.Identity.JobKey == job
	})
}

func (s *Sessions) endWhere(ctx context.Context, reason access.EndReason, by string, match func(*sessionEntry) bool) int {
	var ends []ending
	for _, e := range s.all() {
		if match(e) {
			ends = append(ends, ending{e, reason, by})
		}
	}
	return s.end(ctx, ends...)
}

// Revoke ends the session that an access token belongs to, because whoever has the token says so. A token that leads
// nowhere is no error: RFC 7009 section 2.2.
func (s *Sessions) Revoke(ctx context.Context, token string) error {
	hash, ok := access.HashToken(token)
	if !ok {
		return nil
	}
	session, _, err := s.SessionByToken(ctx, hash)
	switch access.CodeOf(err) {
	case "":
		return s.End(ctx, session.ID, access.EndClosed, "job")
	case access.CodeUnauthenticated, access.CodeEnded:
		return nil
	}
	return err
}

// end ends sessions and returns how many were open. Memory comes first, so that streams are cut before any file is
// written; then the store, tried again by Run until it holds; then the record.
func (s *Sessions) end(ctx context.Context, ends ...ending) int {
	now := s.c.Now()
	ended := ends[:0]
	for _, end := range ends {
		if end.entry.session.End(end.reason, now) {
			ended = append(ended, end)
		}
	}
	if len(ended) == 0 {
		return 0
	}
	rows := make([]access.SessionEnd, 0, len(ended))
	for _, end := range ended {
		rows = append(rows, end.row(now))
	}
	ctx = context.WithoutCancel(ctx)
	s.saveEnds(ctx, ended, rows)
	s.mu.Lock()
	for _, end := range ended {
		s.dueLocked(end.entry, now.Add(endedFor))
	}
	s.mu.Unlock()
	for _, end := range ended {
		s.c.Recorder.SessionEnded(ctx, end.entry.session, end.reason, end.by)
		s.c.Log.Info("session ended", "session", end.entry.session.ID, "mapping", end.entry.session.Mapping, "reason", end.reason, "by", end.by)
	}
	return len(ended)
}

// row marks the entry with an end that is to be written.
func (d ending) row(now time.Time) access.SessionEnd {
	row := access.SessionEnd{Session: d.entry.session.ID, Reason: d.reason, By: d.by, At: now, Counts: d.entry.session.Counts()}
	row.Tally, _ = d.entry.session.Tally()
	d.entry.mu.Lock()
	d.entry.unsaved, d.entry.endedBy = &row, d.by
	d.entry.mu.Unlock()
	return row
}

// saveEnds writes ends to the store. What fails stays marked in its entry.
func (s *Sessions) saveEnds(ctx context.Context, ends []ending, rows []access.SessionEnd) {
	counters := s.counts.changed() // after the sessions' own: see counterBook
	if err := s.c.Store.EndSessions(ctx, rows, counters.rows); err != nil {
		s.c.Log.Error("the end of sessions could not be written down and is tried again", "sessions", len(ends), "err", err)
		return
	}
	counters.saved()
	for _, end := range ends {
		end.entry.mu.Lock()
		end.entry.unsaved = nil
		end.entry.mu.Unlock()
	}
}

// mappingsChanged reaches the open sessions of mappings that were changed or deleted by somebody.
func (s *Sessions) mappingsChanged(ctx context.Context, by map[string]string) {
	s.judging.Lock()
	var ends []ending
	for _, e := range s.all() {
		who, changed := by[e.session.Mapping]
		if !changed {
			continue
		}
		if reason := s.judgeLocked(e); reason != "" {
			ends = append(ends, ending{e, reason, who})
		}
	}
	s.judging.Unlock()
	s.end(ctx, ends...)
}

// rejudge looks whether a session that was just registered is still what its mapping says.
func (s *Sessions) rejudge(ctx context.Context, e *sessionEntry) {
	s.judging.Lock()
	reason := s.judgeLocked(e)
	s.judging.Unlock()
	if reason != "" {
		s.end(ctx, ending{e, reason, fmt.Sprintf("mapping %q", e.session.Mapping)})
	}
}

// judgeLocked gives a session the policy in force, or returns why it must end.
func (s *Sessions) judgeLocked(e *sessionEntry) access.EndReason {
	policy, reason := s.c.Mappings.judge(e.session.Mapping, e.row.Identity, e.row.Opened)
	if reason != "" {
		return reason
	}
	if e.session.Policy().Revision != policy.Revision {
		e.session.SetPolicy(policy)
		s.mu.Lock()
		s.dueLocked(e, e.session.Closes())
		s.mu.Unlock()
	}
	return ""
}

// all returns what is in memory.
func (s *Sessions) all() []*sessionEntry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*sessionEntry, 0, len(s.byID))
	for _, e := range s.byID {
		out = append(out, e)
	}
	return out
}
