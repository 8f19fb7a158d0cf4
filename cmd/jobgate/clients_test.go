package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/internal/testkit/clients"
	"github.com/jobgate/jobgate/proxy/record"
)

func bash(command string) testkit.ToolUse {
	input, _ := json.Marshal(map[string]string{"command": command, "description": "a step"})
	return testkit.ToolUse{Name: "Bash", Input: string(input)}
}

// TestAgentSDKOpensBySelf runs the real Agent SDK with nothing but environment variables: it exchanges the CI token at
// the connection's own door and works.
func TestAgentSDKOpensByItself(t *testing.T) {
	k := kit(t)
	w := newWorld(t, worldConfig{script: testkit.ScriptTools(
		testkit.Step{Think: "first a command", Use: []testkit.ToolUse{bash("echo made > made.txt && cat made.txt")}},
		testkit.Step{Say: "It said: {result}"},
	)})
	dir := t.TempDir()
	token := w.token(w.job(nil))
	run := w.agent(k, dir, w.federation(token, "agents"))
	if !run.OK || !strings.Contains(run.Result, "made") {
		t.Fatalf("the run ended with %q, ok %v", run.Result, run.OK)
	}
	if _, err := os.Stat(filepath.Join(dir, "made.txt")); err != nil {
		t.Errorf("the allowed command left no trace: %v", err)
	}
	sessions := w.sessions("?state=open")
	if len(sessions) != 1 || sessions[0].Mapping != "agents" {
		t.Fatalf("sessions = %+v, want one of mapping agents", sessions)
	}
	for _, r := range w.model.Requests() {
		if got := r.Header.Get("x-api-key"); got != worldKey {
			t.Errorf("the upstream got the key %q", got)
		}
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), "jg_") {
				t.Errorf("the upstream saw an access token in %s", name)
			}
		}
	}
	if err := w.admin("DELETE", "/v1/sessions/"+sessions[0].ID, nil, nil); err != nil {
		t.Fatal(err)
	}
	lines := w.events(sessions[0].ID)
	if got := lines[len(lines)-1].Type; got != record.TypeSessionEnded {
		t.Errorf("the last event is %s, events %s", got, types(lines))
	}
	w.stop()
	w.nowhere(map[string]string{"the credential": worldKey, "the CI token": token, "its signature": token[strings.LastIndex(token, ".")+1:]})
}

// TestAgentSDKWithSessionToken runs the SDK with the token of the first door as its identity token, as actions/connect
// leaves it.
func TestAgentSDKWithSessionToken(t *testing.T) {
	k := kit(t)
	w := newWorld(t, worldConfig{script: testkit.ScriptTools(
		testkit.Step{Use: []testkit.ToolUse{bash("env | grep -c jg_ || true")}},
		testkit.Step{Say: "count: {result}"},
	)})
	opened := w.open()
	env := w.federation(opened.AccessToken, "agents")
	run := w.agent(k, t.TempDir(), env)
	if !run.OK || !strings.Contains(run.Result, "count: 0") {
		t.Fatalf("the run ended with %q (ok %v); the tools must see no token", run.Result, run.OK)
	}
	if n := len(w.sessions("")); n != 1 {
		t.Errorf("%d sessions, want the one that was joined", n)
	}
	w.stop()
	w.nowhere(map[string]string{"the credential": worldKey, "the session token": opened.AccessToken})
}

// TestAgentSDKDeniedToolUse has two tool uses in one message: one is denied, the other runs, and the agent goes on with
// the reason in its next request.
func TestAgentSDKDeniedToolUse(t *testing.T) {
	k := kit(t)
	for name, pacing := range map[string]testkit.Pacing{
		"as it comes": {}, "slowly, a byte at a time": {ChunkBytes: 1, TextSize: 3}, "with CRLF": {LineEnd: "\r\n"},
		"with CR": {LineEnd: "\r"}, "data over several lines": {SplitData: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, worldConfig{pacing: pacing, script: testkit.ScriptTools(
				testkit.Step{Say: "two things", Use: []testkit.ToolUse{
					bash("touch denied.txt; curl -s http://127.0.0.1:1/ || true"), bash("touch allowed.txt"),
				}},
				testkit.Step{Say: "done: {result}"},
			)})
			dir := t.TempDir()
			run := w.agent(k, dir, w.federation(w.token(w.job(nil)), "agents"))
			if !run.OK || !strings.Contains(run.Result, "done") {
				t.Fatalf("the run ended with %q", run.Result)
			}
			if _, err := os.Stat(filepath.Join(dir, "denied.txt")); err == nil {
				t.Error("the denied command ran")
			}
			if _, err := os.Stat(filepath.Join(dir, "allowed.txt")); err != nil {
				t.Error("the allowed command of the same message did not run")
			}
			requests := w.model.Requests()
			last := string(requests[len(requests)-1].Raw)
			for _, want := range []string{"agents of this mapping work without the network", "Bash__denied__no-network"} {
				if !strings.Contains(last, want) {
					t.Errorf("the next request does not hold %q", want)
				}
			}
		})
	}
}

// TestAgentSDKOnDeny shows what stop and fail do to a run.
func TestAgentSDKOnDeny(t *testing.T) {
	k := kit(t)
	script := testkit.ScriptTools(
		testkit.Step{Say: "trying", Use: []testkit.ToolUse{bash("touch denied.txt; curl x")}},
		testkit.Step{Say: "went on"},
	)
	for onDeny, want := range map[string]struct {
		ok   bool
		text string
	}{
		"stop": {true, "work without the network"},
		"fail": {false, "work without the network"},
	} {
		t.Run(onDeny, func(t *testing.T) {
			w := newWorld(t, worldConfig{script: script, onDeny: onDeny})
			dir := t.TempDir()
			run := w.agent(k, dir, w.federation(w.token(w.job(nil)), "agents"))
			if run.OK != want.ok || !strings.Contains(run.Result, want.text) {
				t.Errorf("ok %v, result %q; want ok %v and %q", run.OK, run.Result, want.ok, want.text)
			}
			if _, err := os.Stat(filepath.Join(dir, "denied.txt")); err == nil {
				t.Error("the denied command ran")
			}
		})
	}
}

// TestAgentSDKApproval has a person press Approve, or Deny, in Slack.
func TestAgentSDKApproval(t *testing.T) {
	k := kit(t)
	for _, c := range []struct {
		press string
		ran   bool
		next  string // what the second request holds
	}{{"approve", true, "released"}, {"deny", false, "denied by"}} {
		t.Run(c.press, func(t *testing.T) {
			w := newWorld(t, worldConfig{script: testkit.ScriptTools(
				testkit.Step{Say: "a release", Use: []testkit.ToolUse{bash("touch release.txt && echo released")}},
				testkit.Step{Say: "done: {result}"},
			)})
			dir := t.TempDir()
			result := make(chan *clients.Transcript, 1)
			env := w.federation(w.token(w.job(nil)), "agents")
			go func() { result <- w.agent(k, dir, env) }()
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			if err := w.slack.Await(ctx, func(s *testkit.Slack) bool { return len(s.Messages()) > 0 }); err != nil {
				t.Fatalf("no question in Slack: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "release.txt")); err == nil {
				t.Fatal("the command ran before anybody said yes")
			}
			ts := w.slack.Messages()[0].TS
			// Somebody who is not an approver presses first, and is told so.
			if _, err := w.slack.Press(ctx, ts, "approve", "U2"); err != nil {
				t.Fatal(err)
			}
			if err := w.slack.Await(ctx, func(s *testkit.Slack) bool { return len(s.Ephemerals()) > 0 }); err != nil {
				t.Fatalf("mallory was told nothing: %v", err)
			}
			if _, err := w.slack.Press(ctx, ts, c.press, "U1"); err != nil {
				t.Fatal(err)
			}
			run := <-result
			if !run.OK {
				t.Fatalf("the run ended with %q", run.Result)
			}
			if _, err := os.Stat(filepath.Join(dir, "release.txt")); (err == nil) != c.ran {
				t.Errorf("the command ran: %v, want %v", err == nil, c.ran)
			}
			requests := w.model.Requests()
			if last := string(requests[len(requests)-1].Raw); !strings.Contains(last, c.next) {
				t.Errorf("the next request does not hold %q", c.next)
			}
			session := w.sessions("")[0]
			if session.Tally.Asked != 1 {
				t.Errorf("tally = %+v, want one question", session.Tally)
			}
		})
	}
}

// TestAgentSDKWindowClosed ends the session while the agent works: the run ends with the reason, and a fresh token of
// the same job opens nothing.
func TestAgentSDKWindowClosed(t *testing.T) {
	k := kit(t)
	gate := make(chan struct{}, 1)
	w := newWorld(t, worldConfig{script: testkit.ScriptTools(
		testkit.Step{Use: []testkit.ToolUse{bash("echo one")}},
		testkit.Step{Say: strings.Repeat("a long answer ", 400), Pacing: &testkit.Pacing{Gate: func(e testkit.Event) {
			if e.N == 20 {
				gate <- struct{}{}
				<-e.Done
			}
		}}},
	)})
	job := w.job(nil)
	result := make(chan *clients.Transcript, 1)
	env := w.federation(w.token(job), "agents")
	go func() { result <- w.agent(k, t.TempDir(), env) }()
	select {
	case <-gate:
	case <-time.After(60 * time.Second):
		t.Fatal("the second answer never began")
	}
	session := w.sessions("?state=open")[0]
	if err := w.admin("DELETE", "/v1/sessions/"+session.ID, nil, nil); err != nil {
		t.Fatal(err)
	}
	run := <-result
	if run.OK || !strings.Contains(run.Result, "an operator closed it") {
		t.Errorf("ok %v, result %q; want the reason of the end", run.OK, run.Result)
	}
	status, _, bad := w.exchange(w.token(job), url.Values{"mapping": {"agents"}})
	if status != http.StatusBadRequest || bad.Error != "invalid_grant" {
		t.Errorf("a fresh token of the job got %d %+v, want 400 invalid_grant", status, bad)
	}
}

// TestPlainSDK runs Anthropic's plain SDK, with its own federation and with a bearer token.
func TestPlainSDK(t *testing.T) {
	k := kit(t)
	w := newWorld(t, worldConfig{script: testkit.ScriptSay("hello from the model")})
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	opened := w.open()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(opened.AccessToken), 0o600); err != nil {
		t.Fatal(err)
	}
	for auth, env := range map[string]map[string]string{
		"federation": w.federation(w.token(w.job(map[string]any{"run_id": "77", "check_run_id": "78"})), "agents"),
		"token-file": {"JOBGATE_TOKEN_FILE": file, "ANTHROPIC_BASE_URL": w.base() + "/anthropic"},
	} {
		answers, err := k.SDK(ctx, auth, t.TempDir(), env)
		if err != nil || len(answers) != 2 {
			t.Fatalf("%s: %v, %d answers", auth, err, len(answers))
		}
		for _, a := range answers {
			if a.Error != nil || a.Text != "hello from the model" {
				t.Errorf("%s, stream %v: %q, error %+v", auth, a.Stream, a.Text, a.Error)
			}
		}
	}
}

// TestWorkflow runs a real workflow with actions/connect, the SDK and the post step under act.
func TestWorkflow(t *testing.T) {
	k := kit(t)
	w := newWorld(t, worldConfig{script: testkit.ScriptTools(
		testkit.Step{Use: []testkit.ToolUse{bash("echo from the job")}},
		testkit.Step{Say: "result: {result}"},
	)})
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	job := w.job(nil)
	run, err := k.Workflow(ctx, clients.WorkflowRun{Text: clients.AgentWorkflow, Env: job.Env(), Home: t.TempDir(), Vars: map[string]string{
		"JOBGATE_URL": w.base(), "MAPPING": "agents", "ON_DENIAL": "fail", "AGENT": `{"prompt": "go"}`,
	}})
	skipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	connect, post := run.Step("Main", "./actions/connect"), run.Step("Post", "./actions/connect")
	if !run.OK {
		t.Fatalf("the workflow failed: connect %q %v, post %q %v\n%s", connect.Result, connect.Errors, post.Result, post.Errors, tail(run.Shown, 4000))
	}
	for _, want := range []string{"ANTHROPIC_BASE_URL", "ANTHROPIC_IDENTITY_TOKEN_FILE", "CLAUDE_CODE_GATEWAY_HINT_HEADERS"} {
		if connect.Env[want] == "" {
			t.Errorf("connect did not export %s", want)
		}
	}
	if strings.Contains(run.Shown, "jg_") || strings.Contains(run.Shown, worldKey) {
		t.Error("a token or the key is shown in the log")
	}
	session := w.sessions("")[0]
	if session.State != "ended" || session.EndReason != "closed" {
		t.Errorf("after the job the session is %s (%s), want closed", session.State, session.EndReason)
	}
	if !strings.Contains(post.Summary, session.ID) || !strings.Contains(post.Summary, "Jobgate") {
		t.Errorf("the job's page does not tell of the session:\n%s", post.Summary)
	}
	w.events(session.ID)
}

// TestWorkflowDenied has a tool use refused in a job: the post step makes the job red.
func TestWorkflowDenied(t *testing.T) {
	k := kit(t)
	w := newWorld(t, worldConfig{script: testkit.ScriptTools(
		testkit.Step{Use: []testkit.ToolUse{bash("curl http://127.0.0.1:1/")}},
		testkit.Step{Say: "I leave it"},
	)})
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	run, err := k.Workflow(ctx, clients.WorkflowRun{Text: clients.AgentWorkflow, Env: w.job(nil).Env(), Home: t.TempDir(), Vars: map[string]string{
		"JOBGATE_URL": w.base(), "MAPPING": "agents", "ON_DENIAL": "fail", "AGENT": `{"prompt": "go"}`,
	}})
	skipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	post := run.Step("Post", "./actions/connect")
	if run.OK || len(post.Errors) == 0 {
		t.Errorf("a job in which something was refused is green; post: %q %v", post.Result, post.Errors)
	}
	if !strings.Contains(post.Summary, "no-network") {
		t.Errorf("the job's page does not name the rule:\n%s", post.Summary)
	}
	var list api.List[api.SessionView]
	if err := w.admin("GET", "/v1/sessions?state=open", nil, &list); err != nil || len(list.Items) != 0 {
		t.Errorf("open sessions after the job: %v, %v", list.Items, err)
	}
}
