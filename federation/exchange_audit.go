package federation

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/proxy/record"
)

const (
	// auditKept is how many exchanges of verified jobs, and how many of others, can be explained by their id from memory.
	auditKept = 512
	// failedMappings and failedConditions bound what an audit event says of mappings that did not serve a job.
	failedMappings   = 3
	failedConditions = 8
)

// ExchangeTrail keeps exchanges for some days. Which of them is up to it: it may forget the oldest.
type ExchangeTrail interface {
	SaveExchange(ctx context.Context, r access.ExchangeRow) error
	ExchangeRow(ctx context.Context, id string) (access.ExchangeRow, bool, error)
	EachExchange(ctx context.Context, since time.Time, limit int, each func(access.ExchangeRow) error) error
}

// AuditEvent is one exchange, or one refusal. It holds no token.
type AuditEvent struct {
	Time     time.Time
	Exchange string
	Door     string
	Outcome  string // one of access.Exchange...
	// Identity is zero where the token did not verify.
	Identity access.Identity
	// Claimed is the issuer that a token which did not verify names; cut and escaped, nobody's word.
	Claimed     string
	Asked       record.Asked
	Mapping     string
	Revision    int64 // of the mapping that served
	Session     string
	Connections []string
	// Of a refusal:
	Code   access.Code
	Reason string
	Err    error // with all details
	Class  string
	Failed []record.Failed // of the mappings that pin the job's owner, the nearest first
	// Suppressed is how many refusals of the same class were not written since the last one that was.
	Suppressed int64
}

// Detail is the cause of a refusal, for operators: escaped, and cut.
func (e AuditEvent) Detail() string {
	if e.Err == nil {
		return ""
	}
	return detailOf(e.Err)
}

func (e AuditEvent) log(ctx context.Context, log *slog.Logger) {
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

func (e AuditEvent) row() access.ExchangeRow {
	return access.ExchangeRow{ID: e.Exchange, At: e.Time, Door: e.Door, Outcome: e.Outcome, Identity: e.Identity, Asked: e.Asked.Mapping,
		Scope: e.Asked.Scope, Mapping: e.Mapping, Session: e.Session, Code: e.Code, Reason: e.Reason, Detail: e.Detail()}
}

// audit writes an event down, and keeps it for an explanation. Only the first can fail an exchange: the rest is for convenience.
func (x *Exchange) audit(ctx context.Context, e AuditEvent) error {
	ctx = context.WithoutCancel(ctx) // a client that left must not leave it open whether the event is there
	if err := x.c.Audit(ctx, e); err != nil {
		x.c.Log.ErrorContext(ctx, "an exchange could not be written to the audit stream", "exchange", e.Exchange, "outcome", e.Outcome, "err", err)
		return err
	}
	e.log(ctx, x.c.Log)
	x.latest.keep(e)
	x.c.Hits.exchanged(e)
	if x.c.Trail != nil {
		if err := x.c.Trail.SaveExchange(ctx, e.row()); err != nil {
			x.c.Log.WarnContext(ctx, "an exchange cannot be explained after a restart", "exchange", e.Exchange, "err", err)
		}
	}
	return nil
}

// auditRefusal writes a refusal down, or counts it where there are too many.
func (x *Exchange) auditRefusal(ctx context.Context, a *attempt) {
	write, suppressed := x.meter.take(a.event)
	if !write {
		x.latest.keep(a.event)
		x.c.Hits.exchanged(a.event)
		return
	}
	a.event.Suppressed, a.event.Failed = suppressed, x.failedOf(a)
	_ = x.audit(ctx, a.event) // it is logged there
}

// failedOf lists the conditions that a refused job fails, of the mapping that it named, or of those that pin its owner.
func (x *Exchange) failedOf(a *attempt) []record.Failed {
	if !a.known || !ofMappings(a.event.Code, a.event.Reason) {
		return nil
	}
	id, now := a.event.Identity, a.event.Time
	type candidate struct {
		name   string
		failed []api.MappingCondition
	}
	var near []candidate
	for _, m := range x.c.Mappings.set.Load().sorted {
		named := a.event.Asked.Mapping
		if m.Issuer() != id.Issuer || named != "" && m.Name() != named || named == "" && !m.PinsTenant(id) {
			continue
		}
		c := candidate{name: m.Name(), failed: unheld(m.Examine(id, now))}
		if len(c.failed) > 0 {
			near = append(near, c)
		}
	}
	slices.SortStableFunc(near, func(x, y candidate) int { return len(x.failed) - len(y.failed) })
	var out []record.Failed
	for _, c := range near[:min(len(near), failedMappings)] {
		for _, f := range c.failed[:min(len(c.failed), failedConditions)] {
			out = append(out, record.Failed{Mapping: c.name, Kind: f.Kind, On: f.On, Got: f.Got, Wanted: f.Wanted, Reason: f.Reason})
		}
	}
	return out
}

func unheld(conditions []api.MappingCondition) []api.MappingCondition {
	return slices.DeleteFunc(conditions, func(c api.MappingCondition) bool { return c.Held })
}

// ofMappings reports whether a refusal was the mappings' word: other mappings could have said otherwise.
func ofMappings(code access.Code, reason string) bool {
	switch code {
	case access.CodeTarget, access.CodeScope:
		return reason != access.ReasonStopped
	case access.CodeGrant:
		return reason == reasonAge || reason == "no_job_key"
	}
	return false
}

// claimedIssuer is what a token says of its issuer, unverified: cut and escaped.
func claimedIssuer(raw string) string {
	t, err := parse(raw)
	if err != nil {
		return ""
	}
	url, _ := t.claims["iss"].(string)
	return printable(url)
}

// Audited returns one of the latest exchanges and refusals by its id, which the caller was told: those in memory.
func (x *Exchange) Audited(exchange string) (AuditEvent, bool) { return x.latest.get(exchange) }

// find returns an exchange of the last days.
func (x *Exchange) find(ctx context.Context, exchange string) (access.ExchangeRow, bool, error) {
	if e, found := x.latest.get(exchange); found {
		return e.row(), true, nil
	}
	if x.c.Trail == nil {
		return access.ExchangeRow{}, false, nil
	}
	return x.c.Trail.ExchangeRow(ctx, exchange)
}

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
