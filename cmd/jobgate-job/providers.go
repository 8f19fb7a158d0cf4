package main

import (
	"slices"
	"strings"
)

// freshness says how often a job can get a token that Jobgate has not seen yet: each is a sign of life.
type freshness int

const (
	once    freshness = iota // one token a job
	rotates                  // a file that is written anew now and then
	fresh                    // as many as the job asks for
)

// provider is one row of the table: how a job of one CI provider gets its OIDC token.
type provider struct {
	name string
	// signs are variables, NAME or NAME=value, one of which tells that this is such a job. None: it must be named.
	signs []string
	from  recipe
	fresh freshness
	// hide are the variables that hold a CI token, or lead to one: exec takes them away from its command.
	hide []string
	// temp is the variable that names the job's own folder for temporary files.
	temp string
	// worker is the process (proc(5), comm) above the job's steps that ends with the job.
	worker string
	// help says what gives the job a token.
	help string
}

// recipe says where a token comes from: the first of these ways that the job has.
type recipe struct {
	http    *mint
	command []string // {audience} and {audience-json} stand for the audience
	vars    []string
	file    string
}

// mint is an endpoint that makes tokens for a running job.
type mint struct {
	method       string
	url, token   string // variables; or url itself, where it has a slash
	scheme       string // before the token in Authorization
	header       [2]string
	audience     string // query parameter; "" where the audience is fixed
	query, field string // a further query, and the answer's field; without a field the answer is the token
}

// providers is the table. It is looked through from the top, so that a runner which also sets the signs of the one that
// it imitates comes first.
func providers() []provider {
	actions := recipe{http: &mint{method: "GET", url: "ACTIONS_ID_TOKEN_REQUEST_URL", token: "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
		scheme: "bearer ", audience: "audience", field: "value"}}
	actionsMint := []string{"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
	return []provider{
		{ // https://forgejo.org/docs/next/user/actions/security-openid-connect/
			name: "forgejo", signs: []string{"FORGEJO_ACTIONS=true", "GITEA_ACTIONS=true"}, from: actions, fresh: fresh,
			hide: actionsMint, temp: "RUNNER_TEMP",
			help: "set enable-openid-connect: true on the job (Forgejo 15 and runner 12.5, or later)",
		},
		{ // https://docs.github.com/actions/reference/security/oidc
			name: "github-actions", signs: []string{"GITHUB_ACTIONS=true", "ACTIONS_ID_TOKEN_REQUEST_URL"}, from: actions, fresh: fresh,
			hide: append(slices.Clone(actionsMint), "ACTIONS_RUNTIME_TOKEN"), temp: "RUNNER_TEMP", worker: "Runner.Worker",
			help: "add to the job \"permissions: id-token: write\" and what else it needs, such as \"contents: read\"; a pull request from a fork never gets it",
		},
		{ // https://docs.gitlab.com/ci/secrets/id_token_authentication/
			name: "gitlab", signs: []string{"GITLAB_CI"}, from: recipe{vars: []string{gitlabToken}}, fresh: once,
			hide: []string{gitlabToken, "CI_JOB_JWT", "CI_JOB_JWT_V1", "CI_JOB_JWT_V2"},
			help: "add to the job \"id_tokens: {" + gitlabToken + ": {aud: URL}}\" with the url of Jobgate, or name the variable that it has with --token-env",
		},
		{ // https://buildkite.com/docs/agent/v3/cli-oidc
			name: "buildkite", signs: []string{"BUILDKITE=true"}, fresh: fresh,
			from: recipe{command: []string{"buildkite-agent", "oidc", "request-token", "--audience", "{audience}", "--claim", "organization_id,pipeline_id,build_id"}},
			hide: []string{"BUILDKITE_AGENT_ACCESS_TOKEN", "BUILDKITE_AGENT_JOB_API_SOCKET", "BUILDKITE_AGENT_JOB_API_TOKEN", "BUILDKITE_OIDC_TOKEN"}, worker: "buildkite-agent",
			help: "buildkite-agent must be in PATH, in the job's container too",
		},
		{ // https://circleci.com/docs/guides/permissions-authentication/oidc-tokens-with-custom-claims/
			name: "circleci", signs: []string{"CIRCLECI=true"}, fresh: fresh,
			from: recipe{command: []string{"circleci", "run", "oidc", "get", "--claims", `{"aud":{audience-json}}`}, vars: []string{"CIRCLE_OIDC_TOKEN_V2", "CIRCLE_OIDC_TOKEN"}},
			hide: []string{"CIRCLE_OIDC_TOKEN", "CIRCLE_OIDC_TOKEN_V2"},
			help: "the circleci command must be in PATH: only its tokens can be for Jobgate alone",
		},
		{ // https://support.atlassian.com/bitbucket-cloud/docs/integrate-pipelines-with-resource-servers-using-oidc/
			name: "bitbucket", signs: []string{"BITBUCKET_BUILD_NUMBER"}, from: recipe{vars: []string{"BITBUCKET_STEP_OIDC_TOKEN"}}, fresh: once,
			hide: []string{"BITBUCKET_STEP_OIDC_TOKEN"},
			help: "add to the step \"oidc: {audiences: [URL]}\" with the url of Jobgate",
		},
		{ // https://learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken/create
			name: "azure-devops", signs: []string{"TF_BUILD=True"}, fresh: fresh,
			from: recipe{http: &mint{method: "POST", url: "SYSTEM_OIDCREQUESTURI", token: "SYSTEM_ACCESSTOKEN", scheme: "Bearer ",
				query: "api-version=7.1", field: "oidcToken"}},
			hide: []string{"SYSTEM_OIDCREQUESTURI", "SYSTEM_ACCESSTOKEN"}, temp: "AGENT_TEMPDIRECTORY", worker: "Agent.Worker",
			help: "give the step \"env: {SYSTEM_ACCESSTOKEN: $(System.AccessToken)}\"",
		},
		{ // https://developer.hashicorp.com/terraform/cloud-docs/workspaces/dynamic-provider-credentials/workload-identity-tokens
			name: "hcp-terraform", signs: []string{"TFC_WORKLOAD_IDENTITY_TOKEN", "TFC_RUN_ID"}, from: recipe{vars: []string{"TFC_WORKLOAD_IDENTITY_TOKEN"}}, fresh: once,
			hide: []string{"TFC_WORKLOAD_IDENTITY_TOKEN"},
			help: "set TFC_WORKLOAD_IDENTITY_AUDIENCE of the workspace to the url of Jobgate",
		},
		{ // https://codefresh.io/docs/docs/integrations/oidc-pipelines/
			name: "codefresh", signs: []string{"CF_BUILD_ID", "CF_OIDC_REQUEST_URL"}, fresh: fresh,
			from: recipe{http: &mint{method: "GET", url: "CF_OIDC_REQUEST_URL", token: "CF_OIDC_REQUEST_TOKEN", audience: "audience", field: "id_token"}},
			hide: []string{"CF_OIDC_REQUEST_URL", "CF_OIDC_REQUEST_TOKEN"},
			help: "CF_OIDC_REQUEST_URL and CF_OIDC_REQUEST_TOKEN must be in the step's environment",
		},
		{ // https://docs.spacelift.io/integrations/cloud-providers/oidc
			name: "spacelift", signs: []string{"SPACELIFT_OIDC_TOKEN"}, from: recipe{vars: []string{"SPACELIFT_OIDC_TOKEN"}, file: "/mnt/workspace/spacelift.oidc"}, fresh: once,
			hide: []string{"SPACELIFT_OIDC_TOKEN"},
			help: "the account must have OIDC for runs",
		},
		{ // https://github.com/semaphoreio/semaphore/blob/main/docs/docs/reference/openid.md
			name: "semaphore", signs: []string{"SEMAPHORE=true"}, from: recipe{vars: []string{"SEMAPHORE_OIDC_TOKEN"}}, fresh: once,
			hide: []string{"SEMAPHORE_OIDC_TOKEN"},
			help: "SEMAPHORE_OIDC_TOKEN must be in the job's environment",
		},
		{ // https://cloud.google.com/compute/docs/instances/verifying-instance-identity
			name: "google-cloud-build", fresh: fresh,
			from: recipe{http: &mint{method: "GET", url: "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/identity",
				header: [2]string{"Metadata-Flavor", "Google"}, audience: "audience", query: "format=full"}},
			help: "the build must run as a service account of yours",
		},
		{ // https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
			name: "kubernetes", from: recipe{file: "/var/run/secrets/jobgate/token"}, fresh: rotates,
			help: "mount a projected serviceAccountToken with the url of Jobgate as audience at /var/run/secrets/jobgate/token, or name its place with --token-file",
		},
		{name: "generic", from: recipe{vars: []string{"JOBGATE_ID_TOKEN"}}, fresh: once, help: "name where the token is with --token-file or --token-env"},
	}
}

// gitlabToken is the id_tokens variable that is looked for where no other is named.
const gitlabToken = "JOBGATE_ID_TOKEN"

func providerNames() []string {
	var names []string
	for _, p := range providers() {
		names = append(names, p.name)
	}
	slices.Sort(names)
	return names
}

// detect returns the row of a name; for auto, of the environment.
func detect(name string, env environment) (provider, bool) {
	for _, p := range providers() {
		if p.name == name || name == "auto" && slices.ContainsFunc(p.signs, func(sign string) bool { return signed(env, sign) }) {
			return p, true
		}
	}
	return provider{}, false
}

func signed(env environment, sign string) bool {
	name, want, exact := strings.Cut(sign, "=")
	got := env.get(name)
	return got != "" && (!exact || strings.EqualFold(got, want))
}
