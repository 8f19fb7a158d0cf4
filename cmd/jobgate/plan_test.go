package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/api"
)

// TestMappingsPlan replays what a server saw, over a restart, against a changed configuration file and against single mappings.
func TestMappingsPlan(t *testing.T) {
	w := newWorld(t, worldConfig{})
	if status, _, bad := w.exchange(w.token(w.job(nil)), nil); status != http.StatusOK {
		t.Fatalf("exchange = %d %+v", status, bad)
	}
	hostile := "refs/heads/\u202e\x1b[2Jnext"
	for i := range 3 {
		if status, _, _ := w.exchange(w.token(w.job(map[string]any{"ref": hostile, "run_id": fmt.Sprint(10 + i)})), nil); status != http.StatusBadRequest {
			t.Fatal("a branch that is not named was served")
		}
	}
	w.stop()
	w.start()
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	next := file("next.yaml", strings.Replace(w.config, "ref: refs/heads/main", "ref: refs/heads/next", 1))
	renamed := file("renamed.yaml", strings.Replace(w.config, "name: agents\n", "name: renamed\n", 1))
	wide := file("wide.yaml", `
name: agents
issuer: github
match: {repository_owner_id: "123456", repository_id: "456789", event_name: push}
grants: [{connection: anthropic, allow: ["POST /v1/messages"]}]
`)
	for _, c := range []struct {
		name string
		args []string
		code int
		has  []string
		not  []string
	}{
		{"the file as it is", []string{"-f", w.file(), "--fail-on-loss"}, exitDone, []string{"4 jobs of the last 7 days", "none: they say what is in force", "unchanged     1 served, 3 refused"}, []string{"LOSE", "GAIN"}},
		{"a loss", []string{"-f", next}, exitDone, []string{"agents (changed)", "lose          1", "LOSE: served then, refused by the plan\n     1  ", "by agents\n        FAILS   ref: it is 'refs/heads/main', wanted 'refs/heads/next'\n", ", x_"}, []string{"GAIN"}},
		{"a loss in a pipeline", []string{"-f", next, "--fail-on-loss"}, exitDenied, []string{"LOSE"}, nil},
		{"another mapping", []string{"-f", renamed, "--fail-on-loss"}, exitDone, []string{"agents (deleted), renamed (new)", "elsewhere     1", "agents -> renamed\n"}, []string{"LOSE"}},
		{"a mapping's file", []string{"-f", wide, "--fail-on-loss"}, exitDone, []string{"gain          3", "GAIN: refused then, served by the plan\n     3  ", "by agents\n", "then: mapping agents: claim ref is 'refs/heads/"}, []string{"LOSE"}},
		{"a mapping's file and none of another", []string{"-f", wide, "--without", "nobody"}, exitFailed, nil, nil},
		{"without it", []string{"--without", "agents"}, exitDone, []string{"agents (deleted)", "lose          1", "no mapping serves this job"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := w.command(append([]string{"mappings", "plan"}, c.args...)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, errs)
			}
			for _, part := range c.has {
				if !strings.Contains(out, part) {
					t.Errorf("no %q in:\n%s", part, out)
				}
			}
			for _, part := range append(c.not, "\x1b", "\u202e") {
				if strings.Contains(out, part) {
					t.Errorf("%q in:\n%s", part, out)
				}
			}
		})
	}
	var plan api.Plan
	if err := json.Unmarshal([]byte(w.must("-o", "json", "mappings", "plan", "-f", next, "--days", "1")), &plan); err != nil {
		t.Fatal(err)
	}
	if plan.Lose.Jobs != 1 || len(plan.Lose.Items) != 1 || plan.Lose.Items[0].Failed[0].On != "ref" || plan.Lose.Items[0].Then != "agents" {
		t.Errorf("plan %+v", plan)
	}
	code, out, errs := w.command("explain", "--exchange", plan.Lose.Items[0].Exchange)
	if code != exitDone || !strings.Contains(out, "granted") {
		t.Errorf("the exchange that a plan names is explained with %d %s%s", code, out, errs)
	}
	// Nothing was changed.
	var m api.MappingView
	if err := w.admin("GET", "/v1/mappings/agents", nil, &m); err != nil || m.Revision != 1 {
		t.Errorf("agents = %+v, %v", m, err)
	}
	for _, c := range []struct {
		name string
		args []string
		says string
		code int
	}{
		{"nothing", nil, "name what would change", exitUsage},
		{"too far back", []string{"-f", wide, "--days", "30"}, "kept for 14 days", exitUsage},
		{"a connection that is not there", []string{"-f", file("bad.yaml", strings.Replace(mustRead(t, wide), "connection: anthropic", "connection: nowhere", 1))}, "nowhere", exitFailed},
		{"an unknown key", []string{"-f", file("key.yaml", "name: a\nfrobnicate: 1\n")}, "frobnicate", exitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, errs := w.command(append([]string{"mappings", "plan"}, c.args...)...)
			if code != c.code || !strings.Contains(errs, c.says) {
				t.Errorf("exit code %d, %s; want %d, %q", code, errs, c.code, c.says)
			}
		})
	}
}

func mustRead(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
