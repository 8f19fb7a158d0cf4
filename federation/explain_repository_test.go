package federation_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
)

func TestSuggestForRepository(t *testing.T) {
	const whole = `{"id":456789,"full_name":"octo/tools","default_branch":"main","owner":{"login":"octo","id":123456}}`
	for _, test := range []struct {
		name, repo, token string
		status            int
		body              string
		want              string // in the YAML, or in the error where it begins with "!"
	}{
		{"a public one", "octo/tools", "", 200, whole, "name: tools\nissuer: github\nmatch:\n  event_name: [push, workflow_dispatch]\n  ref: refs/heads/main\n  repository_id: \"456789\"\n  repository_owner_id: \"123456\"\ngrants:"},
		{"a private one", "octo/tools", "ghp_secret", 200, whole, "repository_id: \"456789\""},
		{"in other letters", "OCTO/Tools", "", 200, whole, "repository_id: \"456789\""},
		{"one that is not there", "octo/tools", "ghp_secret", 404, `{"message":"Not Found"}`, "!a private one needs a token"},
		{"no permission", "octo/tools", "ghp_secret", 401, `{"message":"ghp_secret is bad"}`, "!the API answers 401"},
		{"renamed", "octo/tools", "", 301, ``, "!renamed or moved"},
		{"another's answer", "octo/tools", "", 200, strings.Replace(whole, "octo/tools", "mallory/tools", 1), "!answers with repository 'mallory/tools'"},
		{"no ids", "octo/tools", "", 200, `{"full_name":"octo/tools"}`, "!no ids"},
		{"a hostile branch", "octo/tools", "", 200, strings.Replace(whole, `"main"`, `"\u001b[2J\nname: x"`, 1), "# WARNING: the ref 'refs/heads/?[2J?name: x' is not pinned"},
		{"no name", "tools", "", 200, whole, "!write owner/name"},
		{"a path", "../tools", "", 200, whole, "!write owner/name"},
		{"more than a name", "octo/tools/x", "", 200, whole, "!write owner/name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.EqualFold(r.URL.Path, "/api/v3/repos/octo/tools") {
					t.Errorf("asked for %s", r.URL.Path)
				}
				want := ""
				if test.token != "" {
					want = "Bearer " + test.token
				}
				if got := r.Header.Get("Authorization"); got != want {
					t.Errorf("authorization %q, want %q", got, want)
				}
				w.Header().Set("Content-Type", "application/json")
				if test.status == 301 {
					w.Header().Set("Location", "/api/v3/repositories/456789")
				}
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			}))
			defer srv.Close()
			q := federation.RepositoryQuestion{Issuer: federation.Issuer{Name: "github", Provider: "github-actions"}, API: srv.URL + "/api/v3", Name: test.repo}
			if test.token != "" {
				q.Token = access.NewSecret(test.token)
			}
			s, err := federation.SuggestForRepository(t.Context(), q, nil)
			if wanted, refused := strings.CutPrefix(test.want, "!"); refused {
				if err == nil || !strings.Contains(err.Error(), wanted) || strings.Contains(err.Error(), "ghp_") {
					t.Errorf("got %v, want an error of %q", err, wanted)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			text, err := s.YAML()
			if err != nil || !strings.Contains(text, test.want) {
				t.Errorf("got %s, %v; want in it %s", text, err, test.want)
			}
			if strings.ContainsRune(text, 0x1b) {
				t.Errorf("the suggestion has an escape: %q", text)
			}
		})
	}
	if _, err := federation.SuggestForRepository(t.Context(), federation.RepositoryQuestion{Issuer: federation.Issuer{Name: "gitlab", Provider: "gitlab"}, Name: "a/b"}, nil); err == nil {
		t.Error("a repository of GitLab was looked up")
	}
}
