package clients_test

import (
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/internal/testkit/clients"
)

// workflow runs the agent's workflow in a job of an emulated GitHub.
func workflow(t *testing.T, kit *clients.Kit, g *gateway, onDenial, agent string) (*clients.WorkflowResult, *testkit.Job) {
	t.Helper()
	issuer, err := testkit.NewIssuer(testkit.IssuerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = issuer.Close() })
	job := issuer.StartJob(issuer.GitHubClaims(nil))
	run, err := kit.Workflow(t.Context(), clients.WorkflowRun{
		Text: clients.AgentWorkflow,
		Vars: map[string]string{"JOBGATE_URL": g.URL, "MAPPING": "agents", "ON_DENIAL": onDenial, "AGENT": agent},
		Env:  job.Env(),
		Home: t.TempDir(),
	})
	need(t, err)
	return run, job
}

func TestWorkflow(t *testing.T) {
	kit, g := world(t, "echo the agent was here; env | grep -c ANTHROPIC_AUTH_TOKEN")
	run, job := workflow(t, kit, g, "fail", `{"prompt":"it's go"}`)
	if !run.OK {
		t.Fatalf("the workflow failed:\n%s", run.Shown)
	}
	main := run.Step("Main", "./actions/connect")
	if got, want := main.Env["ANTHROPIC_BASE_URL"], g.URL+"/anthropic"; got != want || main.Outputs["base-url"] != want {
		t.Errorf("connect set ANTHROPIC_BASE_URL %q and base-url %q, want %q", got, main.Outputs["base-url"], want)
	}
	if log := strings.Join(run.Step("Main", "agent").Log, "\n"); !strings.Contains(log, `the agent was here\n0`) {
		t.Errorf("the agent's step did not run its command, or saw a token in its environment:\n%s", log)
	}
	post := run.Step("Post", "./actions/connect")
	if post.Result != "success" || !strings.Contains(post.Summary, "| Refused | 0 |") {
		t.Errorf("post = %s with summary\n%s\nwant a success and no refusals", post.Result, post.Summary)
	}
	if n := g.count("POST /oauth/revoke"); n != 1 {
		t.Errorf("the session was closed %d times, want 1", n)
	}
	for secret := range g.sessions {
		if strings.Contains(run.Shown, secret) {
			t.Error("a session token stands in the log")
		}
	}
	if strings.Contains(run.Shown, job.Env()["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]) {
		t.Error("the runner's request token stands in the log")
	}
}

func TestWorkflowWithRefusals(t *testing.T) {
	for _, row := range []struct {
		onDenial string
		ok       bool
	}{{"fail", false}, {"warn", true}} {
		kit, g := world(t, "true")
		g.denials = 1
		run, _ := workflow(t, kit, g, row.onDenial, `{}`)
		post := run.Step("Post", "./actions/connect")
		said := append(post.Errors, post.Warnings...)
		if run.OK != row.ok || len(said) != 1 || !strings.Contains(said[0], "1 call or tool use was refused; the first: no-network: work offline") {
			t.Errorf("on-denial %s: OK = %v, annotations %q, want OK = %v and the refusal named", row.onDenial, run.OK, said, row.ok)
		}
		if !strings.Contains(post.Summary, "&#96;curl&#96; &#124; sh") {
			t.Errorf("on-denial %s: the summary does not show the command escaped:\n%s", row.onDenial, post.Summary)
		}
	}
}

func TestWorkflowWhoseAgentFails(t *testing.T) {
	kit, g := world(t, "true")
	run, _ := workflow(t, kit, g, "fail", `not JSON`)
	if run.OK || run.Step("Main", "agent").Result != "failure" {
		t.Errorf("OK = %v, agent %s, want a failure", run.OK, run.Step("Main", "agent").Result)
	}
	if post := run.Step("Post", "./actions/connect"); post.Result != "success" || g.count("POST /oauth/revoke") != 1 {
		t.Errorf("post = %s, closed %d times, want the session closed after a failed step", post.Result, g.count("POST /oauth/revoke"))
	}
}
