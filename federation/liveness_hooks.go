package federation

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// deliveriesKept is how many deliveries are remembered, so that none is taken twice.
	deliveriesKept = 16384
	// deliveryLeeway is how far the time in a signature may be from ours.
	deliveryLeeway = 5 * time.Minute
	// signingTokenPrefix begins a signing token of the Standard Webhooks; the rest is the key in base64.
	signingTokenPrefix = "whsec_"
)

// Hook is a secret by which webhooks about the jobs of an issuer are verified.
type Hook struct {
	Issuer Issuer
	Secret access.Secret
}

// Check says what keeps a hook from being of use.
func (h Hook) Check() error {
	if h.Secret.IsZero() {
		return errors.New("secret is missing: a webhook that anybody can send says nothing")
	}
	if text, ok := strings.CutPrefix(h.Secret.Reveal(), signingTokenPrefix); ok && h.Issuer.Provider == gitlabProvider {
		if key, err := base64.StdEncoding.DecodeString(text); err != nil || len(key) < 16 {
			return errors.New("secret begins with " + signingTokenPrefix + " and is no signing token: take the whole text that GitLab shows")
		}
	}
	return nil
}

// HooksConfig is what takes webhooks.
type HooksConfig struct {
	Hooks    []Hook
	Sessions *Sessions        // required
	Now      func() time.Time // nil takes time.Now
	Log      *slog.Logger     // nil discards
}

// Hooks take what CI providers say of jobs by themselves. A signal shortens a window, or renews a lease within it; it
// never opens anything. Safe for concurrent use.
type Hooks struct {
	c    HooksConfig
	seen seenDeliveries
}

// NewHooks returns what takes webhooks.
func NewHooks(c HooksConfig) (*Hooks, error) {
	if c.Sessions == nil {
		return nil, errors.New("federation: HooksConfig needs Sessions")
	}
	for _, h := range c.Hooks {
		if err := h.Check(); err != nil {
			return nil, fmt.Errorf("webhook of issuer %q: %w", h.Issuer.Name, err)
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Hooks{c: c}, nil
}

// HookResult is what became of a delivery.
type HookResult struct {
	// Outcome is "ended" or "running", "duplicate" for a delivery that was taken before, or "ignored" for an event that
	// says nothing of a job's life.
	Outcome string
	// Sessions is how many sessions were ended or renewed.
	Sessions int
}

// hookKind is how one kind of webhook is verified and read.
type hookKind struct {
	provider string // "" for every one
	// verify reports whether a delivery is of who knows the secret, and returns what tells it from others.
	verify func(secret string, h http.Header, body []byte, now time.Time) (receipt []byte, ok bool)
	// read returns what it says of a job; no job at all is an event that says nothing.
	read func(issuer Issuer, h http.Header, body []byte) (jobs []string, state LiveState, err error)
}

func hookKinds(kind string) (hookKind, bool) {
	switch kind {
	case "github":
		return hookKind{githubProvider, verifyGithubHook, readGithubHook}, true
	case "gitlab":
		return hookKind{gitlabProvider, verifyGitlabHook, readGitlabHook}, true
	case "buildkite":
		return hookKind{buildkiteProvider, verifyBuildkiteHook, readBuildkiteHook}, true
	case "generic":
		return hookKind{"", verifyGenericHook, readGenericHook}, true
	}
	return hookKind{}, false
}

// HookKinds returns the kinds of webhooks that Receive takes.
func HookKinds() []string { return []string{"github", "gitlab", "buildkite", "generic"} }

// Receive takes one delivery: the headers, and the body as it came. Errors are CodeNotFound where no issuer has such a
// webhook, CodeUnauthenticated where the signature is not one of its secret, CodeInvalid where what was signed cannot
// be read. A delivery about a job that has no session is good, too.
func (h *Hooks) Receive(ctx context.Context, kind string, header http.Header, body []byte) (HookResult, error) {
	k, ok := hookKinds(kind)
	if !ok {
		return HookResult{}, errNoHook
	}
	configured, verified := false, false
	out := HookResult{Outcome: "ignored"}
	for _, hook := range h.c.Hooks {
		if k.provider != "" && hook.Issuer.Provider != k.provider {
			continue
		}
		configured = true
		receipt, good := k.verify(hook.Secret.Reveal(), header, body, h.c.Now())
		if !good {
			continue
		}
		verified = true
		one, err := h.take(ctx, k, kind, hook.Issuer, header, body, receipt)
		if err != nil {
			return HookResult{}, &access.Error{Code: access.CodeInvalid, Public: "the delivery cannot be read: " + err.Error(), Err: err}
		}
		out = out.and(one)
	}
	switch {
	case !configured:
		return HookResult{}, errNoHook
	case !verified:
		return HookResult{}, errHookSignature
	}
	return out, nil
}

var (
	errNoHook        = access.Refuse(access.CodeNotFound, "no issuer has a webhook of this kind: configure webhook.secret")
	errHookSignature = access.Refuse(access.CodeUnauthenticated, "the delivery is not signed by a secret that is configured, or too old")
)

func (r HookResult) and(other HookResult) HookResult {
	if r.Outcome == "ignored" {
		r.Outcome = other.Outcome
	}
	r.Sessions += other.Sessions
	return r
}

func (h *Hooks) take(ctx context.Context, k hookKind, kind string, issuer Issuer, header http.Header, body, receipt []byte) (HookResult, error) {
	jobs, state, err := k.read(issuer, header, body)
	if err != nil || len(jobs) == 0 || state == LiveUnknown {
		return HookResult{Outcome: "ignored"}, err
	}
	if h.seen.before(sha256.Sum256(append([]byte(kind+" "+issuer.Name+" "), receipt...))) {
		return HookResult{Outcome: "duplicate"}, nil
	}
	out := HookResult{Outcome: string(state)}
	for _, job := range jobs {
		out.Sessions += h.c.Sessions.signal(ctx, signal{issuer: issuer.Name, job: job, state: state, by: "a webhook of issuer " + issuer.Name})
	}
	h.c.Log.Debug("webhook", "kind", kind, "issuer", issuer.Name, "state", state, "sessions", out.Sessions)
	return out, nil
}

// seenDeliveries remembers deliveries by what was signed: the ids in their headers are not.
type seenDeliveries struct {
	mu    sync.Mutex // guards all below
	have  map[[sha256.Size]byte]bool
	order [][sha256.Size]byte
	next  int
}

// before remembers a delivery and reports whether it was there before.
func (s *seenDeliveries) before(sum [sha256.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have[sum] {
		return true
	}
	if s.have == nil {
		s.have = make(map[[sha256.Size]byte]bool)
	}
	if len(s.order) < deliveriesKept {
		s.order = append(s.order, sum)
	} else {
		delete(s.have, s.order[s.next])
		s.order[s.next] = sum
		s.next = (s.next + 1) % deliveriesKept
	}
	s.have[sum] = true
	return false
}

// single returns a header that stands there exactly once.
func single(h http.Header, name string) (string, bool) {
	values := h.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", false
	}
	return values[0], true
}

func hmacSHA256(key string, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}

func equalHex(text string, sum []byte) bool {
	given, err := hex.DecodeString(text)
	return err == nil && hmac.Equal(given, sum)
}

// equalSecret compares in a time that tells nothing, lengths included.
func equalSecret(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// recent reports whether a time in seconds since 1970 is near.
func recent(text string, now time.Time) bool {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return false
	}
	return now.Sub(time.Unix(seconds, 0)).Abs() <= deliveryLeeway
}

// timedSignature takes "a=T,b=SIGNATURE" apart, with these names in this order.
func timedSignature(text, timeName, signatureName string) (at, signature string, ok bool) {
	first, second, ok := strings.Cut(text, ",")
	at, okTime := strings.CutPrefix(strings.TrimSpace(first), timeName+"=")
	signature, okSignature := strings.CutPrefix(strings.TrimSpace(second), signatureName+"=")
	return at, signature, ok && okTime && okSignature
}
