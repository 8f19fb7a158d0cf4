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
		refused := a.refuse(err)
		a.event.Outcome, a.event.Code, a.event.Reason, a.event.Err = "refused", refused.Code, refused.Reason, err
		x.audit(ctx, a.event)
		return Opened{}, refused
	}
	a.event.Outcome = "opened"
	switch {
	case opened.Session == nil: // nothing was given out
		a.event.Outcome, a.event.Connections = "tried", a.opening.Connections
		x.audit(ctx, a.event)
		return opened, nil
	case opened.Renewed:
		a.event.Outcome = "renewed"
	case opened.Joined:
		a.event.Outcome = "joined"
	}
	a.event.Mapping, a.event.Session, a.event.Connections = opened.Session.Mapping, opened.Session.ID, opened.Connections
	x.audit(ctx, a.event)
	return opened, nil
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
