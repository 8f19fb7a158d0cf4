package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/jobgate/jobgate/internal/access"
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
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// terminal reports whether the output is read by a person.
func (e environment) terminal() bool {
	f, ok := e.Stdout.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// usageError is a wrong use of the command.
type usageError struct{ error }

// run executes a command line and returns its exit code.
func run(ctx context.Context, args []string, env environment) int {
	root := rootCommand(env)
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	_, _ = fmt.Fprintln(env.Stderr, "jobgate:", escape(err.Error()))
	var usage usageError
	switch {
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "unknown flag"), strings.HasPrefix(err.Error(), "unknown shorthand"):
		return exitUsage
	case access.CodeOf(err) == access.CodeDenied:
		return exitDenied
	}
	return exitFailed
}

func rootCommand(env environment) *cobra.Command {
	o := &options{env: env}
	root := &cobra.Command{
		Use:           "jobgate",
		Short:         "Lets CI jobs call services without holding their keys",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return c.Help()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVarP(&o.config, "config", "c", "jobgate.yaml", "the configuration file")
	root.PersistentFlags().StringVarP(&o.output, "output", "o", "text", "text or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if o.output != "text" && o.output != "json" {
			return usageError{fmt.Errorf("-o can be text or json, not %q", o.output)}
		}
		return nil
	}
	root.AddCommand(
		serveCommand(o), checkCommand(o), demoCommand(o), explainCommand(o), mappingsCommand(o), sessionsCommand(o),
		stopCommand(o), resumeCommand(o), approvalsCommand(o), archiveCommand(o), maskCommand(o), versionCommand(o),
	)
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// options are the flags that all commands share.
type options struct {
	env    environment
	config string
	output string
}

func (o *options) json() bool { return o.output == "json" }

func versionCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if o.json() {
				return o.printJSON(map[string]string{"version": versionText()})
			}
			_, err := fmt.Fprintln(o.env.Stdout, "jobgate", versionText())
			return err
		},
	}
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// noArgs and exactly are cobra's, as wrong use.
func noArgs(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return usageError{err}
	}
	return nil
}

func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%s takes %s", c.CommandPath(), what)}
		}
		return nil
	}
}

// help is what a command of commands does without one.
func help(c *cobra.Command, _ []string) error { return c.Help() }
