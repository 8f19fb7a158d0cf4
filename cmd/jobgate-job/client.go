package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

const (
	// patience bounds one request: the server itself waits up to 5 s for an issuer's keys.
	patience = 20 * time.Second
	// retrying is how long a server that is away for a moment is asked again.
	retrying = time.Minute
	// maxAnswer bounds an answer; the largest real one has a few kilobytes.
	maxAnswer = 1 << 20
)

const (
	// pathToken is the first door, and pathTry where it is tried.
	pathToken = "/oauth/token"
	pathTry   = "/_dry-run"
)

var tokenForm = regexp.MustCompile(`^jg_[0-9A-Za-z]{20,200}$`)

// refused is Jobgate's no: an error of RFC 6749 section 5.2.
type refused struct {
	what        string
	status      int
	code        string
	description string
	stopped     bool // by an operator, who may resume it
}

func (r *refused) Error() string {
	text := fmt.Sprintf("Jobgate refused %s with %d %s", r.what, r.status, r.code)
	if r.description != "" {
		text += ": " + r.description
	}
	return text
}

// unreachable says that no answer came, and why; passing tells whether a later try may succeed.
type unreachable struct {
	text    string
	passing bool
	err     error
}

func (u *unreachable) Error() string { return u.text }
func (u *unreachable) Unwrap() error { return u.err }

// jobgate is one server, as a job sees it.
type jobgate struct {
	url  string // without a slash at its end
	http *http.Client
	say  func(format string, args ...any)
	// patience is how long it is asked again when it is away; zero asks once.
	patience time.Duration
}

func newJobgate(o *options) (*jobgate, error) {
	address, err := checkURL(o.url)
	if err != nil {
		return nil, err
	}
	o.url = address
	return &jobgate{url: address, http: newHTTP(), say: o.env.say, patience: retrying}, nil
}

// newHTTP returns a client that follows no redirect: a token goes to the address that the user wrote, or nowhere.
func newHTTP() *http.Client {
	return &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		},
	}
}

func checkURL(given string) (string, error) {
	const example = ", such as https://jobgate.example.com"
	if given == "" {
		return "", misuse("--url (or JOBGATE_URL) is missing; write Jobgate's public_url%s", example)
	}
	u, err := url.Parse(given)
	switch {
	case err != nil || u.Host == "":
		return "", misuse("--url is no URL; write Jobgate's public_url%s", example)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(given, "?# \t\n"):
		return "", misuse("--url must be scheme, host and path only: no user, no query, no fragment")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return "", misuse("--url %s must begin with https://; plain http is taken on a loopback address only", given)
	}
	return strings.TrimRight(given, "/"), nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// open exchanges a CI token (RFC 8693). The first time it opens the session; a fresh token renews its lease later. Every
// try takes a new token, since one whose answer was lost may have been spent.
func (j *jobgate) open(ctx context.Context, s *source, mapping, scope string) (api.Token, error) {
	var out api.Token
	err := j.patiently(ctx, func() error {
		token, err := s.token(ctx)
		if err != nil {
			return err
		}
		s.last = sum(token)
		out, err = j.exchange(ctx, token, mapping, scope)
		return err
	})
	return out, err
}

func (j *jobgate) exchange(ctx context.Context, token access.Secret, mapping, scope string) (api.Token, error) {
	form := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {token.Reveal()},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
	}
	if mapping != "" {
		form.Set("mapping", mapping)
	}
	if scope != "" {
		form.Set("scope", scope)
	}
	var out api.Token
	if err := j.post(ctx, pathToken, form, access.Secret{}, &out); err != nil {
		return api.Token{}, err
	}
	if !tokenForm.MatchString(out.AccessToken) || out.SessionID == "" || out.ExpiresIn <= 0 {
		return api.Token{}, fmt.Errorf("%s/oauth/token answered 200 without a session; is --url a Jobgate server?", j.url)
	}
	return out, nil
}

// tryExchange asks what an exchange would answer.
func (j *jobgate) tryExchange(ctx context.Context, token access.Secret, mapping, scope string) (api.DryRun, error) {
	form := url.Values{"subject_token": {token.Reveal()}}
	if mapping != "" {
		form.Set("mapping", mapping)
	}
	if scope != "" {
		form.Set("scope", scope)
	}
	var out api.DryRun
	if err := j.post(ctx, pathTry, form, access.Secret{}, &out); err != nil {
		return api.DryRun{}, err
	}
	if out.Mapping == "" {
		return api.DryRun{}, fmt.Errorf("%s%s answered 200 without a mapping; is --url a Jobgate server?", j.url, pathTry)
	}
	return out, nil
}

// introspect returns what the session of a token has done (RFC 7662), to a bearer of that session.
func (j *jobgate) introspect(ctx context.Context, token access.Secret) (api.Introspection, error) {
	var out api.Introspection
	err := j.patiently(ctx, func() error {
		return j.post(ctx, "/oauth/introspect", url.Values{"token": {token.Reveal()}}, token, &out)
	})
	return out, err
}

// revoke ends the session of a token, for good (RFC 7009).
func (j *jobgate) revoke(ctx context.Context, token access.Secret) error {
	return j.patiently(ctx, func() error {
		return j.post(ctx, "/oauth/revoke", url.Values{"token": {token.Reveal()}}, token, nil)
	})
}

// patiently repeats what failed for a passing reason.
func (j *jobgate) patiently(ctx context.Context, ask func() error) error {
	begun := time.Now()
	for pause := 500 * time.Millisecond; ; pause = min(2*pause, 15*time.Second) {
		err := ask()
		var away *unreachable
		if err == nil || !errors.As(err, &away) || !away.passing || time.Since(begun)+pause > j.patience {
			return err
		}
		j.say("%v; asking again in %s", err, pause)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func (j *jobgate) post(ctx context.Context, path string, form url.Values, bearer access.Secret, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, j.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("ask %s: %w", j.url, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "jobgate-job")
	if !bearer.IsZero() {
		req.Header.Set("Authorization", "Bearer "+bearer.Reveal())
	}
	status, body, err := send(j.http, req)
	if err != nil {
		return err
	}
	return j.read(path, status, body, into)
}

func (j *jobgate) read(path string, status int, body []byte, into any) error {
	var no api.OAuthError
	known := json.Unmarshal(body, &no) == nil && no.Error != ""
	switch {
	case status == http.StatusOK && into == nil:
		return nil
	case status == http.StatusOK:
		if err := json.Unmarshal(body, into); err != nil {
			return fmt.Errorf("%s%s answered with no JSON; is --url a Jobgate server?", j.url, path)
		}
		return nil
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		why := "it is temporarily unavailable"
		if no.Description != "" {
			why = no.Description
		}
		return &unreachable{text: "Jobgate answered " + strconv.Itoa(status) + ": " + why, passing: true}
	case status >= 300 && status < 400:
		return fmt.Errorf("%s%s answers with a redirect, which is not followed; set --url to Jobgate's public_url itself", j.url, path)
	case !known:
		return fmt.Errorf("%s%s answered %d without an OAuth error; is --url a Jobgate server's public_url?", j.url, path, status)
	}
	what := "the exchange"
	if path != pathToken && path != pathTry {
		what = "a question about the session"
	}
	return &refused{what: what, status: status, code: no.Error, description: no.Description, stopped: no.Reason == access.ReasonStopped}
}

// send makes one request and reads its answer.
func send(client *http.Client, req *http.Request) (int, []byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, explain(err, req.URL.Host)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, explain(err, req.URL.Host)
	case len(body) > maxAnswer:
		return 0, nil, fmt.Errorf("%s answered with more than %d bytes", req.URL.Host, maxAnswer)
	}
	return resp.StatusCode, body, nil
}

const privateCA = "its certificate comes from an authority that is not known here; for a private one, " +
	"name its PEM file in SSL_CERT_FILE (and in NODE_EXTRA_CA_CERTS for Node clients)"

// explain says what a failed request means. The URL is left out of it: a mint's may hold what is nobody's business.
func explain(err error, host string) error {
	text, passing := "", false
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		text = "DNS knows no such host; check the url"
	case errors.As(err, &dns):
		text, passing = "DNS does not answer", true
	case errors.As(err, &authority):
		text = privateCA
	case errors.As(err, &name):
		text = "its certificate is for another host name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		text = "its certificate has expired, or this machine's clock is wrong"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		text = "it does not speak TLS there; check scheme and port"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "nothing listens there (connection refused); check host and port, and that it is up"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		text, passing = "the connection was closed", true
	case errors.Is(err, context.Canceled):
		text = "it was interrupted"
	case errors.As(err, &timeout) && timeout.Timeout():
		text, passing = fmt.Sprintf("no answer within %s; a firewall may drop the packets", patience), true
	default:
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		text = err.Error()
	}
	return &unreachable{text: "cannot reach " + host + ": " + text, passing: passing, err: err}
}
