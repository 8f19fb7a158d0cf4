package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/jobgate/jobgate/internal/access"
)

// busyTimeout, in milliseconds, is how long a reader waits while the file is being checkpointed.
const busyTimeout = 5000

// openSQLite returns a pool of connections to one file. Commits wait for the disk: a revocation that was answered
// holds after a power cut.
func openSQLite(path string, connections int, readOnly bool) (*sql.DB, error) {
	q := url.Values{}
	q.Set("_busy_timeout", strconv.Itoa(busyTimeout))
	q.Set("_foreign_keys", "1")
	q.Set("_journal_mode", "WAL")
	q.Set("_synchronous", "FULL")
	if readOnly {
		q.Set("_query_only", "1")
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// begin takes the write lock at once: a transaction that begins by reading could not take it later.
const begin = "BEGIN IMMEDIATE"

// failed gives an error of the database its code. Refusals pass as they are.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	if e := (*access.Error)(nil); errors.As(err, &e) {
		return err
	}
	code := access.CodeUnavailable
	if errors.Is(err, context.Canceled) {
		code = access.CodeCanceled
	}
	return &access.Error{Code: code, Public: "the store does not answer", Err: fmt.Errorf("%s: %w", what, err)}
}

// lost is a change that came too late.
func lost(reason, public string) error {
	return &access.Error{Code: access.CodeConflict, Reason: reason, Public: public}
}

func notFound(what, id string) error {
	return access.Refuse(access.CodeNotFound, fmt.Sprintf("there is no %s %q", what, id))
}
