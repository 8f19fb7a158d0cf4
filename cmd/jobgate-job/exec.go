package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// closing bounds what is left to do when the command has ended.
	closing = 45 * time.Second
	// straggling is how long output is waited for that processes behind the command still hold open.
	straggling = 5 * time.Second

	codeNotRunnable = 126 // as a POSIX shell has them
	codeNotFound    = 127
	codeSignal      = 128
)

// execute opens a session, runs a command in it, and closes it.
func execute(ctx context.Context, o *options, args []string) error {
	if len(args) == 0 {
		return misuse("exec needs a command: jobgate-job exec [flags] -- CMD...")
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	opening, stop := untilSignal(ctx, signals)
	s, err := open(opening, o, temporary(o.env))
	interrupted := stop()
	if err != nil {
		return err
	}
	defer s.clear()
	s.tell(o.env.say)
	code := codeSignal + int(syscall.SIGTERM)
	if !interrupted {
		code = s.attend(ctx, o, args, signals)
	}
	return finish(ctx, o, s, code)
}

// untilSignal returns a context that the first signal cancels; stop ends the watch and reports whether one came.
func untilSignal(ctx context.Context, signals <-chan os.Signal) (context.Context, func() bool) {
	ctx, cancel := context.WithCancel(ctx)
	came := make(chan bool, 1)
	go func() {
		select {
		case <-signals:
			cancel()
			came <- true
		case <-ctx.Done():
			came <- false
		}
	}()
	return ctx, func() bool { cancel(); return <-came }
}

// attend keeps the session awake while the command runs.
func (s *session) attend(ctx context.Context, o *options, args []string, signals <-chan os.Signal) int {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	if s.source.provider.fresh != once {
		wait.Go(func() { newRenewal(s, o.scope, o.env.say).run(ctx) })
	}
	code := s.run(o, args, signals)
	cancel()
	wait.Wait()
	return code
}

// run runs the command and returns its exit code.
func (s *session) run(o *options, args []string, signals <-chan os.Signal) int {
	path, err := lookCommand(args[0], o.env.get("PATH"))
	if err != nil {
		o.env.say("%s: %v", args[0], err)
		return codeOf(err)
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env, cmd.Stdin = s.commandVars(o.env), o.env.Stdin
	cmd.Stdout, cmd.Stderr = o.env.Stdout, o.env.Stderr
	flush := func() {}
	if o.maskOutput {
		out, errs, done, err := maskOutput(o.env, s)
		if err != nil {
			o.env.say("the command is not run: %v", err)
			return exitFailed
		}
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay, flush = out, errs, straggling, done
	}
	leave, err := s.start(o, cmd)
	if err != nil {
		if o.sandbox {
			o.env.say("%s is not run: %v", args[0], err)
			return exitFailed
		}
		o.env.say("%s: %v", args[0], err)
		return codeOf(err)
	}
	err = waitFor(cmd, signals)
	leave()
	flush()
	return exitCode(cmd, err)
}

// start starts the command, in a room of its own where that is asked for; leave is for its end.
func (s *session) start(o *options, cmd *exec.Cmd) (leave func(), err error) {
	if !o.sandbox {
		return func() {}, cmd.Start()
	}
	r, err := newRoom(s)
	if err != nil {
		return nil, err
	}
	if err := r.enter(cmd); err != nil {
		return nil, err
	}
	// Its user namespace is mapped through /proc, where nothing of a hidden process can be written.
	showMemory()
	err = cmd.Start()
	hideMemory()
	if err != nil {
		return nil, sandboxHint(err)
	}
	leave, err = r.open(o.env.say)
	if err != nil {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // it is the channel's error that counts
		return nil, sandboxHint(err)
	}
	return leave, nil
}

func lookCommand(name, path string) (string, error) {
	if strings.ContainsRune(name, os.PathSeparator) {
		return name, nil
	}
	err := exec.ErrNotFound
	for _, dir := range strings.Split(path, string(os.PathListSeparator)) {
		if dir == "" {
			dir = "."
		}
		found, e := exec.LookPath(dir + string(os.PathSeparator) + name)
		if e == nil || errors.Is(e, exec.ErrDot) {
			return found, nil
		}
		if errors.Is(e, os.ErrPermission) {
			err = os.ErrPermission
		}
	}
	return "", err
}

func codeOf(err error) int {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return codeNotFound
	}
	return codeNotRunnable
}

// waitFor passes signals on until the command has ended.
func waitFor(cmd *exec.Cmd, signals <-chan os.Signal) error {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return err
		case sig := <-signals:
			_ = cmd.Process.Signal(sig) // it may have ended in this moment
		}
	}
}

func exitCode(cmd *exec.Cmd, err error) int {
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return codeSignal + int(status.Signal())
	}
	if err != nil && cmd.ProcessState.Success() && !errors.Is(err, exec.ErrWaitDelay) {
		return exitFailed // its output could not be passed on
	}
	return cmd.ProcessState.ExitCode()
}

// commandVars is the command's environment: the job's with the session's variables, without what holds a CI token or leads
// to one.
func (s *session) commandVars(env environment) []string {
	hidden := hiddenVariables(env, s.source, s.jobgate.url)
	var out []string
	for _, pair := range env.Vars {
		name, _, _ := strings.Cut(pair, "=")
		if _, ours := s.vars[name]; !ours && !slices.Contains(hidden, name) {
			out = append(out, pair)
		}
	}
	for name, value := range s.vars {
		out = append(out, name+"="+value)
	}
	slices.Sort(out[len(out)-len(s.vars):])
	return out
}

// hiddenVariables are those of every provider, since one may run inside another, those that this job's token was taken
// from, and any other that holds a token for Jobgate.
func hiddenVariables(env environment, s *source, url string) []string {
	hidden := slices.Clone(s.provider.hide)
	for _, p := range providers() {
		hidden = append(hidden, p.hide...)
	}
	for _, pair := range env.Vars {
		name, value, _ := strings.Cut(pair, "=")
		if claims, ok := readClaims(value); ok && slices.Contains(claims.audiences(), url) {
			hidden = append(hidden, name)
		}
	}
	return hidden
}

// finish closes the session, tells what it did, and returns the program's end: the command's code, but 3 where it
// succeeded and something was refused.
func finish(ctx context.Context, o *options, s *session, code int) error {
	ctx, cancel := context.WithTimeout(ctx, closing)
	defer cancel()
	s.jobgate.patience = closing / 2
	told, err := s.end(ctx)
	verdict := report(o, o.env.Stderr, told, s.answer.SessionID, err)
	if code == exitDone {
		code = verdict
	}
	if code == exitDone {
		return nil
	}
	return exitError(code)
}

// end asks what the session did and closes it. The token is this process's own: what the command did to the file does not
// matter.
func (s *session) end(ctx context.Context) (told, error) {
	tokens := []access.Secret{s.token}
	return endSession(ctx, s.jobgate, s.source, ending{session: s.answer.SessionID, mapping: s.mapping, held: tokens, joined: s.joined})
}
