package store

import (
	"context"

	"github.com/jobgate/jobgate/internal/access"
)

// CounterRows returns all counters that jobs share.
func (db *DB) CounterRows(ctx context.Context) ([]access.CounterRow, error) {
	const what = "read counters"
	rows, err := db.read.QueryContext(ctx, `
		SELECT
			mapping,
			connection,
			claim,
			value,
			ends,
			requests,
			input_tokens,
			output_tokens
		FROM counters`)
	if err != nil {
		return nil, failed(what, err)
	}
	defer func() { _ = rows.Close() }()
	var out []access.CounterRow
	for rows.Next() {
		var c access.CounterRow
		var ends int64
		if err := rows.Scan(&c.Mapping, &c.Connection, &c.Per, &c.Value, &ends,
			&c.Counts.Requests, &c.Counts.InputTokens, &c.Counts.OutputTokens); err != nil {
			return nil, failed(what, err)
		}
		c.Ends = instant(ends)
		out = append(out, c)
	}
	return out, failed(what, rows.Err())
}

func (t *tx) saveCounters(counters []access.CounterRow) error {
	for _, c := range counters {
		if _, err := t.exec(`
			INSERT INTO counters (mapping, connection, claim, value, ends, requests, input_tokens, output_tokens)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (mapping, connection, claim, value) DO UPDATE
			SET
				ends = excluded.ends,
				requests = excluded.requests,
				input_tokens = excluded.input_tokens,
				output_tokens = excluded.output_tokens`,
			c.Mapping, c.Connection, c.Per, c.Value, nanos(c.Ends), c.Counts.Requests, c.Counts.InputTokens, c.Counts.OutputTokens); err != nil {
			return err
		}
	}
	return nil
}
