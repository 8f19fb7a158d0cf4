package federation

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// auditKept is how many exchanges of verified jobs, and how many of others, can be explained by their id.
const auditKept = 512

// AuditEvent is one exchange, or one refusal. It holds no token.
type AuditEvent struct {
	Time     time.Time
	Exchange string
	Door     string
	Outcome  string // "opened", "renewed", "joined", "tried" or "refused"
	// Identity is zero where the token did not verify.
	Identity    access.Identity
	Mapping     string
	Session     string
	Connections []string
	// Of a refusal:
	Code   access.Code
	Reason string
	Err    error // with all details
}

func logAudit(log *slog.Logger) func(context.Context, AuditEvent) {
	return func(ctx context.Context, e AuditEvent) {
		level, attrs := slog.LevelInfo, []slog.Attr{
			slog.String("exchange", e.Exchange), slog.String("door", e.Door), slog.String("outcome", e.Outcome),
			slog.String("issuer", e.Identity.Issuer), slog.String("job", string(e.Identity.JobKey)),
			slog.String("mapping", e.Mapping), slog.String("session", e.Session), slog.Any("connections", e.Connections),
		}
		if e.Err != nil {
			level = slog.LevelWarn
			attrs = append(attrs, slog.String("code", string(e.Code)), slog.String("reason", e.Reason), slog.Any("err", e.Err))
		}
		log.LogAttrs(ctx, level, "exchange", attrs...)
	}
}

// audit tells the hook, and keeps the event for an explanation.
func (x *Exchange) audit(ctx context.Context, e AuditEvent) {
	x.latest.keep(e)
	x.c.Hits.exchanged(e)
	x.c.Audit(ctx, e)
}

// Audited returns one of the latest exchanges and refusals by its id, which the caller was told; in memory only.
func (x *Exchange) Audited(exchange string) (AuditEvent, bool) { return x.latest.get(exchange) }

// auditMemory keeps the latest events. What did not verify is kept apart, so that strangers push nothing else out.
type auditMemory struct {
	mu     sync.Mutex // guards all below
	events map[string]AuditEvent
	order  [2][]string // ids, the oldest first: of what did not verify, and of what did
}

func (m *auditMemory) keep(e AuditEvent) {
	verified := 0
	if e.Identity.Issuer != "" {
		verified = 1
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.events == nil {
		m.events = make(map[string]AuditEvent)
	}
	order := &m.order[verified]
	if len(*order) == auditKept {
		delete(m.events, (*order)[0])
		*order = append((*order)[:0], (*order)[1:]...)
	}
	*order = append(*order, e.Exchange)
	m.events[e.Exchange] = e
}

func (m *auditMemory) get(exchange string) (AuditEvent, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.events[exchange]
	return e, ok
}
