package federation_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
)

func reasonOf(err error) string {
	var e *access.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return e.Reason
	}
	return err.Error()
}

func (w *rig) want(t *testing.T, token, reason string) {
	t.Helper()
	_, err := w.Verify(t.Context(), token)
	if got := reasonOf(err); got != reason {
		t.Errorf("Verify: %s (%v), want %s", got, err, reason)
	}
}

func (w *rig) wantRequests(t *testing.T, want int) {
	t.Helper()
	if got := w.net.count(); got != want {
		t.Errorf("%d requests to the issuer, want %d", got, want)
	}
}

func TestUnknownKeysCostOneFetchAMinute(t *testing.T) {
	w := newRig(t)
	w.want(t, w.token(nil), "ok")
	w.wantRequests(t, 2) // discovery and keys
	for minute := range 3 {
		w.clock.add(time.Minute)
		for range 50 {
			w.want(t, w.signed("nobody's", rsaKey("attacker"), nil), "unknown_kid")
			w.want(t, w.signed("key-1", rsaKey("attacker"), nil), "bad_signature")
		}
		w.want(t, w.token(nil), "ok")
		w.wantRequests(t, 3+minute) // the place of the keys is known
	}
}

func TestFetchesOnceForAll(t *testing.T) {
	w := newRig(t)
	w.net.block = make(chan struct{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { w.want(t, w.token(nil), "ok") })
	}
	close(w.net.block)
	wg.Wait()
	w.wantRequests(t, 2)
}

func TestFetchWaitsFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRig(t, func(c *federation.VerifierConfig) { c.Now = time.Now })
		w.net.block = make(chan struct{}) // never closed
		w.clock.set(time.Now())
		token := w.token(nil)
		begin := time.Now()
		_, err := w.Verify(t.Context(), token)
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("waited %s, want 5s", took)
		}
		var e *access.Error
		if !errors.As(err, &e) || e.Code != access.CodeUnavailable || e.RetryAfter <= 0 {
			t.Errorf("Verify = %v, want CodeUnavailable with a time to retry", err)
		}
		begin = time.Now()
		if _, err := w.Verify(t.Context(), token); access.CodeOf(err) != access.CodeUnavailable || time.Since(begin) != 0 {
			t.Errorf("second Verify = %v after %s, want CodeUnavailable at once", err, time.Since(begin))
		}
	})
}

func TestCallerThatLeavesDoesNotEndTheFetch(t *testing.T) {
	w := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Verify(ctx, w.token(nil)); err != nil {
		t.Errorf("Verify after the caller left: %v", err)
	}
}

func TestFailedFetchStartsTheCoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRig(t)
		w.net.fail = errors.New("no route")
		w.want(t, w.token(nil), "keys_unavailable")
		w.net.set(func(n *network) { n.fail = nil })
		w.want(t, w.token(nil), "keys_unavailable")
		w.wantRequests(t, 5) // of one refresh
		w.clock.add(10 * time.Second)
		w.want(t, w.token(nil), "ok")
	})
}

func TestFirstFetchIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRig(t)
		w.net.fail = errors.New("no route")
		time.AfterFunc(time.Second, func() { w.net.set(func(n *network) { n.fail = nil }) })
		w.want(t, w.token(nil), "ok")
	})
}

func TestOutage(t *testing.T) {
	w := newRig(t)
	w.want(t, w.token(nil), "ok")
	w.net.set(func(n *network) { n.status = 503 })
	w.clock.add(23 * time.Hour)
	w.want(t, w.token(nil), "ok")
	w.want(t, w.signed("nobody's", rsaKey("attacker"), nil), "keys_unavailable") // it may be new
	w.clock.add(time.Hour)
	w.want(t, w.token(nil), "keys_unavailable")
	w.net.set(func(n *network) { n.status = 0 })
	w.clock.add(time.Minute)
	w.want(t, w.token(nil), "ok")
}

func TestRotation(t *testing.T) {
	w := newRig(t)
	w.want(t, w.token(nil), "ok")
	w.net.set(func(n *network) { n.keys = []map[string]any{rsaJWK("key-2", rsaKey("key-2"))} })
	w.want(t, w.signed("key-2", rsaKey("key-2"), nil), "unknown_kid") // within the cool-down
	w.clock.add(time.Minute)
	w.want(t, w.signed("key-2", rsaKey("key-2"), nil), "ok")
	w.want(t, w.token(nil), "unknown_kid") // replaced, not merged
	w.clock.add(2 * time.Minute)
	w.net.set(func(n *network) { n.keys = []map[string]any{rsaJWK("key-2", rsaKey("key-3"))} })
	w.want(t, w.signed("key-2", rsaKey("key-3"), nil), "ok") // another key under the same id
	w.want(t, w.signed("key-2", rsaKey("key-2"), nil), "bad_signature")
}

func TestKeysAreFetchedAnew(t *testing.T) {
	for _, test := range []struct {
		name, header string
		fresh        time.Duration
	}{
		{"without a word", "", time.Hour},
		{"as long as it says", "public, max-age=7200", 2 * time.Hour},
		{"no less than 5 minutes", "max-age=1", 5 * time.Minute},
		{"no-store", "no-store", 5 * time.Minute},
		{"no more than a day", "max-age=31536000", 24 * time.Hour},
		{"nonsense", "max-age=soon", time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newRig(t, func(c *federation.VerifierConfig) { c.Issuers[0].StaleKeys = 48 * time.Hour })
			if test.header != "" {
				w.net.header = http.Header{"Cache-Control": {test.header}}
			}
			w.want(t, w.token(nil), "ok")
			w.clock.add(test.fresh - time.Second)
			w.want(t, w.token(nil), "ok")
			w.wantRequests(t, 2)
			w.clock.add(time.Second)
			w.want(t, w.token(nil), "ok")
			if w.net.count() == 2 {
				t.Errorf("no fetch after %s", test.fresh)
			}
		})
	}
}

func TestKeySets(t *testing.T) {
	good := func() map[string]any { return rsaJWK("key-1", rsaKey("key-1")) }
	with := func(name string, value any) map[string]any {
		k := good()
		k[name] = value
		return k
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	many := make([]map[string]any, 300)
	for i := range many {
		many[i] = with("kid", strings.Repeat("k", i+1))
	}
	for _, test := range []struct {
		name   string
		change func(*network)
		want   string
	}{
		{"one key", func(n *network) {}, "ok"},
		{"junk beside it", func(n *network) { n.keys = append(n.keys, map[string]any{"kid": 5}, map[string]any{"kty": "??"}) }, "ok"},
		{"a certificate that is none", func(n *network) { n.keys = []map[string]any{with("x5c", []string{"junk"})} }, "ok"},
		{"key_ops for signatures", func(n *network) { n.keys = []map[string]any{with("key_ops", []string{"verify"})} }, "ok"},
		{"key_ops for something else", func(n *network) { n.keys = []map[string]any{with("key_ops", []string{"encrypt"})} }, "unknown_kid"},
		{"another algorithm", func(n *network) { n.keys = []map[string]any{with("alg", "RS512")} }, "alg_not_allowed"},
		{"a key of another type", func(n *network) { n.keys = []map[string]any{ecJWK("key-1")} }, "alg_not_allowed"},
		{"1024 bits", func(n *network) { n.keys = []map[string]any{rsaJWK("key-1", small)} }, "unknown_kid"},
		{"without kid", func(n *network) { n.keys = []map[string]any{with("kid", nil)} }, "unknown_kid"},
		{"no JSON", func(n *network) { n.body = "<html>" }, "keys_unavailable"},
		{"no keys", func(n *network) { n.body = "{}" }, "keys_unavailable"},
		{"keys twice", func(n *network) { n.body = `{"keys":[],"keys":[]}` }, "keys_unavailable"},
		{"a key that is no object", func(n *network) { n.body = `{"keys":["x"]}` }, "keys_unavailable"},
		{"too many", func(n *network) { n.keys = many }, "keys_unavailable"},
		{"more than a mebibyte", func(n *network) { n.body = `{"keys":[]` + strings.Repeat(" ", 1<<20) + "}" }, "keys_unavailable"},
		{"404", func(n *network) { n.status = 404 }, "keys_unavailable"},
		{"redirect on the origin", func(n *network) { n.redirect = githubURL + "/elsewhere" }, "ok"},
		{"redirect to another host", func(n *network) { n.redirect = "https://evil.example.test/jwks" }, "keys_unavailable"},
		{"redirect to http", func(n *network) { n.redirect = "http://token.actions.githubusercontent.com/jwks" }, "keys_unavailable"},
		{"keys on another https host", func(n *network) { n.place = "https://keys.example.test/jwks" }, "ok"},
		{"keys on http", func(n *network) { n.place = "http://keys.example.test/jwks" }, "keys_unavailable"},
		{"keys in a file", func(n *network) { n.place = "file:///etc/passwd" }, "keys_unavailable"},
		{"keys behind a password", func(n *network) { n.place = "https://a:b@keys.example.test/jwks" }, "keys_unavailable"},
		{"discovery of another issuer", func(n *network) { n.discovery = githubURL + "/" }, "keys_unavailable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newRig(t)
			test.change(w.net)
			w.want(t, w.token(nil), test.want)
		})
	}
}

func TestKeysFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jwks.json")
	write := func(keys ...map[string]any) {
		text, err := json.Marshal(map[string]any{"keys": keys})
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(rsaJWK("key-1", rsaKey("key-1")))
	w := newRig(t, func(c *federation.VerifierConfig) { c.Issuers[0].KeysFile = path })
	w.want(t, w.token(nil), "ok")
	write(rsaJWK("key-2", rsaKey("key-2")))
	w.clock.add(5 * time.Minute)
	w.want(t, w.token(nil), "unknown_kid")
	w.want(t, w.signed("key-2", rsaKey("key-2"), nil), "ok")
	w.wantRequests(t, 0)
}

// TestDefaultTransport fetches over real connections: a loopback address that is written out is reached, a name that
// resolves to one is not.
func TestDefaultTransport(t *testing.T) {
	var issuer string
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": issuer + "/jwks"})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{rsaJWK("key-1", rsaKey("key-1"))}})
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	issuer = server.URL

	verify := func(url string, private bool) string {
		w := newRig(t, func(c *federation.VerifierConfig) {
			c.Transport = nil
			c.Issuers[0].URL, c.Issuers[0].AllowPrivate = url, private
		})
		_, err := w.Verify(t.Context(), w.token(map[string]any{"iss": url}))
		return reasonOf(err)
	}
	if got := verify(issuer, false); got != "ok" {
		t.Errorf("issuer on a literal loopback address: %s, want ok", got)
	}
	named := "https://loopback.test:" + issuer[strings.LastIndex(issuer, ":")+1:]
	if got := verify(named, false); got != "keys_unavailable" {
		t.Errorf("issuer of a name without an address: %s, want keys_unavailable", got)
	}
}
