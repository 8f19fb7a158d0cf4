package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// exchangeMemory is how long an exchange can be explained by its id.
	exchangeMemory = 14 * 24 * time.Hour
	// exchangesKept bounds how many are kept: the newest.
	exchangesKept = 200_000
)

// SaveExchange keeps an exchange. The identity of one that has a session is not written again.
func (db *DB) SaveExchange(ctx context.Context, r access.ExchangeRow) error {
	identity := ""
	if r.Session == "" && r.Identity.Issuer != "" {
		var err error
		if identity, err = encode(r.Identity); err != nil {
			return failed("save exchange "+r.ID, err)
		}
	}
	err := db.writes.do(ctx, func(t *tx) error {
		_, err := t.exec(`
			INSERT INTO exchanges (id, at, outcome, door, identity, issued, expires, asked, scope, mapping, session, code, reason, detail)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.ID, nanos(r.At), r.Outcome, r.Door, identity, nanos(r.Identity.IssuedAt), nanos(r.Identity.Expires), r.Asked,
			strings.Join(r.Scope, " "), r.Mapping, r.Session, string(r.Code), r.Reason, r.Detail)
		return err
	})
	return failed("save exchange "+r.ID, err)
}

const exchangeColumns = `
	SELECT
		x.id,
		x.at,
		x.outcome,
		x.door,
		CASE WHEN x.identity <> '' THEN x.identity ELSE COALESCE(s.identity, '') END,
		x.issued,
		x.expires,
		x.asked,
		x.scope,
		x.mapping,
		x.session,
		x.code,
		x.reason,
		x.detail
	FROM exchanges x
	LEFT JOIN sessions s ON s.id = x.session
	`

// ExchangeRow returns an exchange; false where it is not kept, or is kept no more.
func (db *DB) ExchangeRow(ctx context.Context, id string) (access.ExchangeRow, bool, error) {
	r, err := scanExchange(db.read.QueryRowContext(ctx, exchangeColumns+`WHERE x.id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return r, false, nil
	}
	return r, err == nil, failed("read exchange", err)
}

// EachExchange calls each with the exchanges since an instant, the newest first, at most limit of them, until it fails.
func (db *DB) EachExchange(ctx context.Context, since time.Time, limit int, each func(access.ExchangeRow) error) error {
	const what = "read exchanges"
	rows, err := db.read.QueryContext(ctx, exchangeColumns+`WHERE x.at >= ? ORDER BY x.at DESC LIMIT ?`, nanos(since), limit)
	if err != nil {
		return failed(what, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		r, err := scanExchange(rows)
		if err != nil {
			return failed(what, err)
		}
		if err := each(r); err != nil {
			return err
		}
	}
	return failed(what, rows.Err())
}

func scanExchange(row scanner) (access.ExchangeRow, error) {
	var r access.ExchangeRow
	var identity, scope string
	var at, issued, expires int64
	if err := row.Scan(&r.ID, &at, &r.Outcome, &r.Door, &identity, &issued, &expires, &r.Asked, &scope, &r.Mapping, &r.Session,
		&r.Code, &r.Reason, &r.Detail); err != nil {
		return r, err
	}
	r.At, r.Scope = instant(at), strings.Fields(scope)
	if identity == "" {
		return r, nil
	}
	err := decode(identity, &r.Identity)
	r.Identity.IssuedAt, r.Identity.Expires = instant(issued), instant(expires)
	return r, err
}
