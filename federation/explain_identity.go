package federation

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// unverified reads the identity that a token claims, without looking at its signature, its audience or its times. It is
// for explanations only: nothing may be decided by it.
func (v *Verifier) unverified(raw string) (access.Identity, error) {
	t, err := parse(raw)
	if err != nil {
		return access.Identity{}, err
	}
	url, _ := t.claims["iss"].(string)
	issuer := v.issuers[url]
	if issuer == nil {
		return access.Identity{}, refuse(reasonIssuer, "%s", shown(url))
	}
	at, err := t.times()
	if err != nil {
		return access.Identity{}, err
	}
	return issuer.identify(t, at)
}

// claimsLife is how long a token is taken to be good of which only the claims are known.
const claimsLife = 5 * time.Minute

// ofClaims makes an identity of claims that nobody signed, for explanations only. What a token would be refused for is
// returned beside it. Times and jti are not looked at: the token is taken to be fresh.
func (v *Verifier) ofClaims(raw []byte, name string) (access.Identity, []error, error) {
	claims, err := decodeObject(raw)
	if err != nil {
		return access.Identity{}, nil, access.Refuse(access.CodeInvalid, "the claims cannot be read: "+err.Error())
	}
	issuer, err := v.claimed(claims, name)
	if err != nil {
		return access.Identity{}, nil, err
	}
	p := issuer.provider
	var wrong []error
	for _, check := range []func(access.Claims) error{p.checkTypes, p.checkKind} {
		if err := check(claims); err != nil {
			wrong = append(wrong, err)
		}
	}
	hash := sha256.Sum256(raw)
	id := access.Identity{
		Issuer: issuer.Name, IssuerURL: issuer.URL, Provider: p.name, Subject: access.Claims(claims).Text("sub"), Claims: claims, Job: p.configuredJob(claims),
		TokenID: "claims:" + hex.EncodeToString(hash[:]), IssuedAt: v.now(), Expires: v.now().Add(claimsLife),
	}
	if id.JobKey, err = p.keyOf(claims); err != nil {
		wrong = append(wrong, err)
	}
	return id, wrong, nil
}

// claimed finds the issuer of claims: by their iss, by name, or the only one that there is.
func (v *Verifier) claimed(claims access.Claims, name string) (*trusted, error) {
	if url, there := claims["iss"]; there {
		text, _ := url.(string)
		if issuer := v.issuers[text]; issuer != nil && (name == "" || issuer.Name == name) {
			return issuer, nil
		}
		return nil, access.Refuse(access.CodeInvalid, fmt.Sprintf("the claims' iss is %s; the issuers are %s", display(url), v.names()))
	}
	var found *trusted
	for _, issuer := range v.issuers {
		if issuer.Name == name || name == "" && len(v.issuers) == 1 {
			found = issuer
		}
	}
	if found == nil {
		return nil, access.Refuse(access.CodeInvalid, fmt.Sprintf("the claims have no iss; name their issuer, one of %s", v.names()))
	}
	return found, nil
}

func (v *Verifier) names() string {
	byName := make(map[string]string, len(v.issuers))
	for url, issuer := range v.issuers {
		byName[issuer.Name] = url
	}
	var out []string
	for _, name := range sortedNames(byName) {
		out = append(out, fmt.Sprintf("%s (%s)", name, byName[name]))
	}
	return strings.Join(out, ", ")
}
