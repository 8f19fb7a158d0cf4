package archive

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jobgate/jobgate/proxy/record"
)

// Why an audit stream ended.
const (
	auditDay         = "day"
	auditStopped     = "stopped"
	auditInterrupted = "interrupted"
)

// auditLast is the file in the spool's folder that says how the latest audit stream ended.
const auditLast = "audit.json"

// audit is the deployment's own record: a stream for each day and each start of the program.
type audit struct {
	mu        sync.Mutex // guards all below, and is held from the choice of a stream to an event's place in the queue
	dir       string
	cur       *session // nil where no stream is open
	day       time.Time
	last      *record.AuditHead // how the stream before ended
	recovered []*session        // at the start only
}

// Audit appends an event to the audit stream of this UTC day, and returns when it is written, so that what it announces may be done; an
// error means that it must not. Where there is no stream yet, or a day is over, it begins one. The event's time is taken here: events
// stand in the order of their times.
func (a *Archive) Audit(ctx context.Context, eventType string, data any) error {
	if eventType == record.TypeAuditOpened || eventType == record.TypeAuditEnded {
		return fmt.Errorf("audit: %s is written by the archive only", eventType)
	}
	b, err := a.queueAudit(ctx, record.Event{Type: eventType, Data: data})
	if b != nil && err == nil {
		err = b.wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("audit %s: %w", eventType, err)
	}
	return nil
}

func (a *Archive) queueAudit(ctx context.Context, e record.Event) (*batch, error) {
	a.audit.mu.Lock()
	defer a.audit.mu.Unlock()
	e.Time = a.cfg.Now()
	if err := a.auditOfLocked(ctx, e.Time); err != nil {
		return nil, err
	}
	wait := true
	return a.accept(ctx, a.audit.cur, &wait, []record.Event{e})
}

// auditOfLocked sees to it that the stream of a time's day is open. A clock that is set back stays in the later day.
func (a *Archive) auditOfLocked(ctx context.Context, now time.Time) error {
	if a.audit.cur != nil && dayOf(now).After(a.audit.day) {
		if err := a.endAuditLocked(ctx, auditDay); err != nil {
			return err
		}
	}
	if a.audit.cur != nil {
		return nil
	}
	id, err := newStreamID(now)
	if err != nil {
		return err
	}
	s := a.newSession(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	a.addSession(s)
	err = a.append(context.WithoutCancel(ctx), s, record.Event{Type: record.TypeAuditOpened, Time: now,
		Data: record.AuditOpened{Day: now.UTC().Format(time.DateOnly), Version: a.cfg.Version, After: a.audit.last}})
	if err != nil {
		a.dropSession(s)
		return fmt.Errorf("begin audit stream: %w", err)
	}
	a.audit.cur, a.audit.day = s, dayOf(now)
	return nil
}

// newStreamID sorts by time.
func newStreamID(now time.Time) (string, error) {
	var raw [10]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("read random bytes for an id: %w", err)
	}
	at := strings.Replace(now.UTC().Format("20060102t150405.000"), ".", "", 1)
	return record.AuditPrefix + at + "_" + strings.ToLower(base32.HexEncoding.EncodeToString(raw[:])), nil
}

// EndAudit closes the audit stream in order; a later event begins another.
func (a *Archive) EndAudit(ctx context.Context) error {
	a.audit.mu.Lock()
	defer a.audit.mu.Unlock()
	if a.audit.cur == nil {
		return nil
	}
	return a.endAuditLocked(ctx, auditStopped)
}

// closeDay ends a stream whose day is over, also where nothing happens on the next one. An error shows itself at the next event.
func (a *Archive) closeDay() {
	a.audit.mu.Lock()
	defer a.audit.mu.Unlock()
	if a.audit.cur != nil && dayOf(a.cfg.Now()).After(a.audit.day) {
		_ = a.endAuditLocked(context.Background(), auditDay)
	}
}

func (a *Archive) endAuditLocked(ctx context.Context, reason string) error {
	s := a.audit.cur
	if err := a.endStream(ctx, s, record.AuditEnded{Reason: reason}); err != nil {
		return err
	}
	a.audit.cur = nil
	return a.audit.ended(a.headOf(s))
}

func (a *Archive) endStream(ctx context.Context, s *session, data record.AuditEnded) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := a.append(context.WithoutCancel(ctx), s, record.Event{Type: record.TypeAuditEnded, Time: a.cfg.Now(), Data: data}); err != nil {
		return fmt.Errorf("end audit stream %s: %w", s.id, err)
	}
	s.ended = true
	return nil
}

func (a *Archive) headOf(s *session) *record.AuditHead {
	a.spool.stateMu.Lock()
	defer a.spool.stateMu.Unlock()
	return &record.AuditHead{Stream: s.id, Day: s.state.OpenedAt.UTC().Format(time.DateOnly), Events: s.state.Seq, Head: s.state.Head.String()}
}

// endInterruptedAudit ends the stream that the process before left open, and finds the latest: the one that follows what the file says,
// if the file was not written any more.
func (a *Archive) endInterruptedAudit(ctx context.Context) error {
	a.audit.mu.Lock()
	defer a.audit.mu.Unlock()
	follower := make(map[string]*session) // by the stream before it, "" for none
	for _, s := range a.audit.recovered {
		a.up.schedule(s)
		opened, err := parseLine[record.AuditOpened](s.state.Opened)
		if err != nil {
			return fmt.Errorf("audit stream %s: %w", s.id, err)
		}
		before := ""
		if opened.After != nil {
			before = opened.After.Stream
		}
		follower[before] = s
		if s.ended {
			continue
		}
		if err := a.endStream(ctx, s, record.AuditEnded{Reason: auditInterrupted, Interrupted: true}); err != nil {
			return err
		}
	}
	a.audit.recovered = nil
	for s := follower[a.audit.lastStream()]; s != nil; s = follower[a.audit.lastStream()] {
		delete(follower, a.audit.lastStream())
		if err := a.audit.ended(a.headOf(s)); err != nil {
			return err
		}
	}
	return nil
}

func (u *audit) lastStream() string {
	if u.last == nil {
		return ""
	}
	return u.last.Stream
}

// load reads how the latest stream ended.
func (u *audit) load(dir string) error {
	u.dir = dir
	raw, err := os.ReadFile(filepath.Join(dir, auditLast))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read how the audit stream ended: %w", err)
	}
	var h record.AuditHead
	if err := json.Unmarshal(raw, &h); err != nil || !record.IsAudit(h.Stream) {
		return fmt.Errorf("%s says nothing of an audit stream; move it away, and the next stream names none before it", filepath.Join(dir, auditLast))
	}
	u.last = &h
	return nil
}

// ended keeps how a stream ended, for the next one and over a restart.
func (u *audit) ended(h *record.AuditHead) error {
	u.last = h
	raw, err := json.Marshal(h)
	if err != nil {
		return err
	}
	name := filepath.Join(u.dir, auditLast)
	err = os.WriteFile(name+".new", append(raw, '\n'), 0o600)
	if err == nil {
		err = errors.Join(syncPath(name+".new"), os.Rename(name+".new", name), syncPath(u.dir))
	}
	if err != nil {
		return fmt.Errorf("write down how audit stream %s ended: %w", h.Stream, err)
	}
	return nil
}
