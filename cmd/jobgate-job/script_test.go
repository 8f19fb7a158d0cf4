package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
)

// script is a run of jobgate-connect.sh under a shell.
func (w *world) script(shell string, env map[string]string, args ...string) *exec.Cmd {
	w.t.Helper()
	path, err := filepath.Abs("../../ci-templates/jobgate-connect.sh")
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := w.program(env)
	cmd.Path, cmd.Args = shell, append([]string{shell, path}, args...)
	return cmd
}

// shell finds a shell that the script is tried with: dash, bash or busybox.
func shell(t *testing.T, name string) string {
	t.Helper()
	needs(t, "curl", "apt-get install curl")
	needs(t, name, "apt-get install "+name)
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	if name == "busybox" { // which of its programs it is, its name says
		ash := filepath.Join(t.TempDir(), "ash")
		if err := os.Symlink(path, ash); err != nil {
			t.Fatal(err)
		}
		return ash
	}
	return path
}

// TestScript lives a job with jobgate-connect.sh: connect, a call, close.
func TestScript(t *testing.T) {
	w := newWorld(t, worldConfig{script: testkit.ScriptSay("hello")})
	for i, name := range []string{"dash", "bash", "busybox"} {
		t.Run(name, func(t *testing.T) {
			shell := shell(t, name)
			dir := t.TempDir()
			job := string(rune('1' + i))
			env := map[string]string{"TOKEN": w.gitlabToken(map[string]any{"job_id": job}), "JOBGATE_STATE": filepath.Join(dir, "a b", "state"),
				"JOBGATE_MAPPING": "agents-gitlab", "JOBGATE_SCOPE": "anthropic"}
			got := finish(t, w.script(shell, env, "connect", "--token-env", "TOKEN"))
			if got.code != 0 {
				t.Fatalf("connect = %d:\n%s", got.code, got.stderr)
			}
			noToken(t, "the output", got.stdout+got.stderr)
			sh := w.program(env)
			sh.Path, sh.Args = shell, []string{shell, "-c", `eval "$1"; ` + call + `; echo " ${TOKEN-unset} $ANTHROPIC_FEDERATION_RULE_ID $(stat -c %a "$JOBGATE_TOKEN_FILE")"`, "x", got.stdout}
			if ran := finish(t, sh); ran.stdout != "200 unset agents-gitlab 600\n" {
				t.Fatalf("the call: %q\n%s", ran.stdout, ran.stderr)
			}
			end := finish(t, w.script(shell, env, "close"))
			if end.code != 0 || !strings.Contains(end.stderr, "1 calls, 0 refused") {
				t.Errorf("close = %d:\n%s", end.code, end.stderr)
			}
			nothingIn(t, dir)
		})
	}
	for _, s := range w.sessions() {
		if s.EndReason != "closed" {
			t.Errorf("session %s is %s (%s), want closed", s.ID, s.State, s.EndReason)
		}
	}
}

func TestScriptRefusals(t *testing.T) {
	w := newWorld(t, worldConfig{})
	shell := shell(t, "dash")
	good := w.gitlabToken(nil)
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		says string
	}{
		{"no command", nil, nil, 2, "usage"},
		{"no token", nil, []string{"connect"}, 1, "id_tokens"},
		{"a name that is code", nil, []string{"connect", "--token-env", "A;touch x"}, 2, "name of a variable"},
		{"a token that is configuration", map[string]string{"JOBGATE_ID_TOKEN": "a\"\noutput = \"x"}, []string{"connect"}, 1, "no OIDC token"},
		{"a URL that is configuration", map[string]string{"JOBGATE_URL": "https://x\" -o y"}, []string{"connect"}, 2, "JOBGATE_URL"},
		{"plain http", map[string]string{"JOBGATE_URL": "http://jobgate.example.com"}, []string{"connect"}, 2, "https://"},
		{"plain http with a name like loopback", map[string]string{"JOBGATE_URL": "http://127.0.0.1.example.com"}, []string{"connect"}, 2, "https://"},
		{"shadow", map[string]string{"JOBGATE_ID_TOKEN": good, "ANTHROPIC_API_KEY": "sk-ant-1"}, []string{"connect"}, 1, "ANTHROPIC_API_KEY"},
		{"another's token", map[string]string{"JOBGATE_ID_TOKEN": w.gitlabToken(map[string]any{"project_id": "21", "job_project_id": "21", "namespace_id": "72"})}, []string{"connect"}, 3, "invalid_target"},
		{"a wrong mapping", map[string]string{"JOBGATE_ID_TOKEN": good, "JOBGATE_MAPPING": "nobodys"}, []string{"connect"}, 3, "refused the exchange"},
		{"nobody there", map[string]string{"JOBGATE_ID_TOKEN": good, "JOBGATE_URL": "http://127.0.0.1:1"}, []string{"connect"}, 1, "cannot reach"},
		{"no server of ours", map[string]string{"JOBGATE_ID_TOKEN": good, "JOBGATE_URL": w.model.URL()}, []string{"connect"}, 1, "without an OAuth error"},
		{"close without connect", nil, []string{"close"}, 1, "JOBGATE_STATE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := map[string]string{"JOBGATE_URL": w.url}
			for k, v := range c.env {
				env[k] = v
			}
			cmd := w.script(shell, env, c.args...)
			got := finish(t, cmd)
			if got.code != c.code || !strings.Contains(got.stderr, c.says) {
				t.Errorf("exit %d, want %d and %q in:\n%s", got.code, c.code, c.says, got.stderr)
			}
			noToken(t, "the output", got.stdout+got.stderr)
			if left, _ := os.ReadDir(cmd.Dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if strings.HasPrefix(c.name, "no command") || c.name == "close without connect" {
				return
			}
			// What it printed must not let a job go on.
			if code := finish(t, exec.Command(shell, "-c", `set -e; eval "$1"; true`, "x", got.stdout)).code; code != c.code {
				t.Errorf("eval of what it printed gives %d, want %d: %q", code, c.code, got.stdout)
			}
		})
	}
}

// TestScriptCommandLines shows what curl is started with: every process of a machine can read that.
func TestScriptCommandLines(t *testing.T) {
	w := newWorld(t, worldConfig{})
	shell := shell(t, "dash")
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	seen := filepath.Join(dir, "seen")
	write(t, filepath.Join(dir, "curl"), "#!/bin/sh\necho \"$@\" >>'"+seen+"'\nexec "+curl+" \"$@\"\n")
	if err := os.Chmod(filepath.Join(dir, "curl"), 0o700); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"PATH": dir + ":" + os.Getenv("PATH"), "JOBGATE_ID_TOKEN": w.gitlabToken(nil), "JOBGATE_STATE": filepath.Join(dir, "state")}
	for _, command := range []string{"connect", "close"} {
		if got := finish(t, w.script(shell, env, command)); got.code != 0 {
			t.Fatalf("%s = %d:\n%s", command, got.code, got.stderr)
		}
	}
	raw, err := os.ReadFile(seen)
	if err != nil || strings.Count(string(raw), "--config -") != 3 {
		t.Errorf("curl was started with %q (%v), want three times --config -", raw, err)
	}
	noToken(t, "curl's arguments", string(raw))
}

// TestScriptDenied has a refused call make close fail, or warn.
func TestScriptDenied(t *testing.T) {
	w := newWorld(t, worldConfig{})
	shell := shell(t, "dash")
	for onDenial, want := range map[string]int{"fail": 3, "warn": 0} {
		env := map[string]string{"JOBGATE_ID_TOKEN": w.gitlabToken(map[string]any{"job_id": fmt.Sprint(90 + want)}), "JOBGATE_STATE": filepath.Join(t.TempDir(), "state"), "JOBGATE_ON_DENIAL": onDenial}
		got := finish(t, w.script(shell, env, "connect"))
		sh := w.program(env)
		sh.Path, sh.Args = shell, []string{shell, "-c", got.stdout + `curl -sS -o /dev/null -H "x-api-key: $(cat "$JOBGATE_TOKEN_FILE")" "$ANTHROPIC_BASE_URL/v1/files"`}
		finish(t, sh)
		end := finish(t, w.script(shell, env, "close"))
		if end.code != want || !strings.Contains(end.stderr, "1 refused") {
			t.Errorf("%s: close = %d, want %d:\n%s", onDenial, end.code, want, end.stderr)
		}
	}
}
