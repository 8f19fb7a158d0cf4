package federation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/jobgate/jobgate/internal/access"
)

// VerifierConfig is what a Verifier is made of.
type VerifierConfig struct {
	// Audience is the one audience that tokens must carry: this deployment's public URL. Required.
	Audience string
	// Issuers are those whose tokens are taken, each under its exact URL.
	Issuers []Issuer
	// Transport fetches discovery documents and keys; nil takes one that refuses internal addresses.
	Transport http.RoundTripper
	Now       func() time.Time // nil takes time.Now
	Log       *slog.Logger     // nil discards
}

// Verifier turns tokens into identities. It is safe for concurrent use.
type Verifier struct {
	issuers map[string]*trusted // by URL
	now     func() time.Time
}

// trusted is an issuer with its row of the provider table and its keys.
type trusted struct {
	Issuer
	provider *provider
	audience string
	keys     *keySet
}

// NewVerifier returns a ready verifier, or says which issuer cannot be taken. It fetches nothing.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Audience == "" {
		return nil, errors.New("the audience is empty; it is the deployment's public URL")
	}
	if slices.Contains(refusedAudiences, strings.TrimRight(c.Audience, "/")) {
		return nil, fmt.Errorf("the audience %s belongs to another service, which takes such tokens itself; use this deployment's public URL", c.Audience)
	}
	v := &Verifier{issuers: make(map[string]*trusted, len(c.Issuers)), now: c.Now}
	names := map[string]bool{}
	slots := make(chan struct{}, maxFetches)
	for _, issuer := range c.Issuers {
		t, err := newTrusted(issuer, c, slots)
		if err != nil {
			return nil, fmt.Errorf("issuer %q: %w", issuer.Name, err)
		}
		if other := v.issuers[t.URL]; other != nil || names[t.Name] {
			return nil, fmt.Errorf("issuer %q: its name or its url %s is another issuer's, too", t.Name, t.URL)
		}
		v.issuers[t.URL], names[t.Name] = t, true
	}
	return v, nil
}

func newTrusted(issuer Issuer, c VerifierConfig, slots chan struct{}) (*trusted, error) {
	issuer, row, err := issuer.complete()
	if err != nil {
		return nil, err
	}
	t := &trusted{Issuer: issuer, provider: row, audience: c.Audience}
	if row.audience != nil && issuer.SharedAudience {
		t.audience = row.audience(issuer.URL)
	}
	t.keys, err = newKeySet(issuer, c, slots)
	return t, err
}

// Verify checks a token and returns the job that it names. A refusal is an *access.Error with a stable Reason; its
// public text is the bare code. Keys that cannot be had are CodeUnavailable.
//
// The order is the defence: what costs nothing comes first, nothing that a token says reaches the network, and the
// issuer is known by its exact URL before a key is looked for.
func (v *Verifier) Verify(ctx context.Context, raw string) (access.Identity, error) {
	t, err := parse(raw)
	if err != nil {
		return access.Identity{}, err
	}
	url, _ := t.claims["iss"].(string)
	issuer := v.issuers[url]
	if issuer == nil {
		return access.Identity{}, refuse(reasonIssuer, "%s", shown(url))
	}
	at, err := issuer.precheck(t, v.now())
	if err != nil {
		return access.Identity{}, err
	}
	if err := issuer.checkSignature(ctx, t); err != nil {
		return access.Identity{}, err
	}
	return issuer.identify(t, at)
}

// precheck looks at what the token says of itself: audience, times and algorithm.
func (i *trusted) precheck(t *jwt, now time.Time) (tokenTimes, error) {
	aud, err := t.audience()
	if err != nil || aud != i.audience {
		return tokenTimes{}, refuse(reasonAudience, "%s, want %s", shown(aud), i.audience)
	}
	at, err := t.times()
	if err != nil {
		return at, err
	}
	if err := i.checkTimes(at, now); err != nil {
		return at, err
	}
	if !slices.Contains(i.Algorithms, t.alg) {
		return at, refuse(reasonAlgorithm, "%s, want one of %s", shown(t.alg), strings.Join(i.Algorithms, ", "))
	}
	if t.kid == "" || len(t.kid) > maxKeyID {
		return at, refuse(reasonKeyID, "kid of %d characters", len(t.kid))
	}
	return at, nil
}

func (i *trusted) checkTimes(at tokenTimes, now time.Time) error {
	switch {
	case !now.Before(at.expires.Add(leeway)):
		return refuse(reasonExpired, "at %s", at.expires.UTC().Format(time.RFC3339))
	case at.issued.After(now.Add(leeway)), at.notBefore.After(now.Add(leeway)):
		return refuse(reasonEarly, "issued %s", at.issued.UTC().Format(time.RFC3339))
	case !at.expires.After(at.issued):
		return refuse(reasonLifetime, "exp is not after iat")
	case at.expires.Sub(at.issued) > i.MaxLifetime:
		return refuse(reasonLifetime, "exp - iat is more than %s", i.MaxLifetime)
	case i.MaxAge > 0 && now.Sub(at.issued) > i.MaxAge:
		return refuse(reasonAge, "issued %s ago, more than %s", now.Sub(at.issued).Round(time.Second), i.MaxAge)
	}
	return nil
}

// checkSignature has go-oidc verify the token over the issuer's own key set, and makes sure that what was signed is
// what was parsed.
func (i *trusted) checkSignature(ctx context.Context, t *jwt) error {
	check := &signatureCheck{keys: i.keys, token: t}
	verifier := oidc.NewVerifier(i.URL, check, &oidc.Config{
		ClientID:             i.audience,
		SupportedSigningAlgs: i.Algorithms,
		SkipExpiryCheck:      true, // precheck did, with leeway on both sides
	})
	_, err := verifier.Verify(ctx, t.raw)
	switch {
	case check.err != nil: // go-oidc keeps only its text
		return check.err
	case !check.verified:
		return refuse(reasonSignature, "%w", err)
	case err != nil:
		return refuse(reasonMalformed, "%w", err)
	}
	return nil
}

// signatureCheck is the key set of one verification: oidc.KeySet.
type signatureCheck struct {
	keys     *keySet
	token    *jwt
	verified bool
	err      error
}

// VerifySignature returns the payload of a token that a key of the issuer signed.
func (c *signatureCheck) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	payload, err := c.keys.verify(ctx, raw, c.token.alg, c.token.kid)
	if err == nil && !bytes.Equal(payload, c.token.payload) {
		err = refuse(reasonMalformed, "what was signed is not what was parsed")
	}
	c.err, c.verified = err, err == nil
	return payload, err
}

// identify turns verified claims into an identity: types by the provider's schema, then the claims that only a job's
// token has, then its names.
func (i *trusted) identify(t *jwt, at tokenTimes) (access.Identity, error) {
	p := i.provider
	if err := p.checkTypes(t.claims); err != nil {
		return access.Identity{}, err
	}
	if err := p.checkKind(t.claims); err != nil {
		return access.Identity{}, err
	}
	hash := sha256.Sum256([]byte(t.signed))
	id := access.Identity{
		Issuer: i.Name, IssuerURL: i.URL, Provider: p.name, Subject: t.claims.Text("sub"), Claims: t.claims, Job: p.configuredJob(t.claims),
		TokenID: "sha256:" + hex.EncodeToString(hash[:]), IssuedAt: at.issued, Expires: at.expires,
	}
	if p.jti {
		jti := t.claims.Text("jti")
		if jti == "" {
			return access.Identity{}, refuse(reasonMissing, "jti")
		}
		id.TokenID = "jti:" + jti
	}
	var err error
	if id.JobKey, err = p.keyOf(t.claims); err != nil {
		return access.Identity{}, err
	}
	return id, nil
}
