package federation_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
)

// tlsIssuer is an issuer over TLS with a certificate of its own authority, and that authority's file.
func tlsIssuer(t *testing.T) (url, authority string) {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are meant to fail
	server.StartTLS()
	t.Cleanup(server.Close)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": server.URL, "jwks_uri": server.URL + "/jwks"})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{rsaJWK("key-1", rsaKey("key-1"))}})
	})
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	return server.URL, write(t, "ca.pem", string(pem.EncodeToMemory(block)))
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrivateAuthority(t *testing.T) {
	url, authority := tlsIssuer(t)
	for _, test := range []struct{ name, file, want string }{
		{"the issuer's", authority, "ok"},
		{"the system's", "", "keys_unavailable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newRig(t, func(c *federation.VerifierConfig) {
				c.Transport = nil
				c.Issuers[0].URL, c.Issuers[0].CAFile = url, test.file
			})
			w.want(t, w.token(map[string]any{"iss": url}), test.want)
		})
	}
}

func TestFilesOfAnIssuerAreChecked(t *testing.T) {
	good, err := json.Marshal(map[string]any{"keys": []any{rsaJWK("key-1", rsaKey("key-1"))}})
	if err != nil {
		t.Fatal(err)
	}
	_, authority := tlsIssuer(t)
	for _, test := range []struct {
		name   string
		issuer federation.Issuer
		want   string // "" for none
	}{
		{"keys", federation.Issuer{KeysFile: write(t, "keys", string(good))}, ""},
		{"no keys file", federation.Issuer{KeysFile: filepath.Join(t.TempDir(), "none")}, "keys_file: open"},
		{"a keys file of something else", federation.Issuer{KeysFile: write(t, "keys", "<html>")}, "keys_file: key set: no JSON"},
		{"a keys file without a usable key", federation.Issuer{KeysFile: write(t, "keys", `{"keys":[{"kty":"RSA"}]}`)}, "no key that can be used"},
		{"authorities", federation.Issuer{CAFile: authority}, ""},
		{"no file of authorities", federation.Issuer{CAFile: filepath.Join(t.TempDir(), "none")}, "ca_file: open"},
		{"authorities that are none", federation.Issuer{CAFile: write(t, "ca", "hello")}, "holds no PEM certificate"},
		{"too large", federation.Issuer{CAFile: write(t, "ca", strings.Repeat("x", 2<<20))}, "more than 1 MiB"},
		{"both", federation.Issuer{CAFile: authority, KeysFile: write(t, "keys", string(good))}, "write one of them"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.issuer.Name, test.issuer.Provider = "github", "github-actions"
			err := test.issuer.Check()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("Check = %v, want %q", err, test.want)
			}
		})
	}
	_, err = federation.NewVerifier(federation.VerifierConfig{Audience: audience, Issuers: []federation.Issuer{
		{Name: "github", Provider: "github-actions", CAFile: filepath.Join(t.TempDir(), "none")}}})
	if err == nil || !strings.Contains(err.Error(), "ca_file") {
		t.Errorf("NewVerifier = %v, want an error of ca_file", err)
	}
}

// TestKeysFileIsReadAgain holds that a key which is new in the file is found when a token names it, and that a file
// which broke does not take the keys away.
func TestKeysFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	put := func(text []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(json.Marshal(map[string]any{"keys": []any{rsaJWK("key-1", rsaKey("key-1"))}}))
	w := newRig(t, func(c *federation.VerifierConfig) { c.Issuers[0].KeysFile = path })
	w.want(t, w.token(nil), "ok")
	put(json.Marshal(map[string]any{"keys": []any{rsaJWK("key-1", rsaKey("key-1")), rsaJWK("key-2", rsaKey("key-2"))}}))
	w.want(t, w.signed("key-2", rsaKey("key-2"), nil), "unknown_kid") // it was read within the minute
	w.clock.add(time.Minute)
	w.want(t, w.signed("key-2", rsaKey("key-2"), nil), "ok")
	put([]byte("half a fi"), nil)
	w.clock.add(23 * time.Hour)
	w.want(t, w.token(nil), "ok")
	w.clock.add(time.Hour)
	w.want(t, w.token(nil), "keys_unavailable")
}

// crowd answers key fetches of any issuer, slowly, and counts how many it has at one time.
type crowd struct {
	mu         sync.Mutex // guards now and most
	now, most  int
	came, gate chan struct{}
}

func (c *crowd) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	c.came <- struct{}{}
	<-c.gate
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
	issuer, isDiscovery := strings.CutSuffix(r.URL.String(), "/.well-known/openid-configuration")
	if isDiscovery {
		return answer(r, 200, map[string]any{"issuer": issuer, "jwks_uri": issuer + "/jwks"}, nil), nil
	}
	return answer(r, 200, map[string]any{"keys": []any{rsaJWK("key-1", rsaKey("key-1"))}}, nil), nil
}

// TestFetchesOfAllIssuersAreBounded asks twenty issuers for keys at once.
func TestFetchesOfAllIssuersAreBounded(t *testing.T) {
	const issuers, cap = 20, 4
	net := &crowd{came: make(chan struct{}, 2*issuers), gate: make(chan struct{})}
	url := func(i int) string { return fmt.Sprintf("https://ghes-%d.example.test/_services/token", i) }
	w := newRig(t, func(c *federation.VerifierConfig) {
		c.Issuers, c.Transport = nil, net
		for i := range issuers {
			c.Issuers = append(c.Issuers, federation.Issuer{Name: fmt.Sprintf("ghes-%d", i), Provider: "github-actions", URL: url(i)})
		}
	})
	var wg sync.WaitGroup
	for i := range issuers {
		wg.Go(func() { w.want(t, w.token(map[string]any{"iss": url(i)}), "ok") })
	}
	for range cap {
		<-net.came
	}
	close(net.gate)
	wg.Wait()
	if net.most != cap {
		t.Errorf("%d fetches at one time, want %d", net.most, cap)
	}
}

// BenchmarkUnknownKeys is a flood of tokens with made-up key ids, a hundred a second of the clock. It reports how
// many requests a minute that costs the issuer: one at most.
func BenchmarkUnknownKeys(b *testing.B) {
	w := newRig(b)
	if _, err := w.Verify(b.Context(), w.token(nil)); err != nil {
		b.Fatal(err)
	}
	var tokens []string
	for i := range 64 {
		tokens = append(tokens, w.signed(fmt.Sprintf("made-up-%d", i), rsaKey("attacker"), map[string]any{"exp": start.Unix() + 20*3600}))
	}
	before, n := w.net.count(), 0
	for b.Loop() {
		w.clock.set(start.Add(time.Duration(n) * 10 * time.Millisecond))
		if _, err := w.Verify(b.Context(), tokens[n%len(tokens)]); access.CodeOf(err) != access.CodeGrant {
			b.Fatal(err)
		}
		n++
	}
	minutes := w.clock.Now().Sub(start).Minutes()
	b.ReportMetric(float64(w.net.count()-before)/minutes, "fetches/min")
}

// BenchmarkExchange is what a job waits for: a token by RS256 verified, matched, and its session on disk; 32 jobs at a
// time.
func BenchmarkExchange(b *testing.B) {
	keys := newRig(b)
	keys.clock.set(time.Now())
	w := newWorld(b, agents())
	exchange, err := federation.NewExchange(federation.ExchangeConfig{
		Verify: keys.Verify, Liveness: w.live, Mappings: w.mappings, Sessions: w.sessions, Store: w.db, Trail: w.db,
	})
	if err != nil {
		b.Fatal(err)
	}
	tokens := make(chan string, b.N)
	for n := range b.N {
		tokens <- keys.token(map[string]any{"jti": fmt.Sprint("jti-", n), "run_id": fmt.Sprint(n + 1)})
	}
	b.ResetTimer()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := exchange.Open(b.Context(), federation.OpenRequest{Token: <-tokens}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
}
