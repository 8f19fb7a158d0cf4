package main

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
)

// readmeBlock returns the README's configuration of one mapping.
func readmeBlock(t *testing.T, mapping string) string {
	t.Helper()
	for _, block := range yamlBlock.FindAllStringSubmatch(readText(t, "../../README.md"), -1) {
		if strings.Contains(block[1], "- name: "+mapping+"\n") {
			return block[1]
		}
	}
	t.Fatalf("the README has no mapping %q", mapping)
	return ""
}

// readmeWorld is a world whose mapping is one of the README's.
func readmeWorld(t *testing.T, mapping string, script testkit.Script) *world {
	t.Helper()
	w := newWorld(t, worldConfig{script: script})
	w.stop()
	before, _, _ := strings.Cut(w.config, "\nmappings:")
	w.writeConfig(before + "\n" + readmeBlock(t, mapping))
	w.start()
	return w
}

// A job that a comment started logs in by itself under the README's mapping, and an agent works; other events that
// anybody can start stay out.
func TestReadmeCommentJob(t *testing.T) {
	w := readmeWorld(t, "comment-agents", testkit.ScriptTools(testkit.Step{Say: "hello"}))
	job := w.job(map[string]any{"event_name": "issue_comment"})
	agent, err := testkit.NewAgent(testkit.AgentConfig{
		BaseURL: w.base() + "/anthropic", Rule: "comment-agents", Organization: "jobgate",
		Identity: func(ctx context.Context) (string, error) { return job.Token(ctx, w.base()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := agent.Run(t.Context(), "Say hello."); err != nil || text != "hello" {
		t.Errorf("the agent said %q, %v", text, err)
	}
	for _, event := range []string{"pull_request_target", "push"} {
		status, _, refusal := w.exchange(w.token(w.job(map[string]any{"event_name": event})), url.Values{"mapping": {"comment-agents"}})
		if status != http.StatusBadRequest || refusal.Error != "invalid_target" {
			t.Errorf("a job of event %s: status %d, %+v; want it refused", event, status, refusal)
		}
	}
}

func TestReadmeConnectJob(t *testing.T) {
	w := readmeWorld(t, "release-agents", nil)
	status, token, refusal := w.exchange(w.token(w.job(nil)), nil)
	if status != http.StatusOK || token.Mapping != "release-agents" || token.Scope != "anthropic" {
		t.Errorf("a push: status %d, %+v, %+v", status, token, refusal)
	}
	status, _, refusal = w.exchange(w.token(w.job(map[string]any{"event_name": "issue_comment"})), nil)
	if status != http.StatusBadRequest || refusal.Error != "invalid_target" {
		t.Errorf("a comment: status %d, %+v; want it refused", status, refusal)
	}
}
