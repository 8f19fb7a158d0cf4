package federation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/record"
)

const (
	// ExchangeDoor is the door of the token exchange of RFC 8693.
	ExchangeDoor = "/oauth/token"
	// connectionTokenLife bounds an access token that a connection's own exchange gives out: its clients exchange
	// again by themselves, and the token lies in more places.
	connectionTokenLife = 600 * time.Second
	// joinsPerToken is how often a CI token that was used joins its session: clients of one job start several
	// processes with the same token.
	joinsPerToken = 16
	// seenLeeway is how long after its expiry a CI token is still taken: the verifier's leeway.
	seenLeeway = 60 * time.Second
	// judgements is how often an exchange begins anew because its mapping was changed under it.
	judgements = 3
	// livenessWait is how long a provider has to say whether a job still runs.
	livenessWait = 5 * time.Second
	// rulePrefix begins a federation rule's id at the provider, and is cut from what names a mapping here.
	rulePrefix = "fdrl_"
)

// ExchangeStore writes what an exchange gives out: each method all or nothing, with the conflicts of package access.
type ExchangeStore interface {
	OpenSession(ctx context.Context, o access.Opening) error
	RenewSession(ctx context.Context, r access.Renewal) error
	JoinSession(ctx context.Context, j access.Joining) error
	UndoOpening(ctx context.Context, session string) error
	SeenToken(ctx context.Context, issuer, id string) (access.SeenToken, bool, error)
}

// ExchangeConfig is what an exchange is made of.
type ExchangeConfig struct {
	// Verify turns a CI token into an identity: Verifier.Verify. Required.
	Verify   func(ctx context.Context, token string) (access.Identity, error)
	Liveness Liveness      // nil knows nothing
	Mappings *Mappings     // required
	Sessions *Sessions     // required
	Store    ExchangeStore // required
	Stops    *Stops        // nil stops nothing
	Hits     *Hits         // counts exchanges; nil does not
	// Audit writes down every exchange before its answer leaves; one that it cannot write is not given out. nil writes nothing. Of
	// refusals that come in floods it gets some, and Refusals the sum of the others, when SumUp is called.
	Audit    func(ctx context.Context, e AuditEvent) error
	Refusals func(ctx context.Context, r record.Refusals) error
	// Trail keeps exchanges for explanations; nil keeps the latest in memory.
	Trail  ExchangeTrail
	Random io.Reader        // nil takes crypto/rand
	Now    func() time.Time // nil takes time.Now
	Log    *slog.Logger     // nil discards
}

// Exchange turns what a job shows into an access token of a session. It is safe for concurrent use.
type Exchange struct {
	c      ExchangeConfig
	jobs   jobLocks
	latest auditMemory
	meter  refusalMeter

	words words
}

// NewExchange returns a ready exchange.
func NewExchange(c ExchangeConfig) (*Exchange, error) {
	if c.Verify == nil || c.Mappings == nil || c.Sessions == nil || c.Store == nil {
		return nil, errors.New("federation: ExchangeConfig needs Verify, Mappings, Sessions and Store")
	}
	if c.Liveness == nil {
		c.Liveness = NoLiveness{}
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Audit == nil {
		c.Audit = func(context.Context, AuditEvent) error { return nil }
	}
	if c.Refusals == nil {
		c.Refusals = func(context.Context, record.Refusals) error { return nil }
	}
	return &Exchange{c: c, jobs: jobLocks{held: make(map[access.LedgerKey]*jobLock)}, meter: newRefusalMeter(c.Now)}, nil
}

// OpenRequest is a token exchange of RFC 8693.
type OpenRequest struct {
	Token   string   // the CI token
	Mapping string   // "" where exactly one must match
	Scope   []string // connections; empty takes all that are granted
}

// ConnectRequest is the exchange that a connection's clients do by themselves, RFC 7523.
type ConnectRequest struct {
	Connection string
	Assertion  string // a CI token, or an access token of the other door
	Mapping    string // federation_rule_id
	// Taken as they come, and recorded.
	Organization, ServiceAccount, Workspace string
}

// Opened is an access token that was given out.
type Opened struct {
	Exchange    string // id, "x_..."
	Token       access.Secret
	Session     *access.Session
	Connections []string // what the token is good for
	Expires     time.Time
	ExpiresIn   time.Duration
	// Joined and Renewed say that the session was there before; Renewed, that its lease is new.
	Joined, Renewed bool
}

// Open verifies a CI token and opens the job's session, or renews it. Errors are *access.Error with a code of RFC 6749
// or RFC 8693, a Reason for the log, and a Public text that holds details only for jobs of a tenant that some mapping
// names; everybody gets the exchange's id.
func (x *Exchange) Open(ctx context.Context, r OpenRequest) (Opened, error) {
	return x.attempt(ctx, ExchangeDoor, func(a *attempt) (Opened, error) {
		a.event.Asked = askedFor(r.Mapping, r.Scope)
		id, err := x.c.Verify(ctx, r.Token)
		if err != nil {
			a.event.Claimed = claimedIssuer(r.Token)
			return Opened{}, err
		}
		a.identify(id, x.c.Mappings)
		return x.admit(ctx, a, asked{mapping: r.Mapping, scope: r.Scope, assertion: true})
	})
}

// Connect opens or joins for one connection. A CI token that was used joins its session while that is awake; an access
// token of Open joins its own; neither renews a lease. Errors are as those of Open.
func (x *Exchange) Connect(ctx context.Context, r ConnectRequest) (Opened, error) {
	return x.attempt(ctx, "/"+r.Connection+"/v1/oauth/token", func(a *attempt) (Opened, error) {
		a.opening.Organization, a.opening.ServiceAccount, a.opening.Workspace = r.Organization, r.ServiceAccount, r.Workspace
		mapping := strings.TrimPrefix(r.Mapping, rulePrefix)
		if mapping == "" {
			return Opened{}, access.Refuse(access.CodeInvalid, "federation_rule_id must be the name of a mapping")
		}
		want := asked{mapping: mapping, scope: []string{r.Connection}, life: connectionTokenLife}
		a.event.Asked = askedFor(mapping, want.scope)
		if strings.HasPrefix(r.Assertion, access.TokenPrefix) {
			return x.joinByAccessToken(ctx, a, r.Assertion, want)
		}
		id, err := x.c.Verify(ctx, r.Assertion)
		if err != nil {
			a.event.Claimed = claimedIssuer(r.Assertion)
			return Opened{}, err
		}
		a.identify(id, x.c.Mappings)
		opened, err := x.admit(ctx, a, want)
		if reasonOf(err) == access.ReasonReplayed {
			return x.joinByCIToken(ctx, a, want)
		}
		return opened, err
	})
}

// asked is what an exchange is to give out.
type asked struct {
	mapping   string
	scope     []string
	life      time.Duration // of the access token; zero lasts as long as the window
	assertion bool          // the access token may serve as assertion at a connection's door
	trial     *Trial        // not nil: nothing is given out, and this is filled in
}

// admit opens or renews. A mapping that is changed between judgement and insert is judged again.
func (x *Exchange) admit(ctx context.Context, a *attempt, want asked) (opened Opened, err error) {
	for range judgements {
		var mapping *mappingInForce
		if mapping, err = x.choose(a, want.mapping); err != nil {
			return Opened{}, err
		}
		opened, err = x.openOrRenew(ctx, a, mapping, want)
		if reason := reasonOf(err); reason != access.ReasonRevision && reason != access.ReasonOpened {
			return opened, err
		}
		x.c.Mappings.settled()
	}
	return Opened{}, &access.Error{Code: access.CodeUnavailable, Reason: reasonOf(err), Public: "the mapping is being changed; try again", Err: err}
}

// openOrRenew holds the job's lock, so that of several exchanges of one job one opens and the others find its session.
func (x *Exchange) openOrRenew(ctx context.Context, a *attempt, m *mappingInForce, want asked) (Opened, error) {
	if stop, stopped := x.c.Stops.OfMapping(m.Name()); stopped {
		return Opened{}, stop.RefuseExchange()
	}
	scope, err := granted(m.policyOf(a.event.Identity), want.scope)
	if err != nil {
		return Opened{}, err
	}
	id, err := bound(a.event.Identity, m)
	if err != nil {
		return Opened{}, err
	}
	key := access.LedgerKey{Issuer: id.Issuer, Job: id.JobKey, Mapping: m.Name()}
	unlock, err := x.jobs.lock(ctx, key)
	if err != nil {
		return Opened{}, err
	}
	defer unlock()
	entry, over, err := x.c.Sessions.ofJob(ctx, key)
	if err != nil {
		return Opened{}, err
	}
	if over.ID != "" {
		return Opened{}, windowOver(over)
	}
	if err := x.unused(ctx, id); err != nil {
		return Opened{}, err
	}
	state, err := x.live(ctx, id, m, entry, want.trial != nil)
	if err != nil {
		return Opened{}, err
	}
	a.opening.Connections = scope
	alive := m.provider.renewable || state == LiveRunning
	if want.trial != nil {
		return Opened{}, x.try(m, entry, id, scope, alive, want.trial)
	}
	if entry != nil {
		return x.renew(ctx, a, entry, id, want, alive)
	}
	return x.open(ctx, a, m, id, want)
}

// live asks the provider whether the job still runs.
func (x *Exchange) live(ctx context.Context, id access.Identity, m *mappingInForce, entry *sessionEntry, trial bool) (LiveState, error) {
	state, err := x.ask(ctx, id, trial)
	if err == nil && entry != nil && (state == LiveEnded || state == LiveSuperseded) {
		x.c.Sessions.end(ctx, ending{entry, access.EndJob, id.Provider})
	}
	switch {
	case err == nil && state == LiveEnded:
		return state, refusal(access.CodeGrant, "job_ended", "the CI provider reports that the job is over")
	case err == nil && state == LiveSuperseded:
		return state, refusal(access.CodeGrant, "stale_attempt", "the token is of an attempt after which another was started")
	case err == nil && state == LiveRunning, !m.RequiresLiveness():
		return state, nil
	}
	out := &access.Error{Code: access.CodeGrant, Reason: "job_ended", Err: err,
		Public: fmt.Sprintf("the CI provider does not say that the job still runs, and mapping %q requires it", m.Name())}
	if err != nil {
		out.Code = access.CodeUnavailable
	}
	return state, out
}

// open writes a session down, registers it, and looks once more whether its mapping still says so: a deletion that
// came after the insert and before the registration has not seen the session.
func (x *Exchange) open(ctx context.Context, a *attempt, m *mappingInForce, id access.Identity, want asked) (Opened, error) {
	now := x.c.Now()
	name, err := newID(x.c.Random, "ses_")
	if err != nil {
		return Opened{}, err
	}
	policy := m.policyOf(id)
	window := access.Window{Opens: now, Closes: now.Add(policy.Window.Max)}
	asleep := earlier(now.Add(policy.Window.Lease), window.Closes)
	session := access.NewSession(access.SessionConfig{
		ID: name, Identity: id, Job: Job(id), Window: window, Asleep: asleep, Policy: policy, Counter: x.c.Sessions.counts.get,
	})
	text, token, err := x.newToken(session, a, want, now)
	if err != nil {
		return Opened{}, err
	}
	row := access.SessionRow{
		ID: name, Mapping: m.Name(), Revision: m.revision, Origin: policy.Origin, Override: policy.Override, Identity: id, Door: a.opening.Door,
		Opened: window.Opens, Closes: window.Closes, Asleep: asleep,
	}
	if err := x.c.Store.OpenSession(ctx, access.Opening{Session: row, Seen: seen(id, session), Token: token}); err != nil {
		return Opened{}, err
	}
	if err := x.c.Sessions.c.Recorder.SessionOpened(ctx, session, a.opening); err != nil {
		err = errors.Join(err, x.c.Store.UndoOpening(context.WithoutCancel(ctx), name))
		return Opened{}, &access.Error{Code: access.CodeUnavailable, Reason: "unrecordable", Public: "the session cannot be recorded", Err: err}
	}
	entry := x.c.Sessions.register(&sessionEntry{session: session, row: row, sign: LifeToken})
	x.c.Sessions.addToken(entry, token, now, nil)
	if x.c.Sessions.toldOver(id) {
		x.c.Sessions.end(ctx, ending{entry, access.EndJob, id.Provider})
	}
	if err := x.stillInForce(ctx, entry); err != nil {
		return Opened{}, err
	}
	return opened(a, entry.session, text, token, now), nil
}

// stillInForce reads the mapping's revision once more, and judges the session again where it is another.
func (x *Exchange) stillInForce(ctx context.Context, e *sessionEntry) error {
	revision, err := x.c.Mappings.c.Store.MappingRevision(ctx, e.session.Mapping)
	if err != nil || revision != e.session.Policy().Revision {
		x.c.Mappings.settled()
	}
	x.c.Sessions.rejudge(context.WithoutCancel(ctx), e)
	if usable := e.session.Usable(x.c.Now()); usable != nil {
		return usable
	}
	return nil
}

// renew takes a fresh CI token of the same job as a sign of life. Where it is none, for all tokens of a job were made at
// its start, and nobody else says that the job runs, it joins a session that is awake and leaves the lease as it is.
func (x *Exchange) renew(ctx context.Context, a *attempt, e *sessionEntry, id access.Identity, want asked, alive bool) (Opened, error) {
	now := x.c.Now()
	asleep := earlier(now.Add(e.session.Policy().Window.Lease), e.session.Closes())
	if !alive {
		if err := e.session.Usable(now); err != nil {
			return Opened{}, noSignOfLife(err, id.Provider)
		}
		asleep = e.session.Asleep()
	}
	text, token, err := x.newToken(e.session, a, want, now)
	if err != nil {
		return Opened{}, err
	}
	dropped := e.room(now)
	err = x.c.Store.RenewSession(ctx, access.Renewal{
		Asleep: asleep, Seen: seen(id, e.session), Token: token, Dropped: dropped,
	})
	if err != nil {
		return Opened{}, err
	}
	a.opening.Renewed = alive
	if err := x.recordJoin(ctx, a, e); err != nil {
		return Opened{}, err
	}
	if alive && !x.c.Sessions.renew(e, LifeToken, now) {
		return Opened{}, e.session.Usable(now)
	}
	x.c.Sessions.addToken(e, token, now, dropped)
	out := opened(a, e.session, text, token, now)
	out.Joined, out.Renewed = true, alive
	return out, nil
}

// noSignOfLife says why a further token does not wake a session.
func noSignOfLife(err error, provider string) error {
	if access.CodeOf(err) == access.CodeEnded {
		return err
	}
	return refusal(access.CodeGrant, "dormant", fmt.Sprintf("the session is dormant: its lease has lapsed, and a further token of provider %s is no sign of "+
		"life, for all tokens of a job are made at its start. Give the issuer an api that says whether the job runs, or the mapping a longer lease", provider))
}

func (x *Exchange) recordJoin(ctx context.Context, a *attempt, e *sessionEntry) error {
	if err := x.c.Sessions.c.Recorder.SessionJoined(ctx, e.session, a.opening); err != nil {
		return &access.Error{Code: access.CodeUnavailable, Reason: "unrecordable", Public: "the exchange cannot be recorded", Err: err}
	}
	return nil
}

// newToken makes an access token that lasts no longer than the window.
func (x *Exchange) newToken(s *access.Session, a *attempt, want asked, now time.Time) (access.Secret, access.AccessToken, error) {
	text, hash, err := access.NewToken(x.c.Random)
	if err != nil {
		return access.Secret{}, access.AccessToken{}, err
	}
	expires := s.Closes()
	if want.life > 0 {
		expires = earlier(expires, now.Add(want.life))
	}
	a.opening.Token = hash
	return access.NewSecret(text), access.AccessToken{
		Hash: hash, Session: s.ID, Connections: a.opening.Connections, Issued: now, Expires: expires, Assertion: want.assertion,
	}, nil
}

func opened(a *attempt, s *access.Session, text access.Secret, token access.AccessToken, now time.Time) Opened {
	return Opened{
		Exchange: a.opening.Exchange, Token: text, Session: s, Connections: token.Connections,
		Expires: token.Expires, ExpiresIn: token.Expires.Sub(now),
	}
}

func seen(id access.Identity, s *access.Session) access.SeenToken {
	return access.SeenToken{Issuer: id.Issuer, ID: id.TokenID, Mapping: s.Mapping, Session: s.ID, Until: id.Expires.Add(seenLeeway)}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
