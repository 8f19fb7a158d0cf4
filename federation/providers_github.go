package federation

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
)

const githubIssuer = "https://token.actions.githubusercontent.com"

// propertyPrefix begins the claims of a repository's custom properties, each a string: of true or false "true" or "false",
// of several values all of them joined by commas. A repository that has no value of a property has no claim of it.
// https://docs.github.com/en/actions/concepts/security/openid-connect
const propertyPrefix = "repo_property_"

// githubActions is GitHub Actions: github.com, an enterprise's own issuer on it, GHE.com and GitHub Enterprise Server.
// Every claim is a string, ids included.
// https://docs.github.com/en/actions/reference/security/oidc
func githubActions() *provider {
	return &provider{
		name: "github-actions", renewable: true, url: githubIssuer,
		// The issuer with an enterprise's slug is shared, too: a slug is a name that another can take later.
		shared: func(issuer string) bool {
			return issuer == githubIssuer || strings.HasPrefix(issuer, githubIssuer+"/")
		},
		claims: texts(`base_ref environment environment_node_id event_name head_ref issuer_scope ref_protected ref_type
			repository_visibility runner_environment workflow`, map[string]claimType{
			"actor": typeASCII, "enterprise": typeASCII, "repository": typeASCII, "repository_owner": typeASCII,
			"job_workflow_ref": typeWorkflow, "workflow_ref": typeWorkflow,
			"job_workflow_sha": typeCommit, "sha": typeCommit, "workflow_sha": typeCommit,
			"ref": typeRef, "actor_id": typeDigits, "check_run_id": typeDigits, "enterprise_id": typeDigits, "repository_id": typeDigits,
			"repository_owner_id": typeDigits, "run_attempt": typeDigits, "run_id": typeDigits, "run_number": typeDigits,
		}),
		prefixes: map[string]claimType{propertyPrefix: typeText},
		kind:     []string{"run_id", "run_attempt", "repository"},
		// check_run_id, the job, is in tokens since November 2025; a server has it by its release.
		jobKey:  append(keyParts("run_id", "run_attempt"), keyPart{path: []string{"check_run_id"}, optional: true}),
		jti:     true,
		tenants: []string{"enterprise_id", "repository_owner_id", "repository_id"},
		denials: githubDenials(),
		shows:   jobClaims{"repository", "workflow", "ref", "sha", "actor", "event_name"},
		run:     githubRun,
	}
}

// forgejo is Forgejo Actions, which follow GitHub's. Tokens have no id of their own and name no job below the attempt.
// https://forgejo.org/docs/latest/user/actions/security-openid-connect/
func forgejo() *provider {
	p := githubActions()
	return &provider{
		name: "forgejo", renewable: true, each: "instance, https://HOST/api/actions",
		claims: p.claims, kind: p.kind, jobKey: keyParts("run_id", "run_attempt"),
		denials: p.denials, shows: p.shows,
	}
}

// githubDenials refuse every event that does not take write access to the repository. pull_request_target,
// issue_comment and workflow_run are among those though they run on the default branch: outsiders start them, with
// their own text. A pull request is recognised by its refs, too, whatever the event is called.
func githubDenials() []denial {
	return []denial{
		onlyEvents("event_name", "push", "workflow_dispatch", "schedule", "release", "merge_group", "repository_dispatch",
			"deployment", "create", "delete"),
		{"event_name", "any value, where ref is under refs/pull/ or head_ref is not empty", func(c access.Claims) string {
			if strings.HasPrefix(c.Text("ref"), "refs/pull/") || c.Text("head_ref") != "" {
				return "its refs are a pull request's"
			}
			return ""
		}},
	}
}

var (
	githubName = regexp.MustCompile(`\A[A-Za-z0-9._-]+/[A-Za-z0-9._-]+\z`)
	onlyDigits = regexp.MustCompile(`\A[0-9]{1,32}\z`)
)

// githubRun returns the page of a run at the server that the issuer belongs to.
func githubRun(issuer string, c access.Claims) string {
	server := githubServer(issuer)
	repository, run, attempt := c.Text("repository"), c.Text("run_id"), c.Text("run_attempt")
	if server == "" || !githubName.MatchString(repository) || !onlyDigits.MatchString(run) {
		return ""
	}
	page := server + "/" + repository + "/actions/runs/" + run
	if onlyDigits.MatchString(attempt) {
		page += "/attempts/" + attempt
	}
	return page
}

// githubServer returns the web server of an issuer, "" for one that is of none of GitHub's kinds.
func githubServer(issuer string) string {
	if issuer == githubIssuer || strings.HasPrefix(issuer, githubIssuer+"/") {
		return "https://github.com"
	}
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" {
		return ""
	}
	if host, ok := strings.CutPrefix(u.Host, "token.actions."); ok && strings.HasSuffix(host, ".ghe.com") {
		return "https://" + host
	}
	if strings.HasSuffix(issuer, "/_services/token") {
		return "https://" + u.Host
	}
	return ""
}
