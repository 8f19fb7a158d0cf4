package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jobgate/jobgate/federation"
)

func (o *options) suggestCommand() *cobra.Command {
	var token, provider, name string
	c := &cobra.Command{
		Use:   "suggest --from-token FILE|-",
		Short: "Print a mapping for jobs like the one of a CI token, pinned to its owner's ids",
		Long: "Print a mapping for jobs like the one of a CI token: pinned to the immutable ids of its owner, to its ref, its\n" +
			"trigger and its environment, with few grants. Nothing is put in force, no network is used, and the token is\n" +
			"not verified. Issuers and connections are those of the configuration file, where there is one.",
		Args: noArgs,
	}
	c.Flags().StringVar(&token, "from-token", "", "a file with a CI token; - reads it from the standard input")
	c.Flags().StringVar(&provider, "provider", "", "the token's CI provider, where its issuer is not in the configuration file")
	c.Flags().StringVar(&name, "name", "", "the mapping's name; default: one made of the repository's")
	c.RunE = func(*cobra.Command, []string) error {
		if token == "" {
			return usageError{errors.New("show a CI token of such a job with --from-token FILE, or - for the standard input")}
		}
		raw, err := o.readInput(token, maxShown)
		if err != nil {
			return err
		}
		return o.suggest(strings.TrimSpace(string(raw)), provider, name)
	}
	return c
}

func (o *options) suggest(token, provider, name string) error {
	var issuers []federation.Issuer
	connections := make(map[string]string)
	if _, err := os.Stat(o.config); err == nil {
		cfg, err := loadConfig(o.config)
		if err != nil {
			return err
		}
		b := &built{config: cfg}
		if found := (&problems{file: cfg.file}); !b.buildIssuers(found) {
			return found
		}
		issuers = b.issuers
		for _, c := range cfg.Connections {
			connections[c.Name] = c.Kind
		}
	}
	id, known, err := federation.ReadUnverified(token, issuers, provider)
	if err != nil {
		return err
	}
	s, err := federation.Suggest(id, connections)
	if err != nil {
		return err
	}
	if name != "" {
		s.Mapping.Name = name
	}
	return o.printSuggestion(s, known)
}

func (o *options) printSuggestion(s federation.Suggestion, known bool) error {
	if o.json() {
		warnings := s.Warnings
		if warnings == nil {
			warnings = []string{}
		}
		return o.printJSON(map[string]any{"mapping": s.Mapping, "about": s.About, "warnings": warnings})
	}
	text, err := s.YAML()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(o.env.Stdout, escape(text)); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(o.env.Stderr, "the token was not verified; look at the mapping before you put it in force: jobgate mappings apply -f FILE")
	if !known {
		_, _ = fmt.Fprintf(o.env.Stderr, "its issuer is not in %s: add it to issuers, named %q, or rename it here\n", o.config, s.Mapping.Issuer)
	}
	return nil
}
