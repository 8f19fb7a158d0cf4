package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

const (
	// queued is how many changes may wait; more make their callers wait.
	queued = 256
	// batched is how many changes share a commit at most: a bound on how long the first one waits for the last.
	batched = 128
)

var errClosed = errors.New("the store is closed")

// writer owns the one connection that writes.
type writer struct {
	db   *sql.DB
	tx   *tx
	jobs chan job
	done chan struct{}

	mu     sync.RWMutex // guards closed, and that nobody sends after it
	closed bool
}

type job struct {
	ctx    context.Context
	change func(*tx) error
	result chan error
}

func newWriter(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{
		db: db, tx: &tx{conn: conn, prepared: make(map[string]*sql.Stmt)},
		jobs: make(chan job, queued), done: make(chan struct{}),
	}
	go w.run()
	return w, nil
}

// do queues a change and waits for its commit. Once it is queued it is waited for even if ctx ends: half an answer
// would leave the caller not knowing what holds.
func (w *writer) do(ctx context.Context, change func(*tx) error) error {
	j := job{ctx: ctx, change: change, result: make(chan error, 1)}
	w.mu.RLock()
	if w.closed {
		w.mu.RUnlock()
		return errClosed
	}
	select {
	case w.jobs <- j:
		w.mu.RUnlock()
	case <-ctx.Done():
		w.mu.RUnlock()
		return ctx.Err()
	}
	return <-j.result
}

func (w *writer) close() error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.jobs)
	}
	w.mu.Unlock()
	<-w.done
	return w.db.Close()
}

func (w *writer) run() {
	defer close(w.done)
	defer w.tx.close()
	for j := range w.jobs {
		w.commit(j)
	}
}

// commit runs one change and those that queue up meanwhile in one transaction, and tells each what became of it.
func (w *writer) commit(first job) {
	jobs, errs := []job{first}, []error(nil)
	err := w.tx.run(begin)
	for err == nil && len(errs) < len(jobs) {
		var refused error
		refused, err = w.tx.apply(jobs[len(errs)])
		errs = append(errs, refused)
		if j, ok := w.next(len(jobs)); ok {
			jobs = append(jobs, j)
		}
	}
	if err == nil {
		err = w.tx.run("COMMIT")
	}
	if err != nil {
		// Where SQLite undid the transaction by itself already, there is nothing to undo and this fails.
		_ = w.tx.run("ROLLBACK")
	}
	for i, j := range jobs {
		if err != nil {
			j.result <- err
			continue
		}
		j.result <- errs[i]
	}
}

// next takes a further change if one waits and the batch has room.
func (w *writer) next(have int) (job, bool) {
	if have >= batched {
		return job{}, false
	}
	select {
	case j, ok := <-w.jobs:
		return j, ok
	default:
		return job{}, false
	}
}

// tx is the transaction that is open on the writer's connection. Changes return at the first error: a statement after
// one that made SQLite undo the transaction would be committed on its own.
type tx struct {
	conn     *sql.Conn
	prepared map[string]*sql.Stmt
}

// apply runs one change. refused is the change's own error, and undoes the change only; err loses the transaction.
func (t *tx) apply(j job) (refused, err error) {
	if refused := j.ctx.Err(); refused != nil {
		return refused, nil
	}
	if err := t.run("SAVEPOINT change"); err != nil {
		return nil, err
	}
	if refused = j.change(t); refused != nil {
		if err := t.run("ROLLBACK TO change"); err != nil {
			return nil, errors.Join(refused, err)
		}
	}
	return refused, t.run("RELEASE change")
}

func (t *tx) run(query string) error {
	_, err := t.exec(query)
	return err
}

// exec returns how many rows changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	stmt, err := t.prepare(query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// row reads one row; sql.ErrNoRows where there is none.
func (t *tx) row(query string, args []any, into ...any) error {
	stmt, err := t.prepare(query)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(context.Background(), args...).Scan(into...)
}

// prepare keeps every statement: their texts are constants of this package.
func (t *tx) prepare(query string) (*sql.Stmt, error) {
	if stmt := t.prepared[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := t.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	t.prepared[query] = stmt
	return stmt, nil
}

func (t *tx) close() {
	for _, stmt := range t.prepared {
		_ = stmt.Close()
	}
	_ = t.conn.Close()
}
