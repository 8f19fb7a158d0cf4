package store

import (
	"context"
	"encoding/json"

	"github.com/jobgate/jobgate/internal/access"
)

// SaveHits adds counts to those of their days, and replaces samples.
func (db *DB) SaveHits(ctx context.Context, counts []access.HitCount, samples []access.HitSamples) error {
	err := db.writes.do(ctx, func(t *tx) error {
		for _, c := range counts {
			if err := t.addHits(c); err != nil {
				return err
			}
		}
		for _, s := range samples {
			if err := t.saveSamples(s); err != nil {
				return err
			}
		}
		return nil
	})
	return failed("save hits", err)
}

func (t *tx) addHits(c access.HitCount) error {
	_, err := t.exec(`
		INSERT INTO hits (mapping, day, connection, rule, outcome, n, last)
		VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (mapping, day, connection, rule, outcome) DO UPDATE SET
			n = hits.n + excluded.n,
			last = excluded.last`,
		c.Mapping, c.Day, c.Connection, c.Rule, string(c.Outcome), c.N, nanos(c.Last))
	return err
}

func (t *tx) saveSamples(s access.HitSamples) error {
	text, err := json.Marshal(s.Samples)
	if err != nil {
		return err
	}
	last := int64(0)
	if n := len(s.Samples); n > 0 {
		last = nanos(s.Samples[n-1].Time)
	}
	_, err = t.exec(`
		INSERT INTO hit_samples (mapping, connection, rule, last, samples)
		VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (mapping, connection, rule) DO UPDATE SET
			last = excluded.last,
			samples = excluded.samples`,
		s.Mapping, s.Connection, s.Rule, last, string(text))
	return err
}

// Hits returns a mapping's counts from a day on, one for each of its days.
func (db *DB) Hits(ctx context.Context, mapping string, from int64) ([]access.HitCount, error) {
	const what = "read hits"
	rows, err := db.read.QueryContext(ctx, `
		SELECT
			connection,
			rule,
			outcome,
			day,
			n,
			last
		FROM hits
		WHERE mapping = ? AND day >= ?
		ORDER BY day`, mapping, from)
	if err != nil {
		return nil, failed(what, err)
	}
	defer func() { _ = rows.Close() }()
	var out []access.HitCount
	for rows.Next() {
		c := access.HitCount{Mapping: mapping}
		var last int64
		if err := rows.Scan(&c.Connection, &c.Rule, &c.Outcome, &c.Day, &c.N, &last); err != nil {
			return nil, failed(what, err)
		}
		c.Last = instant(last)
		out = append(out, c)
	}
	return out, failed(what, rows.Err())
}

// HitSamples returns the samples of all rules.
func (db *DB) HitSamples(ctx context.Context) ([]access.HitSamples, error) {
	const what = "read samples of hits"
	rows, err := db.read.QueryContext(ctx, `SELECT mapping, connection, rule, samples FROM hit_samples`)
	if err != nil {
		return nil, failed(what, err)
	}
	defer func() { _ = rows.Close() }()
	var out []access.HitSamples
	for rows.Next() {
		var s access.HitSamples
		var text []byte
		if err := rows.Scan(&s.Mapping, &s.Connection, &s.Rule, &text); err != nil {
			return nil, failed(what, err)
		}
		if err := json.Unmarshal(text, &s.Samples); err != nil {
			return nil, failed(what, err)
		}
		out = append(out, s)
	}
	return out, failed(what, rows.Err())
}

// PruneHits forgets what is older than a day.
func (db *DB) PruneHits(ctx context.Context, before int64) error {
	err := db.writes.do(ctx, func(t *tx) error {
		if _, err := t.exec(`DELETE FROM hits WHERE day < ?`, before); err != nil {
			return err
		}
		_, err := t.exec(`DELETE FROM hit_samples WHERE last < ?`, before*24*int64(3600e9))
		return err
	})
	return failed("prune hits", err)
}
