package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// readers is how many connections read at the same time.
const readers = 4

// Config says where the rows are.
type Config struct {
	// URL is "sqlite:" and a path. Required.
	URL string
	// Folder is what a relative path begins at; empty takes the working directory.
	Folder string
	Now    func() time.Time // nil takes time.Now; for approvals and pruning only
	Log    *slog.Logger     // nil discards
}

// DB is an open store. It is safe for concurrent use.
type DB struct {
	read   *sql.DB
	writes *writer
	lock   *os.File
	now    func() time.Time
	log    *slog.Logger
}

// Open opens the store, creates it where there is none, and brings its tables up to date. A store that another process
// holds is refused.
func Open(ctx context.Context, c Config) (*DB, error) {
	path, err := c.path()
	if err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	db := &DB{lock: lock, now: c.Now, log: c.Log}
	if err := db.open(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), db.Close())
	}
	return db, nil
}

// path reads the URL.
func (c Config) path() (string, error) {
	scheme, path, _ := strings.Cut(c.URL, ":")
	switch {
	case scheme == "postgres" || scheme == "postgresql":
		// The rest of such a URL holds a password.
		return "", errors.New("store: postgres is not in this build yet; write sqlite:jobgate.db")
	case scheme != "sqlite":
		return "", errors.New("store: the URL begins with neither sqlite: nor postgres:; write for example sqlite:jobgate.db")
	case path == "" || strings.Contains(path, ":memory:"):
		return "", fmt.Errorf("store: %q names no file; write for example sqlite:jobgate.db", c.URL)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.Folder, path)
	}
	return filepath.Abs(path)
}

func (db *DB) open(ctx context.Context, path string) error {
	if err := private(path); err != nil {
		return err
	}
	write, err := openSQLite(path, 1, false)
	if err != nil {
		return err
	}
	if err := migrate(ctx, write); err != nil {
		return errors.Join(err, write.Close())
	}
	if db.writes, err = newWriter(ctx, write); err != nil {
		return errors.Join(err, write.Close())
	}
	db.read, err = openSQLite(path, readers, true)
	return err
}

// private creates the file, and takes the rights of everybody else away: SQLite gives its other files the same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// Close waits for the changes that are queued, and gives the store free.
func (db *DB) Close() error {
	var errs []error
	if db.read != nil {
		errs = append(errs, db.read.Close())
	}
	if db.writes != nil {
		errs = append(errs, db.writes.close())
	}
	errs = append(errs, db.lock.Close())
	return errors.Join(errs...)
}

// Ping reports whether the store answers.
func (db *DB) Ping(ctx context.Context) error {
	return failed("ask the store", db.read.PingContext(ctx))
}
