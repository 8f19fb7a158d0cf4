package federation

import (
	"strings"

	"github.com/jobgate/jobgate/internal/access"
)

const gitlabIssuer = "https://gitlab.com"

// gitlab is GitLab CI's id_tokens, of gitlab.com and of self-managed instances. Ids and truth values are strings,
// runner_id is the one integer, and what a pipeline without a user or a definition has not is null.
// https://docs.gitlab.com/ci/secrets/id_token_authentication/
func gitlab() *provider {
	maybe := typeText | nullable
	return &provider{
		name: "gitlab", each: "instance", url: gitlabIssuer,
		shared: func(issuer string) bool { return issuer == gitlabIssuer },
		claims: texts(`pipeline_source ref ref_type ref_protected environment environment_protected deployment_tier
			environment_action runner_environment project_visibility job_source target_audience`, map[string]claimType{
			"namespace_path": typeASCII, "project_path": typeASCII, "job_namespace_path": typeASCII, "job_project_path": typeASCII,
			"sha":          typeCommit,
			"namespace_id": typeDigits, "project_id": typeDigits, "job_namespace_id": typeDigits, "job_project_id": typeDigits,
			"pipeline_id": typeDigits, "job_id": typeDigits, "ref_path": typeRef,
			"user_id": typeDigits | nullable, "user_login": maybe, "user_email": maybe, "user_access_level": maybe,
			"ci_config_ref_uri": maybe, "ci_config_sha": maybe, "runner_id": typeInteger,
			"groups_direct": typeList, "user_identities": typeObject, "job_config": typeObject | nullable,
		}),
		kind: []string{"job_id", "pipeline_id", "project_id"}, jobKey: keyParts("job_id"), jti: true,
		tenants: []string{"namespace_id", "project_id", "job_namespace_id", "job_project_id"},
		denials: []denial{
			onlyEvents("pipeline_source", "push", "web", "schedule", "api"),
			// In a merge request's pipeline from a fork, project_id is the fork and job_project_id where the job runs.
			{"project_id", "a pipeline of another project than job_project_id, where the job runs: a fork's merge request", func(c access.Claims) string {
				if runs := c.Text("job_project_id"); runs != "" && runs != c.Text("project_id") {
					return "the pipeline is of project " + shown(c.Text("project_id")) + ", a fork of where the job runs"
				}
				return ""
			}},
		},
		shows: jobClaims{"project_path", "ci_config_ref_uri", "ref_path", "sha", "user_login", "pipeline_source"},
		run: func(issuer string, c access.Claims) string {
			project, job := c.Text("job_project_path"), c.Text("job_id")
			if project == "" {
				project = c.Text("project_path")
			}
			if !gitlabPath(project) || !onlyDigits.MatchString(job) {
				return ""
			}
			return issuer + "/" + project + "/-/jobs/" + job
		},
	}
}

// gitlabPath reports whether a project's path can stand in a URL as it is.
func gitlabPath(path string) bool {
	ordinary := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/", r)
	}
	return strings.Contains(path, "/") && strings.Trim(path, "/") == path && !strings.Contains(path, "//") &&
		!strings.Contains(path, "..") && strings.IndexFunc(path, func(r rune) bool { return !ordinary(r) }) < 0
}
