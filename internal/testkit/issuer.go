package testkit

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// IssuerConfig says what a CI provider's issuer is like. The zero value is
// GitHub's: RS256, one key, its own address as issuer.
type IssuerConfig struct {
	// URL is the `iss` of the discovery document and of GitHubClaims. Empty:
	// the address that the issuer listens on.
	URL string
	// ExtraKeys is how many keys are published that never sign (GitHub
	// publishes four keys at once). Each costs a key generation.
	ExtraKeys int
	// Now is the clock of minted tokens. Nil: time.Now.
	Now func() time.Time
}

// Issuer is a CI provider's OIDC issuer: a discovery document, a key set, and
// GitHub's endpoint from which a running job fetches its tokens.
type Issuer struct {
	srv *server
	url string
	now func() time.Time

	mu        sync.Mutex // guards all below
	keys      []signingKey
	foreign   *signingKey
	published []byte
	down      bool
	intercept http.HandlerFunc
	fetches   Fetches
	jobs      map[string]*Job
}

// Fetches counts what clients asked an issuer for, refusals included.
type Fetches struct {
	Discovery, Keys, Tokens int
}

type signingKey struct {
	id      string
	private *rsa.PrivateKey
}

// NewIssuer starts an issuer. The caller closes it.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	i := &Issuer{now: cfg.Now, jobs: map[string]*Job{}}
	if i.now == nil {
		i.now = time.Now
	}
	for range cfg.ExtraKeys + 1 {
		key, err := newSigningKey()
		if err != nil {
			return nil, err
		}
		i.keys = append(i.keys, key)
	}
	srv, err := listen(http.HandlerFunc(i.serve))
	if err != nil {
		return nil, err
	}
	i.srv = srv
	i.url = cfg.URL
	if i.url == "" {
		i.url = srv.url
	}
	return i, nil
}

func newSigningKey() (signingKey, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return signingKey{}, fmt.Errorf("generate an RSA key: %w", err)
	}
	return signingKey{id: uuid(), private: private}, nil
}

// URL is the issuer as tokens name it.
func (i *Issuer) URL() string { return i.url }

// Address is where the issuer listens; it differs from URL only where
// IssuerConfig.URL was set.
func (i *Issuer) Address() string { return i.srv.url }

// Close ends the issuer.
func (i *Issuer) Close() error { return i.srv.Close() }

// Rotate publishes a new key beside the old ones and signs with it from now
// on.
func (i *Issuer) Rotate() error {
	key, err := newSigningKey()
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, key)
	return nil
}

// Retire takes every key but the signing one out of the published set.
func (i *Issuer) Retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = slices.Clone(i.keys[len(i.keys)-1:])
}

// SetKeys publishes exactly this document in place of the issuer's own key
// set (which may be somebody else's keys, or no JSON at all). Nil publishes
// the own keys again. What signs does not change.
func (i *Issuer) SetKeys(document []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = slices.Clone(document)
}

// SetDown makes every request a 503 until it is taken back.
func (i *Issuer) SetDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Intercept gives every request to h in place of the issuer: a stall, a
// redirect, an answer of another type. Nil takes it back.
func (i *Issuer) Intercept(h http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.intercept = h
}

// Fetches reports what was asked for until now.
func (i *Issuer) Fetches() Fetches {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	down, intercept := i.down, i.intercept
	i.countLocked(r.URL.Path)
	i.mu.Unlock()
	switch {
	case intercept != nil:
		intercept(w, r)
	case down:
		http.Error(w, "the issuer is down", http.StatusServiceUnavailable)
	case r.URL.Path == "/.well-known/openid-configuration":
		writeJSON(w, i.discovery())
	case r.URL.Path == "/.well-known/jwks":
		i.serveKeys(w)
	case r.URL.Path == tokenPath:
		i.serveToken(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) countLocked(path string) {
	switch path {
	case "/.well-known/openid-configuration":
		i.fetches.Discovery++
	case "/.well-known/jwks":
		i.fetches.Keys++
	case tokenPath:
		i.fetches.Tokens++
	}
}

func (i *Issuer) discovery() map[string]any {
	return map[string]any{
		"issuer":                                i.url,
		"jwks_uri":                              i.srv.url + "/.well-known/jwks",
		"subject_types_supported":               []string{"public", "pairwise"},
		"response_types_supported":              []string{"id_token"},
		"claims_supported":                      claimsSupported(),
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid"},
	}
}

func (i *Issuer) serveKeys(w http.ResponseWriter) {
	i.mu.Lock()
	document := i.published
	set := jose.JSONWebKeySet{}
	for _, key := range i.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{
			Key: key.private.Public(), KeyID: key.id, Algorithm: "RS256", Use: "sig",
		})
	}
	i.mu.Unlock()
	if document == nil {
		writeJSON(w, set)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	// A client that left needs no answer.
	_, _ = w.Write(document)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	// A client that left needs no answer.
	_ = json.NewEncoder(w).Encode(v)
}
