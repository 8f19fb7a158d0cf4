package signing

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// ErrSignature is wrapped by the error for a signature that does not hold.
var ErrSignature = errors.New("the signature does not hold")

// KeySet holds public keys of one purpose.
type KeySet struct {
	keys map[string]ed25519.PublicKey
}

// ParseKeySet reads a JWK set, or a single JWK, and keeps the keys of the purpose. A private key in it is refused: what is pinned
// elsewhere must not be able to sign.
func ParseKeySet(data []byte, p Purpose) (*KeySet, error) {
	var set jose.JSONWebKeySet
	var one jose.JSONWebKey
	if err := json.Unmarshal(data, &set); err != nil || set.Keys == nil {
		if json.Unmarshal(data, &one) != nil {
			return nil, fmt.Errorf("read %s keys: neither a JWK set nor a JWK (RFC 7517)", p)
		}
		set.Keys = []jose.JSONWebKey{one}
	}
	s := &KeySet{keys: map[string]ed25519.PublicKey{}}
	for _, j := range set.Keys {
		if !j.IsPublic() {
			return nil, fmt.Errorf("read %s keys: a private key is among them; pass the public set", p)
		}
		pub, ok := j.Key.(ed25519.PublicKey)
		if !ok || purposeOf(j.KeyID) != p {
			continue
		}
		if id, err := keyID(p, pub); err != nil || id != j.KeyID {
			return nil, fmt.Errorf("read %s keys: the kid %q does not belong to its key", p, j.KeyID)
		}
		s.keys[j.KeyID] = pub
	}
	if len(s.keys) == 0 {
		return nil, fmt.Errorf("read %s keys: no Ed25519 key for this purpose among %d keys", p, len(set.Keys))
	}
	return s, nil
}

// IDs returns the ids of the keys, in no order.
func (s *KeySet) IDs() []string {
	ids := make([]string, 0, len(s.keys))
	for id := range s.keys {
		ids = append(ids, id)
	}
	return ids
}

// Verify checks a compact JWS that must have been signed as typ, and returns what was signed.
func (s *KeySet) Verify(typ, jws string) (payload []byte, err error) {
	if err := canonical(jws); err != nil {
		return nil, err
	}
	obj, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSignature, err)
	}
	key, err := s.key(typ, obj)
	if err != nil {
		return nil, err
	}
	if payload, err = obj.Verify(key); err != nil {
		return nil, fmt.Errorf("%w: key %s", ErrSignature, obj.Signatures[0].Protected.KeyID)
	}
	return payload, nil
}

// VerifyDetached checks a detached JWS (RFC 7515 appendix F) over payload that must have been signed as typ.
func (s *KeySet) VerifyDetached(typ, jws string, payload []byte) error {
	if err := canonical(jws); err != nil {
		return err
	}
	obj, err := jose.ParseDetached(jws, payload, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return fmt.Errorf("%w: %v", ErrSignature, err)
	}
	key, err := s.key(typ, obj)
	if err != nil {
		return err
	}
	if err := obj.DetachedVerify(payload, key); err != nil {
		return fmt.Errorf("%w: key %s", ErrSignature, obj.Signatures[0].Protected.KeyID)
	}
	return nil
}

func (s *KeySet) key(typ string, obj *jose.JSONWebSignature) (ed25519.PublicKey, error) {
	if len(obj.Signatures) != 1 {
		return nil, fmt.Errorf("%w: %d signatures, want one", ErrSignature, len(obj.Signatures))
	}
	header := obj.Signatures[0].Protected
	if got := header.ExtraHeaders[jose.HeaderType]; got != typ {
		return nil, fmt.Errorf("%w: its typ is %q, want %q", ErrSignature, got, typ)
	}
	key, ok := s.keys[header.KeyID]
	if !ok {
		return nil, fmt.Errorf("%w: made by key %q, which is not among the trusted ones", ErrSignature, header.KeyID)
	}
	return key, nil
}

// canonical refuses a JWS whose text is not the only one that encodes its bytes: base64url has bits to spare at its end, and parsers skip
// white space, so a changed file could otherwise still verify.
func canonical(jws string) error {
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%w: %d parts, want 3", ErrSignature, len(parts))
	}
	for _, p := range parts {
		if b, err := base64.RawURLEncoding.Strict().DecodeString(p); err != nil || base64.RawURLEncoding.EncodeToString(b) != p {
			return fmt.Errorf("%w: it is not in its one form of base64url", ErrSignature)
		}
	}
	return nil
}
