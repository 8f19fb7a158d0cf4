package testkit

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// ciAPI is what the emulated job APIs of CI providers have in common: what
// was asked, answers by ETag, and refusals that a test orders.
type ciAPI struct {
	srv *server

	mu       sync.Mutex // guards all below
	requests []string
	refusals []Refusal
}

// Refusal is an answer in place of the one that was asked for.
type Refusal struct {
	Status int
	Header map[string]string
	Body   string
}

// Refuse makes the next requests fail in turn.
func (a *ciAPI) Refuse(list ...Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refusals = append(a.refusals, list...)
}

// Requests returns "METHOD PATH STATUS" of all requests so far.
func (a *ciAPI) Requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.requests...)
}

// URL is the API's base.
func (a *ciAPI) URL() string { return a.srv.url }

// Close ends the emulator.
func (a *ciAPI) Close() error { return a.srv.Close() }

// polite answers h's with an ETag, and 304 to who has that already.
func (a *ciAPI) polite(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		defer func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.requests = append(a.requests, fmt.Sprintf("%s %s %d", r.Method, r.URL.RequestURI(), status))
		}()
		if refusal, ok := a.refusal(); ok {
			status = refusal.Status
			for name, value := range refusal.Header {
				w.Header().Set(name, value)
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(refusal.Body))
			return
		}
		answer := &held{header: w.Header(), status: http.StatusOK}
		h.ServeHTTP(answer, r)
		status = answer.status
		if sum := sha256.Sum256(answer.body.Bytes()); status == http.StatusOK && r.Method == http.MethodGet {
			etag := `W/"` + hex.EncodeToString(sum[:]) + `"`
			w.Header().Set("ETag", etag)
			if r.Header.Get("If-None-Match") == etag {
				status = http.StatusNotModified
				w.WriteHeader(status)
				return
			}
		}
		w.WriteHeader(status)
		_, _ = w.Write(answer.body.Bytes())
	})
}

// held is an answer that is not sent yet.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *held) Header() http.Header         { return h.header }
func (h *held) WriteHeader(status int)      { h.status = status }
func (h *held) Write(p []byte) (int, error) { return h.body.Write(p) }

func (a *ciAPI) refusal() (Refusal, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.refusals) == 0 {
		return Refusal{}, false
	}
	first := a.refusals[0]
	a.refusals = a.refusals[1:]
	return first, true
}

// Delivery is a webhook as its provider sends it; sending it again is a
// redelivery.
type Delivery struct {
	Header http.Header
	Body   []byte
}

// Send posts the delivery and returns the status and body of the answer.
func (d Delivery) Send(ctx context.Context, to string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(d.Body))
	if err != nil {
		return 0, "", fmt.Errorf("send a webhook: %w", err)
	}
	req.Header = d.Header.Clone()
	req.Close = true // no idle connection outlives the delivery
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("send a webhook: %w", err)
	}
	defer resp.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(resp.Body); err != nil {
		return 0, "", fmt.Errorf("send a webhook: %w", err)
	}
	return resp.StatusCode, answer.String(), nil
}

func newDelivery(payload any, header map[string]string) Delivery {
	body, err := json.Marshal(payload)
	if err != nil {
		panic(err) // the payload is made of maps and texts
	}
	d := Delivery{Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
	for name, value := range header {
		d.Header.Set(name, value)
	}
	return d
}

// SignBody is a webhook with any body, signed as a kind of provider does:
// "github", "gitlab", "buildkite" or "generic".
func SignBody(kind, secret, event string, body []byte, at time.Time) Delivery {
	d := Delivery{Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
	seconds := strconv.FormatInt(at.Unix(), 10)
	timed := hex.EncodeToString(sum256(secret, []byte(seconds+"."), body))
	switch kind {
	case "github":
		d.Header.Set("X-GitHub-Event", event)
		d.Header.Set("X-GitHub-Delivery", uuid())
		d.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(sum256(secret, body)))
	case "gitlab":
		d.Header.Set("X-Gitlab-Event", event)
		d.Header.Set("X-Gitlab-Token", secret)
	case "buildkite":
		d.Header.Set("X-Buildkite-Event", event)
		d.Header.Set("X-Buildkite-Signature", "timestamp="+seconds+",signature="+timed)
	case "generic":
		d.Header.Set("X-Jobgate-Signature", "t="+seconds+",v1="+timed)
	}
	return d
}

func sum256(secret string, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}
