package federation_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
)

func TestIdentity(t *testing.T) {
	w := newRig(t)
	token := w.token(nil)
	got, err := w.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	claims := access.Claims{}
	for name, value := range w.githubClaims() {
		claims[name] = value
		if n, ok := value.(int64); ok {
			text, _ := json.Marshal(n)
			claims[name] = json.Number(text)
		}
	}
	want := access.Identity{
		Issuer: "github", IssuerURL: githubURL, Provider: "github-actions", Subject: "repo:octo-org/octo-repo:ref:refs/heads/main",
		Claims: claims, JobKey: "run_id=16055869479;run_attempt=1;check_run_id=48211923411",
		TokenID:  "jti:4a576b35-ff09-41c5-af2c-ca62dd89b76a",
		IssuedAt: time.Unix(start.Unix()-20, 0), Expires: time.Unix(start.Unix()+280, 0),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("identity (-want +got):\n%s", d)
	}
}

func TestTokenIDWithoutJTI(t *testing.T) {
	w := newRig(t, func(c *federation.VerifierConfig) {
		c.Issuers[0].Provider, c.Issuers[0].URL = "forgejo", githubURL
	})
	token := w.token(nil)
	id, err := w.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256([]byte(token[:strings.LastIndex(token, ".")]))
	if want := "sha256:" + hex.EncodeToString(hash[:]); id.TokenID != want {
		t.Errorf("TokenID = %q, want %q", id.TokenID, want)
	}
}

func TestVerifyRefuses(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, test := range []struct {
		name    string
		changes map[string]any
		want    string
	}{
		{"a claim of the provider that is null", map[string]any{"run_id": []any{nil}}, "claim_type"},
		{"an empty run id", map[string]any{"run_id": ""}, "wrong_token_kind"},
		{"no attempt", map[string]any{"run_attempt": nil}, "wrong_token_kind"},
		{"no owner at all", map[string]any{"repository_owner_id": nil, "repository_id": nil}, "claim_missing"},
		{"jti that is a number", map[string]any{"jti": 5}, "claim_type"},
		{"an empty jti", map[string]any{"jti": ""}, "claim_missing"},
		{"sub that is a list", map[string]any{"sub": []any{"x"}}, "malformed"},
		{"an audience in an array", map[string]any{"aud": []any{audience}}, "ok"},
		{"an audience that is a number", map[string]any{"aud": 5}, "aud_mismatch"},
		{"an audience that only begins so", map[string]any{"aud": audience + "/"}, "aud_mismatch"},
		{"nbf that is text", map[string]any{"nbf": "now"}, "claim_type"},
		{"nbf that is null", map[string]any{"nbf": []any{}}, "claim_type"},
		{"a negative time", map[string]any{"iat": -5}, "claim_type"},
		{"exp before iat", map[string]any{"iat": start.Unix() + 30, "exp": start.Unix() + 20}, "lifetime_too_long"},
		{"a custom property", map[string]any{"repo_property_team": "sre"}, "ok"},
		{"a custom property that is a number", map[string]any{"repo_property_team": 5}, "claim_type"},
		{"a claim that nobody knows", map[string]any{"brand_new": map[string]any{"a": 1}}, "ok"},
		{"the issuer's name in capitals beside it", map[string]any{"ISS": "https://evil.example.test"}, "ok|malformed"},
		{"a NUL", map[string]any{"ref": "refs/heads/main\x00"}, "malformed"},
		{"too large", map[string]any{"workflow": long(17 << 10)}, "malformed"},
		{"as large as it gets", map[string]any{"workflow": long(8 << 10)}, "ok"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newRig(t)
			_, err := w.Verify(t.Context(), w.token(test.changes))
			if got := reasonOf(err); !strings.Contains(test.want, got) {
				t.Errorf("%s (%v), want %s", got, err, test.want)
			}
		})
	}
}

func TestRefusalsSayLittle(t *testing.T) {
	w := newRig(t)
	for _, token := range []string{
		"", "a.b.c", w.token(map[string]any{"aud": "https://secret.example.test"}), w.token(map[string]any{"iss": "https://evil.test"}),
		w.signed("key-1", rsaKey("attacker"), nil), w.token(map[string]any{"run_id": ""}),
	} {
		_, err := w.Verify(t.Context(), token)
		var e *access.Error
		if !errors.As(err, &e) || e.Public != "invalid_grant" || e.Code != access.CodeGrant {
			t.Errorf("Verify = %#v, want the bare invalid_grant", err)
		}
		if token != "" && strings.Contains(err.Error(), token) {
			t.Errorf("the error holds the token: %v", err)
		}
	}
}

func TestMaxAge(t *testing.T) {
	w := newRig(t, func(c *federation.VerifierConfig) { c.Issuers[0].MaxAge = 2 * time.Minute })
	w.want(t, w.token(map[string]any{"iat": start.Unix() - 120}), "ok")
	w.want(t, w.token(map[string]any{"iat": start.Unix() - 121}), "too_old")
}

func TestIssuersAreKeptApart(t *testing.T) {
	// Two issuers, one network: the one's key does not sign for the other.
	other := "https://ghes.example.test/_services/token"
	nets := map[string]*network{
		githubURL: {issuer: githubURL, keys: []map[string]any{rsaJWK("key-1", rsaKey("key-1"))}},
		other:     {issuer: other, keys: []map[string]any{rsaJWK("key-1", rsaKey("other"))}},
	}
	w := newRig(t, func(c *federation.VerifierConfig) {
		c.Issuers = append(c.Issuers, federation.Issuer{Name: "ghes", Provider: "github-actions", URL: other})
		c.Transport = byIssuer(nets)
	})
	w.want(t, w.token(nil), "ok")
	w.want(t, w.token(map[string]any{"iss": other}), "bad_signature")
	w.want(t, w.signed("key-1", rsaKey("other"), map[string]any{"iss": other}), "ok")
	w.want(t, w.signed("key-1", rsaKey("other"), nil), "bad_signature")
}

func TestNewVerifierRefuses(t *testing.T) {
	github := federation.Issuer{Name: "github", Provider: "github-actions"}
	with := func(change func(*federation.Issuer)) []federation.Issuer {
		i := github
		change(&i)
		return []federation.Issuer{i}
	}
	for _, test := range []struct {
		name     string
		audience string
		issuers  []federation.Issuer
		want     string
	}{
		{"no audience", "", []federation.Issuer{github}, "public URL"},
		{"the model provider's audience", "https://api.anthropic.com", []federation.Issuer{github}, "another service"},
		{"the same with a slash", "https://api.anthropic.com/", []federation.Issuer{github}, "another service"},
		{"unknown provider", audience, with(func(i *federation.Issuer) { i.Provider = "github" }), "write one of azure-devops"},
		{"no name", audience, with(func(i *federation.Issuer) { i.Name = "" }), "no name"},
		{"no url where there are many", audience, []federation.Issuer{{Name: "x", Provider: "jenkins"}}, "url is missing"},
		{"plain http", audience, with(func(i *federation.Issuer) { i.URL = "http://ghes.example.test/_services/token" }), "plain http"},
		{"http on a private address", audience, with(func(i *federation.Issuer) { i.URL = "http://10.0.0.1" }), "plain http"},
		{"another scheme", audience, with(func(i *federation.Issuer) { i.URL = "ftp://ghes.example.test" }), "no https URL"},
		{"a query", audience, with(func(i *federation.Issuer) { i.URL = "https://ghes.example.test?x=1" }), "is no issuer"},
		{"a fragment", audience, with(func(i *federation.Issuer) { i.URL = "https://ghes.example.test#x" }), "is no issuer"},
		{"a user", audience, with(func(i *federation.Issuer) { i.URL = "https://u@ghes.example.test" }), "is no issuer"},
		{"no host", audience, with(func(i *federation.Issuer) { i.URL = "kubernetes/serviceaccount" }), "is no issuer"},
		{"symmetric algorithm", audience, with(func(i *federation.Issuer) { i.Algorithms = []string{"RS256", "HS256"} }), `"HS256" is refused`},
		{"none", audience, with(func(i *federation.Issuer) { i.Algorithms = []string{"none"} }), "refused"},
		{"shared audience without age", audience, with(func(i *federation.Issuer) { i.SharedAudience = true }), "max_age"},
		{"a negative duration", audience, with(func(i *federation.Issuer) { i.MaxLifetime = -1 }), "negative"},
		{"one url twice", audience, []federation.Issuer{github, {Name: "b", Provider: "github-actions", URL: githubURL}}, "another issuer's"},
		{"one name twice", audience, []federation.Issuer{github, {Name: "github", Provider: "buildkite"}}, "another issuer's"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := federation.NewVerifier(federation.VerifierConfig{Audience: test.audience, Issuers: test.issuers})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("NewVerifier = %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestIssuerCheck(t *testing.T) {
	azure := federation.Issuer{Name: "ado", Provider: "azure-devops", URL: "https://vstoken.dev.azure.com/x"}
	if err := azure.Check(); err == nil || !strings.Contains(err.Error(), "shared_audience: true") {
		t.Errorf("Check of a provider with a fixed audience = %v, want what to write", err)
	}
	azure.SharedAudience, azure.MaxAge = true, 10*time.Minute
	if err := azure.Check(); err != nil {
		t.Errorf("Check: %v", err)
	}
	for _, url := range []string{"http://127.0.0.1:8000", "http://localhost:1/x", "http://[::1]", "https://ghes.example.test/_services/token"} {
		if err := (federation.Issuer{Name: "x", Provider: "github-actions", URL: url}).Check(); err != nil {
			t.Errorf("Check of %s: %v", url, err)
		}
	}
}

func TestJob(t *testing.T) {
	claims := access.Claims{
		"repository": "octo-org/octo-repo", "workflow": "deploy", "ref": "refs/heads/main", "sha": "7f93", "actor": "octocat",
		"event_name": "push", "run_id": "5", "run_attempt": "2",
	}
	with := func(changes access.Claims) access.Claims {
		c := access.Claims{}
		for _, from := range []access.Claims{claims, changes} {
			for name, value := range from {
				c[name] = value
			}
		}
		return c
	}
	const page = "/octo-org/octo-repo/actions/runs/5/attempts/2"
	for _, test := range []struct {
		name, issuer string
		claims       access.Claims
		want         string
	}{
		{"github.com", githubURL, claims, "https://github.com" + page},
		{"an enterprise on github.com", githubURL + "/octocat-inc", claims, "https://github.com" + page},
		{"data residency", "https://token.actions.octocorp.ghe.com", claims, "https://octocorp.ghe.com" + page},
		{"enterprise server", "https://ghes.example.test/_services/token", claims, "https://ghes.example.test" + page},
		{"no server that is known", "http://127.0.0.1:8000", claims, ""},
		{"a name that only begins so", githubURL + ".evil.test", claims, ""},
		{"a repository that is a path", githubURL, with(access.Claims{"repository": "a/b/../../evil"}), ""},
		{"a run that is no number", githubURL, with(access.Claims{"run_id": "5?x"}), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := federation.Job(access.Identity{IssuerURL: test.issuer, Provider: "github-actions", Claims: test.claims})
			if got.URL != test.want {
				t.Errorf("URL = %q, want %q", got.URL, test.want)
			}
			if got.Workflow != "deploy" || got.Ref != "refs/heads/main" || got.Commit != "7f93" || got.Actor != "octocat" || got.Event != "push" {
				t.Errorf("Job = %+v", got)
			}
		})
	}
	gitlab := federation.Job(access.Identity{IssuerURL: "https://gitlab.com", Provider: "gitlab",
		Claims: access.Claims{"project_path": "g/p", "job_project_path": "g/sub/p", "job_id": "302"}})
	if gitlab.URL != "https://gitlab.com/g/sub/p/-/jobs/302" {
		t.Errorf("URL = %q", gitlab.URL)
	}
	if got := federation.Job(access.Identity{Provider: "nobody"}); got != (access.Job{}) {
		t.Errorf("Job of an unknown provider = %+v", got)
	}
}

// FuzzVerify holds that a token is accepted byte for byte or not at all: whatever is changed in one, it is refused. The
// key comes from a fixed seed, so that every fuzzing process accepts the same tokens.
func FuzzVerify(f *testing.F) {
	key := ed25519.NewKeyFromSeed([]byte("a seed of a key for tests, 32 by"))
	w := newRig(f, func(c *federation.VerifierConfig) { c.Issuers[0].Algorithms = []string{"EdDSA"} })
	w.net.keys = []map[string]any{{"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(key.Public().(ed25519.PublicKey))}}
	signed := func(changes map[string]any) string {
		claims := w.githubClaims()
		maps.Copy(claims, changes)
		text, err := json.Marshal(claims)
		if err != nil {
			f.Fatal(err)
		}
		return sign(map[string]any{"alg": "EdDSA", "kid": "ed"}, text, key)
	}
	good := map[string]bool{}
	for _, changes := range []map[string]any{nil, {"aud": []any{audience}}, {"workflow": "\U0001f600 \u00e9"}} {
		token := signed(changes)
		if _, err := w.Verify(f.Context(), token); err != nil {
			f.Fatalf("a good token is refused: %v", err)
		}
		good[token] = true
		f.Add(token)
		for _, how := range []string{"extra_dot", "padding", "trailing_newline", "leading_space", "strip_signature", "json_serialization",
			"five_parts", "std_base64", "truncate_signature", "flip_last_bit"} {
			f.Add(transform(token, how))
		}
	}
	f.Add(signed(map[string]any{"aud": 5}))
	f.Add(sign(map[string]any{"alg": "none"}, []byte("{}"), nil))
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		id, err := w.Verify(t.Context(), token)
		switch {
		case err == nil && !good[token]:
			t.Errorf("accepted %q", token)
		case err != nil && id.Claims != nil:
			t.Error("a refusal comes with an identity")
		case err != nil && reasonOf(err) == err.Error():
			t.Errorf("a refusal without a reason: %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	w := newRig(b)
	token := w.token(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
