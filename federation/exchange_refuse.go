package federation

import (
	"context"
	"errors"
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
)

// attempt is one exchange under way.
type attempt struct {
	opening Opening
	event   AuditEvent
	// known says that details may be shown: the signature was verified, and the job is of a tenant that a mapping
	// names. Anybody at a public CI provider can get a token for any audience.
	known bool
}

func (a *attempt) identify(id access.Identity, m *Mappings) {
	a.event.Identity = id
	for _, f := range m.set.Load().sorted {
		if f.Issuer() == id.Issuer && f.PinsTenant(id) {
			a.known = true
			return
		}
	}
}

func (a *attempt) matched(m *mappingInForce) { a.event.Mapping, a.known = m.Name(), true }

// attempt runs one exchange and tells the audit how it went.
func (x *Exchange) attempt(ctx context.Context, door string, do func(*attempt) (Opened, error)) (Opened, error) {
	id, err := newID(x.c.Random, "x_")
	if err != nil {
		return Opened{}, err
	}
	a := &attempt{opening: Opening{Exchange: id, Door: door}}
	a.event = AuditEvent{Time: x.c.Now(), Exchange: id, Door: door}
	opened, err := do(a)
	if err != nil {
		return Opened{}, x.refused(ctx, a, err)
	}
	a.event.Outcome = access.ExchangeOpened
	switch {
	case opened.Session == nil: // nothing was given out
		a.event.Outcome, a.event.Connections, a.event.Class = access.ExchangeTried, a.opening.Connections, classTrial
		x.auditRefusal(ctx, a) // it gives out as little, and a job may try as often as it likes
		return opened, nil
	case opened.Renewed:
		a.event.Outcome = access.ExchangeRenewed
	case opened.Joined:
		a.event.Outcome = access.ExchangeJoined
	}
	a.event.Mapping, a.event.Session, a.event.Connections = opened.Session.Mapping, opened.Session.ID, opened.Connections
	a.event.Revision = opened.Session.Policy().Revision
	if err := x.audit(ctx, a.event); err != nil {
		x.withdraw(ctx, a.event)
		a.event.Session, a.event.Connections = "", nil
		return Opened{}, x.refused(ctx, a, &access.Error{Code: access.CodeUnavailable, Reason: "unrecordable", Public: "the exchange cannot be recorded", Err: err})
	}
	return opened, nil
}

// refused tells the audit of a refusal. One that cannot be written down is a refusal all the same.
func (x *Exchange) refused(ctx context.Context, a *attempt, err error) *access.Error {
	out := a.refuse(err)
	a.event.Outcome, a.event.Code, a.event.Reason, a.event.Err = access.ExchangeRefused, out.Code, out.Reason, err
	a.event.Class = a.class()
	x.auditRefusal(ctx, a)
	return out
}

// withdraw takes back a session that was opened by an exchange which cannot be recorded, so that its job can open one later. One that was
// there before stays; nobody has the token that was made.
func (x *Exchange) withdraw(ctx context.Context, e AuditEvent) {
	if e.Outcome == access.ExchangeOpened {
		x.c.Sessions.withdraw(context.WithoutCancel(ctx), e.Session)
	}
}

// withdraw forgets a session of which nobody has a token.
func (s *Sessions) withdraw(ctx context.Context, id string) {
	s.mu.Lock()
	e := s.byID[id]
	if e != nil {
		delete(s.byID, id)
		delete(s.byJob, e.row.Key())
	}
	s.mu.Unlock()
	if e == nil || !e.session.End(access.EndUnsaid, s.c.Now()) {
		return
	}
	e.mu.Lock()
	tokens := e.tokens
	e.saved = e.session.Changes()
	e.mu.Unlock()
	for _, t := range tokens {
		s.removeToken(t.Hash)
	}
	if err := s.c.Store.UndoOpening(ctx, id); err != nil {
		s.c.Log.Error("a session whose exchange could not be recorded stays in the store", "session", id, "err", err)
	}
	s.c.Recorder.SessionEnded(ctx, e.session, access.EndUnsaid, "")
}

// refuse makes an error what the caller may have of it. Codes that are not an exchange's become one that is.
func (a *attempt) refuse(err error) *access.Error {
	out := &access.Error{Code: access.CodeOf(err), Reason: reasonOf(err), Err: err}
	var e *access.Error
	if errors.As(err, &e) {
		out.RetryAfter = e.RetryAfter
	}
	switch out.Code {
	case access.CodeEnded, access.CodeUnauthenticated, access.CodeConflict:
		out.Code = access.CodeGrant
	case access.CodeNotFound, access.CodeDenied:
		out.Code = access.CodeTarget
	}
	text := string(out.Code)
	switch {
	case a.known && out.Code != access.CodeInternal, out.Code == access.CodeInvalid:
		text = access.PublicText(err)
	case out.Code == access.CodeInternal:
		text = "internal error"
	}
	if a.known && out.Reason == access.ReasonReplayed {
		text = out.Reason + ": " + text
	}
	out.Exchange = a.opening.Exchange
	out.Public = fmt.Sprintf("%s (exchange %s)", text, a.opening.Exchange)
	return out
}

func refusal(code access.Code, reason, public string) error {
	return &access.Error{Code: code, Reason: reason, Public: public}
}

func replayed(public string) error { return refusal(access.CodeGrant, access.ReasonReplayed, public) }

// windowOver refuses a job whose session under the mapping has ended: no token of it opens another.
func windowOver(row access.SessionRow) error {
	return refusal(access.CodeGrant, "window_over", fmt.Sprintf("the window of this job under mapping %q is over: %s; a job has one", row.Mapping, row.Reason.Text()))
}

func reasonOf(err error) string {
	var e *access.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}
