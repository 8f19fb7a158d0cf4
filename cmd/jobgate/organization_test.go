package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/proxy/record"
)

// ofRepository opens the session of a new job of a repository of the organization.
func (w *world) ofRepository(repository string, job int) api.Token {
	w.t.Helper()
	status, token, bad := w.exchange(w.token(w.job(map[string]any{"repository_id": repository, "repo_property_agents": "allowed",
		"run_id": fmt.Sprint(100 + job), "check_run_id": fmt.Sprint(200 + job)})), nil)
	if status != http.StatusOK {
		w.t.Fatalf("exchange of repository %s = %d %+v", repository, status, bad)
	}
	return token
}

const organizationMatch = `{repository_owner_id: "123456", repo_property_agents: allowed}`

// spent asks, and wants to be told that the repository's limit is spent until the UTC day ends.
func (w *world) spent(token, repository string, n int) {
	w.t.Helper()
	c := w.send(token, messageBody("one more", false))
	body := w.wait(c)
	if c.status != http.StatusTooManyRequests {
		w.t.Errorf("a call beyond the limit = %d %s", c.status, body)
	}
	for _, want := range []string{`mapping \"agents\" grants all jobs with repository_id \"` + repository + `\" together ` + fmt.Sprint(n) + ` requests on connection \"anthropic\" in 24h`, "counts anew from"} {
		if !strings.Contains(body, want) {
			w.t.Errorf("the refusal does not say %s: %s", want, body)
		}
	}
	after, err := strconv.Atoi(c.header.Get("Retry-After"))
	left := time.Until(access.PeriodEnd(time.Now(), 24*time.Hour)).Seconds()
	if err != nil || float64(after) < left-5 || float64(after) > left+5 {
		w.t.Errorf("retry-after %q, want about %.0f", c.header.Get("Retry-After"), left)
	}
}

// TestOrganization serves three repositories under one mapping, over a restart and a kill.
func TestOrganization(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, match: organizationMatch, limits: "per: repository_id, requests: 4"})
	w.stop()
	server := w.startChild()
	t.Cleanup(func() { server.kill() })
	first, second, other := w.ofRepository("1", 1), w.ofRepository("1", 2), w.ofRepository("2", 3)
	ok := func(token api.Token) {
		t.Helper()
		if status, body := w.ask(token.AccessToken, "hello"); status != http.StatusOK {
			t.Errorf("a call = %d %s", status, body)
		}
	}
	ok(first)
	ok(second)
	open := w.send(first.AccessToken, messageBody("hold", true))
	server.kill() // at once: what was used is in the record only
	w.wait(open)
	server = w.startChild()
	ok(second) // the fourth
	w.spent(first.AccessToken, "1", 4)
	w.spent(second.AccessToken, "1", 4)
	w.spent(w.ofRepository("1", 4).AccessToken, "1", 4)
	ok(other)
	server.kill()
	w.start()
	w.spent(second.AccessToken, "1", 4)
	ok(w.ofRepository("3", 5))
	must(w, w.admin("DELETE", "/v1/mappings/agents", nil, nil))
	must(w, w.admin("POST", "/v1/mappings/agents/restore", nil, nil))
	w.spent(w.ofRepository("1", 6).AccessToken, "1", 4)

	bad := w.openFails(w.token(w.job(map[string]any{"repository_id": "9", "run_id": "991", "check_run_id": "992"})), "invalid_target")
	for _, want := range []string{"it needs claim repo_property_agents", "custom property agents", "OIDC tokens"} {
		if !strings.Contains(bad.Description, want) {
			t.Errorf("a job without the property reads %q, want %q", bad.Description, want)
		}
	}
}

// TestOrganizationOverride tightens an override while a stream of one repository runs, and takes another one out.
func TestOrganizationOverride(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, match: organizationMatch, limits: "requests: 100"})
	payments, tools, archived := w.ofRepository("1", 1), w.ofRepository("2", 2), w.ofRepository("3", 3)
	var calls []*liveCall
	for _, token := range []api.Token{payments, tools, archived} {
		calls = append(calls, w.send(token.AccessToken, messageBody("hold", true)))
	}
	overrides := `
    overrides:
      - name: payments
        match: {repository_id: "1"}
        grants:
          - connection: anthropic
            allow: ["POST /v1/messages"]
            limits: {requests: 100, models: ["claude-none-*"]}
      - name: archived
        match: {repository_id: "3"}
        deny: true
`
	w.writeConfig(strings.Replace(w.config, "    match: "+organizationMatch, "    match: "+organizationMatch+overrides, 1))
	w.hangUp(reloaded)
	w.wait(calls[0])
	calls[0].cutWith(t, "the mapping was changed")
	w.wait(calls[2])
	calls[2].cutWith(t, "matches this job no more")
	if status, body := w.ask(tools.AccessToken, "still there?"); status != http.StatusOK {
		t.Errorf("a repository without an override = %d %s", status, body)
	}
	if status, body := w.ask(payments.AccessToken, "hello"); status != http.StatusBadRequest || !strings.Contains(body, "claude-none-*") {
		t.Errorf("a call that the override refuses = %d %s", status, body)
	}
	if s := w.session(payments.SessionID); s.State != "awake" || s.Override != "payments" {
		t.Errorf("session = %s, override %q", s.State, s.Override)
	}
	if out := w.must("sessions", "show", payments.SessionID); !strings.Contains(out, "agents, revision 2, override payments") {
		t.Errorf("sessions show:\n%s", out)
	}
	bad := w.openFails(w.token(w.job(map[string]any{"repository_id": "3", "repo_property_agents": "allowed", "run_id": "991", "check_run_id": "992"})), "invalid_target")
	if !strings.Contains(bad.Description, "its override archived takes out jobs with repository_id '3'") {
		t.Errorf("refusal %q", bad.Description)
	}
	again := w.ofRepository("1", 4)
	must(w, w.admin("DELETE", "/v1/sessions/"+again.SessionID, nil, nil))
	if e := decode[record.SessionOpened](t, w.events(again.SessionID)[0]); e.Override != "payments" {
		t.Errorf("the record begins with %+v", e)
	}
	must(w, w.admin("DELETE", "/v1/sessions/"+tools.SessionID, nil, nil))
	w.wait(calls[1])
}

// For a repository of an organization that has a mapping, an override of that is suggested.
func TestOrganizationSuggest(t *testing.T) {
	w := newWorld(t, worldConfig{match: organizationMatch})
	token := w.token(w.job(map[string]any{"repository_id": "99", "repository": "octo/new-tools"}))
	suggest := func(args ...string) (string, string) {
		var stdout, stderr bytes.Buffer
		args = append([]string{"-c", w.file(), "mappings", "suggest", "--from-token", "-"}, args...)
		if code := run(t.Context(), args, environment{Getenv: w.getenv, Stdin: strings.NewReader(token), Stdout: &stdout, Stderr: &stderr}); code != exitDone {
			t.Fatalf("suggest = %d %s", code, stderr.String())
		}
		return stdout.String(), stderr.String()
	}
	out, errs := suggest()
	for _, want := range []string{"# mapping agents is for this owner", "overrides:\n  - name: new-tools\n    match:\n      repository_id: \"99\"\n    grants:\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if !strings.Contains(errs, "add it to mapping agents") {
		t.Errorf("it says %s", errs)
	}
	changed := strings.Replace(w.config, "    match: "+organizationMatch, "    match: "+organizationMatch+"\n    "+strings.ReplaceAll(out[strings.Index(out, "overrides:"):], "\n", "\n    "), 1)
	w.writeConfig(changed)
	w.hangUp(reloaded)
	if out, _ := suggest("--name", "mine"); !strings.Contains(out, "name: mine\nissuer: github\n") {
		t.Errorf("with --name:\n%s", out)
	}
}
