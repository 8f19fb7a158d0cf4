package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"

	"github.com/jobgate/jobgate/internal/dial"
	"github.com/jobgate/jobgate/proxy/inject"
	"github.com/jobgate/jobgate/proxy/upstream"
)

// Kinds of connections.
const (
	KindAnthropic = "anthropic" // Anthropic's Messages API
	KindHTTP      = "http"      // anything that speaks HTTP
)

// Connection is a named upstream.
type Connection struct {
	Name     string
	Kind     string
	Upstream *url.URL // its path is put before the call's
	// Private allows an upstream whose name resolves to a private or loopback address. One that is written as such an
	// address needs no permission: nobody's DNS can move it.
	Private    bool
	Placement  inject.Placement
	Credential *inject.Source // nil: the upstream needs none
}

var connectionName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// reserved are path segments of the jobs' side that no connection may have.
var reserved = []string{"oauth", "hooks", "healthz", "readyz", "v1"}

// CheckConnectionName refuses a name that cannot be the first segment of a call's path.
func CheckConnectionName(name string) error {
	if !connectionName.MatchString(name) {
		return fmt.Errorf("a connection's name matches [a-z][a-z0-9-]{0,62}, and %q does not", name)
	}
	if slices.Contains(reserved, name) {
		return fmt.Errorf("the name %q is taken by Jobgate's own paths; choose another", name)
	}
	return nil
}

func (c *Connection) check() error {
	if err := CheckConnectionName(c.Name); err != nil {
		return err
	}
	if c.Kind != KindAnthropic && c.Kind != KindHTTP {
		return fmt.Errorf("kind %q is none of %s, %s", c.Kind, KindAnthropic, KindHTTP)
	}
	return CheckUpstream(c.Upstream, c.Private)
}

// CheckUpstream refuses an upstream that a credential must not be sent to: plain http goes to a literal loopback or
// private address, or with private to a name, and nowhere else.
func CheckUpstream(u *url.URL, private bool) error {
	switch {
	case u == nil || u.Host == "":
		return errors.New("the upstream needs a URL such as https://api.anthropic.com")
	case u.User != nil:
		return errors.New("the upstream's URL holds a user name or password; use credential: instead")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("the upstream's URL ends at its path; take the query and fragment away")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (private || literalPrivate(u)):
		return nil
	case u.Scheme == "http":
		return fmt.Errorf("the upstream %s would get the credential over plain http; use https, or private: true for a name inside your network", u.Redacted())
	}
	return fmt.Errorf("the upstream's scheme is %q; https is wanted", u.Scheme)
}

func literalPrivate(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && (addr.Unmap().IsLoopback() || addr.Unmap().IsPrivate())
}

// newTransport speaks HTTP/1.1: an agent's calls are few and long, and one call's trouble stays its own.
func newTransport(d dial.Dialer, b Bounds) http.RoundTripper {
	return upstream.New(upstream.Config{Dial: d.DialContext, Head: b.Head})
}

// transport returns what carries calls to the connection.
func (p *Proxy) transport(c *Connection) http.RoundTripper {
	if c.Private || literalPrivate(c.Upstream) {
		return p.private
	}
	return p.public
}

// hostHeader is the Host that the upstream gets.
func (c *Connection) hostHeader() string {
	if host, port, err := net.SplitHostPort(c.Upstream.Host); err == nil &&
		(c.Upstream.Scheme == "https" && port == "443" || c.Upstream.Scheme == "http" && port == "80") {
		return host
	}
	return c.Upstream.Host
}
