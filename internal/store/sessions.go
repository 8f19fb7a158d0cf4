package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
)

// OpenSession writes a session, its job's ledger, the replay mark of its CI token and its first access token, all or
// nothing. It loses with ReasonRevision where the mapping's revision is no longer the session's, with ReasonReplayed
// where the CI token was used before, and with ReasonOpened where the job has a session under the mapping already.
func (db *DB) OpenSession(ctx context.Context, o access.Opening) error {
	identity, err := encode(o.Session.Identity)
	if err != nil {
		return failed("open session", err)
	}
	err = db.writes.do(ctx, func(t *tx) error {
		if err := t.hasRevision(o.Session.Mapping, o.Session.Revision); err != nil {
			return err
		}
		if err := t.unseen(o.Seen); err != nil {
			return err
		}
		if err := t.insertSession(o.Session, identity); err != nil {
			return err
		}
		if err := t.see(o.Seen); err != nil {
			return err
		}
		return t.insertToken(o.Token)
	})
	return failed("open session "+o.Session.ID, err)
}

func (t *tx) hasRevision(mapping string, revision int64) error {
	var now int64
	err := t.row(`SELECT revision FROM mappings WHERE name = ? AND deleted = 0`, []any{mapping}, &now)
	if errors.Is(err, sql.ErrNoRows) || err == nil && now != revision {
		return lost(access.ReasonRevision, fmt.Sprintf("mapping %q was changed or deleted meanwhile", mapping))
	}
	return err
}

// insertSession takes the ledger first: of two exchanges of one job, one finds it taken.
func (t *tx) insertSession(s access.SessionRow, identity string) error {
	key := s.Key()
	var taken string
	err := t.row(`SELECT session FROM ledgers WHERE issuer = ? AND job_key = ? AND mapping = ?`,
		[]any{key.Issuer, string(key.Job), key.Mapping}, &taken)
	switch {
	case err == nil:
		return lost(access.ReasonOpened, fmt.Sprintf("the job has session %s under mapping %q already", taken, key.Mapping))
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	if _, err := t.exec(`
		INSERT INTO sessions (id, mapping, revision, override, origin, origin_revision, issuer, job_key, identity, door, opened, closes, asleep, ended_at, end_reason, ended_by)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', '')`,
		s.ID, s.Mapping, s.Revision, s.Override, s.Origin.From, s.Origin.Revision, key.Issuer, string(key.Job), identity, s.Door,
		nanos(s.Opened), nanos(s.Closes), nanos(s.Asleep)); err != nil {
		return err
	}
	_, err = t.exec(`
		INSERT INTO ledgers (issuer, job_key, mapping, session, first_exchange, counts, tally, ended)
		VALUES (?, ?, ?, ?, ?, '{}', '{}', '')`,
		key.Issuer, string(key.Job), key.Mapping, s.ID, nanos(s.Opened))
	return err
}

// UndoOpening takes back what OpenSession wrote: for an opening that was never given out.
func (db *DB) UndoOpening(ctx context.Context, session string) error {
	err := db.writes.do(ctx, func(t *tx) error {
		_, err := t.exec(`DELETE FROM sessions WHERE id = ?`, session) // ledger, tokens and replay mark go with it
		return err
	})
	return failed("undo session "+session, err)
}

// RenewSession writes the new end of a lease, the replay mark of the fresh CI token and a further access token. It
// loses with ReasonReplayed, and with CodeEnded where the session has ended.
func (db *DB) RenewSession(ctx context.Context, r access.Renewal) error {
	session := r.Token.Session
	err := db.writes.do(ctx, func(t *tx) error {
		if err := t.unseen(r.Seen); err != nil {
			return err
		}
		n, err := t.exec(`UPDATE sessions SET asleep = ? WHERE id = ? AND ended_at = 0`, nanos(r.Asleep), session)
		if err != nil {
			return err
		}
		if n == 0 {
			return access.Refuse(access.CodeEnded, fmt.Sprintf("session %s is over", session))
		}
		if err := t.see(r.Seen); err != nil {
			return err
		}
		return t.replaceTokens(r.Token, r.Dropped)
	})
	return failed("renew session "+session, err)
}

// EndSessions ends the sessions of the list that are open, and writes what their jobs had used, and counters beside it. Sessions that have
// ended already keep their first reason.
func (db *DB) EndSessions(ctx context.Context, ends []access.SessionEnd, counters []access.CounterRow) error {
	err := db.writes.do(ctx, func(t *tx) error {
		for _, e := range ends {
			if err := t.endSession(e); err != nil {
				return err
			}
		}
		return t.saveCounters(counters)
	})
	return failed("end sessions", err)
}

func (t *tx) endSession(e access.SessionEnd) error {
	n, err := t.exec(`UPDATE sessions SET ended_at = ?, end_reason = ?, ended_by = ? WHERE id = ? AND ended_at = 0`,
		nanos(e.At), string(e.Reason), e.By, e.Session)
	if err != nil || n == 0 {
		return err
	}
	if _, err := t.exec(`UPDATE ledgers SET ended = ? WHERE session = ?`, string(e.Reason), e.Session); err != nil {
		return err
	}
	return t.saveUsage(access.Usage{Session: e.Session, Counts: e.Counts, Tally: e.Tally})
}

// SaveUsage writes what sessions have used, the counters that they share, when their tokens were last shown, and leases that were renewed.
func (db *DB) SaveUsage(ctx context.Context, usage []access.Usage, counters []access.CounterRow) error {
	err := db.writes.do(ctx, func(t *tx) error {
		for _, u := range usage {
			if err := t.saveUsage(u); err != nil {
				return err
			}
			if err := t.lengthenLease(u); err != nil {
				return err
			}
			for _, token := range u.Tokens {
				if _, err := t.exec(`UPDATE access_tokens SET last_used = ? WHERE hash = ?`, nanos(token.Last), hexed(token.Hash)); err != nil {
					return err
				}
			}
		}
		return t.saveCounters(counters)
	})
	return failed("save usage", err)
}

// lengthenLease writes a lease unless a longer one stands there: another writer may have been faster.
func (t *tx) lengthenLease(u access.Usage) error {
	if u.Asleep.IsZero() {
		return nil
	}
	_, err := t.exec(`UPDATE sessions SET asleep = ? WHERE id = ? AND ended_at = 0 AND asleep < ?`, nanos(u.Asleep), u.Session, nanos(u.Asleep))
	return err
}

func (t *tx) saveUsage(u access.Usage) error {
	counts, err := encode(u.Counts)
	if err != nil {
		return err
	}
	tally, err := encode(u.Tally)
	if err != nil {
		return err
	}
	_, err = t.exec(`UPDATE ledgers SET counts = ?, tally = ? WHERE session = ?`, counts, tally, u.Session)
	return err
}

const sessionColumns = `
	SELECT
		s.id,
		s.mapping,
		s.revision,
		s.override,
		s.origin,
		s.origin_revision,
		s.identity,
		s.door,
		s.opened,
		s.closes,
		s.asleep,
		s.ended_at,
		s.end_reason,
		s.ended_by,
		l.counts,
		l.tally
	FROM sessions s
	JOIN ledgers l ON l.session = s.id
	`

// SessionRow returns a session, or CodeNotFound.
func (db *DB) SessionRow(ctx context.Context, id string) (access.SessionRow, error) {
	s, err := scanSession(db.read.QueryRowContext(ctx, sessionColumns+`WHERE s.id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		err = notFound("session", id)
	}
	return s, failed("read session "+id, err)
}

// SessionOfJob returns the session that a job has under a mapping, open or over; false where it has none.
func (db *DB) SessionOfJob(ctx context.Context, key access.LedgerKey) (access.SessionRow, bool, error) {
	s, err := scanSession(db.read.QueryRowContext(ctx, sessionColumns+`WHERE l.issuer = ? AND l.job_key = ? AND l.mapping = ?`,
		key.Issuer, string(key.Job), key.Mapping))
	if errors.Is(err, sql.ErrNoRows) {
		return s, false, nil
	}
	return s, err == nil, failed("read session of a job", err)
}

// SessionRows returns sessions, the newest first: those that have not ended, or the latest of all.
func (db *DB) SessionRows(ctx context.Context, open bool, limit int) ([]access.SessionRow, error) {
	const what = "read sessions"
	query, args := sessionColumns+`WHERE s.ended_at = 0 ORDER BY s.opened DESC, s.id`, []any(nil)
	if !open {
		query, args = sessionColumns+`ORDER BY s.opened DESC, s.id LIMIT ?`, []any{limit}
	}
	rows, err := db.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, failed(what, err)
	}
	defer func() { _ = rows.Close() }()
	var out []access.SessionRow
	for rows.Next() {
		s, err := scanSession(rows)
		if err != nil {
			return nil, failed(what, err)
		}
		out = append(out, s)
	}
	return out, failed(what, rows.Err())
}

type scanner interface{ Scan(into ...any) error }

func scanSession(row scanner) (access.SessionRow, error) {
	var s access.SessionRow
	var identity, counts, tally string
	var opened, closes, asleep, ended int64
	if err := row.Scan(&s.ID, &s.Mapping, &s.Revision, &s.Override, &s.Origin.From, &s.Origin.Revision, &identity, &s.Door, &opened, &closes, &asleep, &ended,
		&s.Reason, &s.EndedBy, &counts, &tally); err != nil {
		return s, err
	}
	s.Opened, s.Closes, s.Asleep, s.Ended = instant(opened), instant(closes), instant(asleep), instant(ended)
	return s, errors.Join(decode(identity, &s.Identity), decode(counts, &s.Counts), decode(tally, &s.Tally))
}
