package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/inject"
	"github.com/jobgate/jobgate/proxy/record"
)

// isDropped reports whether a header of the job stays here. Some belong to one connection, RFC 9110 section 7.6.1; the
// rest are a client's claim about the way that it took, or a credential of its own.
func isDropped(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect",
		"Proxy-Authorization", "Proxy-Authenticate", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip",
		"Cookie", "Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Content-Length", "Accept-Encoding":
		return true
	}
	return false
}

var identity = []string{"identity"}

// send puts the credential in and lets the request leave, after what was noted is written down.
func (f *flight) send(p permit) (*http.Response, error) {
	if !p.given {
		return nil, errors.New("proxy: internal error: a call without permit")
	}
	out, err := f.outgoing()
	if err != nil {
		return nil, err
	}
	if err := f.inject(out.Header); err != nil {
		return nil, err
	}
	f.note(record.TypeCallSent, record.CallSent{
		Upstream: f.conn.Upstream.Host, Credential: f.cred.name, CredentialVersion: f.cred.version,
		Counts: record.Counts(f.s.CountsOf(f.conn.Name)),
	})
	if f.ctx.Err() != nil {
		return nil, f.cause(f.ctx.Err())
	}
	if err := f.write(true); err != nil {
		return nil, err
	}
	f.p.bodies.keep(f.s.ID, f.recorded)
	f.sent = f.p.c.Now()
	answer, err := f.p.transport(f.conn).RoundTrip(out)
	switch {
	case err == nil:
		return answer, nil
	case f.unread.Load():
		return nil, f.cause(readError(err))
	}
	return nil, f.cause(&access.Error{Code: access.CodeUpstream, Err: withoutURL(err),
		Public: fmt.Sprintf("Jobgate: the upstream of connection %q cannot be reached or broke off", f.conn.Name)})
}

// outgoing is the request for the upstream, still without the credential. Redirects are not followed: a RoundTripper
// does not, and nobody else is asked.
func (f *flight) outgoing() (*http.Request, error) {
	u := *f.conn.Upstream
	u.RawPath = strings.TrimSuffix(u.EscapedPath(), "/") + f.call.Path // else brackets and quotes would be escaped
	u.Path = strings.TrimSuffix(u.Path, "/") + f.call.Path
	u.RawQuery = f.call.Query
	out := (&http.Request{
		Method: f.call.Method, URL: &u, Host: f.conn.hostHeader(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, len(f.r.Header)+2),
	}).WithContext(f.ctx)
	copyHeaders(out.Header, f.r.Header)
	out.Header["Accept-Encoding"] = identity
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // none of our own
	}
	if f.conn.Kind == KindAnthropic {
		dialect.CutLoginBetas(out.Header)
	}
	f.attachBody(out)
	return out, nil
}

func (f *flight) attachBody(out *http.Request) {
	held := f.body.held
	if f.grant.MaskRequests() && f.body.rest == nil {
		held, _ = f.masks.Full.Mask(nil, held)
	}
	switch {
	case f.body.rest != nil && f.grant.MaskRequests():
		out.Body = io.NopCloser(&maskingReader{src: f.stream(), stream: f.masks.Full.NewStream()})
		out.ContentLength = -1
	case f.body.rest != nil:
		out.Body = io.NopCloser(f.stream())
		out.ContentLength = f.r.ContentLength
	case len(held) > 0:
		out.Body = io.NopCloser(bytes.NewReader(held))
		out.ContentLength = int64(len(held))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(held)), nil }
	default:
		out.Body = http.NoBody
	}
}

// stream is a request's body that is not held.
func (f *flight) stream() io.Reader {
	return &strayReader{f: f, src: io.MultiReader(bytes.NewReader(f.body.held), f.body.rest)}
}

func copyHeaders(dst, src http.Header) {
	var named []string
	for _, value := range src["Connection"] {
		for _, name := range strings.Split(value, ",") {
			named = append(named, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	for name, values := range src {
		plain := name
		if strings.Contains(name, "_") { // to many servers an underscore is a hyphen
			plain = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		}
		if !isDropped(plain) && !slices.Contains(named, name) && !slices.Contains(named, plain) {
			dst[name] = values
		}
	}
}

// inject is the last act before the request leaves.
func (f *flight) inject(h http.Header) error {
	if f.conn.Credential == nil {
		return nil
	}
	c, err := f.conn.Credential.Credential(f.ctx)
	if err != nil {
		return &access.Error{Code: access.CodeUnavailable, Err: err, Public: fmt.Sprintf("Jobgate: the credential of connection %q cannot be read now", f.conn.Name)}
	}
	if err := f.learn(c); err != nil {
		return err
	}
	f.cred.name, f.cred.version = c.Name, c.Version
	cloneValues(h, "Anthropic-Beta")
	if err := f.conn.Placement.Apply(h, c.Secret); err != nil {
		return &access.Error{Code: access.CodeUnavailable, Err: err, Public: fmt.Sprintf("Jobgate: the credential of connection %q cannot be used", f.conn.Name)}
	}
	return nil
}

// learn makes the maskers know the value before anything can echo it.
func (f *flight) learn(c inject.Credential) error {
	stale, err := f.p.c.Maskers.Learn(f.conn.Name, c, f.masks)
	if err == nil && stale {
		f.masks, err = f.p.c.Maskers.For(f.s.ID)
	}
	if err != nil {
		return &access.Error{Code: access.CodeUnavailable, Err: err, Public: fmt.Sprintf("Jobgate: the credential of connection %q cannot be masked, so it is not used", f.conn.Name)}
	}
	return nil
}

// cloneValues unshares a header that is about to be added to: its values are still the client's.
func cloneValues(h http.Header, name string) {
	if values := h[name]; len(values) > 0 {
		h[name] = append([]string(nil), values...)
	}
}

// withoutURL takes the URL out of a client's error: it may hold what the job put into the query.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// silent ends a call whose upstream says nothing for too long.
func (f *flight) silent() {
	f.cancel(&access.Error{Code: access.CodeUpstream, Err: context.DeadlineExceeded,
		Public: fmt.Sprintf("Jobgate: the upstream of connection %q was silent for %s within its answer", f.conn.Name, f.p.c.Limits.Idle)})
}
