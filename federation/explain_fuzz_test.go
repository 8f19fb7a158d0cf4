package federation_test

import (
	"encoding/json"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// FuzzExplainClaims holds that whatever claims say, an explanation can be shown, a change that is named serves the job
// and widens no owner that the mapping did not name, and a suggestion is a mapping that serves the job.
func FuzzExplainClaims(f *testing.F) {
	const served = `{"repository_owner_id":"123456","repository_id":"456789","repository":"octo/tools","ref":"refs/heads/main","event_name":"push","run_id":"1","run_attempt":"1","check_run_id":"2","runner_environment":"github-hosted"}`
	f.Add([]byte(served))
	for _, change := range [][2]string{
		{"refs/heads/main", `refs/heads/n\u001b[2J\ne: x`}, {`"push"`, `"issue_comment"`}, {`"123456"`, `"7"`}, {`"456789"`, `"7"`},
		{`"456789"`, `456789`}, {`"check_run_id":"2",`, ``}, {"octo/tools", "- &a [*a]"}, {"refs/heads/main", "refs/heads/yes: #x"}, {`"push"`, `"null"`},
	} {
		f.Add([]byte(strings.Replace(served, change[0], change[1], 1)))
	}
	f.Add([]byte(`{"repository":"o/r","event_name":"0","run_id":"1","run_attempt":"1"}`))    // no owner to pin
	f.Add([]byte(`{"repository":"o/r","repository_id":"0","run_id":"1","run_attempt":"1"}`)) // an event that cannot be named
	w := newRig(f)
	m := mapping(f, nil)
	x := explainer(f, w, m)
	f.Fuzz(func(t *testing.T, claims []byte) {
		got, err := x.Explain(t.Context(), api.ExplainRequest{Claims: claims, Issuer: "github"})
		if err != nil {
			if access.CodeOf(err) != access.CodeInvalid {
				t.Errorf("%q: %v", claims, err)
			}
			return
		}
		id := access.Identity{Issuer: "github", IssuerURL: githubURL, Provider: "github-actions", Claims: got.Claims, IssuedAt: start}
		for _, one := range got.Mappings {
			for _, c := range one.Conditions {
				showable(t, c.Got)
			}
			if one.Change != nil {
				showable(t, one.Change.YAML)
				changed := spec(t, nil)
				if err := yaml.Unmarshal([]byte(one.Change.YAML), &changed); err != nil {
					t.Fatalf("%q: %v", one.Change.YAML, err)
				}
				mended, err := federation.NewMapping(changed, deployment())
				if err != nil || mended.Match(id, start) != nil {
					t.Errorf("%q: %v, %v", one.Change.YAML, err, mended)
				}
				if len(changed.Match["repository_owner_id"]) != 1 {
					t.Errorf("the owner is widened: %s", one.Change.YAML)
				}
			}
		}
		if got.Suggestion != "" {
			showable(t, got.Suggestion)
			servesAsWritten(t, got.Suggestion, id)
		}
		if _, err := json.Marshal(got); err != nil {
			t.Error(err)
		}
	})
}

// showable holds that a text moves no cursor.
func showable(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && (r < 0x20 || r > 0x7e) {
			t.Fatalf("%q has the character %q", text, r)
		}
	}
}
