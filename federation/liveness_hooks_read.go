package federation

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/jobgate/jobgate/internal/access"
)

// verifyGithubHook takes X-Hub-Signature-256 and nothing weaker.
// https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
func verifyGithubHook(secret string, h http.Header, body []byte, _ time.Time) ([]byte, bool) {
	text, ok := single(h, "X-Hub-Signature-256")
	sum, isSHA256 := strings.CutPrefix(text, "sha256=")
	if secret == "" || !ok || !isSHA256 {
		return nil, false
	}
	return body, equalHex(sum, hmacSHA256(secret, body))
}

// readGithubHook reads events of jobs and of runs.
// https://docs.github.com/en/webhooks/webhook-events-and-payloads#workflow_job
func readGithubHook(_ Issuer, h http.Header, body []byte) ([]string, LiveState, error) {
	kind := h.Get("X-GitHub-Event")
	if kind != "workflow_job" && kind != "workflow_run" {
		return nil, LiveUnknown, nil
	}
	if media := h.Get("Content-Type"); !strings.HasPrefix(media, "application/json") {
		return nil, LiveUnknown, errors.New("set the webhook's content type to application/json")
	}
	event, err := github.ParseWebHook(kind, body)
	if err != nil {
		return nil, LiveUnknown, fmt.Errorf("no payload of %s", kind)
	}
	id := func(n int64) string { return strconv.FormatInt(n, 10) }
	switch e := event.(type) {
	case *github.WorkflowJobEvent:
		job, check := e.GetWorkflowJob(), checkRunOf(e.GetWorkflowJob())
		if check == "" || job.GetRunID() == 0 || job.GetRunAttempt() == 0 || e.GetRepo().GetID() == 0 {
			return nil, LiveUnknown, errors.New("the payload does not name the job")
		}
		name := nameOf("github-job", id(e.GetRepo().GetID()), id(job.GetRunID()), id(job.GetRunAttempt()), check)
		return []string{name}, githubEvent(e.GetAction(), job.GetStatus()), nil
	case *github.WorkflowRunEvent:
		run := e.GetWorkflowRun()
		if run.GetID() == 0 || run.GetRunAttempt() == 0 || e.GetRepo().GetID() == 0 {
			return nil, LiveUnknown, errors.New("the payload does not name the run")
		}
		name := nameOf("github-run", id(e.GetRepo().GetID()), id(run.GetID()), strconv.Itoa(run.GetRunAttempt()))
		state := githubEvent(e.GetAction(), run.GetStatus())
		if state == LiveRunning {
			state = LiveUnknown // some job of the run runs, nobody knows which
		}
		return []string{name}, state, nil
	}
	return nil, LiveUnknown, nil
}

// githubEvent wants action and status to say the same: the status may be a later one than the action's.
func githubEvent(action, status string) LiveState {
	switch {
	case action == githubEnded && status == githubEnded:
		return LiveEnded
	case action == "in_progress" && status == "in_progress":
		return LiveRunning
	}
	return LiveUnknown
}

// verifyGitlabHook takes the signature of a signing token where the secret is one, and the secret itself in
// X-Gitlab-Token otherwise.
// https://docs.gitlab.com/user/project/integrations/webhooks/
func verifyGitlabHook(secret string, h http.Header, body []byte, now time.Time) ([]byte, bool) {
	encoded, signing := strings.CutPrefix(secret, signingTokenPrefix)
	if !signing {
		token, ok := single(h, "X-Gitlab-Token")
		return body, ok && secret != "" && equalSecret(token, secret)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	delivery, okID := single(h, "Webhook-Id")
	at, okTime := single(h, "Webhook-Timestamp")
	signatures, okSignature := single(h, "Webhook-Signature")
	if err != nil || len(key) == 0 || !okID || !okTime || !okSignature || !recent(at, now) {
		return nil, false
	}
	want := base64.StdEncoding.EncodeToString(hmacSHA256(string(key), []byte(delivery+"."+at+"."), body))
	for one := range strings.FieldsSeq(signatures) {
		if given, ok := strings.CutPrefix(one, "v1,"); ok && equalSecret(given, want) {
			return body, true
		}
	}
	return nil, false
}

// readGitlabHook reads job events. In them commit.id is the pipeline's id, too.
func readGitlabHook(_ Issuer, h http.Header, body []byte) ([]string, LiveState, error) {
	if h.Get("X-Gitlab-Event") != "Job Hook" {
		return nil, LiveUnknown, nil
	}
	var event struct {
		Kind     string      `json:"object_kind"`
		Job      json.Number `json:"build_id"`
		Status   string      `json:"build_status"`
		Pipeline json.Number `json:"pipeline_id"`
		Project  json.Number `json:"project_id"`
	}
	if err := json.Unmarshal(body, &event); err != nil || event.Kind != "build" {
		return nil, LiveUnknown, errors.New("no payload of a job event")
	}
	for _, id := range []json.Number{event.Job, event.Pipeline, event.Project} {
		if !onlyDigits.MatchString(id.String()) {
			return nil, LiveUnknown, errors.New("the payload does not name the job")
		}
	}
	state := stateIn(event.Status, "running", gitlabEnded)
	return []string{gitlabName(event.Job.String(), event.Pipeline.String(), event.Project.String())}, state, nil
}

// verifyBuildkiteHook takes the signature with its time, and never the token in clear.
// https://buildkite.com/docs/apis/webhooks/pipelines
func verifyBuildkiteHook(secret string, h http.Header, body []byte, now time.Time) ([]byte, bool) {
	text, ok := single(h, "X-Buildkite-Signature")
	at, signature, parsed := timedSignature(text, "timestamp", "signature")
	if secret == "" || !ok || !parsed || !recent(at, now) {
		return nil, false
	}
	return body, equalHex(signature, hmacSHA256(secret, []byte(at+"."), body))
}

// readBuildkiteHook reads events of jobs. The payload may show a later state than the event's, and never an earlier.
func readBuildkiteHook(_ Issuer, _ http.Header, body []byte) ([]string, LiveState, error) {
	var event struct {
		Event string `json:"event"`
		Job   struct {
			ID    string `json:"id"`
			State string `json:"state"`
		} `json:"job"`
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return nil, LiveUnknown, errors.New("no payload of an event")
	}
	if !strings.HasPrefix(event.Event, "job.") {
		return nil, LiveUnknown, nil
	}
	if event.Job.ID == "" {
		return nil, LiveUnknown, errors.New("the payload does not name the job")
	}
	state := stateIn(event.Job.State, "running", buildkiteEnded)
	if event.Event == "job.finished" {
		state = LiveEnded
	}
	return []string{buildkiteName(event.Job.ID)}, state, nil
}

// verifyGenericHook takes "t=SECONDS,v1=HEX" over the seconds, a point and the body.
func verifyGenericHook(secret string, h http.Header, body []byte, now time.Time) ([]byte, bool) {
	text, ok := single(h, "X-Jobgate-Signature")
	at, signature, parsed := timedSignature(text, "t", "v1")
	if secret == "" || !ok || !parsed || !recent(at, now) {
		return nil, false
	}
	return append([]byte(at+"."), body...), equalHex(signature, hmacSHA256(secret, []byte(at+"."), body))
}

// readGenericHook reads {"issuer", "job_key" or "claims", "state"}, strictly. Claims must hold those that make the
// provider's job key. A delivery about another issuer than the secret's says nothing.
func readGenericHook(issuer Issuer, _ http.Header, body []byte) ([]string, LiveState, error) {
	event, err := decodeObject(body)
	if err != nil {
		return nil, LiveUnknown, err
	}
	for name := range event {
		switch name {
		case "issuer", "job_key", "claims", "state":
		default:
			return nil, LiveUnknown, fmt.Errorf("unknown key %s; known: issuer, job_key, claims, state", shown(name))
		}
	}
	if name, _ := event["issuer"].(string); name != issuer.Name {
		if name == "" {
			return nil, LiveUnknown, errors.New("issuer is missing: its name in the configuration")
		}
		return nil, LiveUnknown, nil
	}
	word, _ := event["state"].(string)
	state := stateIn(word, "running", "ended")
	if state == LiveUnknown {
		return nil, LiveUnknown, errors.New("state must be running or ended")
	}
	key, err := genericKey(issuer, event)
	if err != nil {
		return nil, LiveUnknown, err
	}
	return []string{keyName(key)}, state, nil
}

func genericKey(issuer Issuer, event map[string]any) (access.JobKey, error) {
	key, hasKey := event["job_key"].(string)
	claims, hasClaims := event["claims"].(map[string]any)
	row, _ := issuer.row()
	switch {
	case hasKey == hasClaims || hasKey && key == "" || row == nil:
		return "", errors.New("write job_key, a text, or claims, an object, one of them")
	case hasKey:
		return access.JobKey(key), nil
	case len(row.jobKey) == 0:
		return "", fmt.Errorf("tokens of provider %s name no job; write job_key", row.name)
	}
	for name := range claims {
		if !slices.ContainsFunc(row.jobKey, func(p keyPart) bool { return p.path[0] == name }) {
			return "", fmt.Errorf("claim %s is no part of the job key", shown(name))
		}
	}
	return row.keyOf(access.Claims(claims))
}
