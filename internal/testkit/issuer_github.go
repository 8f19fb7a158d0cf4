package testkit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// tokenPath is where a job of this issuer fetches its tokens.
const tokenPath = "/actions/idtoken"

// GitHubClaims are the claims of GitHub Actions' token for a push to main of
// octo-org/octo-repo, with a fresh jti and times: every claim of a job
// without an environment, all custom ones strings. They name the same job at
// each call; another job has another run_id. Overrides replace claims, a nil
// value takes one out. `sub`, and the claims that come with an environment,
// follow what was overridden unless they are overridden themselves.
func (i *Issuer) GitHubClaims(overrides map[string]any) map[string]any {
	const (
		sha      = "7f93a73b8273af5d35fcd70661704c1cadc57054"
		workflow = "octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main"
	)
	claims := map[string]any{
		"iss":                   i.url,
		"aud":                   "https://github.com/octo-org",
		"actor":                 "octocat",
		"actor_id":              "12",
		"base_ref":              "",
		"check_run_id":          "48211923411",
		"enterprise":            "octo-enterprise",
		"enterprise_id":         "345",
		"event_name":            "push",
		"head_ref":              "",
		"job_workflow_ref":      workflow,
		"job_workflow_sha":      sha,
		"ref":                   "refs/heads/main",
		"ref_protected":         "true",
		"ref_type":              "branch",
		"repository":            "octo-org/octo-repo",
		"repository_id":         "456789",
		"repository_owner":      "octo-org",
		"repository_owner_id":   "123456",
		"repository_visibility": "private",
		"run_attempt":           "1",
		"run_id":                "16055869479",
		"run_number":            "33",
		"runner_environment":    "github-hosted",
		"sha":                   sha,
		"workflow":              "deploy",
		"workflow_ref":          workflow,
		"workflow_sha":          sha,
	}
	i.refresh(claims)
	maps.Copy(claims, overrides)
	if env, ok := claims["environment"].(string); ok && env != "" {
		setDefault(claims, "environment_node_id", "EN_kwDOAAabcM4AAAAB")
	}
	setDefault(claims, "sub", gitHubSubject(claims))
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

func setDefault(claims map[string]any, name, value string) {
	if _, ok := claims[name]; !ok {
		claims[name] = value
	}
}

// gitHubSubject is the default `sub` of repositories created since July 2026:
// names with their ids, and a context in which an environment hides the ref.
func gitHubSubject(claims map[string]any) string {
	text := func(name string) string { s, _ := claims[name].(string); return s }
	_, repo, _ := strings.Cut(text("repository"), "/")
	subject := fmt.Sprintf("repo:%s@%s/%s@%s:", text("repository_owner"), text("repository_owner_id"),
		repo, text("repository_id"))
	switch {
	case text("environment") != "":
		return subject + "environment:" + strings.ReplaceAll(text("environment"), ":", "%3A")
	case strings.HasPrefix(text("event_name"), "pull_request") && text("event_name") != "pull_request_target":
		return subject + "pull_request"
	default:
		return subject + "ref:" + text("ref")
	}
}

func claimsSupported() []string {
	return strings.Fields(`sub aud exp iat iss jti nbf actor actor_id base_ref check_run_id enterprise
		enterprise_id environment environment_node_id event_name head_ref issuer_scope job_workflow_ref
		job_workflow_sha ref ref_protected ref_type repository repository_id repository_owner
		repository_owner_id repository_visibility run_attempt run_id run_number runner_environment sha
		workflow workflow_ref workflow_sha`)
}

// Job is one running job of an issuer: it can fetch tokens until it ends.
type Job struct {
	issuer *Issuer
	secret string
	claims map[string]any
}

// StartJob starts a job whose tokens carry these claims; jti and the times
// are made anew for each token, and `aud` is what the job asks for.
func (i *Issuer) StartJob(claims map[string]any) *Job {
	job := &Job{issuer: i, secret: "ghrt-" + uuid(), claims: maps.Clone(claims)}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.jobs[job.secret] = job
	return job
}

// End ends the job: its request token fetches nothing any more.
func (j *Job) End() {
	j.issuer.mu.Lock()
	defer j.issuer.mu.Unlock()
	delete(j.issuer.jobs, j.secret)
}

// Env is what a step of the job with `id-token: write` finds in its
// environment.
func (j *Job) Env() map[string]string {
	return map[string]string{
		"ACTIONS_ID_TOKEN_REQUEST_URL":   j.issuer.srv.url + tokenPath + "?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": j.secret,
	}
}

// Token fetches a token over HTTP as a step of the job does. An empty
// audience asks for the provider's default.
func (j *Job) Token(ctx context.Context, audience string) (string, error) {
	env := j.Env()
	target := env["ACTIONS_ID_TOKEN_REQUEST_URL"]
	if audience != "" {
		target += "&audience=" + url.QueryEscape(audience)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", fmt.Errorf("fetch the job's token: %w", err)
	}
	req.Header.Set("Authorization", "bearer "+env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
	req.Close = true // no idle connection outlives the fetch
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("fetch the job's token: %w", err)
	}
	defer resp.Body.Close()
	var answer struct{ Value string }
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("fetch the job's token: the issuer answered %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return "", fmt.Errorf("fetch the job's token: read the answer: %w", err)
	}
	return answer.Value, nil
}

func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	i.mu.Lock()
	job := i.jobs[secret]
	i.mu.Unlock()
	if job == nil || !strings.EqualFold(scheme, "bearer") {
		http.Error(w, "the request token is unknown, or its job is over", http.StatusUnauthorized)
		return
	}
	claims := maps.Clone(job.claims)
	i.refresh(claims)
	if audience := r.URL.Query().Get("audience"); audience != "" {
		claims["aud"] = audience
	}
	token, err := i.Mint(claims, MintOptions{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, map[string]any{"count": len(token), "value": token})
}
