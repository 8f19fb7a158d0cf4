package federation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
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
	if public, isRSA := parsed.Key.(*rsa.PublicKey); isRSA && !soundRSA(public) {
		return "", publicKey{}, false
	}
	alg, _ := members["alg"].(string)
	return kid, publicKey{public: parsed.Key, alg: alg}, true
}

// soundRSA refuses RSA keys whose private half is within reach, or whose checks take too long.
func soundRSA(public *rsa.PublicKey) bool {
	size := public.N.BitLen()
	return size >= minModulus && size <= maxModulus && public.E >= 3 && public.E%2 == 1 && !fromROCA(public.N)
}

// rocaPrimes tell keys of the flawed generator (CVE-2017-15361) from others, which pass by chance once in 2^27.
var rocaPrimes = []int64{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
	107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

// fromROCA reports whether a modulus was made by a generator whose primes are k*M + (65537^a mod M), M a product of
// small primes: then it is a power of 65537 modulo each of those. Such keys can be factored (Nemec and others, "The
// Return of Coppersmith's Attack", 2017).
func fromROCA(modulus *big.Int) bool {
	for _, prime := range rocaPrimes {
		rest := new(big.Int).Mod(modulus, big.NewInt(prime)).Int64()
		power := int64(1)
		for range prime {
			if power == rest {
				break
			}
			power = power * 65537 % prime
		}
		if power != rest {
			return false
		}
	}
	return true
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
