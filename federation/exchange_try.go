package federation

import (
	"context"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// TryDoor is where an exchange is tried.
const TryDoor = "/_dry-run"

// Trial is what an exchange would have given out.
type Trial struct {
	Exchange    string // id, "x_...": an operator finds the trial by it
	Mapping     string
	Connections []string
	ExpiresIn   time.Duration // of the access token
	Lease       time.Duration
	// Session is the one that would have been joined or renewed, "" where one would have been opened.
	Session string
}

// Try judges a CI token as Open does, and opens nothing, renews nothing and uses nothing up. Errors are those of Open. It
// is written down as an exchange is.
func (x *Exchange) Try(ctx context.Context, r OpenRequest) (Trial, error) {
	var out Trial
	_, err := x.attempt(ctx, TryDoor, func(a *attempt) (Opened, error) {
		out.Exchange = a.opening.Exchange
		a.event.Asked = askedFor(r.Mapping, r.Scope)
		id, err := x.c.Verify(ctx, r.Token)
		if err != nil {
			a.event.Claimed = claimedIssuer(r.Token)
			return Opened{}, err
		}
		a.identify(id, x.c.Mappings)
		return x.admit(ctx, a, asked{mapping: r.Mapping, scope: r.Scope, trial: &out})
	})
	if err != nil {
		return Trial{}, err
	}
	return out, nil
}

// try fills a trial in where the exchange would be given out.
func (x *Exchange) try(m *mappingInForce, e *sessionEntry, id access.Identity, scope []string, alive bool, out *Trial) error {
	now := x.c.Now()
	out.Mapping, out.Connections, out.ExpiresIn, out.Lease = m.Name(), scope, m.policyOf(id).Window.Max, m.policyOf(id).Window.Lease
	if e == nil {
		return nil
	}
	if usable := e.session.Usable(now); usable != nil && !alive {
		return noSignOfLife(usable, id.Provider)
	}
	out.Session, out.ExpiresIn = e.session.ID, e.session.Closes().Sub(now)
	return nil
}
