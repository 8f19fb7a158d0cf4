package testkit_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/testkit"
)

func newIssuer(t *testing.T, cfg testkit.IssuerConfig) *testkit.Issuer {
	t.Helper()
	issuer, err := testkit.NewIssuer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := issuer.Close(); err != nil {
			t.Error(err)
		}
	})
	return issuer
}

// verify checks a token with a client that was written by others.
func verify(issuer *testkit.Issuer, token, audience string) (*oidc.IDToken, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx := oidc.ClientContext(context.Background(), client)
	provider, err := oidc.NewProvider(ctx, issuer.URL())
	if err != nil {
		return nil, err
	}
	return provider.Verifier(&oidc.Config{ClientID: audience}).Verify(ctx, token)
}

func TestJobFetchesVerifiableTokens(t *testing.T) {
	issuer := newIssuer(t, testkit.IssuerConfig{ExtraKeys: 1})
	job := issuer.StartJob(issuer.GitHubClaims(map[string]any{"run_id": "7"}))
	seen := map[string]bool{}
	for range 2 {
		token, err := job.Token(t.Context(), "https://gate.example.test/?a=b&c")
		if err != nil {
			t.Fatal(err)
		}
		got, err := verify(issuer, token, "https://gate.example.test/?a=b&c")
		if err != nil {
			t.Fatal(err)
		}
		var claims map[string]any
		if err := got.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		if claims["run_id"] != "7" || claims["sub"] != "repo:octo-org@123456/octo-repo@456789:ref:refs/heads/main" {
			t.Errorf("claims = %v, want run 7 of octo-repo's main", claims)
		}
		seen[claims["jti"].(string)] = true
	}
	if len(seen) != 2 {
		t.Errorf("two fetches gave %d jti values, want 2", len(seen))
	}
	if got := issuer.Fetches(); got.Tokens != 2 || got.Keys != 2 {
		t.Errorf("Fetches() = %+v, want 2 tokens and 2 key sets", got)
	}
}

func TestJobTokenIsRefused(t *testing.T) {
	issuer := newIssuer(t, testkit.IssuerConfig{})
	job := issuer.StartJob(issuer.GitHubClaims(nil))
	target := job.Env()["ACTIONS_ID_TOKEN_REQUEST_URL"]
	if !strings.Contains(target, "?api-version=2.0") {
		t.Errorf("the request URL is %q, want one to which &audience= can be added", target)
	}
	for _, header := range []string{"", "bearer wrong", "Basic " + job.Env()["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]} {
		if status := get(t, target, header).status; status != http.StatusUnauthorized {
			t.Errorf("with Authorization %q: status %d, want 401", header, status)
		}
	}
	job.End()
	if _, err := job.Token(t.Context(), ""); err == nil {
		t.Error("a job that ended fetched a token")
	}
}

func TestGitHubClaims(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	issuer := newIssuer(t, testkit.IssuerConfig{URL: "https://ci.example.test", Now: func() time.Time { return now }})
	claims := issuer.GitHubClaims(nil)
	for name, value := range claims {
		switch name {
		case "iat", "nbf", "exp":
		default:
			if _, ok := value.(string); !ok {
				t.Errorf("claim %s is a %T, want a string", name, value)
			}
		}
	}
	if claims["iss"] != "https://ci.example.test" || claims["exp"] != now.Unix()+300 || claims["iat"] != now.Unix() {
		t.Errorf("iss %v, iat %v, exp %v", claims["iss"], claims["iat"], claims["exp"])
	}
	subjects := map[string]map[string]any{
		"repo:octo-org@123456/octo-repo@456789:environment:prod%3Aeu": {"environment": "prod:eu"},
		"repo:octo-org@123456/octo-repo@456789:pull_request":          {"event_name": "pull_request"},
		"repo:octo-org@123456/octo-repo@456789:ref:refs/heads/main":   {"event_name": "pull_request_target"},
		"anything": {"sub": "anything", "environment": "prod"},
	}
	for want, overrides := range subjects {
		if got := issuer.GitHubClaims(overrides)["sub"]; got != want {
			t.Errorf("sub with %v = %v, want %v", overrides, got, want)
		}
	}
	if _, ok := issuer.GitHubClaims(map[string]any{"run_id": nil})["run_id"]; ok {
		t.Error("a nil override left the claim in")
	}
}

func TestMintForgeries(t *testing.T) {
	issuer := newIssuer(t, testkit.IssuerConfig{})
	claims := issuer.GitHubClaims(map[string]any{"aud": "me"})
	tests := []struct {
		name string
		opts testkit.MintOptions
		ok   bool
	}{
		{"plain", testkit.MintOptions{}, true},
		{"foreign key", testkit.MintOptions{Foreign: true}, false},
		{"none", testkit.MintOptions{Algorithm: "none"}, false},
		{"HS256 with the public key", testkit.MintOptions{Algorithm: "HS256"}, false},
		{"an RSA algorithm that is not announced", testkit.MintOptions{Algorithm: "PS256"}, false},
		{"unknown kid", testkit.MintOptions{KeyID: "nobody"}, false},
		{"more header", testkit.MintOptions{Header: map[string]any{"x5u": "https://evil.example.test"}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			token, err := issuer.Mint(claims, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(token, ".") != 2 {
				t.Fatalf("%q is no compact JWS", token)
			}
			if _, err := verify(issuer, token, "me"); (err == nil) != tt.ok {
				t.Errorf("verified with error %v, want accepted: %v", err, tt.ok)
			}
		})
	}
}

func TestKeysRotateAndFail(t *testing.T) {
	issuer := newIssuer(t, testkit.IssuerConfig{})
	claims := issuer.GitHubClaims(map[string]any{"aud": "me"})
	mint := func() string {
		token, err := issuer.Mint(claims, testkit.MintOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	check := func(what, token string, ok bool) {
		t.Helper()
		if _, err := verify(issuer, token, "me"); (err == nil) != ok {
			t.Errorf("%s: error %v, want accepted: %v", what, err, ok)
		}
	}
	before := mint()
	if err := issuer.Rotate(); err != nil {
		t.Fatal(err)
	}
	check("the old key's token while both are published", before, true)
	check("the new key's token", mint(), true)
	issuer.Retire()
	check("the old key's token when it is retired", before, false)
	issuer.SetKeys([]byte(`{"keys":[]}`))
	check("an empty key set", mint(), false)
	issuer.SetKeys(nil)
	check("the own keys again", mint(), true)
	issuer.SetDown(true)
	check("down", mint(), false)
	issuer.SetDown(false)
	issuer.Intercept(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "tea", http.StatusTeapot) })
	if got := get(t, issuer.Address()+"/.well-known/jwks", "").status; got != http.StatusTeapot {
		t.Errorf("intercepted status %d, want 418", got)
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func get(t *testing.T, url, authorization string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return do(t, req)
}

// do sends a request on a connection of its own, without asking for gzip.
func do(t *testing.T, req *http.Request) answer {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

func TestDiscoveryMatchesTheIssuer(t *testing.T) {
	issuer := newIssuer(t, testkit.IssuerConfig{})
	var got struct {
		Issuer string   `json:"issuer"`
		Keys   string   `json:"jwks_uri"`
		Algs   []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := json.Unmarshal(get(t, issuer.URL()+"/.well-known/openid-configuration", "").body, &got); err != nil {
		t.Fatal(err)
	}
	if got.Issuer != issuer.URL() || got.Keys != issuer.URL()+"/.well-known/jwks" || !cmp.Equal(got.Algs, []string{"RS256"}) {
		t.Errorf("discovery document %+v", got)
	}
}
