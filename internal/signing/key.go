package signing

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Purpose is what a key may sign.
type Purpose string

const (
	// Archive signs the openings and manifests of session archives.
	Archive Purpose = "archive"
	// Issuer signs the assertions that Jobgate shows to upstreams as an OIDC issuer.
	Issuer Purpose = "issuer"
)

// Key is a private key for one purpose. It prints as its id.
type Key struct {
	id   string
	priv ed25519.PrivateKey
}

// Load reads the key of a purpose from dir, and makes it, and dir, where there is none. Two processes that do so at once get the same
// key. A key file that group or others may read is refused.
func Load(dir string, p Purpose) (*Key, error) {
	path := filepath.Join(dir, string(p)+".jwk")
	k, err := read(path, p)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = New(p); err != nil {
		return nil, err
	}
	if err := k.create(dir, path); err != nil {
		return nil, err
	}
	return read(path, p)
}

// New makes a key that lives in memory only.
func New(p Purpose) (*Key, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make %s key: %w", p, err)
	}
	id, err := keyID(p, priv.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	return &Key{id: id, priv: priv}, nil
}

// ID is the kid in the headers of what the key signed.
func (k *Key) ID() string { return k.id }

// String returns the id, so that a key in a log line is no leak.
func (k *Key) String() string { return k.id }

// GoString returns the id, for %#v.
func (k *Key) GoString() string { return k.id }

// Sign returns the compact JWS over payload.
func (k *Key) Sign(typ string, payload []byte) (string, error) {
	obj, err := k.sign(typ, payload)
	if err != nil {
		return "", err
	}
	return obj.CompactSerialize()
}

// SignDetached returns the compact JWS over payload with its middle left empty (RFC 7515 appendix F).
func (k *Key) SignDetached(typ string, payload []byte) (string, error) {
	obj, err := k.sign(typ, payload)
	if err != nil {
		return "", err
	}
	return obj.DetachedCompactSerialize()
}

func (k *Key) sign(typ string, payload []byte) (*jose.JSONWebSignature, error) {
	opts := (&jose.SignerOptions{}).WithType(jose.ContentType(typ))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: k.priv, KeyID: k.id}}, opts)
	if err != nil {
		return nil, fmt.Errorf("sign %s with key %s: %w", typ, k.id, err)
	}
	obj, err := signer.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign %s with key %s: %w", typ, k.id, err)
	}
	return obj, nil
}

// JWKS returns the public halves of keys as a JWK set.
func JWKS(keys ...*Key) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range keys {
		set.Keys = append(set.Keys, jwk(k.priv.Public(), k.id))
	}
	return json.MarshalIndent(set, "", "  ")
}

// KeySet returns the set that verifies what k signed.
func (k *Key) KeySet() *KeySet {
	return &KeySet{keys: map[string]ed25519.PublicKey{k.id: k.priv.Public().(ed25519.PublicKey)}}
}

func jwk(key any, id string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(jose.EdDSA), Use: "sig"}
}

func keyID(p Purpose, pub ed25519.PublicKey) (string, error) {
	thumb, err := (&jose.JSONWebKey{Key: pub}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("thumbprint of %s key: %w", p, err)
	}
	return string(p) + "-" + base64.RawURLEncoding.EncodeToString(thumb[:16]), nil
}

func read(path string, p Purpose) (*Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read %s key: %w", p, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read %s key: %s has mode %04o, others could sign with it; chmod 600 it", p, path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s key: %w", p, err)
	}
	var j jose.JSONWebKey
	// What the parser says can quote the file, so it is not passed on.
	if json.Unmarshal(data, &j) != nil {
		return nil, fmt.Errorf("read %s key: %s is no JWK (RFC 7517)", p, path)
	}
	priv, ok := j.Key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read %s key: %s holds no private Ed25519 key", p, path)
	}
	id, err := keyID(p, priv.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	if j.KeyID != id {
		return nil, fmt.Errorf("read %s key: %s was made for another purpose (kid %q, want %q); one key never serves two", p, path, j.KeyID, id)
	}
	return &Key{id: id, priv: priv}, nil
}

// create writes the key beside its place and links it there, which fails where another process was first: then that one's key counts.
func (k *Key) create(dir, path string) error {
	data, err := json.Marshal(jwk(k.priv, k.id))
	if err != nil {
		return fmt.Errorf("write key %s: %w", k.id, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write key %s: %w", k.id, err)
	}
	// CreateTemp's mode is 0600.
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return fmt.Errorf("write key %s: %w", k.id, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key %s: %w", k.id, err)
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write key %s: %w", k.id, err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync key folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync key folder %s: %w", dir, err)
	}
	return nil
}

// purposeOf reads the purpose out of a key id.
func purposeOf(id string) Purpose {
	p, _, _ := strings.Cut(id, "-")
	return Purpose(p)
}
