package federation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	jose "github.com/go-jose/go-jose/v4"
)

// publicKey is one public key of an issuer.
type publicKey struct {
	public crypto.PublicKey
	alg    string // the one algorithm that it is for; "" where the set does not say
}

func (k publicKey) equal(other publicKey) bool {
	comparable, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(other.public) && k.alg == other.alg
}

// suits reports whether a key may check signatures of an algorithm: RFC 7518 section 3.1. An algorithm for keys of
// another type is how public keys come to serve as secrets.
func (k publicKey) suits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		return slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, alg)
	case *ecdsa.PublicKey:
		return alg == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[public.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// parseKeys reads a JWK set, RFC 7517 section 5. Keys that are not for signatures, are symmetric, have no id or are too
// small or too large are left out. Two keys of one id make the set useless: which of them counts would be chance.
func parseKeys(document []byte) (map[string]publicKey, error) {
	set, err := decodeObject(document)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	list, ok := set["keys"].([]any)
	switch {
	case !ok:
		return nil, errors.New("key set: no keys member")
	case len(list) == 0:
		return nil, errors.New("key set: empty")
	case len(list) > maxKeys:
		return nil, fmt.Errorf("key set: %d keys, more than %d", len(list), maxKeys)
	}
	keys := make(map[string]publicKey, len(list))
	for _, item := range list {
		members, ok := item.(map[string]any)
		if !ok {
			return nil, errors.New("key set: a key is no object")
		}
		kid, k, ok := parseKey(members)
		if !ok {
			continue
		}
		if _, twice := keys[kid]; twice {
			return nil, fmt.Errorf("key set: two keys with kid %s", shown(kid))
		}
		keys[kid] = k
	}
	return keys, nil
}

// keyMembers are the members that make up a public key, by type: RFC 7518 section 6, RFC 8037. Others, certificates
// among them, are not looked at.
var keyMembers = map[string][]string{"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}}

func parseKey(members map[string]any) (kid string, k publicKey, ok bool) {
	kid, _ = members["kid"].(string)
	kty, _ := members["kty"].(string)
	names := keyMembers[kty]
	if kid == "" || len(kid) > maxKeyID || names == nil || !forSignatures(members) {
		return "", publicKey{}, false
	}
	bare := map[string]any{"kty": kty}
	for _, name := range names {
		bare[name] = members[name]
	}
	text, err := json.Marshal(bare)
	if err != nil {
		return "", publicKey{}, false
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(text); err != nil || !parsed.IsPublic() {
		return "", publicKey{}, false
	}
	if public, isRSA := parsed.Key.(*rsa.PublicKey); isRSA && (public.N.BitLen() < minModulus || public.N.BitLen() > maxModulus) {
		return "", publicKey{}, false
	}
	alg, _ := members["alg"].(string)
	return kid, publicKey{public: parsed.Key, alg: alg}, true
}

func forSignatures(members map[string]any) bool {
	if use, there := members["use"]; there && use != "sig" {
		return false
	}
	ops, there := members["key_ops"]
	if !there {
		return true
	}
	list, _ := ops.([]any)
	return slices.Contains(list, any("verify"))
}
