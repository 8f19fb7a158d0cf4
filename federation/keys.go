package federation

import (
	"context"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha256" // PS256
	_ "crypto/sha512" // PS384 and PS512
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/jobgate/jobgate/internal/access"
)

// keySet is the cache of one issuer's keys. What tokens say can make it ask the issuer once a minute, never more.
type keySet struct {
	issuer string // name, for logs and errors
	stale  time.Duration
	source keySource
	now    func() time.Time
	log    *slog.Logger
	slots  chan struct{} // one for each fetch of any issuer

	flight singleflight.Group // one refresh at a time; the others wait for it

	mu      sync.Mutex // guards all below
	keys    map[string]publicKey
	fetched time.Time     // when the issuer last gave keys; zero: never
	fresh   time.Duration // how long from then they need no refresh
	tried   time.Time     // when a refresh was last begun
	failure error         // of that refresh; nil when it worked
}

// keySource is where keys come from, and how long the source wants them to be kept: zero where it does not say.
type keySource interface {
	load(ctx context.Context) (map[string]publicKey, time.Duration, error)
}

func newKeySet(issuer Issuer, c VerifierConfig, slots chan struct{}) (*keySet, error) {
	s := &keySet{issuer: issuer.Name, stale: issuer.StaleKeys, now: c.Now, log: c.Log, slots: slots}
	if issuer.KeysFile != "" {
		s.source = keysFile(issuer.KeysFile)
		return s, nil
	}
	remote, err := newRemoteKeys(issuer, c.Transport, c.Now)
	s.source = remote
	return s, err
}

// verify returns the payload of a token that the issuer's key kid signed. A signature that fails under a known kid may
// be due to a key that was replaced under the same kid: it is looked for once.
func (s *keySet) verify(ctx context.Context, raw, alg, kid string) ([]byte, error) {
	k, err := s.key(ctx, kid)
	if err != nil {
		return nil, err
	}
	payload, err := k.verify(raw, alg)
	var refused *access.Error
	if err == nil || !errors.As(err, &refused) || refused.Reason != reasonSignature || !s.refresh(ctx) {
		return payload, err
	}
	replaced, known, usable := s.cached(kid)
	if !known || !usable || replaced.equal(k) {
		return nil, err
	}
	return replaced.verify(raw, alg)
}

// key returns the issuer's key of that id, after a refresh where the id is unknown or the keys are due.
func (s *keySet) key(ctx context.Context, kid string) (publicKey, error) {
	k, known, _ := s.cached(kid)
	if !known || s.due() {
		s.refresh(ctx)
		k, known, _ = s.cached(kid)
	}
	failure := s.lastFailure()
	switch _, _, usable := s.cached(kid); {
	case !usable && failure == nil:
		return publicKey{}, unavailable(s.issuer, errors.New("they are too old"))
	case !usable:
		return publicKey{}, unavailable(s.issuer, failure)
	case known:
		return k, nil
	case failure != nil: // it may be a new key
		return publicKey{}, unavailable(s.issuer, failure)
	}
	return publicKey{}, refuse(reasonKeyID, "%s is none of issuer %q", shown(kid), s.issuer)
}

// cached looks a key up, and says whether the keys are young enough to be used at all.
func (s *keySet) cached(kid string) (k publicKey, known, usable bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, known = s.keys[kid]
	return k, known, !s.fetched.IsZero() && s.now().Sub(s.fetched) < s.stale
}

// due reports whether the keys should be fetched anew.
func (s *keySet) due() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetched.IsZero() || s.now().Sub(s.fetched) >= s.fresh
}

func (s *keySet) lastFailure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// refresh fetches the keys, once for all who ask at the same time, and reports whether it did. Nothing is fetched
// within the cool-down of the last attempt. The caller that fetches does so for the others, too: its own end does not
// end the fetch, which is short.
func (s *keySet) refresh(ctx context.Context) bool {
	done, _, _ := s.flight.Do("", func() (any, error) {
		if !s.begin() {
			return false, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		keys, keep, err := s.insist(ctx)
		s.finish(keys, keep, err)
		return err == nil, nil
	})
	return done.(bool)
}

// load fetches when few enough others do: tokens of many issuers at once must not make as many connections.
func (s *keySet) load(ctx context.Context) (map[string]publicKey, time.Duration, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
		return s.source.load(ctx)
	case <-ctx.Done():
		return nil, 0, errors.New("other issuers' keys are being fetched")
	}
}

// insist fetches, and fetches again for as long as an exchange waits where the issuer fails and there are no keys at all:
// clients that do not come again would fail by a moment's fault.
func (s *keySet) insist(ctx context.Context) (keys map[string]publicKey, keep time.Duration, err error) {
	_, _, usable := s.cached("")
	for pause := firstPause; ; pause *= 2 {
		if keys, keep, err = s.load(ctx); err == nil || usable {
			return keys, keep, err
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause {
			return nil, 0, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, 0, err
		}
	}
}

func (s *keySet) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wait := s.now(), coolDown
	if s.fetched.IsZero() || now.Sub(s.fetched) >= s.stale {
		wait = coldCoolDown
	}
	if !s.tried.IsZero() && now.Sub(s.tried) < wait {
		return false
	}
	s.tried = now
	return true
}

// finish puts new keys in the place of the old ones. A failure keeps them: cached says for how long.
func (s *keySet) finish(keys map[string]publicKey, keep time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
	if err != nil {
		s.log.Warn("keys of an issuer cannot be fetched", "issuer", s.issuer, "error", err, "keys_from", s.fetched)
		return
	}
	if keep == 0 {
		keep = freshKeys
	}
	s.keys, s.fetched, s.fresh = keys, s.tried, min(max(keep, minFresh), maxFresh)
}

// verify checks a signature with exactly this key and algorithm.
func (k publicKey) verify(raw, alg string) ([]byte, error) {
	if !k.suits(alg) {
		return nil, refuse(reasonAlgorithm, "%s does not go with the issuer's key", alg)
	}
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		return nil, refuse(reasonSignature, "%w", err)
	}
	payload, err := jws.Verify(k.public)
	if err == nil {
		err = k.verifySalt(raw, alg)
	}
	if err != nil {
		return nil, refuse(reasonSignature, "%w", err)
	}
	return payload, nil
}

// verifySalt checks a PSS signature again, with a salt as long as the hash, as RFC 7518 section 3.5 has it: go-jose
// takes any length, so that one signature would have many forms.
func (k publicKey) verifySalt(raw, alg string) error {
	public, isRSA := k.public.(*rsa.PublicKey)
	bits, isPSS := strings.CutPrefix(alg, "PS")
	if !isRSA || !isPSS {
		return nil
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[bits]
	signed, encoded := raw[:strings.LastIndexByte(raw, '.')], raw[strings.LastIndexByte(raw, '.')+1:]
	signature, err := decodePart(encoded)
	if err != nil {
		return err
	}
	sum := hash.New()
	sum.Write([]byte(signed))
	return rsa.VerifyPSS(public, hash, sum.Sum(nil), signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
}

// newRemoteKeys returns the source of an issuer's published keys.
func newRemoteKeys(issuer Issuer, transport http.RoundTripper, now func() time.Time) (*remoteKeys, error) {
	if transport == nil {
		authorities, err := issuer.authorities()
		if err != nil {
			return nil, wrapped("ca_file", err)
		}
		transport = issuer.transport(authorities)
	}
	return &remoteKeys{
		issuer: issuer.URL, now: now,
		client: &http.Client{Transport: transport, CheckRedirect: stayOnOrigin},
	}, nil
}

func stayOnOrigin(to *http.Request, via []*http.Request) error {
	from := via[0].URL
	if len(via) > maxRedirects || to.URL.Scheme != from.Scheme || to.URL.Host != from.Host || to.URL.User != nil {
		return fmt.Errorf("redirect to %s://%s is not followed", to.URL.Scheme, to.URL.Host)
	}
	return nil
}
