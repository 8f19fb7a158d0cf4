package store

import (
	"context"

	"github.com/jobgate/jobgate/internal/access"
)

// Stops returns what is stopped.
func (db *DB) Stops(ctx context.Context) ([]access.StopOrder, error) {
	const what = "read stops"
	rows, err := db.read.QueryContext(ctx, `
		SELECT
			kind,
			name,
			reason,
			stopped_by,
			stopped_at
		FROM stops
		ORDER BY stopped_at`)
	if err != nil {
		return nil, failed(what, err)
	}
	defer func() { _ = rows.Close() }()
	var out []access.StopOrder
	for rows.Next() {
		var s access.StopOrder
		var at int64
		if err := rows.Scan(&s.Kind, &s.Name, &s.Reason, &s.By, &at); err != nil {
			return nil, failed(what, err)
		}
		s.At = instant(at)
		out = append(out, s)
	}
	return out, failed(what, rows.Err())
}

// SaveStop writes a stop down, in the place of an earlier one of the same kind and name.
func (db *DB) SaveStop(ctx context.Context, s access.StopOrder) error {
	err := db.writes.do(ctx, func(t *tx) error {
		_, err := t.exec(`
			INSERT INTO stops (kind, name, reason, stopped_by, stopped_at)
			VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (kind, name) DO UPDATE SET
				reason = excluded.reason,
				stopped_by = excluded.stopped_by,
				stopped_at = excluded.stopped_at`,
			string(s.Kind), s.Name, s.Reason, s.By, nanos(s.At))
		return err
	})
	return failed("save a stop", err)
}

// DeleteStop lifts a stop. One that is not there is no error.
func (db *DB) DeleteStop(ctx context.Context, kind access.StopKind, name string) error {
	err := db.writes.do(ctx, func(t *tx) error {
		_, err := t.exec(`DELETE FROM stops WHERE kind = ? AND name = ?`, string(kind), name)
		return err
	})
	return failed("lift a stop", err)
}
