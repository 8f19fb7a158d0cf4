package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/dial"
	"github.com/jobgate/jobgate/proxy/guard"
	"github.com/jobgate/jobgate/proxy/record"
)

// Sessions finds the session that an access token opens.
type Sessions interface {
	// SessionByToken fails with access.CodeUnauthenticated for a token that is unknown or expired and with
	// access.CodeEnded for one whose session is over.
	SessionByToken(context.Context, access.TokenHash) (*access.Session, access.AccessToken, error)
}

// Recorder writes a session's record. With wait it returns after the events survive the end of the process.
type Recorder interface {
	Append(ctx context.Context, session string, wait bool, events ...record.Event) error
}

// Approver asks people. Ask returns the settled question; its error is access.CodeCanceled when ctx ended first.
type Approver interface {
	Ask(context.Context, access.Approval) (access.Approval, error)
}

// Config is what a Proxy is made of. Sessions, Recorder, Maskers and Log are required.
type Config struct {
	Connections []Connection
	Sessions    Sessions
	Recorder    Recorder
	Approver    Approver // nil: what a rule would ask about is refused
	Maskers     *Maskers
	Guard       *guard.Guard // nil takes a new one
	// Hit is told every time that a rule, or a part of a grant, speaks about a call or tool use, and once of every call that is
	// judged. It must not wait. nil is not told.
	Hit func(access.Hit)
	// Stopped returns the refusal of calls that an operator has stopped, nil where none has. It is asked for every call and
	// must not wait. nil stops nothing.
	Stopped func(connection, mapping string) *access.Error
	// Exchange answers the exchange that Anthropic's clients do at the connection's base URL. nil refuses it.
	Exchange func(w http.ResponseWriter, r *http.Request, connection string)
	// Transport carries calls to upstreams; nil takes one whose dialer checks addresses after DNS.
	Transport http.RoundTripper
	Now       func() time.Time // nil takes time.Now
	Log       *slog.Logger
	// Observe is told of every call that ended; nil is not.
	Observe func(Ended)
	Limits  Bounds
}

// Ended is what became of a call, for metrics and logs: no secret, no text of the caller.
type Ended struct {
	Connection, Kind, Reason, Mapping string
	Status                            int
	Duration                          time.Duration
}

// Proxy is the jobs' way to their connections. It is safe for concurrent use.
type Proxy struct {
	c           Config
	connections map[string]*Connection
	public      http.RoundTripper
	private     http.RoundTripper
	bodies      bodies
}

// New returns a ready proxy.
func New(c Config) (*Proxy, error) {
	if c.Sessions == nil || c.Recorder == nil || c.Maskers == nil || c.Log == nil {
		return nil, errors.New("proxy: Sessions, Recorder, Maskers and Log are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Guard == nil {
		c.Guard = guard.New()
	}
	c.Limits = c.Limits.withDefaults()
	p := &Proxy{c: c, connections: make(map[string]*Connection, len(c.Connections))}
	p.public, p.private = c.Transport, c.Transport
	if c.Transport == nil {
		p.public = newTransport(dial.Dialer{}, c.Limits)
		p.private = newTransport(dial.Dialer{Private: true}, c.Limits)
	}
	for i := range c.Connections {
		conn := c.Connections[i]
		if err := conn.check(); err != nil {
			return nil, fmt.Errorf("connection %q: %w", conn.Name, err)
		}
		if _, twice := p.connections[conn.Name]; twice {
			return nil, fmt.Errorf("connection %q is configured twice", conn.Name)
		}
		p.connections[conn.Name] = &conn
	}
	return p, nil
}

// CloseIdleConnections lets go of the connections to upstreams that no call uses.
func (p *Proxy) CloseIdleConnections() {
	for _, t := range []http.RoundTripper{p.public, p.private} {
		if idle, ok := t.(interface{ CloseIdleConnections() }); ok {
			idle.CloseIdleConnections()
		}
	}
}

// ServeHTTP serves one call.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := &flight{p: p, w: w, r: r, rc: http.NewResponseController(w), started: p.c.Now(), unwatch: func() {},
		consumed: r.Body == nil || r.Body == http.NoBody}
	f.ctx, f.cancel = context.WithCancelCause(r.Context())
	defer f.cancel(nil)
	defer f.land()
	defer func() { f.unwatch() }() // while it is watched, the session's record stays open
	harden(w.Header())
	err := f.run()
	if errors.Is(err, errAnswered) {
		return
	}
	f.close(err)
}

// errAnswered says that somebody else answered the request.
var errAnswered = errors.New("proxy: answered elsewhere")

// run is the way of a call. What it returns is how the call ended: nil, or why it was refused or broke off.
func (f *flight) run() error {
	defer f.leave() // after the answer's body is closed
	if err := f.door(); err != nil {
		return err
	}
	if err := f.session(); err != nil {
		return err
	}
	if err := f.describe(); err != nil {
		return err
	}
	permit, err := f.admit()
	if err != nil {
		return err
	}
	answer, err := f.send(permit)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	return f.respond(answer)
}

// harden keeps what a connection returns from being a page of this origin.
func harden(h http.Header) {
	h["Content-Security-Policy"] = csp
	h["X-Content-Type-Options"] = nosniff
}

// Shared by all answers: header values are read, never written to.
var (
	csp     = []string{"sandbox"}
	nosniff = []string{"nosniff"}
)
