package main

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/spf13/cobra"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/api"
)

func checkCommand(o *options) *cobra.Command {
	var strict bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration file",
		Long: "Check the configuration file as a start of the server does, and look for what is allowed and most often not\n" +
			"meant: names where ids exist, triggers that anybody can pull, rules that never speak, and the like. Such\n" +
			"warnings leave the exit code at 0, unless --strict is given.",
		Args: noArgs,
	}
	c.Flags().BoolVar(&strict, "strict", false, "exit with 1 when there are warnings")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadConfig(o.config)
		if err != nil {
			return err
		}
		b, err := buildConfig(cfg, o.env, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer b.close()
		if err := b.readSources(c.Context()); err != nil {
			return err
		}
		warnings, err := lintConfig(b)
		if err != nil {
			return err
		}
		if err := o.printCheck(b, warnings); err != nil {
			return err
		}
		if strict && len(warnings) > 0 {
			return fmt.Errorf("%s in %s", plural(len(warnings), "warning"), o.config)
		}
		return nil
	}
	return c
}

// warning is one finding of a lint, with its place in the file.
type warning struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Path string `json:"path"`
	Lint string `json:"lint"`
	Text string `json:"text"`
}

func (o *options) printCheck(b *built, warnings []warning) error {
	if o.json() {
		return o.printJSON(map[string]any{"file": o.config, "ok": true, "mappings": len(b.declared), "connections": len(b.config.Connections), "warnings": warnings})
	}
	for _, w := range warnings {
		if _, err := fmt.Fprintf(o.env.Stdout, "%s:%d: %s: %s (%s)\n", w.File, w.Line, escape(w.Path), escape(w.Text), w.Lint); err != nil {
			return err
		}
	}
	text := ""
	if len(warnings) > 0 {
		text = ", " + plural(len(warnings), "warning")
	}
	_, err := fmt.Fprintf(o.env.Stdout, "%s: good; %s, %s%s\n", o.config, plural(len(b.config.Connections), "connection"), plural(len(b.declared), "mapping"), text)
	return err
}

// lintConfig looks for what is allowed in a configuration and most often not meant, in the order of files and lines.
func lintConfig(b *built) ([]warning, error) {
	out := []warning{}
	add := func(d declared, path, lint, text string) {
		path = d.at(path)
		out = append(out, warning{File: d.doc.file, Line: lineOf(d.doc.root, path), Path: path, Lint: lint, Text: text})
	}
	order := map[string]int{b.config.file: 0} // of the files
	for _, d := range b.declared {
		if _, known := order[d.doc.file]; !known {
			order[d.doc.file] = len(order)
		}
	}
	for _, i := range b.empty {
		path := fmt.Sprintf("mappings_from[%d]", i)
		out = append(out, warning{File: b.config.file, Line: lineOf(b.config.root, path), Path: path, Lint: "empty-source",
			Text: "there is no *.yaml or *.yml file directly in it: nothing is in force from there"})
	}
	mappings, err := b.mappings()
	if err != nil {
		return nil, err
	}
	for _, f := range federation.Lint(mappings, b.mappingConfig()) {
		add(b.declared[f.Mapping], f.Path, f.Lint, f.Text)
	}
	b.lintApprovers(add)
	slices.SortStableFunc(out, func(a, b warning) int {
		if a.File != b.File {
			return order[a.File] - order[b.File]
		}
		return a.Line - b.Line
	})
	return out, nil
}

// lintApprovers finds rules whose question nobody is asked.
func (b *built) lintApprovers(add func(d declared, path, lint, text string)) {
	for _, d := range b.declared {
		b.lintGrantsApprovers("grants", d.spec.Grants, func(path, text string) { add(d, path, "no-approver", text) })
		for i, o := range d.spec.Overrides {
			b.lintGrantsApprovers(fmt.Sprintf("overrides[%d].grants", i), o.Grants, func(path, text string) { add(d, path, "no-approver", text) })
		}
	}
}

func (b *built) lintGrantsApprovers(at string, grants []api.Grant, add func(path, text string)) {
	for j, g := range grants {
		for k, r := range g.Rules {
			for n, group := range r.Approvers {
				if why := b.asksNobody(group); why != "" {
					add(fmt.Sprintf("%s[%d].rules[%d].approvers[%d]", at, j, k, n), why)
				}
			}
		}
	}
}

func (b *built) asksNobody(group string) string {
	g := b.config.Approvals.Groups[group]
	switch {
	case len(g.Emails)+len(g.SlackUsergroups) == 0:
		return fmt.Sprintf("group %q has nobody in it: its questions can be answered with the admin token only; write emails or slack_usergroups into approvals.groups.%s", group, group)
	case b.config.Approvals.Slack == nil:
		return fmt.Sprintf("the people of group %q are asked in Slack, which is not configured: questions can be answered with the admin token only; write approvals.slack", group)
	}
	return ""
}
