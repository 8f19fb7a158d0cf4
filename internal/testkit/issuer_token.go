package testkit

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// tokenLifetime is what GitHub's documentation shows for exp - iat.
	tokenLifetime = 5 * time.Minute
	// tokenBackdate is how far GitHub sets nbf before iat.
	tokenBackdate = 5 * time.Minute
)

// MintOptions change how a token is signed. The zero value signs with the
// newest key, RS256, and a header as GitHub's.
type MintOptions struct {
	// Algorithm is RS256 (also when empty), another RSA algorithm, HS256
	// (keyed with the PEM of the public key, the classical confusion) or
	// "none" (no signature).
	Algorithm string
	// KeyID replaces the header's kid. "-" leaves it out.
	KeyID string
	// Foreign signs with a key that is not published, under the kid of the
	// newest key that is: a forgery.
	Foreign bool
	// Header holds more header parameters.
	Header map[string]any
}

// Mint signs claims as they are: nothing is added, so that a test can leave
// out or spoil each.
func (i *Issuer) Mint(claims map[string]any, opts MintOptions) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("mint a token: %w", err)
	}
	return i.MintRaw(payload, opts)
}

// MintRaw signs any bytes as a token's payload: duplicate keys, an array, no
// JSON.
func (i *Issuer) MintRaw(payload []byte, opts MintOptions) (string, error) {
	key, err := i.keyFor(opts)
	if err != nil {
		return "", err
	}
	header := map[string]any{"typ": "JWT"}
	if key.id != "-" {
		header["kid"] = key.id
	}
	maps.Copy(header, opts.Header)
	if opts.Algorithm == "none" {
		return unsigned(header, payload)
	}
	return sign(key.private, opts.Algorithm, header, payload)
}

func (i *Issuer) keyFor(opts MintOptions) (signingKey, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	key := i.keys[len(i.keys)-1]
	if opts.Foreign {
		if i.foreign == nil {
			foreign, err := newSigningKey()
			if err != nil {
				return signingKey{}, err
			}
			i.foreign = &foreign
		}
		key.private = i.foreign.private
	}
	if opts.KeyID != "" {
		key.id = opts.KeyID
	}
	return key, nil
}

func sign(private *rsa.PrivateKey, alg string, header map[string]any, payload []byte) (string, error) {
	if alg == "" {
		alg = "RS256"
	}
	opts := &jose.SignerOptions{}
	for name, value := range header {
		opts.WithHeader(jose.HeaderKey(name), value)
	}
	key := any(private)
	if alg == "HS256" {
		public, err := x509.MarshalPKIXPublicKey(private.Public())
		if err != nil {
			return "", fmt.Errorf("sign a token with %s: %w", alg, err)
		}
		key = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: key}, opts)
	if err != nil {
		return "", fmt.Errorf("sign a token with %s: %w", alg, err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign a token with %s: %w", alg, err)
	}
	return signed.CompactSerialize()
}

func unsigned(header map[string]any, payload []byte) (string, error) {
	header["alg"] = "none"
	head, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("mint a token: header: %w", err)
	}
	b64 := base64.RawURLEncoding
	return b64.EncodeToString(head) + "." + b64.EncodeToString(payload) + ".", nil
}

// refresh sets what differs from token to token of one job, as a provider
// does at each fetch: jti and the times.
func (i *Issuer) refresh(claims map[string]any) {
	now := i.now()
	claims["jti"] = uuid()
	claims["iat"] = now.Unix()
	claims["nbf"] = now.Add(-tokenBackdate).Unix()
	claims["exp"] = now.Add(tokenLifetime).Unix()
}

// uuid makes a random identifier as in RFC 9562 section 5.4.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: documented by crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
