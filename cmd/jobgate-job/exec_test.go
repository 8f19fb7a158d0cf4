package main_test

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
)

// call is a shell command that calls the model as a plain client does.
const call = `printf 'Authorization: Bearer %s' "$(cat "$JOBGATE_TOKEN_FILE")" | curl -sS -o answer.json -w '%{http_code}' -H @- ` +
	`-H 'content-type: application/json' -H 'anthropic-version: 2023-06-01' ` +
	`-d '{"model":"claude-sonnet-4-5","max_tokens":10,"messages":[{"role":"user","content":"go"}]}' "$ANTHROPIC_BASE_URL/v1/messages"`

func needs(t *testing.T, program, install string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is missing: run `%s`", program, install)
	}
}

func TestExec(t *testing.T) {
	needs(t, "curl", "apt-get install curl")
	w := newWorld(t, worldConfig{script: testkit.ScriptSay("hello")})
	cmd := w.program(w.githubJob(nil), "exec", "--mapping", "agents", "--", "sh", "-c", call)
	got := finish(t, cmd)
	if got.code != 0 || got.stdout != "200" {
		t.Fatalf("exec = %d, stdout %q, stderr:\n%s", got.code, got.stdout, got.stderr)
	}
	noToken(t, "the output", got.stdout+got.stderr)
	if s := w.only(); s.State != "ended" || s.EndReason != "closed" || s.Tally.Calls != 1 {
		t.Errorf("session = %s (%s), %d calls; want it closed after 1", s.State, s.EndReason, s.Tally.Calls)
	}
	if !strings.Contains(got.stderr, "1 call, 0 refused") {
		t.Errorf("the summary is missing:\n%s", got.stderr)
	}
	nothingIn(t, cmd.Dir)
}

// TestExecHides shows that the command finds no CI token and no way to one.
func TestExecHides(t *testing.T) {
	w := newWorld(t, worldConfig{})
	other := w.gitlabToken(map[string]any{"aud": "https://vault.example.com"})
	for name, env := range map[string]map[string]string{
		"github": w.githubJob(nil),
		"gitlab": {"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(nil)},
		"named":  {"GITLAB_CI": "true", "TOKEN_FOR_AGENTS": w.gitlabToken(map[string]any{"job_id": "303"}), "COPY": w.gitlabToken(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			hidden := []string{"CIRCLE_OIDC_TOKEN_V2", "SYSTEM_ACCESSTOKEN", "BUILDKITE_AGENT_ACCESS_TOKEN"}
			env = maps.Clone(env)
			for _, n := range hidden {
				env[n] = "value-of-" + n
			}
			env["KEPT"], env["VAULT_ID_TOKEN"] = "kept", other
			args := []string{"exec", "--", "env"}
			if name == "named" {
				args = []string{"exec", "--token-env", "TOKEN_FOR_AGENTS", "--", "env"}
			}
			got := w.run(env, args...)
			if got.code != 0 {
				t.Fatalf("exec = %d:\n%s", got.code, got.stderr)
			}
			for _, n := range append(hidden, "ACTIONS_ID_TOKEN", "JOBGATE_ID_TOKEN", "TOKEN_FOR_AGENTS", "COPY", "jg_") {
				if strings.Contains(got.stdout, n) {
					t.Errorf("the command finds %s in its environment", n)
				}
			}
			for _, n := range []string{"KEPT=kept", "VAULT_ID_TOKEN=" + other, "ANTHROPIC_BASE_URL=" + w.url + "/anthropic", "ANTHROPIC_IDENTITY_TOKEN_FILE=/",
				"ANTHROPIC_ORGANIZATION_ID=jobgate", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "JOBGATE_URL_ANTHROPIC=" + w.url + "/anthropic"} {
				if !strings.Contains(got.stdout, n) {
					t.Errorf("the command does not find %s in its environment", n)
				}
			}
		})
	}
}

func TestExecCodes(t *testing.T) {
	needs(t, "curl", "apt-get install curl")
	w := newWorld(t, worldConfig{script: testkit.ScriptSay("hello")})
	const deniedCall = `curl -sS -o /dev/null -H "x-api-key: $(cat "$JOBGATE_TOKEN_FILE")" "$ANTHROPIC_BASE_URL/v1/files"`
	for i, c := range []struct {
		name string
		args []string
		want int
		says string
	}{
		{"done", []string{"--", "true"}, 0, "0 refused"},
		{"its own code", []string{"--", "sh", "-c", "exit 42"}, 42, ""},
		{"a signal", []string{"--", "sh", "-c", "kill -9 $$"}, 128 + 9, ""},
		{"not found", []string{"--", "no-such-program"}, 127, "not found"},
		{"not runnable", []string{"--", "/etc/passwd"}, 126, "permission"},
		{"denied", []string{"--", "sh", "-c", deniedCall}, 3, "1 call or tool use was refused"},
		{"denied, warn", []string{"--on-denial", "warn", "--", "sh", "-c", deniedCall}, 0, "1 refused"},
		{"denied and failed", []string{"--", "sh", "-c", deniedCall + "; exit 7"}, 7, "1 refused"},
		{"wrong mapping", []string{"--mapping", "nobodys", "--", "true"}, 3, "refused the exchange"},
		{"wrong flag", []string{"--nonsense", "--", "true"}, 2, "nonsense"},
		{"no command", nil, 2, "exec needs a command"},
		{"a URL of plain http", []string{"--url", "http://jobgate.example.com", "--", "true"}, 2, "https://"},
		{"nobody there", []string{"--url", "http://127.0.0.1:1", "--", "true"}, 1, "nothing listens there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := w.githubJob(map[string]any{"run_id": "1000", "check_run_id": fmt.Sprint(2000 + i)})
			got := w.run(env, append([]string{"exec"}, c.args...)...)
			if got.code != c.want || !strings.Contains(got.stderr, c.says) {
				t.Errorf("exec = %d, want %d and %q in:\n%s", got.code, c.want, c.says, got.stderr)
			}
			noToken(t, "the output", got.stdout+got.stderr)
		})
	}
	for _, s := range w.sessions() {
		if s.State != "ended" {
			t.Errorf("session %s is %s, want it ended", s.ID, s.State)
		}
	}
}

// TestExecSignals shows that a signal goes to the command, whose end is waited for, and that the session is closed then.
func TestExecSignals(t *testing.T) {
	w := newWorld(t, worldConfig{})
	cmd := w.program(w.githubJob(nil), "exec", "--", "sh", "-c", `trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("first line %q", lines.Text())
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "caught" {
		t.Errorf("the command said %q, want caught", lines.Text())
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exec = %d, want the command's own 9", code)
	}
	if s := w.only(); s.State != "ended" || s.EndReason != "closed" {
		t.Errorf("session is %s (%s), want closed", s.State, s.EndReason)
	}
}

// TestExecRenews has a lease of a second and a command of several: without renewal its call would be a 401.
func TestExecRenews(t *testing.T) {
	needs(t, "curl", "apt-get install curl")
	w := newWorld(t, worldConfig{lease: "1s", script: testkit.ScriptSay("hello")})
	got := w.run(w.githubJob(nil), "exec", "--", "sh", "-c", "sleep 3; "+call)
	if got.code != 0 || got.stdout != "200" {
		t.Errorf("exec = %d, the call %q:\n%s", got.code, got.stdout, got.stderr)
	}
}

// TestExecOutlivesAStop has everything stopped for many leases: the renewal does not give up, and the job goes on when it
// is resumed.
func TestExecOutlivesAStop(t *testing.T) {
	needs(t, "curl", "apt-get install curl")
	w := newWorld(t, worldConfig{lease: "1s", script: testkit.ScriptSay("hello")})
	resumed := filepath.Join(t.TempDir(), "resumed")
	env := w.githubJob(nil)
	env["RESUMED"] = resumed
	done := make(chan result, 1)
	go func() {
		done <- w.run(env, "exec", "--", "sh", "-c", `while ! test -e "$RESUMED"; do sleep 0.1; done; sleep 2; `+call)
	}()
	w.eventually("the session is open", func() bool { return len(w.sessions()) == 1 })
	stop := func(method string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, w.control+"/v1/stops/all", strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+adminToken)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s = %+v, %v", method, resp, err)
		}
		_ = resp.Body.Close()
	}
	stop(http.MethodPut)
	w.eventually("renewals are refused", func() bool { return strings.Count(w.log.String(), "reason=stopped") > maxRefused })
	stop(http.MethodDelete)
	write(t, resumed, "")
	got := <-done
	if got.code != 0 || got.stdout != "200" || !strings.Contains(got.stderr, "everything is stopped by an operator") {
		t.Errorf("exec = %d, the call %q:\n%s", got.code, got.stdout, got.stderr)
	}
}

// maxRefused is more refusals than end a renewal otherwise.
const maxRefused = 5

// TestExecRotates has a token file that is written anew while the command runs, as Kubernetes does, and a lease that a
// token which was already shown cannot renew.
func TestExecRotates(t *testing.T) {
	needs(t, "curl", "apt-get install curl")
	w := newWorld(t, worldConfig{lease: "4s", script: testkit.ScriptSay("hello")})
	file, next := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "next")
	job := w.github.StartJob(w.github.GitHubClaims(map[string]any{"repository_owner_id": "123456", "repository_id": "456789", "ref": "refs/heads/main", "event_name": "push"}))
	defer job.End()
	for _, name := range []string{file, next} {
		token, err := job.Token(t.Context(), w.url)
		if err != nil {
			t.Fatal(err)
		}
		write(t, name, token)
	}
	got := w.run(map[string]string{"FILE": file, "NEXT": next}, "exec", "--provider", "generic", "--mapping", "agents", "--token-file", file, "--", "sh", "-c", `sleep 1; mv "$NEXT" "$FILE"; sleep 4; `+call)
	if got.code != 0 || got.stdout != "200" || strings.Contains(got.stderr, "not renewed") {
		t.Errorf("exec = %d, the call %q:\n%s", got.code, got.stdout, got.stderr)
	}
}

// TestExecMasks shows what --mask-output can mask.
func TestExecMasks(t *testing.T) {
	w := newWorld(t, worldConfig{})
	const key = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
	got := w.run(w.githubJob(nil), "exec", "--mask-output", "--", "sh", "-c", `cat "$JOBGATE_TOKEN_FILE"; echo; echo plain; echo `+key+` >&2; base64 <"$JOBGATE_TOKEN_FILE"; exit 5`)
	if got.code != 5 {
		t.Errorf("exec = %d, want 5", got.code)
	}
	if !strings.Contains(got.stdout, "[masked:session-token:") || !strings.Contains(got.stdout, "plain") || strings.Count(got.stdout, "[masked:session-token:") != 2 {
		t.Errorf("stdout:\n%s", got.stdout)
	}
	if strings.Contains(got.stderr, key) || !strings.Contains(got.stderr, "[masked:") {
		t.Errorf("stderr:\n%s", got.stderr)
	}
}

func TestExecRefusesShadows(t *testing.T) {
	w := newWorld(t, worldConfig{})
	env := w.githubJob(nil)
	env["ANTHROPIC_API_KEY"] = "sk-ant-something"
	got := w.run(env, "exec", "--", "true")
	if got.code != 1 || !strings.Contains(got.stderr, "ANTHROPIC_API_KEY (an API key)") || strings.Contains(got.stderr, "sk-ant") {
		t.Errorf("exec = %d:\n%s", got.code, got.stderr)
	}
	if n := len(w.sessions()); n != 0 {
		t.Errorf("%d sessions, want none", n)
	}
}

// TestExecTamperedFile has the command spoil the token file: the parent closes with its own token.
func TestExecTamperedFile(t *testing.T) {
	w := newWorld(t, worldConfig{})
	got := w.run(w.githubJob(nil), "exec", "--", "sh", "-c", `echo jg_nonsense > "$JOBGATE_TOKEN_FILE"; rm -r "$(dirname "$JOBGATE_TOKEN_FILE")"`)
	if got.code != 0 {
		t.Errorf("exec = %d:\n%s", got.code, got.stderr)
	}
	if s := w.only(); s.EndReason != "closed" {
		t.Errorf("session is %s (%s), want closed", s.State, s.EndReason)
	}
}
