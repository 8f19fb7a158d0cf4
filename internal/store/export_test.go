package store

import (
	"context"
	"fmt"
)

// Limit makes the disk full at a number of pages, for tests; 0 gives room again.
func (db *DB) Limit(pages int) error {
	if pages == 0 {
		pages = 1 << 30
	}
	// Not a change: a transaction that is open would be limited, too.
	_, err := db.writes.tx.conn.ExecContext(context.Background(), fmt.Sprintf("PRAGMA max_page_count = %d", pages))
	return err
}

// SetSchema pretends that another program made the tables.
func (db *DB) SetSchema(version string) error {
	return db.writes.do(context.Background(), func(t *tx) error {
		_, err := t.exec(`UPDATE meta SET value = ? WHERE name = 'schema'`, version)
		return err
	})
}
