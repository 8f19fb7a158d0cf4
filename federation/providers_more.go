package federation

import (
	"net/url"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
)

// circleCI has an issuer for each organization, and one for all. Truth values are booleans.
// https://circleci.com/docs/guides/permissions-authentication/openid-connect-tokens/
func circleCI() *provider {
	const in = "oidc.circleci.com/"
	return &provider{
		name: "circleci", renewable: true, each: "organization, https://oidc.circleci.com/org/ORG-UUID", shared: always,
		claims: texts(in+"job-id "+in+"org-id "+in+"pipeline-definition-id "+in+"pipeline-id "+in+"project-id "+in+"vcs-origin "+
			in+"workflow-id", map[string]claimType{in + "vcs-ref": typeRef, in + "context-ids": typeList, in + "ssh-rerun": typeBoolean}),
		kind: []string{in + "job-id", in + "project-id"}, jobKey: keyParts(in + "job-id"),
		tenants: []string{in + "org-id", in + "project-id"},
		denials: []denial{
			{in + "ssh-rerun", "true: a person has a shell in the job", func(c access.Claims) string {
				if c[in+"ssh-rerun"] == true {
					return "a person has a shell in the job"
				}
				return ""
			}},
			{in + "vcs-ref", "refs/pull/...: it runs for a pull request", func(c access.Claims) string {
				if strings.HasPrefix(c.Text(in+"vcs-ref"), "refs/pull/") {
					return "it runs for a pull request"
				}
				return ""
			}},
		},
		shows: jobClaims{in + "vcs-origin", in + "pipeline-definition-id", in + "vcs-ref", "", "", ""},
	}
}

// buildkite has one issuer for all. The job chooses which of the optional claims its token has, and no claim tells a
// fork's build from the repository's own.
// https://buildkite.com/docs/agent/v3/cli-oidc
func buildkite() *provider {
	return &provider{
		name: "buildkite", renewable: true, url: "https://agent.buildkite.com", shared: always,
		claims: texts(`organization_slug pipeline_slug build_branch build_commit job_id agent_id build_source runner_environment
			organization_id pipeline_id build_id cluster_id cluster_name queue_id queue_key`, map[string]claimType{
			"build_number": typeInteger, "build_tag": typeText | nullable, "step_key": typeText | nullable,
		}),
		prefixes: map[string]claimType{"agent_tag:": typeText},
		kind:     []string{"job_id", "pipeline_slug"}, jobKey: keyParts("job_id"), jti: true,
		tenants: []string{"organization_id", "cluster_id", "queue_id", "pipeline_id"},
		shows:   jobClaims{"pipeline_slug", "step_key", "build_branch", "build_commit", "", "build_source"},
	}
}

// bitbucket has an issuer for each workspace. Its tokens say nothing of what triggered them.
// https://support.atlassian.com/bitbucket-cloud/docs/integrate-pipelines-with-resource-servers-using-oidc/
func bitbucket() *provider {
	return &provider{
		name: "bitbucket", each: "workspace", shared: always,
		claims: texts("accountUuid workspaceUuid repositoryUuid pipelineUuid stepUuid deploymentEnvironmentUuid branchName", nil),
		kind:   []string{"stepUuid", "pipelineUuid"}, jobKey: keyParts("stepUuid"),
		tenants: []string{"workspaceUuid", "repositoryUuid", "deploymentEnvironmentUuid"},
		shows:   jobClaims{"repositoryUuid", "pipelineUuid", "branchName", "", "", ""},
	}
}

// azureDevOps has an issuer for each organization and one fixed audience. Its tokens name the run, no job, and the
// same issuer makes tokens of service connections.
// https://learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken/create
func azureDevOps() *provider {
	return &provider{
		name: "azure-devops", renewable: true, each: "organization, https://vstoken.dev.azure.com/ORG-GUID", shared: always,
		audience: func(string) string { return "api://AzureADTokenExchange" },
		claims:   texts("org_id prj_id def_id rpo_id rpo_uri rpo_ver run_id", map[string]claimType{"rpo_ref": typeRef}),
		subject:  "p://", kind: []string{"run_id", "def_id"}, jobKey: keyParts("run_id"), jti: true,
		tenants: []string{"org_id", "prj_id"},
		denials: []denial{{"rpo_ref", "refs/pull/...: it runs for a pull request", func(c access.Claims) string {
			if strings.HasPrefix(c.Text("rpo_ref"), "refs/pull/") {
				return "it runs for a pull request"
			}
			return ""
		}}},
		shows: jobClaims{"rpo_uri", "def_id", "rpo_ref", "rpo_ver", "", ""},
	}
}

// cloudBuild is Google Cloud Build: tokens of a service account, which name no build. The tenant is the account's
// numeric id; its address can be given to another account.
func cloudBuild() *provider {
	return &provider{
		name: "google-cloud-build", renewable: true, url: "https://accounts.google.com", shared: always,
		claims:  texts("azp email", map[string]claimType{"sub": typeDigits, "email_verified": typeBoolean}),
		tenants: []string{"sub"},
		shows:   jobClaims{"", "", "", "", "email", ""},
	}
}

// terraform is HCP Terraform and Terraform Enterprise. Names can be taken again by others, and hold spaces.
// https://developer.hashicorp.com/terraform/cloud-docs/workspaces/dynamic-provider-credentials/workload-identity-tokens
func terraform() *provider {
	const hcp = "https://app.terraform.io"
	return &provider{
		name: "hcp-terraform", url: hcp, shared: func(issuer string) bool { return issuer == hcp },
		claims: texts(`terraform_organization_id terraform_organization_name terraform_project_id terraform_project_name
			terraform_workspace_id terraform_workspace_name terraform_full_workspace terraform_run_id terraform_run_phase`, nil),
		kind: []string{"terraform_run_id", "terraform_run_phase"}, jobKey: keyParts("terraform_run_id", "terraform_run_phase"),
		jti: true, tenants: []string{"terraform_organization_id", "terraform_project_id", "terraform_workspace_id"},
		denials: []denial{deniedValue("terraform_run_phase", "plan", "a plan may be of a pull request")},
		shows:   jobClaims{"terraform_full_workspace", "terraform_run_phase", "", "", "", ""},
	}
}

// codefresh has one issuer for all. Its tokens have no id, and scm_ref does not tell a branch from a tag.
// https://codefresh.io/steps/step/obtain-oidc-id-token
func codefresh() *provider {
	return &provider{
		name: "codefresh", renewable: true, url: "https://oidc.codefresh.io", shared: always,
		claims: texts(`account_id account_name pipeline_id pipeline_name workflow_id initiator scm_user_name scm_repo_url scm_ref
			scm_pull_request_target_branch runner_environment platform_url`, nil),
		kind: []string{"workflow_id", "pipeline_id"}, jobKey: keyParts("workflow_id"),
		tenants: []string{"account_id", "pipeline_id"},
		denials: []denial{{"scm_pull_request_target_branch", "any value: it runs for a pull request", func(c access.Claims) string {
			if _, there := c["scm_pull_request_target_branch"]; there {
				return "it runs for a pull request"
			}
			return ""
		}}},
		shows: jobClaims{"scm_repo_url", "pipeline_name", "scm_ref", "", "scm_user_name", ""},
	}
}

// spacelift has an issuer for each account, whose host is the fixed audience. An account's name and slugs are names.
// https://docs.spacelift.io/integrations/cloud-providers/oidc
func spacelift() *provider {
	return &provider{
		name: "spacelift", each: "account, https://ACCOUNT.app.spacelift.io",
		audience: hostOf,
		claims:   texts("spaceId callerType callerId runType runId scope spacePath", nil),
		kind:     []string{"runId", "runType"}, jobKey: keyParts("runId"), jti: true,
		denials: []denial{deniedValue("runType", "PROPOSED", "a proposed run may be of a pull request")},
		shows:   jobClaims{"callerId", "runType", "", "", "", ""},
	}
}

func hostOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	return u.Host
}

// harness has an issuer for each account, and one for all accounts of an installation. What does not apply is null.
func harness() *provider {
	maybe := typeText | nullable
	return &provider{
		name: "harness", renewable: true, each: "account", shared: always,
		claims: texts("account_id organization_id project_id pipeline_id context", map[string]claimType{
			"service_id": maybe, "environment_id": maybe, "connector_id": maybe, "stage_id": maybe, "step_id": maybe,
		}),
		kind: []string{"pipeline_id", "context"},
		// A pipeline's id is chosen by people and comes again in other projects: all of them name the run.
		jobKey:  keyParts("account_id", "organization_id", "project_id", "pipeline_id", "context"),
		tenants: []string{"account_id"},
		denials: []denial{{"context", "one that holds triggerEvent:PR: it runs for a pull request", func(c access.Claims) string {
			if strings.Contains(c.Text("context"), "triggerEvent:PR") {
				return "it runs for a pull request"
			}
			return ""
		}}},
		shows: jobClaims{"project_id", "pipeline_id", "", "", "", "context"},
	}
}

// jenkins is the OpenID Connect Provider plugin. Administrators add claims of their own; there are no immutable ids.
// https://plugins.jenkins.io/oidc-provider/
func jenkins() *provider {
	return &provider{
		name: "jenkins", renewable: true, each: "controller, https://HOST/oidc", open: true,
		claims: texts("", map[string]claimType{"build_number": typeInteger}),
		kind:   []string{"build_number", "sub"}, jobKey: keyParts("sub", "build_number"),
		denials: []denial{{"sub", "one that holds /job/PR-: it runs for a pull request", func(c access.Claims) string {
			if strings.Contains(c.Text("sub"), "/job/PR-") {
				return "it runs for a pull request"
			}
			return ""
		}}},
		shows: jobClaims{"sub", "", "", "", "", ""},
	}
}

// kubernetes is a cluster's projected service-account token, for runners that get a pod for every job.
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
func kubernetes() *provider {
	return &provider{
		name: "kubernetes", renewable: true, each: "cluster",
		claims:  texts("", map[string]claimType{"kubernetes.io": typeObject}),
		kind:    []string{"kubernetes.io"},
		subject: "system:serviceaccount:",
		jobKey:  []keyPart{{path: []string{"kubernetes.io", "pod", "uid"}}},
		jti:     true,
		shows:   jobClaims{"", "", "", "", "sub", ""},
	}
}

// semaphore has an issuer for each organization, whose URL is the fixed audience. In a pull request's job, branch is
// the target's; sub127 is lossy and no claim here.
// https://github.com/semaphoreio/semaphore/blob/main/docs/docs/reference/openid.md
func semaphore() *provider {
	return &provider{
		name: "semaphore", each: "organization, https://ORG.semaphoreci.com", shared: always,
		audience: func(issuer string) string { return issuer },
		claims: texts(`org org_id prj prj_id wf_id ppl_id job_id repo repo_slug actor tag ref ref_type branch pr pr_branch job_type
			trg`, nil),
		kind: []string{"job_id", "org_id"}, jobKey: keyParts("job_id"), jti: true,
		tenants: []string{"org_id", "prj_id"},
		denials: []denial{
			deniedValue("ref_type", "pull-request", "it runs for a pull request"),
			deniedValue("job_type", "debug_job", "a person has a shell in the job"),
			deniedValue("job_type", "project_debug_job", "a person has a shell in the job"),
		},
		shows: jobClaims{"repo_slug", "prj", "ref", "", "actor", "job_type"},
	}
}
