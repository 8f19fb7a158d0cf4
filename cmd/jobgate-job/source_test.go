package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const audience = "https://jobgate.example.com"

// token makes a token's form; nothing here verifies one.
func token(t *testing.T, claims map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part(raw) + "." + part([]byte("signature"))
}

// sourceOf returns the source of an environment.
func sourceOf(t *testing.T, o options, vars ...string) (*source, error) {
	t.Helper()
	o.env.Vars, o.url = vars, audience
	if o.provider == "" {
		o.provider = "auto"
	}
	return newSource(&o)
}

// TestMints has the endpoints of the providers that have one, each checking what it must be asked.
func TestMints(t *testing.T) {
	want := token(t, map[string]any{"aud": audience})
	for _, c := range []struct {
		provider         string
		sign, url, token string
		query            string // of the variable
		method           string
		authorization    string
		asks             string // the query that arrives
		answer           string
	}{
		{"github-actions", "GITHUB_ACTIONS=true", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "?api-version=2.0", "GET", "bearer secret", "api-version=2.0&audience=https%3A%2F%2Fjobgate.example.com", `{"count":1,"value":"` + want + `"}`},
		{"forgejo", "FORGEJO_ACTIONS=true", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "?x=1", "GET", "bearer secret", "audience=https%3A%2F%2Fjobgate.example.com&x=1", `{"value":"` + want + `"}`},
		{"azure-devops", "TF_BUILD=True", "SYSTEM_OIDCREQUESTURI", "SYSTEM_ACCESSTOKEN", "", "POST", "Bearer secret", "api-version=7.1", `{"oidcToken":"` + want + `"}`},
		{"codefresh", "CF_BUILD_ID=1", "CF_OIDC_REQUEST_URL", "CF_OIDC_REQUEST_TOKEN", "", "GET", "secret", "audience=https%3A%2F%2Fjobgate.example.com", `{"id_token":"` + want + `"}`},
	} {
		t.Run(c.provider, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != c.method || r.Header.Get("Authorization") != c.authorization || r.URL.RawQuery != c.asks {
					t.Errorf("asked %s ?%s with %q; want %s ?%s with %q", r.Method, r.URL.RawQuery, r.Header.Get("Authorization"), c.method, c.asks, c.authorization)
				}
				fmt.Fprint(w, c.answer)
			}))
			defer srv.Close()
			s, err := sourceOf(t, options{}, c.sign, c.url+"="+srv.URL+"/token"+c.query, c.token+"=secret")
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.token(t.Context())
			if err != nil || got.Reveal() != want {
				t.Errorf("token = %v", err)
			}
			if s.provider.name != c.provider || s.provider.fresh != fresh {
				t.Errorf("provider %s, fresh %v; want %s with fresh tokens", s.provider.name, s.provider.fresh, c.provider)
			}
		})
	}
}

func TestMintFailures(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		answer  string
		passing bool
		says    string
	}{
		{"forbidden", 403, `{"value":"a.b.c"}`, false, "id-token: write"},
		{"away", 503, "", true, "503"},
		{"no JSON", 200, "<html>", false, "no JSON"},
		{"no token", 200, `{"value":7}`, false, "no OIDC token"},
		{"redirect", 302, "", false, "302"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.answer)
			}))
			defer srv.Close()
			s, err := sourceOf(t, options{}, "GITHUB_ACTIONS=true", "ACTIONS_ID_TOKEN_REQUEST_URL="+srv.URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN=very-secret")
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.token(t.Context())
			away, isAway := err.(*unreachable)
			if err == nil || !strings.Contains(err.Error(), c.says) || isAway && away.passing != c.passing || strings.Contains(err.Error(), "very-secret") {
				t.Errorf("token = %v, want %q", err, c.says)
			}
		})
	}
}

// TestCommands has the providers whose agents give tokens to a command.
func TestCommands(t *testing.T) {
	want := token(t, map[string]any{"aud": audience})
	for name, c := range map[string]struct{ sign, program, args string }{
		"buildkite": {"BUILDKITE=true", "buildkite-agent", "oidc request-token --audience " + audience + " --claim organization_id,pipeline_id,build_id"},
		"circleci":  {"CIRCLECI=true", "circleci", `run oidc get --claims {"aud":"` + audience + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			script := "#!/bin/sh\n[ \"$*\" = '" + c.args + "' ] || { echo \"wrong: $*\" >&2; exit 1; }\n[ \"$AGENT\" = here ] && echo " + want + "\n"
			if err := os.WriteFile(filepath.Join(dir, c.program), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			s, err := sourceOf(t, options{}, c.sign, "PATH=:"+dir, "AGENT=here")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.token(t.Context()); err != nil || got.Reveal() != want {
				t.Errorf("token = %v", err)
			}
			s.audience = "https://other.example.com"
			if _, err := s.token(t.Context()); err == nil || !strings.Contains(err.Error(), "wrong: ") {
				t.Errorf("a failing command is no error that shows why: %v", err)
			}
		})
	}
}

// TestVariables has the providers that put one token into the job's environment.
func TestVariables(t *testing.T) {
	want := token(t, map[string]any{"aud": audience})
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		o        options
		vars     []string
		provider string
		fresh    freshness
	}{
		{"gitlab", options{}, []string{"GITLAB_CI=true", "JOBGATE_ID_TOKEN=" + want}, "gitlab", once},
		{"gitlab, named", options{tokenEnv: "MINE"}, []string{"GITLAB_CI=true", "MINE=" + want}, "gitlab", once},
		{"bitbucket", options{}, []string{"BITBUCKET_BUILD_NUMBER=7", "BITBUCKET_STEP_OIDC_TOKEN=" + want}, "bitbucket", once},
		{"circleci without its command", options{}, []string{"CIRCLECI=true", "CIRCLE_OIDC_TOKEN_V2=" + want}, "circleci", once},
		{"hcp-terraform", options{}, []string{"TFC_WORKLOAD_IDENTITY_TOKEN=" + want}, "hcp-terraform", once},
		{"spacelift", options{}, []string{"SPACELIFT_OIDC_TOKEN=" + want}, "spacelift", once},
		{"semaphore", options{}, []string{"SEMAPHORE=true", "SEMAPHORE_OIDC_TOKEN=" + want}, "semaphore", once},
		{"kubernetes", options{provider: "kubernetes", tokenFile: file}, nil, "kubernetes", rotates},
		{"a file", options{tokenFile: file}, nil, "generic", rotates},
		{"a variable", options{tokenEnv: "MINE"}, []string{"MINE=" + want}, "generic", once},
		{"one provider inside another", options{}, []string{"BUILDKITE=true", "GITLAB_CI=true", "JOBGATE_ID_TOKEN=" + want}, "gitlab", once},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := sourceOf(t, c.o, c.vars...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.token(t.Context())
			if err != nil || got.Reveal() != want || s.provider.name != c.provider || s.provider.fresh != c.fresh {
				t.Errorf("token: %v; provider %s, freshness %d; want %s, %d", err, s.provider.name, s.provider.fresh, c.provider, c.fresh)
			}
		})
	}
}

func TestNoToken(t *testing.T) {
	for name, c := range map[string]struct {
		o    options
		vars []string
		says string
	}{
		"nothing known":      {options{}, nil, "--provider"},
		"gitlab without":     {options{}, []string{"GITLAB_CI=true"}, "id_tokens"},
		"github without":     {options{}, []string{"GITHUB_ACTIONS=true"}, "id-token: write"},
		"azure without":      {options{}, []string{"TF_BUILD=True"}, "System.AccessToken"},
		"no JWT":             {options{tokenEnv: "MINE"}, []string{"MINE=two words"}, "no OIDC token"},
		"too long":           {options{tokenEnv: "MINE"}, []string{"MINE=a.b." + strings.Repeat("c", maxToken)}, "no OIDC token"},
		"a folder":           {options{tokenFile: "/"}, nil, "plain file"},
		"a device":           {options{tokenFile: "/dev/zero"}, nil, "plain file"},
		"a file that is not": {options{tokenFile: "/nonexistent"}, nil, "/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := sourceOf(t, c.o, c.vars...)
			if err == nil {
				_, err = s.token(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "two words") {
				t.Errorf("got %v, want %q and no value", err, c.says)
			}
		})
	}
}

// TestProviderTable holds what the table must not lose.
func TestProviderTable(t *testing.T) {
	for _, p := range providers() {
		var taken []string
		taken = append(taken, p.from.vars...)
		if m := p.from.http; m != nil && m.token != "" {
			taken = append(taken, m.token)
		}
		for _, name := range taken {
			if p.name != "generic" && !slices.Contains(p.hide, name) {
				t.Errorf("%s takes its token by %s, and does not hide it from a command", p.name, name)
			}
		}
		if p.help == "" {
			t.Errorf("%s has no help", p.name)
		}
	}
}
