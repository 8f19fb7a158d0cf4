package signing_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jobgate/jobgate/internal/signing"
)

func load(t *testing.T, dir string, p signing.Purpose) *signing.Key {
	t.Helper()
	k, err := signing.Load(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	first := load(t, dir, signing.Archive)
	if again := load(t, dir, signing.Archive); again.ID() != first.ID() {
		t.Errorf("second Load gave key %s, want %s", again.ID(), first.ID())
	}
	if other := load(t, dir, signing.Issuer); other.ID() == first.ID() {
		t.Errorf("one key %s for two purposes", other.ID())
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("files = %v, %v, want the two keys and nothing else", files, err)
	}
	info, err := os.Stat(filepath.Join(dir, "archive.jwk"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
}

func TestRacingProcessesGetOneKey(t *testing.T) {
	dir := t.TempDir()
	ids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			if k, err := signing.Load(dir, signing.Archive); err == nil {
				ids[i] = k.ID()
			}
		})
	}
	wg.Wait()
	for i, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("process %d has key %q, process 0 has %q", i, id, ids[0])
		}
	}
}

func TestBadKeyFilesAreRefused(t *testing.T) {
	good := t.TempDir()
	load(t, good, signing.Archive)
	key, err := os.ReadFile(filepath.Join(good, "archive.jwk"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := signing.JWKS(load(t, good, signing.Archive))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file    string
		purpose signing.Purpose
		data    []byte
		mode    os.FileMode
	}{
		"readable by all":    {"archive.jwk", signing.Archive, key, 0o644},
		"of another purpose": {"issuer.jwk", signing.Issuer, key, 0o600},
		"a public key":       {"archive.jwk", signing.Archive, public, 0o600},
		"no JSON":            {"archive.jwk", signing.Archive, []byte("hunter2"), 0o600},
		"empty":              {"archive.jwk", signing.Archive, nil, 0o600},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, c.file)
			if err := os.WriteFile(path, c.data, c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := signing.Load(dir, c.purpose)
			if err == nil {
				t.Fatal("Load took it")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error quotes the file: %v", err)
			}
		})
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	k := load(t, t.TempDir(), signing.Archive)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, k); got != k.ID() {
			t.Errorf("Sprintf(%q) = %q, want the id", verb, got)
		}
	}
}

func TestSignatures(t *testing.T) {
	k, other := load(t, t.TempDir(), signing.Archive), load(t, t.TempDir(), signing.Archive)
	payload := []byte(`{"a":1}`)
	whole, err := k.Sign("open", payload)
	if err != nil {
		t.Fatal(err)
	}
	detached, err := k.SignDetached("manifest", payload)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.KeySet().Verify("open", whole); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("Verify = %q, %v", got, err)
	}
	if err := k.KeySet().VerifyDetached("manifest", detached, payload); err != nil {
		t.Errorf("VerifyDetached: %v", err)
	}
	for name, err := range map[string]error{
		"typ":             second(k.KeySet().Verify("manifest", whole)),
		"key":             second(other.KeySet().Verify("open", whole)),
		"empty":           second(k.KeySet().Verify("open", "")),
		"white space":     second(k.KeySet().Verify("open", whole+"\n")),
		"detached whole":  second(k.KeySet().Verify("manifest", detached)),
		"detached typ":    k.KeySet().VerifyDetached("open", detached, payload),
		"detached key":    other.KeySet().VerifyDetached("manifest", detached, payload),
		"detached text":   k.KeySet().VerifyDetached("manifest", detached, []byte(`{"a":2}`)),
		"whole, detached": k.KeySet().VerifyDetached("open", whole, []byte(`{"a":2}`)),
	} {
		if !errors.Is(err, signing.ErrSignature) {
			t.Errorf("%s: error = %v, want ErrSignature", name, err)
		}
	}
}

func TestEveryChangedBitIsSeen(t *testing.T) {
	k := load(t, t.TempDir(), signing.Archive)
	jws, err := k.SignDetached("manifest", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(jws) * 8 {
		b := []byte(jws)
		b[i/8] ^= 1 << (i % 8)
		if k.KeySet().VerifyDetached("manifest", string(b), []byte("x")) == nil {
			t.Fatalf("bit %d of byte %d changed and nobody saw", i%8, i/8)
		}
	}
}

func TestKeySet(t *testing.T) {
	dir := t.TempDir()
	archive, issuer := load(t, dir, signing.Archive), load(t, dir, signing.Issuer)
	both, err := signing.JWKS(archive, issuer)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(both), `"d"`) {
		t.Fatalf("the public set holds a private key:\n%s", both)
	}
	set, err := signing.ParseKeySet(both, signing.Archive)
	if err != nil || len(set.IDs()) != 1 || set.IDs()[0] != archive.ID() {
		t.Fatalf("ParseKeySet = %v, %v, want the archive's key only", set, err)
	}
	jws, err := issuer.Sign("open", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Verify("open", jws); err == nil {
		t.Error("a signature by the issuer's key passed for the archive's")
	}
	private, err := os.ReadFile(filepath.Join(dir, "archive.jwk"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"private": private, "empty": nil, "no keys": []byte(`{"keys":[]}`), "text": []byte("x")} {
		if _, err := signing.ParseKeySet(data, signing.Archive); err == nil {
			t.Errorf("ParseKeySet took the %s set", name)
		}
	}
}

func second(_ []byte, err error) error { return err }
