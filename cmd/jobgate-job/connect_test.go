package main_test

import (
	"encoding/json"
	"fmt"
	"maps"
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
	if end.code != 0 || !strings.Contains(end.stderr, "1 call, 0 refused") {
		t.Errorf("close = %d:\n%s", end.code, end.stderr)
	}
	if s := w.only(); s.EndReason != "closed" {
		t.Errorf("session is %s (%s), want closed", s.State, s.EndReason)
	}
	nothingIn(t, dir)
}

// TestConnectGitHub opens with the runner's files as output, is renewed by a process of its own over a lease of a second,
// and closes with a page for the job.
func TestConnectGitHub(t *testing.T) {
	needs(t, "curl", "apt-get install curl")
	w := newWorld(t, worldConfig{lease: "1s", script: testkit.ScriptSay("hello")})
	dir := t.TempDir()
	env := w.githubJob(nil)
	for _, name := range []string{"GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"} {
		env[name] = filepath.Join(dir, name)
	}
	env["RUNNER_TEMP"] = dir
	got := w.run(env, "connect", "--format", "github")
	if got.code != 0 || got.stdout != "" {
		t.Fatalf("connect = %d, stdout %q:\n%s", got.code, got.stdout, got.stderr)
	}
	vars := runnerFile(t, env["GITHUB_ENV"])
	outputs := runnerFile(t, env["GITHUB_OUTPUT"])
	if vars["ANTHROPIC_BASE_URL"] != w.url+"/anthropic" || outputs["base-url"] != w.url+"/anthropic" || outputs["token-file"] != vars["JOBGATE_TOKEN_FILE"] || outputs["session-id"] == "" {
		t.Errorf("variables %v, outputs %v", vars, outputs)
	}
	for name, value := range vars {
		env[name] = value
	}
	opened := w.only().Asleep
	w.eventually("the lease was renewed twice", func() bool { return w.only().Asleep.Sub(opened).Milliseconds() > 500 })
	shell := w.program(env)
	shell.Path, shell.Args = "/bin/sh", []string{"sh", "-c", call}
	if ran := finish(t, shell); ran.stdout != "200" {
		t.Errorf("the call after the first lease: %q\n%s", ran.stdout, ran.stderr)
	}
	var st struct {
		Renewal int `json:"renewal_pid"`
	}
	raw, err := os.ReadFile(vars["JOBGATE_STATE"])
	if err != nil || json.Unmarshal(raw, &st) != nil || st.Renewal == 0 {
		t.Fatalf("state %s: %v", raw, err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", st.Renewal))
	if err != nil || !strings.HasSuffix(string(line), "\x00renew\x00") {
		t.Errorf("the renewal's command line is %q (%v), want nothing but its name", line, err)
	}
	end := w.run(env, "close")
	if end.code != 0 {
		t.Errorf("close = %d:\n%s", end.code, end.stderr)
	}
	noToken(t, "the output", got.stderr+end.stdout+end.stderr)
	page, _ := os.ReadFile(env["GITHUB_STEP_SUMMARY"])
	if !strings.Contains(string(page), "### Jobgate session "+strings.ReplaceAll(vars["JOBGATE_SESSION_ID"], "_", "&#95;")) || !strings.Contains(string(page), "| Refused | 0 |") {
		t.Errorf("the job's page:\n%s", page)
	}
	w.eventually("the renewal has ended", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", st.Renewal))
		return err != nil
	})
	nothingIn(t, dir)
}

// runnerFile reads what a step appended to one of the runner's files.
func runnerFile(t *testing.T, name string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	noToken(t, name, string(raw))
	out := make(map[string]string)
	lines := strings.Split(string(raw), "\n")
	for i := 0; i+2 < len(lines); i += 3 {
		variable, end, found := strings.Cut(lines[i], "<<")
		if !found || lines[i+2] != end {
			t.Fatalf("%s, line %d: %q", name, i+1, lines[i])
		}
		out[variable] = lines[i+1]
	}
	return out
}

// TestConnectTwice has two connects of one job: the second joins, and its close leaves the session open.
func TestConnectTwice(t *testing.T) {
	w := newWorld(t, worldConfig{})
	job := w.githubJob(nil)
	dir := t.TempDir()
	first, second := maps.Clone(job), maps.Clone(job)
	first["JOBGATE_STATE"], second["JOBGATE_STATE"] = filepath.Join(dir, "1"), filepath.Join(dir, "2")
	if got := w.run(first, "connect"); got.code != 0 {
		t.Fatal(got.stderr)
	}
	second["JOBGATE_SESSION_ID"] = w.only().ID
	if got := w.run(second, "connect"); got.code != 0 {
		t.Fatal(got.stderr)
	}
	if got := w.run(second, "exec", "--", "true"); got.code != 0 || !strings.Contains(got.stderr, "stays open") {
		t.Errorf("exec in the session = %d:\n%s", got.code, got.stderr)
	}
	if got := w.run(second, "close"); got.code != 0 || w.only().State != "awake" {
		t.Errorf("the second close = %d, the session is %s:\n%s", got.code, w.only().State, got.stderr)
	}
	if got := w.run(first, "close"); got.code != 0 || w.only().State != "ended" {
		t.Errorf("the first close = %d, the session is %s:\n%s", got.code, w.only().State, got.stderr)
	}
}

// TestCloseTampered has the job spoil what close needs.
func TestCloseTampered(t *testing.T) {
	w := newWorld(t, worldConfig{})
	open := func(env map[string]string) map[string]string {
		t.Helper()
		env["JOBGATE_STATE"] = filepath.Join(t.TempDir(), "state")
		if got := w.run(env, "connect"); got.code != 0 {
			t.Fatal(got.stderr)
		}
		return env
	}
	spoil := func(env map[string]string) {
		raw, _ := os.ReadFile(env["JOBGATE_STATE"])
		var st struct {
			File string `json:"token_file"`
		}
		if err := json.Unmarshal(raw, &st); err != nil {
			t.Fatal(err)
		}
		write(t, st.File, "jg_"+strings.Repeat("x", 40))
	}
	github := open(w.githubJob(nil))
	spoil(github)
	if got := w.run(github, "close", "-o", "json"); got.code != 0 || !strings.Contains(got.stdout, `"denials": 0`) {
		t.Errorf("with a fresh token close = %d:\n%s%s", got.code, got.stdout, got.stderr)
	}
	gitlab := open(map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(nil)})
	spoil(gitlab)
	if got := w.run(gitlab, "close"); got.code != 1 || !strings.Contains(got.stderr, "is not known") {
		t.Errorf("without one close = %d:\n%s", got.code, got.stderr)
	}
	if got := w.run(gitlab, "close"); got.code != 1 {
		t.Errorf("close without a state = %d:\n%s", got.code, got.stderr)
	}
}

// TestReplayed tells a job that has spent its one token what to do.
func TestReplayed(t *testing.T) {
	w := newWorld(t, worldConfig{})
	env := map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(nil), "JOBGATE_STATE": filepath.Join(t.TempDir(), "state")}
	if got := w.run(env, "connect"); got.code != 0 {
		t.Fatal(got.stderr)
	}
	env["JOBGATE_SESSION_ID"] = w.only().ID
	got := w.run(env, "exec", "--", "true")
	if got.code != 3 || !strings.Contains(got.stderr, "replayed") || !strings.Contains(got.stderr, "without exec") {
		t.Errorf("exec = %d:\n%s", got.code, got.stderr)
	}
	again := w.run(env, "connect")
	if again.code != 3 || again.stdout != "(exit 3)\n" {
		t.Errorf("connect = %d, stdout %q: eval of it must fail", again.code, again.stdout)
	}
}
