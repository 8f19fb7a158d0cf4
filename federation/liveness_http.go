package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// answersKept is how many answers with an ETag are kept, and answerKept how long one may be.
	answersKept = 1024
	answerKept  = 64 << 10
	// limitedFor is the pause where a provider refuses for its rate limit and does not say until when; it doubles with
	// every further such refusal. limitedMost bounds every pause.
	limitedFor  = time.Minute
	limitedMost = time.Hour
)

// LimitedError is a provider's API that must not be asked before a time: its rate limit is used up.
type LimitedError struct {
	Host  string
	Until time.Time
}

// Error says when the API may be asked again.
func (e *LimitedError) Error() string {
	return fmt.Sprintf("the rate limit of %s is used up until %s", e.Host, e.Until.UTC().Format(time.RFC3339))
}

// errNotThere is an answer 404: what is asked for is not there, or the credential may not see it.
var errNotThere = errors.New("the API answers 404: the job is not there, or the credential may not read it")

// politeTransport asks one host with one credential. It sends what it was told with If-None-Match, so that an answer
// that has not changed costs nothing of the rate limit, asks nothing while the limit is used up, and bounds what it
// reads.
type politeTransport struct {
	base      *http.Transport
	host      string // scheme and host: the credential goes nowhere else
	authorize func(ctx context.Context, h http.Header) error
	now       func() time.Time

	mu      sync.Mutex // guards all below
	until   time.Time
	strikes int // refusals in a row that did not say until when
	answers map[string]answer
}

// answer is one that may be asked for again by its ETag.
type answer struct {
	etag   string
	header http.Header
	body   []byte
}

// RoundTrip implements http.RoundTripper. The answer's body is in memory.
func (t *politeTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme+"://"+req.URL.Host != t.host {
		return nil, fmt.Errorf("the API sends to another host, %s", shown(req.URL.Host))
	}
	if err := t.waiting(); err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	if err := t.authorize(req.Context(), req.Header); err != nil {
		return nil, err
	}
	at := req.URL.String()
	known, have := t.known(req.Method, at)
	if have {
		req.Header.Set("If-None-Match", known.etag)
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := readBounded(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the API's answer: %w", err)
	}
	if err := t.limits(resp, body); err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNotModified && have {
		resp.StatusCode, resp.Status, resp.Header, body = http.StatusOK, "200 OK", known.header.Clone(), known.body
	} else if resp.StatusCode == http.StatusOK && req.Method == http.MethodGet {
		t.keep(at, answer{resp.Header.Get("ETag"), resp.Header.Clone(), body})
	}
	resp.Body, resp.ContentLength = readCloser{bytes.NewReader(body)}, int64(len(body))
	return resp, nil
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func (t *politeTransport) waiting() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now().Before(t.until) {
		return &LimitedError{Host: t.host, Until: t.until}
	}
	return nil
}

func (t *politeTransport) known(method, at string) (answer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.answers[at]
	return a, ok && method == http.MethodGet
}

func (t *politeTransport) keep(at string, a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.answers == nil {
		t.answers = make(map[string]answer)
	}
	delete(t.answers, at)
	if a.etag == "" || len(a.body) > answerKept {
		return
	}
	for old := range t.answers {
		if len(t.answers) < answersKept {
			break
		}
		delete(t.answers, old)
	}
	t.answers[at] = a
}

// limits learns of the rate limit from an answer, and refuses one that is a refusal for it. It takes the headers out:
// whoever reads the answer has no clock of ours.
func (t *politeTransport) limits(resp *http.Response, body []byte) error {
	now := t.now()
	refused := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusForbidden
	wait, said := pauseOf(resp.Header, now)
	for name := range resp.Header {
		if lower := strings.ToLower(name); lower == "retry-after" || strings.Contains(lower, "ratelimit") {
			resp.Header.Del(name)
		}
	}
	silent := resp.StatusCode == http.StatusTooManyRequests || refused && bytes.Contains(body, []byte("rate limit"))
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case said:
		t.strikes = 0
	case silent:
		wait = limitedFor << min(t.strikes, 6)
		t.strikes++
	default:
		t.strikes = 0
		return nil
	}
	t.until = now.Add(min(max(wait, time.Second), limitedMost))
	if refused || resp.StatusCode == http.StatusServiceUnavailable {
		return &LimitedError{Host: t.host, Until: t.until}
	}
	return nil
}

// pauseOf returns how long an answer says not to ask: Retry-After, RFC 9110 section 10.2.3, or the reset of a limit of
// which nothing is left. GitHub and GitLab say a time, Buildkite the seconds to it.
func pauseOf(h http.Header, now time.Time) (time.Duration, bool) {
	if text := h.Get("Retry-After"); text != "" {
		if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
			return time.Duration(seconds) * time.Second, true
		}
		if at, err := http.ParseTime(text); err == nil {
			return at.Sub(now), true
		}
	}
	for _, prefix := range []string{"X-RateLimit-", "RateLimit-"} {
		if h.Get(prefix+"Remaining") != "0" {
			continue
		}
		reset, err := strconv.ParseInt(h.Get(prefix+"Reset"), 10, 64)
		switch {
		case err != nil || reset < 0:
		case reset < 1e9:
			return time.Duration(reset) * time.Second, true
		default:
			return time.Unix(reset, 0).Sub(now), true
		}
	}
	return 0, false
}

// apiClient asks an API that answers one JSON object.
type apiClient struct {
	base   *url.URL
	client *http.Client
}

// bearer returns what puts one value into a header.
func bearer(header, value string) func(context.Context, http.Header) error {
	return func(_ context.Context, h http.Header) error {
		h.Set(header, value)
		return nil
	}
}

func newAPIClient(a JobAPI, base *url.URL, now func() time.Time, header, prefix string) (*apiClient, error) {
	if a.Token.IsZero() {
		return nil, fmt.Errorf("token is missing: provider %s wants one that may read jobs", a.Issuer.Provider)
	}
	t := &politeTransport{base: a.transport(base), host: base.Scheme + "://" + base.Host, now: now,
		authorize: bearer(header, prefix+a.Token.Reveal())}
	return &apiClient{base: base, client: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}, nil
}

// get reads what lies at a path. Its segments are ids or names of a token's claims.
func (c *apiClient) get(ctx context.Context, into any, segments ...string) error {
	at := c.base.String()
	for _, s := range segments {
		if s == "" || s == "." || s == ".." {
			return errors.New("the token does not name the job as the API does")
		}
		at += "/" + url.PathEscape(s)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return errNotThere
	default:
		return fmt.Errorf("%s answers %d", at, resp.StatusCode)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", at, err)
	}
	return nil
}

func (c *apiClient) close() { c.client.CloseIdleConnections() }

// CloseIdleConnections closes what is kept open: http.Client asks its transport for it.
func (t *politeTransport) CloseIdleConnections() { t.base.CloseIdleConnections() }

// stateIn returns what a provider's word for a state means; a word that is not known says nothing.
func stateIn(word, running, ended string) LiveState {
	for one := range strings.FieldsSeq(ended) {
		if one == word {
			return LiveEnded
		}
	}
	for one := range strings.FieldsSeq(running) {
		if one == word {
			return LiveRunning
		}
	}
	return LiveUnknown
}
