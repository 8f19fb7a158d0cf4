package clients_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/internal/testkit/clients"
)

// need skips the test where a program is missing.
func need(t *testing.T, err error) {
	t.Helper()
	if missing := (*clients.MissingError)(nil); errors.As(err, &missing) {
		t.Skip(missing)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// world is a model, a gateway before it, and the installed clients. The
// agent's model asks for one command and then quotes what it printed.
func world(t *testing.T, command string) (*clients.Kit, *gateway) {
	t.Helper()
	kit, err := clients.Find()
	need(t, err)
	model, err := testkit.NewModel(testkit.ModelConfig{Script: testkit.ScriptTools(
		testkit.Step{Use: []testkit.ToolUse{{Name: "Bash", Input: `{"command":"` + command + `"}`}}},
		testkit.Step{Say: "It printed: {result}"},
	)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Error(err)
		}
	})
	return kit, newGateway(t, model)
}

// loginEnv is what a client needs in its environment, with a session token in a
// file as actions/connect writes it.
func (g *gateway) loginEnv(t *testing.T) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(g.open()), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"ANTHROPIC_BASE_URL":            g.URL + "/anthropic",
		"ANTHROPIC_FEDERATION_RULE_ID":  "agents",
		"ANTHROPIC_ORGANIZATION_ID":     "jobgate",
		"ANTHROPIC_IDENTITY_TOKEN_FILE": file,
		"JOBGATE_TOKEN_FILE":            file,
	}
}

func TestAgent(t *testing.T) {
	kit, g := world(t, "echo made > made.txt; cat made.txt")
	home := t.TempDir()
	run, err := kit.Agent(t.Context(), clients.AgentRun{Prompt: "go", Home: home, Env: g.loginEnv(t)})
	if err != nil {
		t.Fatal(err)
	}
	if !run.OK || !strings.HasPrefix(run.Result, "It printed: made") {
		t.Errorf("run = %v %q, want a success that quotes the command", run.OK, run.Result)
	}
	if len(run.Uses) != 1 || run.Uses[0].Name != "Bash" || len(run.Results) != 1 || run.Results[0].Text != "made" || run.Results[0].Error {
		t.Errorf("uses %+v, results %+v, want one of Bash that printed made", run.Uses, run.Results)
	}
	if _, err := os.Stat(filepath.Join(home, "made.txt")); err != nil {
		t.Errorf("the command left no trace: %v", err)
	}
	if n := g.count("POST /anthropic/v1/oauth/token"); n != 1 {
		t.Errorf("the client logged in %d times, want 1", n)
	}
}

func TestAgentThatIsRefused(t *testing.T) {
	kit, g := world(t, "true")
	env := g.loginEnv(t)
	if err := os.WriteFile(env["ANTHROPIC_IDENTITY_TOKEN_FILE"], []byte("jg_unknown"), 0o600); err != nil {
		t.Fatal(err)
	}
	run, err := kit.Agent(t.Context(), clients.AgentRun{Home: t.TempDir(), Env: env})
	if err != nil {
		t.Fatal(err)
	}
	if run.OK || !strings.Contains(run.Result, "invalid_grant") {
		t.Errorf("run = %v %q, want a failure that shows invalid_grant", run.OK, run.Result)
	}
}

func TestSDK(t *testing.T) {
	kit, g := world(t, "true")
	for _, auth := range []string{"federation", "token-file"} {
		answers, err := kit.SDK(t.Context(), auth, t.TempDir(), g.loginEnv(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range answers {
			if a.Error != nil || a.Text == "" {
				t.Errorf("SDK(%s), stream %v = %q, error %+v, want a text", auth, a.Stream, a.Text, a.Error)
			}
		}
	}
}
