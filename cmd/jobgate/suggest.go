package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
)

// suggestFlags say what a mapping is suggested for.
type suggestFlags struct {
	token, repo            string
	provider, issuer, name string
	api                    string
}

func (o *options) suggestCommand() *cobra.Command {
	var f suggestFlags
	c := &cobra.Command{
		Use:   "suggest (--from-token FILE|- | --repo OWNER/NAME)",
		Short: "Print a mapping for jobs like the one of a CI token, or of a repository, pinned to the owner's ids",
		Long: "Print a mapping for jobs like the one of a CI token: pinned to the immutable ids of its owner, to its ref, its\n" +
			"trigger and its environment, with few grants. Nothing is put in force, no network is used, and the token is\n" +
			"not verified. Issuers and connections are those of the configuration file, where there is one.\n\n" +
			"With --repo, GitHub's API is asked for the ids of a repository and for its default branch, with GITHUB_TOKEN or\n" +
			"GH_TOKEN where one is set; a public repository needs none.",
		Args: noArgs,
	}
	c.Flags().StringVar(&f.token, "from-token", "", "a file with a CI token; - reads it from the standard input")
	c.Flags().StringVar(&f.repo, "repo", "", "a repository of GitHub, owner/name")
	c.Flags().StringVar(&f.provider, "provider", "", "the token's CI provider, where its issuer is not in the configuration file")
	c.Flags().StringVar(&f.issuer, "issuer", "", "the issuer of the repository's jobs, where the configuration file has several of GitHub")
	c.Flags().StringVar(&f.api, "api", "", "the base of GitHub's API, where it cannot be told from the issuer")
	c.Flags().StringVar(&f.name, "name", "", "the mapping's name; default: one made of the repository's")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if (f.token == "") == (f.repo == "") {
			return usageError{errors.New("show a CI token of such a job with --from-token FILE (- for the standard input), or name its repository with --repo")}
		}
		return o.suggest(c.Context(), f)
	}
	return c
}

func (o *options) suggest(ctx context.Context, f suggestFlags) error {
	issuers, connections, err := o.suggestFrom()
	if err != nil {
		return err
	}
	var s federation.Suggestion
	known := true
	if f.repo != "" {
		s, known, err = o.suggestForRepository(ctx, f, issuers, connections)
	} else {
		s, known, err = o.suggestForToken(f, issuers, connections)
	}
	if err != nil {
		return err
	}
	if f.name != "" {
		s.Mapping.Name = f.name
	}
	if m := s.OverrideOf(o.fileMappings(ctx)); m != nil && f.name == "" && !o.json() {
		text, err := s.OverrideYAML(m)
		if err == nil {
			_, err = io.WriteString(o.env.Stdout, escape(text))
		}
		_, _ = fmt.Fprintf(o.env.Stderr, "add it to mapping %s; --name NAME prints a mapping of its own instead\n", m.Name())
		return err
	}
	return o.printSuggestion(s, known, f.repo == "")
}

// fileMappings returns the configuration file's mappings, none where they cannot be read: a suggestion does without.
func (o *options) fileMappings(ctx context.Context) []*federation.Mapping {
	cfg, err := loadConfig(o.config)
	if err != nil {
		return nil
	}
	_, mappings, err := readMappings(ctx, cfg)
	if err != nil {
		return nil
	}
	return mappings
}

// suggestFrom reads issuers and connections of the configuration file, where there is one.
func (o *options) suggestFrom() ([]federation.Issuer, map[string]string, error) {
	connections := make(map[string]string)
	if _, err := os.Stat(o.config); err != nil {
		return nil, connections, nil
	}
	cfg, err := loadConfig(o.config)
	if err != nil {
		return nil, nil, err
	}
	b := &built{config: cfg}
	if found := (&problems{file: cfg.file}); !b.buildIssuers(found) {
		return nil, nil, found
	}
	for _, c := range cfg.Connections {
		connections[c.Name] = c.Kind
	}
	return b.issuers, connections, nil
}

func (o *options) suggestForToken(f suggestFlags, issuers []federation.Issuer, connections map[string]string) (s federation.Suggestion, known bool, err error) {
	raw, err := o.readInput(f.token, maxShown)
	if err != nil {
		return s, false, err
	}
	id, known, err := federation.ReadUnverified(strings.TrimSpace(string(raw)), issuers, f.provider)
	if err != nil {
		return s, known, err
	}
	s, err = federation.Suggest(id, issuers, connections)
	return s, known, err
}

func (o *options) suggestForRepository(ctx context.Context, f suggestFlags, issuers []federation.Issuer, connections map[string]string) (s federation.Suggestion, known bool, err error) {
	q := federation.RepositoryQuestion{Name: f.repo, API: f.api, Issuer: federation.Issuer{Name: "github", Provider: "github-actions"}}
	var of []string
	for _, issuer := range issuers {
		if issuer.Provider != q.Issuer.Provider || f.issuer != "" && issuer.Name != f.issuer {
			continue
		}
		of = append(of, issuer.Name)
		q.Issuer = issuer
	}
	switch {
	case len(of) > 1:
		return s, false, usageError{fmt.Errorf("%s has several issuers of GitHub; name one with --issuer: %s", o.config, strings.Join(of, ", "))}
	case len(of) == 0 && f.issuer != "":
		return s, false, usageError{fmt.Errorf("%s has no issuer %q of provider %s", o.config, f.issuer, q.Issuer.Provider)}
	}
	for _, name := range []string{"GH_TOKEN", "GITHUB_TOKEN"} {
		if token := o.env.Getenv(name); token != "" {
			q.Token = access.NewSecret(token)
		}
	}
	s, err = federation.SuggestForRepository(ctx, q, connections)
	return s, len(of) == 1, err
}

func (o *options) printSuggestion(s federation.Suggestion, known, token bool) error {
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
	if token {
		_, _ = fmt.Fprintln(o.env.Stderr, "the token was not verified")
	}
	_, _ = fmt.Fprintln(o.env.Stderr, "look at the mapping before you put it in force: jobgate mappings apply -f FILE")
	if !known {
		_, _ = fmt.Fprintf(o.env.Stderr, "its issuer is not in %s: add it to issuers, named %q, or rename it here\n", o.config, s.Mapping.Issuer)
	}
	return nil
}
