package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
)

// TestConnect lives a GitLab job: connect, a call, close, in a shell each, with the token gone from the second.
func TestConnect(t *testing.T) {
	needs(t, "curl", "apt-get install curl")
	w := newWorld(t, worldConfig{script: testkit.ScriptSay("hello")})
	dir := t.TempDir()
	env := map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(nil), "JOBGATE_STATE": filepath.Join(dir, "deep", "state.json")}
	cmd := w.program(env, "connect", "--mapping", "agents-gitlab")
	got := finish(t, cmd)
	if got.code != 0 {
		t.Fatalf("connect = %d:\n%s", got.code, got.stderr)
	}
	noToken(t, "the output", got.stdout+got.stderr)
	for _, want := range []string{"export ANTHROPIC_BASE_URL='" + w.url + "/anthropic'\n", "export ANTHROPIC_FEDERATION_RULE_ID='agents-gitlab'\n", "unset JOBGATE_ID_TOKEN\n"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("connect does not print %q:\n%s", want, got.stdout)
		}
	}
	if !strings.Contains(got.stderr, "one token") {
		t.Errorf("connect does not say that the lease cannot be renewed:\n%s", got.stderr)
	}
	state, err := os.ReadFile(env["JOBGATE_STATE"])
	if err != nil {
		t.Fatal(err)
	}
	noToken(t, "the state", string(state))
	var st struct {
		Dir  string `json:"dir"`
		File string `json:"token_file"`
	}
	if err := json.Unmarshal(state, &st); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{env["JOBGATE_STATE"]: 0o600, st.Dir: 0o700, st.File: 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	shell := w.program(env)
	shell.Path, shell.Args = "/bin/sh", []string{"sh", "-c", got.stdout + call + `; echo " ${JOBGATE_ID_TOKEN-unset}"`}
	if ran := finish(t, shell); ran.stdout != "200 unset\n" {
		t.Fatalf("the call: %q\n%s", ran.stdout, ran.stderr)
	}
	end := w.run(env, "close")
	if end.code != 0 || !strings.Contains(end.stderr, "1 calls, 0 refused") {
		t.Errorf("close = %d:\n%s", end.code, end.stderr)
	}
	if s := w.only(); s.EndReason != "closed" {
		t.Errorf("session is %s (%s), want closed", s.State, s.EndReason)
	}
	nothingIn(t, dir)
}
