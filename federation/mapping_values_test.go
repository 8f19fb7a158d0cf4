package federation_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/api"
)

// TestValuesThatNoClaimHas holds what is refused at loading because no token would ever have it, or only one of another
// name that looks the same.
func TestValuesThatNoClaimHas(t *testing.T) {
	const commit = "7f93a73b8273af5d35fcd70661704c1cadc57054"
	const workflow = "octo-org/automation/.github/workflows/agent.yml@"
	for _, test := range []struct {
		issuer, claim, value string
		want                 string // "" where it is taken
	}{
		{"github", "repository", "octo-org/octo-repo", ""},
		{"github", "repository", "octo-org/оcto-repo", `"octo-org/\u043ecto-repo" has a character that such names never have`}, // a Cyrillic o
		{"github", "repository_owner", "octo\u2011org", "never have"},
		{"github", "actor", "dependabot[bot]", ""},
		{"gitlab", "project_path", "gruppe/größe", "never have"},
		{"github", "environment", "größe", ""}, // people choose these
		{"github", "workflow", "Größe prüfen", ""},
		{"github", "job_workflow_ref", workflow + commit, ""},
		{"github", "job_workflow_ref", workflow + "refs/heads/main", ""},
		{"github", "job_workflow_ref", workflow + "refs/tags/v1@2", ""},
		{"github", "job_workflow_ref", workflow + "main", "names no workflow as tokens do"},
		{"github", "job_workflow_ref", workflow + commit[:12], "names no workflow"},
		{"github", "job_workflow_ref", strings.TrimSuffix(workflow, "@"), "names no workflow"},
		{"github", "workflow_ref", ".github/workflows/agent.yml", "names no workflow"},
		{"github", "job_workflow_sha", commit, ""},
		{"github", "job_workflow_sha", "v1", "is no commit"},
		{"github", "sha", strings.ToUpper(commit), "is no commit"},
		{"gitlab", "sha", commit[:8], "is no commit"},
		{"github", "head_ref", "", ""},
	} {
		t.Run(test.claim+" "+test.value, func(t *testing.T) {
			pin := map[string]string{"github": "repository_id", "gitlab": "project_id"}[test.issuer]
			_, err := federation.NewMapping(api.Mapping{
				Name: "m", Issuer: test.issuer, Grants: []api.Grant{{Connection: "deploys"}},
				Match: map[string]api.Values{pin: {"456789"}, test.claim: {test.value}},
			}, deployment())
			var field *api.FieldError
			switch {
			case test.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.want != "" && (!errors.As(err, &field) || field.Path != "match."+test.claim || !strings.Contains(err.Error(), test.want)):
				t.Errorf("NewMapping = %v, want %q of match.%s", err, test.want, test.claim)
			}
		})
	}
}
