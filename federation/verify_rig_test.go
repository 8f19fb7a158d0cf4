package federation_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
)

// start is when the tests happen.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const (
	audience  = "https://broker.example.test"
	githubURL = "https://token.actions.githubusercontent.com"
)

// rsaKey returns the RSA key of a name, always the same within a run.
func rsaKey(name string) *rsa.PrivateKey {
	keysMu.Lock()
	defer keysMu.Unlock()
	if rsaKeys[name] == nil {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		rsaKeys[name] = k
	}
	return rsaKeys[name]
}

var (
	keysMu  sync.Mutex // guards rsaKeys
	rsaKeys = map[string]*rsa.PrivateKey{}
	ecKey   = sync.OnceValue(func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	})
)

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// rsaJWK returns the public JWK of a key under a kid.
func rsaJWK(kid string, k *rsa.PrivateKey) map[string]any {
	return map[string]any{"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": b64(k.N.Bytes()), "e": "AQAB"}
}

func ecJWK(kid string) map[string]any {
	point, err := ecKey().PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return map[string]any{"kty": "EC", "kid": kid, "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}
}

// sign makes a token of a header and a payload as they are.
func sign(header map[string]any, payload []byte, signer any) string {
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	signed := b64(text) + "." + b64(payload)
	return signed + "." + b64(signature(header["alg"], signed, signer))
}

func signature(alg any, signed string, signer any) []byte {
	sum := sha256.Sum256([]byte(signed))
	var out []byte
	var err error
	switch k := signer.(type) {
	case nil:
		return nil
	case []byte:
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte(signed))
		return mac.Sum(nil)
	case ed25519.PrivateKey:
		return ed25519.Sign(k, []byte(signed))
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			panic(err)
		}
		out = make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out
	case *rsa.PrivateKey:
		switch alg {
		case "PS256":
			out, err = rsa.SignPSS(rand.Reader, k, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		case "RS512":
			long := sha512.Sum512([]byte(signed))
			out, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA512, long[:])
		default:
			out, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
		}
	}
	if err != nil {
		panic(err)
	}
	return out
}

// publicPEM is what a confused verifier would take for an HMAC secret.
func publicPEM(k *rsa.PrivateKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// net is the issuers' side of the network. It counts what is asked of it.
type network struct {
	mu        sync.Mutex // guards all below
	issuer    string
	discovery string           // issuer of the discovery document, when it is another
	place     string           // jwks_uri; "" takes the issuer's own
	keys      []map[string]any // what the key set holds
	status    int              // of the key set; 0 is 200
	redirect  string           // where the key set moved
	header    http.Header      // of the key set
	body      string           // of the key set, in place of keys
	fail      error            // of every request
	requests  int
	block     chan struct{} // a key set is answered when it is closed
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	n.requests++
	block := n.block
	n.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return nil, n.fail
	}
	if r.URL.String() == strings.TrimSuffix(n.issuer, "/")+"/.well-known/openid-configuration" {
		return answer(r, 200, map[string]any{"issuer": or(n.discovery, n.issuer), "jwks_uri": or(n.place, n.issuer+"/.well-known/jwks")}, nil), nil
	}
	switch {
	case n.redirect != "" && r.URL.String() != n.redirect:
		return answer(r, 302, nil, http.Header{"Location": {n.redirect}}), nil
	case n.body != "":
		resp := answer(r, 200, nil, n.header)
		resp.Body = io.NopCloser(strings.NewReader(n.body))
		return resp, nil
	}
	keys := n.keys
	if keys == nil {
		keys = []map[string]any{}
	}
	return answer(r, max(n.status, 200), map[string]any{"keys": keys}, n.header), nil
}

func (n *network) set(change func(*network)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func (n *network) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.requests
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func answer(r *http.Request, status int, body any, header http.Header) *http.Response {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header.Clone(), Body: io.NopCloser(strings.NewReader(string(text))), Request: r,
	}
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

func (c *clock) add(d time.Duration) { c.set(c.Now().Add(d)) }

// rig is a verifier of one GitHub issuer with its network and clock.
type rig struct {
	*federation.Verifier
	net   *network
	clock *clock
}

func newRig(t testing.TB, change ...func(*federation.VerifierConfig)) *rig {
	t.Helper()
	w := &rig{net: &network{issuer: githubURL, keys: []map[string]any{rsaJWK("key-1", rsaKey("key-1"))}}, clock: &clock{now: start}}
	c := federation.VerifierConfig{
		Audience: audience, Transport: w.net, Now: w.clock.Now,
		Issuers: []federation.Issuer{{Name: "github", Provider: "github-actions"}},
	}
	for _, f := range change {
		f(&c)
	}
	v, err := federation.NewVerifier(c)
	if err != nil {
		t.Fatalf("NewVerifier: %v", err)
	}
	w.Verifier = v
	return w
}

// githubClaims are those of a push to main, now.
func (w *rig) githubClaims() map[string]any {
	now := w.clock.Now()
	return map[string]any{
		"iss": githubURL, "aud": audience, "jti": "4a576b35-ff09-41c5-af2c-ca62dd89b76a", "sub": "repo:octo-org/octo-repo:ref:refs/heads/main",
		"iat": now.Unix() - 20, "nbf": now.Unix() - 20, "exp": now.Unix() + 280,
		"actor": "octocat", "actor_id": "12", "base_ref": "", "head_ref": "", "check_run_id": "48211923411", "event_name": "push",
		"ref": "refs/heads/main", "repository": "octo-org/octo-repo", "repository_id": "456789", "repository_owner": "octo-org",
		"repository_owner_id": "123456", "run_attempt": "1", "run_id": "16055869479", "runner_environment": "github-hosted",
		"sha": "7f93a73b8273af5d35fcd70661704c1cadc57054", "workflow": "deploy",
	}
}

// token signs the claims of a push to main with changes; a nil takes a claim away.
func (w *rig) token(changes map[string]any) string {
	return w.signed("key-1", rsaKey("key-1"), changes)
}

func (w *rig) signed(kid string, k *rsa.PrivateKey, changes map[string]any) string {
	claims := w.githubClaims()
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(claims)
	if err != nil {
		panic(fmt.Sprintf("marshal claims: %v", err))
	}
	return sign(map[string]any{"alg": "RS256", "typ": "JWT", "kid": kid}, text, k)
}

func unb64(text string) []byte {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return data
}

func cutByte(part string) string {
	data := unb64(part)
	return b64(data[:len(data)-1])
}

// flipLetter changes one bit of the payload: of octocat, which is a name and nothing else.
func flipLetter(part string) string {
	text := string(unb64(part))
	at := strings.Index(text, "octocat") + len("octoca")
	return b64([]byte(text[:at] + string(text[at]^1) + text[at+1:]))
}

// byIssuer routes requests by the beginning of their URL.
type byIssuer map[string]*network

func (b byIssuer) RoundTrip(r *http.Request) (*http.Response, error) {
	for issuer, n := range b {
		if strings.HasPrefix(r.URL.String(), issuer) {
			return n.RoundTrip(r)
		}
	}
	return nil, fmt.Errorf("nobody answers %s", r.URL)
}
