package store

import (
	"context"
	"time"
)

const (
	// tokenMemory is how long an ended session's tokens are remembered at least, so that they are answered with the
	// reason. Longer windows are remembered for their own length.
	tokenMemory = 24 * time.Hour
	// jobMemory is how long an ended job stays ended. It must pass every job's longest life (a workflow run of GitHub
	// may last 35 days): a job whose ledger were forgotten could open again.
	jobMemory = 90 * 24 * time.Hour
)

// Prune deletes what nobody can ask for any more.
func (db *DB) Prune(ctx context.Context) error {
	now := db.now()
	day, job := nanos(now.Add(-tokenMemory)), nanos(now.Add(-jobMemory))
	err := db.writes.do(ctx, func(t *tx) error {
		for _, step := range []struct {
			query string
			args  []any
		}{
			{`DELETE FROM access_tokens WHERE session IN (
				SELECT id FROM sessions WHERE ended_at > 0 AND ended_at < ? AND ended_at + (closes - opened) < ?)`, []any{day, nanos(now)}},
			{`DELETE FROM access_tokens WHERE expires < ? AND session IN (SELECT id FROM sessions WHERE ended_at = 0)`, []any{day}},
			// Kept for a day longer than the verifier takes the token: a clock that is set back opens no gap.
			{`DELETE FROM seen_tokens WHERE until < ?`, []any{day}},
			{`DELETE FROM sessions WHERE ended_at > 0 AND ended_at < ?`, []any{job}},
			{`DELETE FROM exchanges WHERE at < ?`, []any{nanos(now.Add(-exchangeMemory))}},
			{`DELETE FROM exchanges WHERE at < (SELECT at FROM exchanges ORDER BY at DESC LIMIT 1 OFFSET ?)`, []any{exchangesKept}},
			{`DELETE FROM counters WHERE ends < ?`, []any{day}},
			{`DELETE FROM approvals WHERE settled > 0 AND settled < ?`, []any{job}},
		} {
			if _, err := t.exec(step.query, step.args...); err != nil {
				return err
			}
		}
		return nil
	})
	return failed("prune", err)
}
