package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitDenied = 3
)

// version is set by the build; without it the module's own is shown.
var version = ""

// environment is what a command gets from outside.
type environment struct {
	Vars           []string // NAME=value
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// get returns a variable, "" where it is not set.
func (e environment) get(name string) string {
	for i := len(e.Vars) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(e.Vars[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// say tells the job's log one thing.
func (e environment) say(format string, args ...any) {
	_, _ = fmt.Fprintln(e.Stderr, "jobgate-job:", visible(fmt.Sprintf(format, args...), 1000))
}

// usageError is a wrong use of the command.
type usageError struct{ error }

func misuse(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitError ends the program with this code, all having been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// command is one row of the usage.
type command struct {
	name, args, what string
	flags            []string
	run              func(context.Context, *options, []string) error
}

func commands() []command {
	where := []string{"url", "mapping", "scope", "provider", "token-file", "token-env"}
	opening := append(slices.Clone(where), "connection", "o")
	return []command{
		{"connect", "", "open the session, and print the variables that the job's clients need", append(slices.Clone(opening), "format", "state"), connect},
		{"exec", "-- CMD...", "open the session, run CMD in it, close it", append(slices.Clone(opening), "on-denial", "mask-output", "sandbox"), execute},
		{"close", "", "tell what the session of connect did, and close it", append(slices.Clone(where), "on-denial", "o", "state"), closeSession},
		{"doctor", "", "look for what would keep a session from working", append(slices.Clone(where), "o", "exchange"), doctor},
		{"version", "", "show the version", []string{"o"}, showVersion},
		{"renew", "", "", nil, renewDetached},
		{"inside", "", "", nil, enterRoom},
	}
}

// options are the flags, and the environment.
type options struct {
	env                                 environment
	url, mapping, scope, connection     string
	provider, tokenFile, tokenEnv       string
	onDenial, output, format, stateFile string
	maskOutput, exchange, sandbox       bool
}

func (o *options) json() bool { return o.output == "json" }

// define gives a command the flags that it has. Each may stand in a variable, too, for templates.
func (o *options) define(set *flag.FlagSet, names []string) {
	env := o.env.get
	or := func(value, otherwise string) string {
		if value == "" {
			return otherwise
		}
		return value
	}
	text := map[string]func(){
		"url": func() {
			set.StringVar(&o.url, "url", env("JOBGATE_URL"), "Jobgate's public_url, exactly (JOBGATE_URL)")
		},
		"mapping": func() {
			set.StringVar(&o.mapping, "mapping", env("JOBGATE_MAPPING"), "the mapping to open under; may be left out where exactly one matches (JOBGATE_MAPPING)")
		},
		"scope": func() {
			set.StringVar(&o.scope, "scope", env("JOBGATE_SCOPE"), "names of connections, to take fewer than the mapping grants (JOBGATE_SCOPE)")
		},
		"connection": func() {
			set.StringVar(&o.connection, "connection", env("JOBGATE_CONNECTION"), "the connection that ANTHROPIC_BASE_URL shall name, where several are granted (JOBGATE_CONNECTION)")
		},
		"provider": func() {
			set.StringVar(&o.provider, "provider", or(env("JOBGATE_PROVIDER"), "auto"), "the CI provider: auto, "+strings.Join(providerNames(), ", "))
		},
		"token-file": func() { set.StringVar(&o.tokenFile, "token-file", "", "take the CI token from this file") },
		"token-env":  func() { set.StringVar(&o.tokenEnv, "token-env", "", "take the CI token from this variable") },
		"on-denial": func() {
			set.StringVar(&o.onDenial, "on-denial", or(env("JOBGATE_ON_DENIAL"), "fail"), "what a refused call or tool use means for the exit code: fail or warn (JOBGATE_ON_DENIAL)")
		},
		"o": func() { set.StringVar(&o.output, "o", "text", "text or json") },
		"format": func() {
			set.StringVar(&o.format, "format", "shell", "how variables are given: "+strings.Join(formats, ", "))
		},
		"state": func() {
			set.StringVar(&o.stateFile, "state", env("JOBGATE_STATE"), "the file in which connect leaves what close needs (JOBGATE_STATE)")
		},
		"mask-output": func() {
			set.BoolVar(&o.maskOutput, "mask-output", false, "mask tokens, and what looks like a credential, in CMD's output")
		},
		"sandbox": func() {
			set.BoolVar(&o.sandbox, "sandbox", false, "run CMD without a network but Jobgate (Linux, with user namespaces)")
		},
		"exchange": func() {
			set.BoolVar(&o.exchange, "exchange", false, "try the exchange, too: it opens the job's session")
		},
	}
	for _, name := range names {
		text[name]()
	}
}

func (o *options) check() error {
	o.scope = strings.Join(strings.Fields(o.scope), " ")
	for name, c := range map[string]struct {
		value string
		can   []string
	}{
		"o": {o.output, []string{"", "text", "json"}}, "on-denial": {o.onDenial, []string{"", "fail", "warn"}},
		"format": {o.format, append([]string{""}, formats...)}, "provider": {o.provider, append([]string{"", "auto"}, providerNames()...)},
	} {
		if !slices.Contains(c.can, c.value) {
			return misuse("--%s is %q; it can be %s", name, c.value, strings.TrimPrefix(strings.Join(c.can, ", "), ", "))
		}
	}
	if o.tokenFile != "" && o.tokenEnv != "" {
		return misuse("--token-file and --token-env name two places for one token; give one")
	}
	return nil
}

// run executes a command line and returns its exit code.
func run(ctx context.Context, args []string, env environment) int {
	err := dispatch(ctx, args, env)
	var code exitError
	if err == nil || errors.As(err, &code) {
		return int(code)
	}
	tellError(env, err)
	return codeFor(err)
}

func codeFor(err error) int {
	var usage usageError
	var no *refused
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &no):
		return exitDenied
	}
	return exitFailed
}

func dispatch(ctx context.Context, args []string, env environment) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		printUsage(env)
		if len(args) == 0 {
			return exitError(exitUsage)
		}
		return nil
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.start(ctx, args[1:], env)
		}
	}
	return misuse("unknown command %q; see jobgate-job help", args[0])
}

func (c command) start(ctx context.Context, args []string, env environment) error {
	o := &options{env: env}
	set := flag.NewFlagSet(c.name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	o.define(set, c.flags)
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintf(env.Stdout, "usage: jobgate-job %s [flags] %s\n\n%s\n\n", c.name, c.args, c.what)
		set.SetOutput(env.Stdout)
		set.PrintDefaults()
		return nil
	case err != nil:
		return usageError{err}
	case c.args == "" && set.NArg() > 0:
		return misuse("%s takes no arguments, only flags; %q is one too many", c.name, set.Arg(0))
	}
	if err := o.check(); err != nil {
		return err
	}
	return c.run(ctx, o, set.Args())
}

func printUsage(env environment) {
	_, _ = fmt.Fprintln(env.Stdout, "usage: jobgate-job COMMAND [flags]")
	for _, c := range commands() {
		if c.what != "" {
			_, _ = fmt.Fprintf(env.Stdout, "  %-18s %s\n", strings.TrimSpace(c.name+" "+c.args), c.what)
		}
	}
	_, _ = fmt.Fprintln(env.Stdout, "jobgate-job COMMAND -h shows the flags. Exit codes: 0 done, 1 failed, 2 wrong use, 3 denied.")
}

// tellError shows an error in the job's log; under GitHub and its kin also as an annotation on the job's page, which the
// runner reads from either stream.
func tellError(env environment, err error) {
	if env.get("GITHUB_ACTIONS") != "" {
		_, _ = fmt.Fprintf(env.Stderr, "::error title=Jobgate::%s\n", strings.ReplaceAll(visible(err.Error(), 1000), "%", "%25"))
		return
	}
	env.say("%v", err)
}

func showVersion(_ context.Context, o *options, _ []string) error {
	text := version
	if info, ok := debug.ReadBuildInfo(); text == "" && ok {
		text = info.Main.Version
	}
	if text == "" {
		text = "(devel)"
	}
	if o.json() {
		return o.printJSON(map[string]string{"version": text})
	}
	_, err := fmt.Fprintln(o.env.Stdout, "jobgate-job", text)
	return err
}

func (o *options) printJSON(v any) error { return writeJSON(o.env.Stdout, v) }

func writeJSON(w io.Writer, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	_, err = w.Write(append(raw, '\n'))
	return err
}
