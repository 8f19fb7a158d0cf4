package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// MissingError says that a program is not installed, and how to get it.
type MissingError struct {
	// What is missing, and the command that gets it, run at the top of the
	// repository.
	What, Get string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is missing: run `%s`", e.What, e.Get)
}

// Kit is the programs as they are installed here.
type Kit struct {
	root string // of the repository
	dir  string // of agent.mjs and node_modules
	node string
}

// Find looks for Node and the SDKs from the working directory upwards, which
// lies in the repository when a test runs. It returns a [MissingError] where
// they are not installed.
func Find() (*Kit, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, &MissingError{What: "Node.js 20 or later", Get: "apt-get install nodejs npm"}
	}
	k := &Kit{root: root, dir: filepath.Join(root, "internal", "testkit", "clients"), node: node}
	if _, err := os.Stat(filepath.Join(k.dir, "node_modules", "@anthropic-ai", "claude-agent-sdk")); err != nil {
		return nil, &MissingError{What: "the Claude Agent SDK", Get: "npm ci --prefix internal/testkit/clients"}
	}
	return k, nil
}

func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the repository: no go.mod in the working directory or above it")
		}
		dir = up
	}
}

// output is what a program left behind.
type output struct {
	stdout, stderr []byte
	code           int
}

// run runs a program to its end. Home is its HOME and the place of its
// temporary files. When ctx ends it is asked to stop (SIGTERM), and killed 20
// seconds later. An exit code is no error.
func run(ctx context.Context, dir, home string, env map[string]string, name string, args ...string) (output, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}
	for key, value := range env {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	err := cmd.Run()
	out := output{stdout: stdout.Bytes(), stderr: stderr.Bytes(), code: cmd.ProcessState.ExitCode()}
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		return out, fmt.Errorf("run %s: %w: %s", filepath.Base(name), errors.Join(err, ctx.Err()), tail(out.stderr))
	}
	return out, nil
}

func tail(b []byte) []byte {
	return b[max(0, len(b)-2000):]
}
