package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jobgate/jobgate/approvals"
	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"
)

const (
	// quietWait is how long a record waits for the ends of calls that were cut, before it closes without them.
	quietWait = 10 * time.Second
	// endRetry is the pause between attempts to close a record that could not be written.
	endRetry = time.Second
)

// recorder is what federation tells of sessions, written into the archive. A record is closed after the last call of
// its session has told its own end.
type recorder struct {
	archive *archive.Archive
	maskers *proxy.Maskers
	log     *slog.Logger
	now     func() time.Time
	version string

	ctx  context.Context // ends when the program stops
	stop context.CancelFunc
	work sync.WaitGroup

	wired  chan struct{}   // closed when the fields below are set: sessions can end before that, at a restart
	desk   *approvals.Desk // questions of a session that is over are cancelled
	forget func(session string)
}

func newRecorder(a *archive.Archive, m *proxy.Maskers, log *slog.Logger) *recorder {
	r := &recorder{archive: a, maskers: m, log: log, now: time.Now, version: versionText(), wired: make(chan struct{})}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// wire gives the recorder what is built after it.
func (r *recorder) wire(desk *approvals.Desk, forget func(session string)) {
	r.desk, r.forget = desk, forget
	close(r.wired)
}

// close waits for the records that are being closed; what the disk does not take by then is recovered at the next
// start.
func (r *recorder) close() {
	r.stop()
	r.work.Wait()
}

// SessionOpened writes the first event of a record.
func (r *recorder) SessionOpened(ctx context.Context, s *access.Session, o federation.Opening) error {
	masks, err := r.maskers.For(s.ID)
	if err != nil {
		return err
	}
	p := s.Policy()
	return r.archive.Begin(ctx, s.ID, record.Event{Type: record.TypeSessionOpened, Time: r.now(), Data: record.SessionOpened{
		Mapping: s.Mapping, Revision: p.Revision, Override: p.Override, Origin: recordOrigin(p.Origin), Issuer: s.Identity.Issuer, IssuerURL: s.Identity.IssuerURL, Provider: s.Identity.Provider,
		Subject: maskText(masks, s.Identity.Subject), JobKey: maskText(masks, string(s.Identity.JobKey)), JobURL: maskText(masks, s.Job.URL),
		Claims: maskClaims(masks, s.Identity.Claims), Connections: p.Connections(), Opens: s.Window.Opens, Closes: s.Window.Closes,
		Lease: p.Window.Lease.String(), Mode: p.Mode.String(), Door: o.Door, Version: r.version,
	}})
}

func recordOrigin(o access.Origin) *record.Origin {
	if o == (access.Origin{}) {
		return nil
	}
	return &record.Origin{From: o.From, Revision: o.Revision}
}

// SessionJoined writes a further access token, or a renewal.
func (r *recorder) SessionJoined(ctx context.Context, s *access.Session, o federation.Opening) error {
	masks, err := r.maskers.For(s.ID)
	if err != nil {
		return err
	}
	connection := ""
	if len(o.Connections) == 1 {
		connection = o.Connections[0]
	}
	return r.archive.Append(ctx, s.ID, true, record.Event{Type: record.TypeSessionJoined, Time: r.now(), Data: record.SessionJoined{
		Door: o.Door, Connection: connection, TokenHash: fmt.Sprintf("%x", o.Token[:8]), Renewed: o.Renewed,
		ServiceAccount: maskText(masks, o.ServiceAccount), Workspace: maskText(masks, o.Workspace),
	}})
}

// SessionEnded closes the record in the background: its questions are cancelled at once, its last event comes after
// those of its calls.
func (r *recorder) SessionEnded(_ context.Context, s *access.Session, reason access.EndReason, by string) {
	r.work.Go(func() {
		select {
		case <-r.wired:
			r.release(s, reason)
		case <-r.ctx.Done(): // the program stopped before it served anything
		}
		r.end(s, reason, by)
	})
}

// release cancels the questions of a session that is over, and waits until its calls have told their ends.
func (r *recorder) release(s *access.Session, reason access.EndReason) {
	if err := r.desk.CancelSession(context.WithoutCancel(r.ctx), s.ID, reason.Text()); err != nil {
		r.log.Warn("questions of a session that is over stay open", "session", s.ID, "error", err)
	}
	wait := time.NewTimer(quietWait)
	defer wait.Stop()
	select {
	case <-s.Quiet():
	case <-wait.C:
	case <-r.ctx.Done():
	}
	r.forget(s.ID)
}

func (r *recorder) end(s *access.Session, reason access.EndReason, by string) {
	tally, _ := s.Tally()
	counts := make(map[string]record.Counts)
	for name, c := range s.Counts() {
		counts[name] = record.Counts(c)
	}
	event := record.Event{Type: record.TypeSessionEnded, Time: r.now(), Data: record.SessionEnded{
		Reason: string(reason), By: by, Calls: tally.Calls, Denials: tally.Denials, Approvals: tally.Asked, Counts: counts,
	}}
	for {
		err := r.archive.End(context.WithoutCancel(r.ctx), s.ID, event)
		if err == nil {
			return
		}
		r.log.Error("the end of a session is not recorded yet", "session", s.ID, "error", err)
		if archiveKnowsNot(err) {
			return
		}
		select {
		case <-time.After(endRetry):
		case <-r.ctx.Done():
			return
		}
	}
}

// mask takes secrets out of a text that belongs to a session. A text that cannot be masked is left out.
func (r *recorder) mask(session, text string) string {
	masks, err := r.maskers.For(session)
	if err != nil {
		return ""
	}
	return maskText(masks, text)
}

func maskText(m proxy.Masks, s string) string {
	out, _ := m.Full.Mask(nil, []byte(s))
	return string(out)
}

// maskClaims masks every text of the claims: a branch can be named after a key.
func maskClaims(m proxy.Masks, claims access.Claims) map[string]any {
	out := make(map[string]any, len(claims))
	for name, value := range claims {
		out[name] = maskValue(m, value)
	}
	return out
}

func maskValue(m proxy.Masks, value any) any {
	switch v := value.(type) {
	case string:
		return maskText(m, v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = maskValue(m, v[i])
		}
		return list
	case map[string]any:
		return maskClaims(m, v)
	}
	return value
}
