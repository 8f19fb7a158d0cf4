package federation

const (
	neverToldEnd = "by a webhook of your own, `/hooks/generic`, where one is configured; else after the lease, at max, or when the job closes it"
	apiToldEnd   = "by webhook or by its job API, where they are configured; else after the lease or at max"
	oneToken     = "no: the mapping's `lease` must be as long as its window, or the session falls asleep"
	oneTokenAPI  = "no: the mapping's `lease` must be as long as its window, unless Jobgate may ask the provider whether the job runs"
	onceMore     = "yes, where the pipeline asks for another: each renews the lease. `jobgate-job` does not ask: the mapping's `lease` must be as long as its window then"
	freshTokens  = "yes: each renews the lease"
	inVariable   = "`jobgate-job` with a token in its variable"
	theEndpoint  = "`jobgate-job` with an emulator of the token endpoint"
)

func yamlBlock(text string) string  { return "```yaml" + text + "```" }
func shellBlock(text string) string { return "```sh" + text + "```" }

// providerPages is what the pages say that no row of the table does. The sources are the pages that the rows name.
func providerPages() map[string]aboutProvider {
	return map[string]aboutProvider{
		"github-actions": {
			title: "GitHub Actions",
			issuers: []string{
				"`https://token.actions.githubusercontent.com`: github.com, the default",
				"the same with `/ENTERPRISE`: an enterprise that has its slug in its issuer",
				"`https://token.actions.SUBDOMAIN.ghe.com`: data residency",
				"`https://HOST/_services/token`: GitHub Enterprise Server",
			},
			match: `
repository_owner_id: "123456"       # gh api repos/OWNER/NAME --jq .owner.id
repository_id: "456789"             # gh api repos/OWNER/NAME --jq .id
ref: refs/heads/main
event_name: [push, workflow_dispatch]
`,
			lifetime: "5 minutes in the documentation's example; longer ones have been seen",
			renewal:  freshTokens,
			end:      apiToldEnd,
			job: yamlBlock(`
permissions:
  id-token: write        # the job may ask for tokens
  contents: read
jobs:
  agent:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: jobgate/jobgate/actions/connect@v1
        with:
          url: https://jobgate.example.com
          mapping: release-agents
      - run: node agent.mjs
`),
			notes: []string{
				"`sub` is not looked at: it has two grammars, and owners can choose what is in it.",
				"`check_run_id` is in tokens since November 2025; a server has it by its release. Without it a token names the run's attempt, not the job.",
				"`environment` says nothing of the branch, and a job that names an environment which does not exist makes it, without protection: match `ref` or `event_name` beside it.",
				"A reusable workflow that decides is matched by `job_workflow_sha`, or by `job_workflow_ref` at a commit or a protected ref, beside the caller's `repository_owner_id`.",
				"Whoever can write to the repository can run a job with any audience, unless the mapping pins `ref`, `workflow_ref` or a protected `environment`.",
			},
			proof: "workflows run by act, a reimplementation of the runner, with `actions/connect` and the real Claude Agent SDK, and an emulator of the token endpoint",
		},
		"forgejo": {
			title:   "Forgejo Actions",
			issuers: []string{"`https://HOST/api/actions`"},
			url:     "https://forgejo.example.com/api/actions",
			match: `
repository_id: "17"
ref: refs/heads/main
event_name: push
`,
			lifetime: "not stated", renewal: freshTokens, end: neverToldEnd,
			job: yamlBlock(`
jobs:
  agent:
    runs-on: docker
    enable-openid-connect: true       # Forgejo 15 and runner 12.5, or later
    steps:
      - uses: actions/checkout@v4
      - run: jobgate-job exec -- node agent.mjs
        env:
          JOBGATE_URL: https://jobgate.example.com
          JOBGATE_MAPPING: release-agents
`),
			notes: []string{
				"Older servers have no id claims (`repository_id`): such tokens match no mapping that names them.",
				"Tokens name the attempt of a run, not the job: the jobs of a run share a window.",
				"Gitea has no such tokens in a release.",
			},
			proof: theEndpoint,
		},
		"gitlab": {
			title: "GitLab CI",
			issuers: []string{
				"`https://gitlab.com`, the default",
				"`https://HOST`: an instance of your own, exactly as it calls itself",
			},
			match: `
project_id: "20"                   # curl https://gitlab.com/api/v4/projects/GROUP%2FNAME
job_project_id: "20"
ref_path: refs/heads/main
ref_protected: "true"
`,
			more:     "window: {max: 1h, lease: 1h}",
			lifetime: "the job's timeout, else 5 minutes",
			renewal:  oneTokenAPI,
			end:      apiToldEnd,
			job: yamlBlock(`
agent:
  id_tokens:
    JOBGATE_ID_TOKEN:
      aud: https://jobgate.example.com
  variables:
    JOBGATE_URL: https://jobgate.example.com
    JOBGATE_MAPPING: release-agents
  script:
    - jobgate-job exec -- node agent.mjs
`),
			notes: []string{
				"In a merge request's pipeline from a fork, `project_id` is the fork and `job_project_id` the project in which the job runs. Instances before 18.2.2 say otherwise: update them first.",
				"`ref` is short: a tag can have a branch's name. Match `ref_path`.",
				"An environment counts as an approval only with `environment_protected: \"true\"` and `environment_action: start`.",
				"Only the top pipeline file is in `ci_config_ref_uri`: any job that it includes can ask for the token.",
			},
			proof: "jobs run by gitlab-ci-local, a reimplementation of the runner, with `jobgate-job` and the real Claude Agent SDK, their lease kept and their end told by an emulator of the job API; both forms of the webhook, and rate limits, against a whole server",
		},
		"buildkite": {
			title:   "Buildkite",
			issuers: []string{"`https://agent.buildkite.com`, for all"},
			match: `
organization_id: 0184990a-477b-4fa8-9968-496074483cee
pipeline_id: 0184990a-4782-42b5-afc1-16715b10b8ff
build_branch: main
`,
			lifetime: "5 minutes unless the job asks for more, 2 hours at most", renewal: freshTokens, end: apiToldEnd,
			job: yamlBlock(`
steps:
  - label: agent
    command: jobgate-job exec -- node agent.mjs
    env:
      JOBGATE_URL: https://jobgate.example.com
      JOBGATE_MAPPING: release-agents
`),
			notes: []string{
				"**No claim tells a fork's build from the repository's own**, and a fork's branch `main` is called `main` unless the pipeline prefixes fork branches. Do not map pipelines that build forks.",
				"The job chooses which of the optional ids its token has; `jobgate-job` asks for `organization_id`, `pipeline_id` and `build_id`. A token without an id that a mapping names is refused.",
			},
			proof: "`jobgate-job` with a stand-in for the `buildkite-agent` command; the webhook and an emulator of the job API against a whole server",
		},
		"circleci": {
			title: "CircleCI",
			issuers: []string{
				"`https://oidc.circleci.com/org/ORG-UUID`",
				"`https://oidc.circleci.com`, for all, with `--root-issuer`",
			},
			url: "https://oidc.circleci.com/org/4dbc5a3b-6a1a-4d40-a9ec-9d1a2b8e2f64",
			match: `
oidc.circleci.com/org-id: 4dbc5a3b-6a1a-4d40-a9ec-9d1a2b8e2f64
oidc.circleci.com/project-id: 6f9b1d0e-6a7c-4f0a-8d8f-3a3d6d3d2d11
oidc.circleci.com/vcs-origin: github.com/octo-org/octo-repo
oidc.circleci.com/vcs-ref: refs/heads/main
`,
			lifetime: "1 hour", renewal: freshTokens, end: neverToldEnd,
			job: yamlBlock(`
version: 2.1
jobs:
  agent:
    docker:
      - image: registry.example.com/node-with-jobgate-job:1
    environment:
      JOBGATE_URL: https://jobgate.example.com
      JOBGATE_MAPPING: release-agents
    steps:
      - checkout
      - run: jobgate-job exec -- node agent.mjs
`),
			notes: []string{
				"The token that CircleCI puts into `CIRCLE_OIDC_TOKEN_V2` is for the organization's audience; `circleci run oidc get` makes one for Jobgate.",
				"Builds of forks have tokens where the project passes secrets to them: match `oidc.circleci.com/vcs-origin` then.",
			},
			proof: "`jobgate-job` with a stand-in for the `circleci` command",
		},
		"bitbucket": {
			title:   "Bitbucket Pipelines",
			issuers: []string{"`https://api.bitbucket.org/2.0/workspaces/WORKSPACE/pipelines-config/identity/oidc`"},
			url:     "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
			match: `
workspaceUuid: "{1b8e6f6e-4b39-4a8b-9a3d-0d7f2f0c5b11}"
repositoryUuid: "{2c9f7a7f-5c4a-4b9c-8b4e-1e8a3a1d6c22}"
deploymentEnvironmentUuid: "{3daf8b8a-6d5b-4cad-9c5f-2f9b4b2e7d33}"
`,
			more:     "window: {max: 1h, lease: 1h}",
			lifetime: "not stated; 1 hour in a reimplementation",
			renewal:  oneToken,
			end:      neverToldEnd,
			job: yamlBlock(`
pipelines:
  branches:
    main:
      - step:
          oidc:
            audiences:
              - https://jobgate.example.com      # the only one
          script:
            - export JOBGATE_URL=https://jobgate.example.com JOBGATE_MAPPING=release-agents
            - jobgate-job exec -- node agent.mjs
`),
			notes: []string{
				"A token for two audiences is refused: either of them could show it to the other.",
				"No claim tells what triggered a pipeline. A deployment environment that is restricted to branches does, and is matched by its id.",
			},
			proof: inVariable,
		},
		"azure-devops": {
			title:   "Azure DevOps Pipelines",
			issuers: []string{"`https://vstoken.dev.azure.com/ORG-GUID`"},
			url:     "https://vstoken.dev.azure.com/7d2ac2f5-9d27-4bd2-9d3e-5f0f1f3f6a44",
			extra: `
shared_audience: true
max_age: 10m
`,
			match: `
org_id: 7d2ac2f5-9d27-4bd2-9d3e-5f0f1f3f6a44
prj_id: 8e3bd3a6-ae38-4ce3-8e4f-6a1a2a4a7b55
def_id: "12"
rpo_ref: refs/heads/main
`,
			lifetime: "5 to 10 minutes have been seen",
			renewal:  freshTokens,
			end:      neverToldEnd,
			job: yamlBlock(`
variables:
  JOBGATE_URL: https://jobgate.example.com
  JOBGATE_MAPPING: release-agents
steps:
  - checkout: self
    persistCredentials: false
  - script: jobgate-job exec -- node agent.mjs
    env:
      SYSTEM_ACCESSTOKEN: $(System.AccessToken)
`),
			notes: []string{
				"Tokens name the run, no job and no attempt: the jobs of a run share a window.",
				"Tokens of service connections, whose `sub` begins with `sc://`, are refused.",
				"`rpo_id` is a name where the repository is at GitHub, and proves nothing.",
			},
			proof: theEndpoint,
		},
		"google-cloud-build": {
			title:   "Google Cloud Build",
			issuers: []string{"`https://accounts.google.com`, for all of Google"},
			match:   "sub: \"107517467455664443765\"         # gcloud iam service-accounts describe ADDRESS --format='value(uniqueId)'",
			more: `
job_bound: false
max_age: 10m
`,
			lifetime: "1 hour",
			renewal:  freshTokens,
			end:      "never: tokens name no build. Every exchange of another token opens a session of its own",
			job: yamlBlock(`
serviceAccount: projects/PROJECT/serviceAccounts/agents@PROJECT.iam.gserviceaccount.com
steps:
  - name: registry.example.com/node-with-jobgate-job:1
    env: ["JOBGATE_URL=https://jobgate.example.com", "JOBGATE_MAPPING=release-agents"]
    args: [jobgate-job, exec, --provider, google-cloud-build, --, node, agent.mjs]
`),
			notes: []string{
				"The token is a service account's, not a build's: whatever runs as the account gets the same. Give the build an account of its own.",
				"The account's address can be given to another account; its `sub` cannot.",
			},
		},
		"hcp-terraform": {
			title: "HCP Terraform and Terraform Enterprise",
			issuers: []string{
				"`https://app.terraform.io`, the default",
				"`https://HOST`: Terraform Enterprise",
			},
			match: `
terraform_organization_id: org-GRNbCjYNpBB6NEBH
terraform_workspace_id: ws-mbsd5E3Ktt5Rg2Xm
terraform_run_phase: apply
`,
			more: "window: {max: 1h, lease: 1h}", lifetime: "the timeout of the phase", renewal: oneToken, end: neverToldEnd,
			job: shellBlock(`
# of the workspace: TFC_WORKLOAD_IDENTITY_AUDIENCE = https://jobgate.example.com
# in a hook of a custom agent, or a local-exec:
export JOBGATE_URL=https://jobgate.example.com JOBGATE_MAPPING=release-agents
jobgate-job exec -- node agent.mjs
`),
			notes: []string{
				"A plan may be of a pull request: `terraform_run_phase: plan` is refused unless the mapping names it.",
				"Tokens of module tests name no run, and are refused.",
			},
			proof: inVariable,
		},
		"codefresh": {
			title:   "Codefresh",
			issuers: []string{"`https://oidc.codefresh.io`, for all"},
			match: `
account_id: 628a80b693a15c0f9c13ab75
pipeline_id: 64f447c02199f903000gh20
scm_ref: main
`,
			lifetime: "5 minutes", renewal: freshTokens, end: neverToldEnd,
			job: yamlBlock(`
version: "1.0"
steps:
  agent:
    image: registry.example.com/node-with-jobgate-job:1
    environment:
      - JOBGATE_URL=https://jobgate.example.com
      - JOBGATE_MAPPING=release-agents
    commands:
      - jobgate-job exec -- node agent.mjs
`),
			notes: []string{
				"`scm_ref` is short, and does not tell a branch from a tag of the same name.",
				"No claim tells a fork's build; what has `scm_pull_request_target_branch` is refused.",
			},
			proof: theEndpoint,
		},
		"spacelift": {
			title: "Spacelift",
			issuers: []string{
				"`https://ACCOUNT.app.spacelift.io`",
				"the server's URL, self-hosted",
			},
			url: "https://acme.app.spacelift.io",
			extra: `
shared_audience: true
max_age: 10m
`,
			match: `
spaceId: production-01HMJ8T9QK2V7R3W5X6Y8Z0A1B
callerId: app
runType: TRACKED
`,
			more: "window: {max: 1h, lease: 1h}", lifetime: "1 hour", renewal: oneToken, end: neverToldEnd,
			job: shellBlock(`
# in a hook of the stack, such as before_apply
export JOBGATE_URL=https://jobgate.example.com JOBGATE_MAPPING=release-agents
jobgate-job exec -- node agent.mjs
`),
			notes: []string{
				"`callerId` and old spaces' ids are slugs, which can be taken again within the account.",
				"Every user of the machine can read `/mnt/workspace/spacelift.oidc`.",
			},
			proof: inVariable,
		},
		"harness": {
			title: "Harness",
			issuers: []string{
				"`https://app.harness.io/ng/api/oidc/account/ACCOUNT`",
				"one for all accounts of an environment: workload identity",
			},
			url: "https://app.harness.io/ng/api/oidc/account/Ab12Cd34Ef56Gh78Ij90Kl",
			match: `
account_id: Ab12Cd34Ef56Gh78Ij90Kl
organization_id: default
project_id: agents
pipeline_id: release
`,
			more: "window: {max: 1h, lease: 1h}", lifetime: "1 hour in an example", renewal: onceMore, end: neverToldEnd,
			job: shellBlock(`
# in a Run step; the pipeline puts a token with audience https://jobgate.example.com into HARNESS_OIDC_TOKEN
jobgate-job exec --url https://jobgate.example.com --mapping release-agents --token-env HARNESS_OIDC_TOKEN -- node agent.mjs
`),
			notes: []string{
				"All ids but `account_id` are chosen by people, and can be taken again within the account.",
				"The values of `context` that tell a pull request were not found in the documentation: the refusal rests on one example.",
			},
		},
		"jenkins": {
			title: "Jenkins, with the OpenID Connect Provider plugin",
			issuers: []string{
				"`https://HOST/oidc`",
				"`https://HOST/oidc/job/FOLDER`: credentials of a folder",
			},
			url:      "https://jenkins.example.com/oidc",
			match:    "sub: https://jenkins.example.com/job/agents/job/main/",
			more:     "window: {max: 1h, lease: 1h}",
			lifetime: "1 hour, unless the administrator says otherwise",
			renewal:  onceMore,
			end:      neverToldEnd,
			job:      "```groovy\nwithCredentials([string(credentialsId: 'jobgate-oidc', variable: 'JENKINS_OIDC_TOKEN')]) {\n  sh 'jobgate-job exec --url https://jobgate.example.com --mapping release-agents --token-env JENKINS_OIDC_TOKEN -- node agent.mjs'\n}\n```",
			notes: []string{
				"The credential `jobgate-oidc` is an OpenID Connect id token with audience `https://jobgate.example.com`.",
				"There are no immutable ids. A job that is deleted and made again begins at build 1, so that its builds have the keys of old ones: those that ended under a mapping stay ended.",
				"Whoever administers a folder can make credentials of that folder: trust the issuer of the folder that you mean.",
				"Saving a credential makes a new key under the old id. Jobgate looks for it once a minute.",
			},
		},
		"kubernetes": {
			title:   "Kubernetes service accounts, for runners with a pod a job",
			issuers: []string{"what the cluster calls itself: `--service-account-issuer`, a slash at its end included"},
			url:     "https://oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE",
			match:   "sub: system:serviceaccount:runners:agents",
			more: `
paths:
  - path: [kubernetes.io, serviceaccount, uid]
    value: 8f5b8f57-4c1b-4f0c-9d1e-2b6d3c8f1a10
`,
			lifetime: "what the pod's volume asks for: 10 minutes at least, 1 hour by default",
			renewal:  "yes: the file is written anew at 80 percent of a token's lifetime, so that the lease must be longer than that",
			end:      neverToldEnd,
			job: yamlBlock(`
apiVersion: v1
kind: Pod
metadata: {name: agent}
spec:
  serviceAccountName: agents
  restartPolicy: Never
  containers:
    - name: agent
      image: registry.example.com/node-with-jobgate-job:1
      command: [jobgate-job, exec, --provider, kubernetes, --, node, agent.mjs]
      env:
        - {name: JOBGATE_URL, value: "https://jobgate.example.com"}
        - {name: JOBGATE_MAPPING, value: release-agents}
      volumeMounts:
        - {name: jobgate, mountPath: /var/run/secrets/jobgate, readOnly: true}
  volumes:
    - name: jobgate
      projected:
        sources:
          - serviceAccountToken: {audience: "https://jobgate.example.com", expirationSeconds: 600, path: token}
`),
			notes: []string{
				"The job is the pod: this is for runners that get a pod for every job.",
				"Tokens say nothing of repository, branch or trigger: whoever may start pods with the service account is served.",
				"Tokens without `jti` (older clusters) and tokens from secrets are refused.",
			},
			proof: "`jobgate-job` with a token in a file",
		},
		"semaphore": {
			title:   "Semaphore",
			issuers: []string{"`https://ORG.semaphoreci.com`"},
			url:     "https://acme.semaphoreci.com",
			extra: `
shared_audience: true
max_age: 10m
`,
			match: `
org_id: 5d2d0a1a-7f4e-4c43-9a51-1f2e3d4c5b6a
prj_id: 6e3e1b2b-8a5f-4d54-8b62-2a3f4e5d6c7b
ref: refs/heads/main
ref_type: branch
`,
			more:     "window: {max: 1h, lease: 1h}",
			lifetime: "24 hours",
			renewal:  oneToken,
			end:      neverToldEnd,
			job: yamlBlock(`
version: v1.0
name: agent
agent: {machine: {type: e1-standard-2, os_image: ubuntu2204}}
blocks:
  - name: agent
    task:
      env_vars:
        - {name: JOBGATE_URL, value: "https://jobgate.example.com"}
        - {name: JOBGATE_MAPPING, value: release-agents}
      jobs:
        - name: agent
          commands:
            - checkout
            - jobgate-job exec -- node agent.mjs
`),
			notes: []string{
				"In a pull request's job `branch` is the target's: match `ref` and `ref_type`.",
				"`sub127` loses characters and is no claim here.",
				"The job must show its token within `max_age` of its start.",
			},
			proof: inVariable,
		},
		"generic": {
			title:   "Any other CI system",
			issuers: []string{"the `iss` of its tokens, exactly, with `/.well-known/openid-configuration` below it, or with `keys_file`"},
			url:     "https://ci.example.com",
			extra: `
algorithms: [ES256]
tokens:
  claims: {org_id: string, project: string, job_id: int, attempt: int, branch: string, trigger: string, is_fork: bool}
  job_key: [job_id, attempt]
  tenants: [org_id]
  trusted: {trigger: [push, schedule, manual], is_fork: [false]}
  renewable: false
  shows: {repository: project, ref: branch, event: trigger}
`,
			match: `
org_id: org-7f3b9c2e
project: agents/release
branch: main
`,
			more:     "window: {max: 1h, lease: 1h}",
			lifetime: "as it issues them, up to the issuer's `max_lifetime`",
			renewal:  "as `tokens.renewable` says: `true` lets each renew the lease",
			end:      neverToldEnd,
			job: shellBlock(`
# in a job that has a token with audience https://jobgate.example.com in a variable, or in a file with --token-file
jobgate-job exec --url https://jobgate.example.com --mapping release-agents --token-env CI_ID_TOKEN -- node agent.mjs
`),
			notes: []string{
				"Look at a real token of yours first: `jobgate mappings suggest --from-token FILE` and `jobgate explain --token FILE` say what they make of one.",
				"`job_key` must be other in every job, and in every attempt of a job: a job with the key of one that is over gets nothing.",
				"`tenants` are ids that are never given to somebody else. A name can be taken over; list it in `claims`, and pin it beside the id.",
				"`trusted` lists what takes write access to start. What is not listed, and a token without the claim, is refused, unless a mapping's `match` names the claim itself.",
				"`renewable: true` is for issuers that give a job tokens only while it runs. Where all tokens of a job are made at its start, a second one would prove nothing.",
				"Where a job cannot choose the audience, `tokens.audience` says what it is, and the issuer needs `shared_audience: true` and a `max_age`: other services take the same tokens, and each can show them here.",
			},
			proof: "an emulated issuer whose claims nobody here knows, through both doors of a whole server, with tokens that lack the job, have claims of other types, or are of others",
		},
	}
}
