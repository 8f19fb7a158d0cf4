package federation

import "time"

// What the lints know of providers beside their rows. A test holds the claims against the rows.

// idOf names, for claims that are names, the claim with the immutable id of the same thing. A name can be given up, and
// taken by somebody else; a workflow's reference begins with one.
func idOf(provider string) map[string]string {
	switch provider {
	case "github-actions":
		return map[string]string{
			"repository": "repository_id", "repository_owner": "repository_owner_id", "actor": "actor_id", "enterprise": "enterprise_id",
			"workflow_ref": "repository_id", "sub": "repository_id",
		}
	case "gitlab":
		return map[string]string{
			"namespace_path": "namespace_id", "project_path": "project_id", "job_namespace_path": "job_namespace_id",
			"job_project_path": "job_project_id", "user_login": "user_id", "user_email": "user_id", "ci_config_ref_uri": "project_id", "sub": "project_id",
		}
	case "buildkite":
		return map[string]string{
			"organization_slug": "organization_id", "pipeline_slug": "pipeline_id", "cluster_name": "cluster_id", "queue_key": "queue_id", "sub": "pipeline_id",
		}
	case "circleci":
		return map[string]string{"oidc.circleci.com/vcs-origin": "oidc.circleci.com/project-id", "sub": "oidc.circleci.com/project-id"}
	case "azure-devops":
		return map[string]string{"rpo_uri": "rpo_id", "sub": "def_id"}
	case "google-cloud-build":
		return map[string]string{"email": "sub"}
	case "hcp-terraform":
		return map[string]string{
			"terraform_organization_name": "terraform_organization_id", "terraform_project_name": "terraform_project_id",
			"terraform_workspace_name": "terraform_workspace_id", "terraform_full_workspace": "terraform_workspace_id", "sub": "terraform_workspace_id",
		}
	case "codefresh":
		return map[string]string{"account_name": "account_id", "pipeline_name": "pipeline_id", "sub": "pipeline_id"}
	case "semaphore":
		return map[string]string{"org": "org_id", "prj": "prj_id", "repo": "prj_id", "repo_slug": "prj_id", "sub": "prj_id"}
	}
	return nil
}

// jobLimit is how long a provider lets a job run.
type jobLimit struct {
	longest time.Duration // of any job; zero where there is none that is known
	// hosted is that of a job on the provider's own machines, and self the value of runner_environment for others.
	hosted time.Duration
	self   string
}

// jobLimitOf returns the limits of a provider's jobs, zero where none is known or an administrator sets them.
// https://docs.github.com/en/actions/reference/limits, https://docs.gitlab.com/ci/runners/hosted_runners/,
// https://circleci.com/pricing, https://cloud.google.com/build/docs/build-config-file-schema#timeout
func jobLimitOf(provider, issuerURL string) jobLimit {
	switch {
	case provider == "github-actions" && githubServer(issuerURL) == "https://github.com":
		return jobLimit{longest: 5 * 24 * time.Hour, hosted: 6 * time.Hour, self: "self-hosted"}
	case provider == "github-actions":
		return jobLimit{longest: 5 * 24 * time.Hour}
	case provider == "gitlab" && issuerURL == gitlabIssuer:
		return jobLimit{hosted: 3 * time.Hour, self: "self-hosted"}
	case provider == "circleci":
		return jobLimit{longest: 5 * time.Hour}
	case provider == "google-cloud-build", provider == "semaphore":
		return jobLimit{longest: 24 * time.Hour}
	}
	return jobLimit{}
}

// environmentClaims say which ref or trigger a job with an environment must have, of which one beside it is enough: a
// workflow of any branch can name an environment, unless the provider was told to protect it.
var environmentClaims = []string{"ref", "ref_path", "event_name", "pipeline_source", "ref_protected", "environment_protected"}

// forksApart reports whether a provider's tokens leave a fork's job untold, and which claims name what can be kept for
// jobs of the repository's own: agents, or an environment that is restricted to branches.
func forksApart(provider string) (instead []string, untold bool) {
	switch provider {
	case "buildkite":
		return []string{"cluster_id", "queue_id"}, true
	case "bitbucket":
		return []string{"deploymentEnvironmentUuid"}, true
	}
	return nil, false
}

// featurePaths are paths of kind anthropic that a feature must be granted for, too.
func featurePaths() map[string]string {
	return map[string]string{
		"/v1/messages/batches": "batches", "/v1/files": "files", "/v1/skills": "skills", "/v1/agents": "managed_agents", "/v1/sessions": "managed_agents",
		"/v1/environments": "managed_agents", "/v1/vaults": "managed_agents", "/v1/memory_stores": "managed_agents",
	}
}
