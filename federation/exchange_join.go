package federation

import (
	"context"
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
)

// joinByCIToken joins the session for which a CI token was used before, whichever door took it: under the same mapping,
// while the session is awake, sixteen times.
func (x *Exchange) joinByCIToken(ctx context.Context, a *attempt, want asked) (Opened, error) {
	id := a.event.Identity
	used, found, err := x.c.Store.SeenToken(ctx, id.Issuer, id.TokenID)
	if err != nil {
		return Opened{}, err
	}
	if !found || used.Mapping != want.mapping {
		return Opened{}, replayed("the CI token was used for another mapping")
	}
	if !x.c.Now().Before(used.Until) {
		return Opened{}, refusal(access.CodeGrant, "expired", "the CI token has expired")
	}
	return x.join(ctx, a, used.Session, want, access.Joining{Issuer: used.Issuer, TokenID: used.ID, MaxJoins: joinsPerToken})
}

// joinByAccessToken joins the session of an access token of Open, within its scope.
func (x *Exchange) joinByAccessToken(ctx context.Context, a *attempt, assertion string, want asked) (Opened, error) {
	hash, ok := access.HashToken(assertion)
	if !ok {
		return Opened{}, refusal(access.CodeGrant, "malformed", "the access token is cut or mistyped")
	}
	session, token, err := x.c.Sessions.SessionByToken(ctx, hash)
	if err != nil {
		return Opened{}, err
	}
	a.identify(session.Identity, x.c.Mappings)
	a.known = true // whoever has the token knows its session
	switch {
	case !token.Assertion:
		return Opened{}, refusal(access.CodeGrant, "no_assertion", "a token that this exchange gave out cannot be exchanged again; show a token of "+ExchangeDoor+" or a CI token")
	case session.Mapping != want.mapping:
		return Opened{}, refusal(access.CodeTarget, "other_mapping", fmt.Sprintf("the access token is of mapping %q, not of %q", session.Mapping, want.mapping))
	case !token.Allows(want.scope[0]):
		return Opened{}, refusal(access.CodeScope, "scope", fmt.Sprintf("the access token is not good for connection %q", want.scope[0]))
	}
	return x.join(ctx, a, session.ID, want, access.Joining{})
}

// join gives out a further access token of a session that is awake. Its lease stays as it is.
func (x *Exchange) join(ctx context.Context, a *attempt, session string, want asked, j access.Joining) (Opened, error) {
	e, over, err := x.c.Sessions.byIDOrStore(ctx, session)
	if err != nil {
		return Opened{}, err
	}
	if e == nil {
		return Opened{}, windowOver(over)
	}
	unlock, err := x.jobs.lock(ctx, e.row.Key())
	if err != nil {
		return Opened{}, err
	}
	defer unlock()
	if stop, stopped := x.c.Stops.OfMapping(e.session.Mapping); stopped {
		return Opened{}, stop.RefuseExchange()
	}
	now := x.c.Now()
	if err := e.session.Usable(now); err != nil {
		return Opened{}, err
	}
	if a.opening.Connections, err = granted(e.session.Policy(), want.scope); err != nil {
		return Opened{}, err
	}
	text, token, err := x.newToken(e.session, a, want, now)
	if err != nil {
		return Opened{}, err
	}
	j.Token, j.Dropped = token, e.room(now)
	if err := x.c.Store.JoinSession(ctx, j); err != nil {
		return Opened{}, err
	}
	if err := x.recordJoin(ctx, a, e); err != nil {
		return Opened{}, err
	}
	if err := e.session.Usable(x.c.Now()); err != nil {
		return Opened{}, err
	}
	x.c.Sessions.addToken(e, token, now, j.Dropped)
	out := opened(a, e.session, text, token, now)
	out.Joined = true
	return out, nil
}
