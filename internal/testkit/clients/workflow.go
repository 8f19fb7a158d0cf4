package clients

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// AgentWorkflow is a workflow that opens a session with actions/connect,
// looks at what the step gave, and runs the Agent SDK. It reads the variables
// JOBGATE_URL, MAPPING, ON_DENIAL, CLIENTS and AGENT; CLIENTS is set by
// [Kit.Workflow].
//
//go:embed act/agent.yml
var AgentWorkflow string

// WorkflowRun is a workflow to run with act.
type WorkflowRun struct {
	// Text is the workflow, YAML, triggered by a push.
	Text string
	// Vars are what `vars.NAME` means in it.
	Vars map[string]string
	// Env is what every step finds in its environment: the job's
	// ACTIONS_ID_TOKEN_REQUEST_URL and _TOKEN.
	Env map[string]string
	// Home is an empty folder for the repository, act's files and every
	// step's home. Required.
	Home string
}

// StepRun is one step as it ran; a step with a post stage ran twice.
type StepRun struct {
	// Stage is Main or Post; Step is its name, or what it uses.
	Stage, Step string
	// Result is success, failure or skipped.
	Result string
	// Log is what the step printed, a line each, masked as act masks.
	Log []string
	// Errors and Warnings are its annotations.
	Errors, Warnings []string
	// Env and Outputs are what it set for later steps.
	Env, Outputs map[string]string
	// Summary is what it added to the job's page, Markdown.
	Summary string
}

// WorkflowResult is what a run left behind.
type WorkflowResult struct {
	// OK tells whether every job succeeded, post stages included.
	OK    bool
	Steps []StepRun
	// Shown is everything that act printed but the commands that tell the
	// runner what to mask, for searching it for secrets.
	Shown string
}

// Step returns the step of this stage and name, or an empty one.
func (r *WorkflowResult) Step(stage, name string) StepRun {
	for _, s := range r.Steps {
		if s.Stage == stage && s.Step == name {
			return s
		}
	}
	return StepRun{Stage: stage, Step: name}
}

// Workflow makes a repository that holds the workflow and this repository's
// actions, and pushes to it under act: on this machine, without containers.
// It returns a [MissingError] where act is not installed.
func (k *Kit) Workflow(ctx context.Context, w WorkflowRun) (*WorkflowResult, error) {
	act := filepath.Join(k.root, ".cache", "bin", "act")
	if _, err := os.Stat(act); err != nil {
		return nil, &MissingError{What: "act", Get: "GOBIN=$PWD/.cache/bin go install github.com/nektos/act@v0.2.89"}
	}
	repo := filepath.Join(w.Home, "repository")
	if err := k.prepare(ctx, repo, w); err != nil {
		return nil, err
	}
	args := []string{"push", "--json", "--no-cache-server", "-P", "ubuntu-latest=-self-hosted",
		"-W", ".github/workflows/test.yml", "--env-file", filepath.Join(w.Home, "job.env"), "--var", "CLIENTS=" + k.dir}
	for name, value := range w.Vars {
		args = append(args, "--var", name+"="+value)
	}
	out, err := run(ctx, repo, w.Home, nil, act, args...)
	if err != nil {
		return nil, err
	}
	return readLog(append(out.stdout, out.stderr...), out.code)
}

// prepare lays out the repository, act's configuration (without a file it
// asks questions) and the job's environment, which holds a secret.
func (k *Kit) prepare(ctx context.Context, repo string, w WorkflowRun) error {
	var env strings.Builder
	for name, value := range w.Env {
		fmt.Fprintf(&env, "%s='%s'\n", name, value)
	}
	files := map[string]string{
		filepath.Join(w.Home, ".config", "act", "actrc"):        "",
		filepath.Join(w.Home, "job.env"):                        env.String(),
		filepath.Join(repo, ".github", "workflows", "test.yml"): w.Text,
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("prepare the workflow: %w", err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			return fmt.Errorf("prepare the workflow: %w", err)
		}
	}
	from := filepath.Join(k.root, "actions")
	if err := os.CopyFS(filepath.Join(repo, "actions"), withoutTests{os.DirFS(from)}); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return gitInit(ctx, repo, w.Home)
}

// withoutTests is a tree without its folders named test.
type withoutTests struct{ fs.FS }

func (t withoutTests) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(t.FS, name)
	var kept []fs.DirEntry
	for _, e := range entries {
		if e.Name() != "test" {
			kept = append(kept, e)
		}
	}
	return kept, err
}

// gitInit commits everything. act wants a commit and a remote that names a
// repository on GitHub; it calls neither.
func gitInit(ctx context.Context, repo, home string) error {
	git, err := exec.LookPath("git")
	if err != nil {
		return &MissingError{What: "git", Get: "apt-get install git"}
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"remote", "add", "origin", "https://github.com/octo-org/octo-repo.git"},
		{"add", "-A"},
		{"-c", "user.name=octocat", "-c", "user.email=octocat@example.com", "commit", "-q", "-m", "run the agent"},
	} {
		out, err := run(ctx, repo, home, nil, git, args...)
		if err == nil && out.code != 0 {
			err = errors.New(string(tail(out.stderr)))
		}
		if err != nil {
			return fmt.Errorf("git %s: %w", args[0], err)
		}
	}
	return nil
}

// logLine is one line of act's log with --json.
type logLine struct {
	Stage, Step, Command, Msg, Name, Arg, Content string
	StepResult                                    string
	Raw                                           bool `json:"raw_output"`
}

func readLog(log []byte, code int) (*WorkflowResult, error) {
	r := &WorkflowResult{OK: code == 0}
	var shown strings.Builder
	for text := range bytes.Lines(log) {
		var line logLine
		if json.Unmarshal(text, &line) != nil {
			shown.Write(text) // act's own last word is plain text
			continue
		}
		if line.Command == "add-mask" {
			continue
		}
		shown.Write(text)
		if line.Stage != "" {
			r.step(line).add(line)
		}
	}
	r.Shown = shown.String()
	if len(r.Steps) == 0 {
		return nil, fmt.Errorf("act ran no step and ended with %d: %s", code, tail(log))
	}
	return r, nil
}

// step finds the step that a line belongs to. Steps run one after the other, but the last lines of one can come
// among the first of the next.
func (r *WorkflowResult) step(line logLine) *StepRun {
	for i := range r.Steps {
		if r.Steps[i].Stage == line.Stage && r.Steps[i].Step == line.Step {
			return &r.Steps[i]
		}
	}
	r.Steps = append(r.Steps, StepRun{Stage: line.Stage, Step: line.Step, Env: map[string]string{}, Outputs: map[string]string{}})
	return &r.Steps[len(r.Steps)-1]
}

func (s *StepRun) add(line logLine) {
	if line.StepResult != "" {
		s.Result = line.StepResult
	}
	if line.Raw {
		s.Log = append(s.Log, strings.TrimRight(line.Msg, "\r\n"))
	}
	switch line.Command {
	case "error":
		s.Errors = append(s.Errors, line.Arg)
	case "warning":
		s.Warnings = append(s.Warnings, line.Arg)
	case "set-env":
		s.Env[line.Name] = line.Arg
	case "set-output":
		s.Outputs[line.Name] = line.Arg
	case "summary":
		s.Summary += line.Content
	}
}
