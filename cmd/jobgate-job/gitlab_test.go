package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/internal/testkit/clients"
)

// gitlabKit is the GitLab runtime of these tests: gitlab-ci-local under a Node that it can use.
type gitlabKit struct{ node, runtime, agent string }

// findGitLab skips the test where something is missing, with the command that gets it.
func findGitLab(t *testing.T) gitlabKit {
	t.Helper()
	needs(t, "rsync", "apt-get install rsync")
	needs(t, "git", "apt-get install git")
	needs(t, "curl", "apt-get install curl")
	modules, err := filepath.Abs("../../internal/testkit/gitlab/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	k := gitlabKit{
		node: filepath.Join(modules, "node-"+runtime.GOOS+"-"+arch, "bin", "node"), runtime: filepath.Join(modules, "gitlab-ci-local", "dist", "index.js"),
	}
	for _, file := range []string{k.node, k.runtime} {
		if _, err := os.Stat(file); err != nil {
			t.Skip("gitlab-ci-local is missing: run `npm ci --prefix internal/testkit/gitlab`")
		}
	}
	_, err = clients.Find()
	if missing := (*clients.MissingError)(nil); errors.As(err, &missing) {
		t.Skip(missing)
	}
	if err != nil {
		t.Fatal(err)
	}
	if k.agent, err = filepath.Abs("../../internal/testkit/clients/agent.mjs"); err != nil {
		t.Fatal(err)
	}
	return k
}

// gitlabPipeline is a repository with a pipeline, and the token that its job gets.
type gitlabPipeline struct {
	script, helper, base string
	token                string
	path                 string // before PATH
	left                 bool   // nobody closes the session
}

// run runs the job named agent as GitLab's runner would, with the shell executor.
func (k gitlabKit) run(w *world, p gitlabPipeline) result {
	w.t.Helper()
	home := w.t.TempDir()
	repo := filepath.Join(home, "my-project")
	pipeline := fmt.Sprintf(`include:
  - local: ci-templates/gitlab.yml
    inputs: {url: %q, mapping: agents-gitlab, helper: %q}

agent:
  extends: %s
  script:
%s`, w.url, p.helper, p.base, p.script)
	if p.left {
		pipeline += "\n  after_script: []"
	}
	files := map[string]string{
		".gitlab-ci.yml": pipeline,
		// The token is in a file, not on gitlab-ci-local's command line.
		".gitlab-ci-local-variables.yml": fmt.Sprintf("JOBGATE_ID_TOKEN: %q\n", p.token),
		".gitignore":                     "/.gitlab-ci-local-variables.yml\n/.gitlab-ci-local\n",
	}
	for name, text := range files {
		write(w.t, filepath.Join(repo, name), text)
	}
	if err := os.CopyFS(filepath.Join(repo, "ci-templates"), os.DirFS("../../ci-templates")); err != nil {
		w.t.Fatal(err)
	}
	env := []string{"PATH=" + p.path + filepath.Dir(binaries.job) + ":" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "AGENT_MJS=" + k.agent}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"}, {"remote", "add", "origin", "git@gitlab.example.com:my-group/my-project.git"}, {"add", "-A"},
		{"-c", "user.name=sample", "-c", "user.email=sample@example.com", "commit", "-q", "-m", "run the agent"},
	} {
		git := exec.Command("git", args...)
		git.Dir, git.Env = repo, env
		if got := finish(w.t, git); got.code != 0 {
			w.t.Fatalf("git %s: %s", args[0], got.stderr)
		}
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.node, k.runtime, "--shell-executor-no-image", "agent")
	cmd.Dir, cmd.Env = repo, env
	got := finish(w.t, cmd)
	if !p.left {
		nothingIn(w.t, home)
	}
	return got
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestGitLab runs the real Claude Agent SDK in jobs of a real GitLab runtime, opened in each of the ways that the template
// has.
func TestGitLab(t *testing.T) {
	k := findGitLab(t)
	const agent = `node "$AGENT_MJS" '{"prompt":"go"}'`
	w := newWorld(t, worldConfig{script: testkit.ScriptTools(
		testkit.Step{Use: []testkit.ToolUse{{Name: "Bash", Input: `{"command":"env | grep -c '^JOBGATE_ID_TOKEN=' || true","description":"a step"}`}}},
		testkit.Step{Say: "tokens in sight: {result}"},
	)})
	for i, c := range []struct{ name, base, helper, script string }{
		{"exec", ".jobgate", "jobgate-job", "    - jobgate-job exec -- " + agent},
		{"exec in a sandbox", ".jobgate", "jobgate-job", "    - jobgate-job exec --sandbox -- " + agent},
		{"connect", ".jobgate-connect", "jobgate-job", "    - " + agent + "\n    - $JOBGATE_HELPER close"},
		{"connect, closed by after_script", ".jobgate-connect", "jobgate-job", "    - " + agent},
		{"script", ".jobgate-connect", "sh ci-templates/jobgate-connect.sh", "    - " + agent + "\n    - $JOBGATE_HELPER close"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.script, "--sandbox") {
				needsNamespaces(t)
			}
			id := fmt.Sprint(400 + i)
			got := k.run(w, gitlabPipeline{script: c.script, helper: c.helper, base: c.base, token: w.gitlabToken(map[string]any{"job_id": id})})
			all := got.stdout + got.stderr
			if got.code != 0 || !strings.Contains(all, "tokens in sight: 0") {
				t.Fatalf("the pipeline ended with %d:\n%s", got.code, all)
			}
			noToken(t, "the job's log", all)
			found := slices.IndexFunc(w.sessions(), func(s api.SessionView) bool { return strings.Contains(s.JobKey, id) })
			if found < 0 {
				t.Fatalf("no session of job %s", id)
			}
			if s := w.sessions()[found]; s.EndReason != "closed" || s.Tally.Calls == 0 {
				t.Errorf("session is %s (%s) after %d calls, want closed", s.State, s.EndReason, s.Tally.Calls)
			}
		})
	}
}

// TestGitLabDenied shows that a job in which something was refused is red, and that a refused exchange stops the job.
func TestGitLabDenied(t *testing.T) {
	k := findGitLab(t)
	w := newWorld(t, worldConfig{script: testkit.ScriptTools(
		testkit.Step{Use: []testkit.ToolUse{{Name: "Bash", Input: `{"command":"curl http://127.0.0.1:1/","description":"a step"}`}}},
		testkit.Step{Say: "I leave it"},
	)})
	const agent = `node "$AGENT_MJS" '{"prompt":"go"}'`
	for i, c := range []struct{ name, base, script, says string }{
		{"exec", ".jobgate", "    - jobgate-job exec -- " + agent, "no-network"},
		{"connect", ".jobgate-connect", "    - " + agent + "\n    - $JOBGATE_HELPER close", "no-network"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := k.run(w, gitlabPipeline{script: c.script, helper: "jobgate-job", base: c.base, token: w.gitlabToken(map[string]any{"job_id": fmt.Sprint(500 + i)})})
			if got.code == 0 || !strings.Contains(got.stdout+got.stderr, c.says) {
				t.Errorf("the pipeline ended with %d:\n%s", got.code, got.stdout+got.stderr)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		got := k.run(w, gitlabPipeline{script: "    - echo the job went on", helper: "jobgate-job", base: ".jobgate-connect",
			token: w.gitlabToken(map[string]any{"project_id": "21", "job_project_id": "21"})})
		all := got.stdout + got.stderr
		if got.code == 0 || strings.Contains(all, "the job went on") || !strings.Contains(all, "refused the exchange") {
			t.Errorf("the pipeline ended with %d:\n%s", got.code, all)
		}
	})
}

// namespaces reports whether this machine makes user namespaces. Where it does not, TestSandboxAbsent is what there is to
// test.
func namespaces(t *testing.T) (ok bool, why string) {
	t.Helper()
	needs(t, "curl", "apt-get install curl")
	needs(t, "unshare", "apt-get install util-linux")
	out, err := exec.Command("unshare", "--user", "--net", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "tmpfs", "/run").CombinedOutput()
	return err == nil, strings.TrimSpace(string(out))
}

func needsNamespaces(t *testing.T) {
	t.Helper()
	if ok, why := namespaces(t); !ok {
		t.Skipf("user namespaces are missing (%s): run `sysctl -w user.max_user_namespaces=15000`, outside of a container that forbids them", why)
	}
}
