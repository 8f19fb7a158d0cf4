package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
)

// CreateApproval writes a question down. Its id must be new.
func (db *DB) CreateApproval(ctx context.Context, a access.Approval) error {
	body, err := encode(a)
	if err != nil {
		return failed("create approval", err)
	}
	err = db.writes.do(ctx, func(t *tx) error {
		n, err := t.exec(`
			INSERT INTO approvals (id, session, digest, state, version, asked, settled, body, post_channel, post_ts)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', '')
			ON CONFLICT DO NOTHING`,
			a.ID, a.Session, a.Digest, string(a.State), a.Version, nanos(a.Asked), nanos(a.Vote.At), body)
		if err == nil && n == 0 {
			err = lost("", fmt.Sprintf("approval %q exists already", a.ID))
		}
		return err
	})
	return failed("create approval "+a.ID, err)
}

// SettleApproval replaces a question whose version is fromVersion, and loses with CodeConflict where it is another.
func (db *DB) SettleApproval(ctx context.Context, a access.Approval, fromVersion int64) error {
	body, err := encode(a)
	if err != nil {
		return failed("settle approval", err)
	}
	err = db.writes.do(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE approvals SET state = ?, version = ?, settled = ?, body = ? WHERE id = ? AND version = ?`,
			string(a.State), a.Version, nanos(a.Vote.At), body, a.ID, fromVersion)
		if err != nil || n > 0 {
			return err
		}
		var version int64
		if err := t.row(`SELECT version FROM approvals WHERE id = ?`, []any{a.ID}, &version); errors.Is(err, sql.ErrNoRows) {
			return notFound("approval", a.ID)
		} else if err != nil {
			return err
		}
		return lost("", fmt.Sprintf("approval %q was settled by somebody else meanwhile", a.ID))
	})
	return failed("settle approval "+a.ID, err)
}

// Approval returns a question, or CodeNotFound.
func (db *DB) Approval(ctx context.Context, id string) (access.Approval, error) {
	a, err := scanApproval(db.read.QueryRowContext(ctx, `SELECT body FROM approvals WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		err = notFound("approval", id)
	}
	return a, failed("read approval "+id, err)
}

// Approvals returns the questions of a state, or all for "", the newest first.
func (db *DB) Approvals(ctx context.Context, state access.ApprovalState) ([]access.Approval, error) {
	const what = "read approvals"
	query, args := `SELECT body FROM approvals WHERE state = ? ORDER BY asked DESC, id`, []any{string(state)}
	if state == "" {
		query, args = `SELECT body FROM approvals ORDER BY asked DESC, id`, nil
	}
	rows, err := db.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, failed(what, err)
	}
	defer func() { _ = rows.Close() }()
	var out []access.Approval
	for rows.Next() {
		a, err := scanApproval(rows)
		if err != nil {
			return nil, failed(what, err)
		}
		out = append(out, a)
	}
	return out, failed(what, rows.Err())
}

// SettledApproval returns the newest question of a session about a digest that was denied or has expired.
func (db *DB) SettledApproval(ctx context.Context, session, digest string) (access.Approval, bool, error) {
	a, err := scanApproval(db.read.QueryRowContext(ctx, `
		SELECT body
		FROM approvals
		WHERE session = ? AND digest = ? AND state IN (?, ?)
		ORDER BY settled DESC, asked DESC
		LIMIT 1`,
		session, digest, string(access.Denied), string(access.Expired)))
	if errors.Is(err, sql.ErrNoRows) {
		return access.Approval{}, false, nil
	}
	return a, err == nil, failed("read settled approval", err)
}

// SetApprovalPost keeps where a question was posted.
func (db *DB) SetApprovalPost(ctx context.Context, id, channel, ts string) error {
	err := db.writes.do(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE approvals SET post_channel = ?, post_ts = ? WHERE id = ?`, channel, ts, id)
		if err == nil && n == 0 {
			err = notFound("approval", id)
		}
		return err
	})
	return failed("set post of approval "+id, err)
}

// ApprovalPost returns where a question was posted; empty where it was not.
func (db *DB) ApprovalPost(ctx context.Context, id string) (channel, ts string, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT post_channel, post_ts FROM approvals WHERE id = ?`, id).Scan(&channel, &ts)
	if errors.Is(err, sql.ErrNoRows) {
		err = notFound("approval", id)
	}
	return channel, ts, failed("read post of approval "+id, err)
}

func scanApproval(row scanner) (access.Approval, error) {
	var body string
	var a access.Approval
	if err := row.Scan(&body); err != nil {
		return a, err
	}
	return a, decode(body, &a)
}
