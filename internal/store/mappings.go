package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
)

// MappingRows returns all mappings, tombstones among them, by name.
func (db *DB) MappingRows(ctx context.Context) ([]access.MappingRow, error) {
	const what = "read mappings"
	rows, err := db.read.QueryContext(ctx, `
		SELECT
			name,
			revision,
			source,
			spec,
			changed,
			changed_by,
			deleted,
			deleted_via
		FROM mappings
		ORDER BY name`)
	if err != nil {
		return nil, failed(what, err)
	}
	defer func() { _ = rows.Close() }()
	var out []access.MappingRow
	for rows.Next() {
		var m access.MappingRow
		var changed, deleted int64
		if err := rows.Scan(&m.Name, &m.Revision, &m.Source, &m.Spec, &changed, &m.By, &deleted, &m.DeletedVia); err != nil {
			return nil, failed(what, err)
		}
		m.Changed, m.Deleted = instant(changed), instant(deleted)
		out = append(out, m)
	}
	return out, failed(what, rows.Err())
}

// SaveMappings makes all changes or none: CodeConflict where one of them found another revision.
func (db *DB) SaveMappings(ctx context.Context, changes []access.MappingChange) error {
	err := db.writes.do(ctx, func(t *tx) error {
		for _, c := range changes {
			if err := t.saveMapping(c); err != nil {
				return err
			}
		}
		return nil
	})
	return failed("save mappings", err)
}

func (t *tx) saveMapping(c access.MappingChange) error {
	m := c.Row
	values := []any{m.Revision, string(m.Source), string(m.Spec), nanos(m.Changed), m.By, nanos(m.Deleted), string(m.DeletedVia), m.Name}
	query := `
		INSERT INTO mappings (revision, source, spec, changed, changed_by, deleted, deleted_via, name)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`
	if c.From != 0 {
		query = `
		UPDATE mappings
		SET
			revision = ?,
			source = ?,
			spec = ?,
			changed = ?,
			changed_by = ?,
			deleted = ?,
			deleted_via = ?
		WHERE name = ? AND revision = ?`
		values = append(values, c.From)
	}
	n, err := t.exec(query, values...)
	if err == nil && n == 0 {
		err = lost(access.ReasonRevision, fmt.Sprintf("mapping %q was changed by somebody else meanwhile", m.Name))
	}
	return err
}

// MappingRevision returns the revision in force, and 0 for a mapping that is deleted or never was.
func (db *DB) MappingRevision(ctx context.Context, name string) (int64, error) {
	var revision int64
	err := db.read.QueryRowContext(ctx, `SELECT revision FROM mappings WHERE name = ? AND deleted = 0`, name).Scan(&revision)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return revision, failed("read mapping "+name, err)
}
