package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
)

// JoinSession writes a further access token of a session that is open. Where a CI token joins, it is counted; it loses
// with ReasonJoins when it has joined as often as it may.
func (db *DB) JoinSession(ctx context.Context, j access.Joining) error {
	session := j.Token.Session
	err := db.writes.do(ctx, func(t *tx) error {
		var open int
		err := t.row(`SELECT 1 FROM sessions WHERE id = ? AND ended_at = 0`, []any{session}, &open)
		if errors.Is(err, sql.ErrNoRows) {
			return access.Refuse(access.CodeEnded, fmt.Sprintf("session %s is over", session))
		}
		if err != nil {
			return err
		}
		if j.TokenID != "" {
			if err := t.countJoin(j); err != nil {
				return err
			}
		}
		return t.replaceTokens(j.Token, j.Dropped)
	})
	return failed("join session "+session, err)
}

func (t *tx) countJoin(j access.Joining) error {
	n, err := t.exec(`UPDATE seen_tokens SET joins = joins + 1 WHERE issuer = ? AND token_id = ? AND session = ? AND joins < ?`,
		j.Issuer, j.TokenID, j.Token.Session, j.MaxJoins)
	if err == nil && n == 0 {
		err = lost(access.ReasonJoins, fmt.Sprintf("the CI token has joined its session %d times", j.MaxJoins))
	}
	return err
}

func (t *tx) replaceTokens(token access.AccessToken, dropped []access.TokenHash) error {
	for _, hash := range dropped {
		if _, err := t.exec(`DELETE FROM access_tokens WHERE hash = ? AND session = ?`, hexed(hash), token.Session); err != nil {
			return err
		}
	}
	return t.insertToken(token)
}

func (t *tx) insertToken(a access.AccessToken) error {
	connections, err := encode(a.Connections)
	if err != nil {
		return err
	}
	_, err = t.exec(`
		INSERT INTO access_tokens (hash, session, connections, issued, expires, assertion, last_used)
		VALUES (?, ?, ?, ?, ?, ?, ?)`,
		hexed(a.Hash), a.Session, connections, nanos(a.Issued), nanos(a.Expires), flag(a.Assertion), nanos(a.Issued))
	return err
}

// unseen refuses a CI token that was used before. The look-up and the insert are one transaction of the one writer.
func (t *tx) unseen(s access.SeenToken) error {
	var session string
	err := t.row(`SELECT session FROM seen_tokens WHERE issuer = ? AND token_id = ?`, []any{s.Issuer, s.ID}, &session)
	switch {
	case err == nil:
		return lost(access.ReasonReplayed, "the CI token was used before")
	case errors.Is(err, sql.ErrNoRows):
		return nil
	}
	return err
}

func (t *tx) see(s access.SeenToken) error {
	_, err := t.exec(`INSERT INTO seen_tokens (issuer, token_id, mapping, session, until, joins) VALUES (?, ?, ?, ?, ?, 0)`,
		s.Issuer, s.ID, s.Mapping, s.Session, nanos(s.Until))
	return err
}

// SeenToken returns what a CI token was used for; false where it was not.
func (db *DB) SeenToken(ctx context.Context, issuer, id string) (access.SeenToken, bool, error) {
	s := access.SeenToken{Issuer: issuer, ID: id}
	var until int64
	err := db.read.QueryRowContext(ctx, `SELECT mapping, session, until, joins FROM seen_tokens WHERE issuer = ? AND token_id = ?`,
		issuer, id).Scan(&s.Mapping, &s.Session, &until, &s.Joins)
	if errors.Is(err, sql.ErrNoRows) {
		return access.SeenToken{}, false, nil
	}
	s.Until = instant(until)
	return s, err == nil, failed("read a used CI token", err)
}

const tokenColumns = `SELECT hash, session, connections, issued, expires, assertion, last_used FROM access_tokens `

// TokenByHash returns an access token; false where there is none.
func (db *DB) TokenByHash(ctx context.Context, hash access.TokenHash) (access.StoredToken, bool, error) {
	token, err := scanToken(db.read.QueryRowContext(ctx, tokenColumns+`WHERE hash = ?`, hexed(hash)))
	if errors.Is(err, sql.ErrNoRows) {
		return token, false, nil
	}
	return token, err == nil, failed("read access token", err)
}

// TokensOfSession returns a session's access tokens, the oldest first.
func (db *DB) TokensOfSession(ctx context.Context, session string) ([]access.StoredToken, error) {
	what := "read access tokens of session " + session
	rows, err := db.read.QueryContext(ctx, tokenColumns+`WHERE session = ? ORDER BY issued, hash`, session)
	if err != nil {
		return nil, failed(what, err)
	}
	defer func() { _ = rows.Close() }()
	var out []access.StoredToken
	for rows.Next() {
		token, err := scanToken(rows)
		if err != nil {
			return nil, failed(what, err)
		}
		out = append(out, token)
	}
	return out, failed(what, rows.Err())
}

func scanToken(row scanner) (access.StoredToken, error) {
	var a access.StoredToken
	var hash, connections string
	var issued, expires, assertion, used int64
	if err := row.Scan(&hash, &a.Session, &connections, &issued, &expires, &assertion, &used); err != nil {
		return a, err
	}
	var err error
	if a.Hash, err = unhexed(hash); err != nil {
		return a, err
	}
	a.Issued, a.Expires, a.LastUsed, a.Assertion = instant(issued), instant(expires), instant(used), assertion != 0
	return a, decode(connections, &a.Connections)
}
