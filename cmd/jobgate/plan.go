package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// planFlags say what is planned.
type planFlags struct {
	files, without []string
	days           int
	failOnLoss     bool
}

func (o *options) planCommand() *cobra.Command {
	var f planFlags
	c := &cobra.Command{
		Use:   "plan -f FILE [-f FILE...]",
		Short: "Say which jobs of the last days would gain, lose or match elsewhere under changed mappings; changes nothing",
		Long: "Judge the exchanges of the last days again, by changed mappings: which jobs would be served that were refused, would be\n" +
			"refused that were served, and would be served by another mapping. Nothing changes.\n\n" +
			"A FILE is a mapping or a list of them, each put over the one of its name; or a configuration file: its mappings, and those\n" +
			"of the sources that it names, take the place of all that files say now. The server is asked; issuers and connections are those that it runs with.\n" +
			"Exit code 3 with --fail-on-loss: a job that was served would be refused.",
		Args: noArgs,
	}
	c.Flags().StringArrayVarP(&f.files, "file", "f", nil, "a mapping's file, or a changed configuration file; several times for several; - reads the standard input")
	c.Flags().StringArrayVar(&f.without, "without", nil, "the name of a mapping that would be deleted")
	c.Flags().IntVar(&f.days, "days", 7, "how many days to look back, 14 at most")
	c.Flags().BoolVar(&f.failOnLoss, "fail-on-loss", false, "exit with 3 where a job would lose; for a pipeline")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if len(f.files)+len(f.without) == 0 {
			return usageError{errors.New("name what would change: -f FILE, or --without NAME")}
		}
		if f.days < 1 || f.days > 14 {
			return usageError{fmt.Errorf("--days %d: exchanges are kept for 14 days, take 1 to 14", f.days)}
		}
		return o.plan(c, f)
	}
	return c
}

func (o *options) plan(c *cobra.Command, f planFlags) error {
	r := api.PlanRequest{Mappings: []api.Mapping{}, Without: f.without, Days: f.days}
	for _, file := range f.files {
		if err := o.addPlanned(c.Context(), &r, file); err != nil {
			return err
		}
	}
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var out api.Plan
	if err := cl.do(c.Context(), http.MethodPost, "/v1/mappings/plan", nil, r, &out); err != nil {
		return err
	}
	if o.json() {
		err = o.printJSON(out)
	} else {
		_, err = io.WriteString(o.env.Stdout, planText(out))
	}
	if err == nil && f.failOnLoss && out.Lose.Jobs > 0 {
		err = access.Refuse(access.CodeDenied, plural(out.Lose.Jobs, "job")+" would lose access")
	}
	return err
}

// addPlanned reads a file of mappings, or a configuration file: one with a public_url in it.
func (o *options) addPlanned(ctx context.Context, r *api.PlanRequest, file string) error {
	raw, err := o.readInput(file, maxConfig)
	if err != nil {
		return err
	}
	var top map[string]yaml.Node
	if err := yaml.Unmarshal(raw, &top); err != nil {
		return fmt.Errorf("%s is no YAML or JSON document: %w", file, err)
	}
	var all []declared
	if _, config := top["public_url"]; config {
		all, err = configDeclares(ctx, file)
		r.WholeFile = true
	} else {
		found := &problems{file: file}
		all = parseMappings(file, raw, found)
		err = found.or()
	}
	for _, d := range all {
		r.Mappings = append(r.Mappings, d.spec)
	}
	return err
}

// configDeclares returns the mappings that a configuration file says, and those of the sources that it names.
func configDeclares(ctx context.Context, file string) ([]declared, error) {
	if file == "-" {
		return nil, usageError{errors.New("a configuration file is read by its name, not from the standard input: what it says is relative to its folder")}
	}
	cfg, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	b, _, err := readMappings(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return b.declared, nil
}

// planText writes a plan for people. Whoever writes a repository chose much of it, so that every line is made safe for a terminal.
func planText(p api.Plan) string {
	var t texts
	days := int(p.Until.Sub(p.Since).Hours()/24 + 0.5)
	t.add("%s of the last %s, since %s, judged again", plural(p.Jobs, "job"), plural(days, "day"), p.Since.Format("2006-01-02 15:04Z"))
	if p.Truncated {
		t.add("note: there were more exchanges than are looked at; the newest are")
	}
	var changes []string
	for _, c := range p.Changes {
		changes = append(changes, c.Name+" ("+c.Change+")")
	}
	if len(changes) == 0 {
		changes = []string{"none: they say what is in force"}
	}
	t.add("mappings that change: %s", strings.Join(changes, ", "))
	t.add("")
	t.add("lose       %4d", p.Lose.Jobs)
	t.add("gain       %4d", p.Gain.Jobs)
	t.add("elsewhere  %4d", p.Elsewhere.Jobs)
	t.add("unchanged  %4d served, %d refused", p.Served, p.Refused)
	if p.Other > 0 {
		t.add("and %s refused for what no mapping decides, such as a token that was used", plural(p.Other, "exchange"))
	}
	t.groups("LOSE: served then, refused by the plan", p.Lose)
	t.groups("GAIN: refused then, served by the plan", p.Gain)
	t.groups("ELSEWHERE: served by another mapping", p.Elsewhere)
	return t.String()
}

func (t *texts) groups(title string, groups api.PlanGroups) {
	if groups.Jobs == 0 {
		return
	}
	t.add("")
	t.add("%s", title)
	for _, g := range groups.Items {
		way := g.Then + " -> " + g.Plan
		switch {
		case g.Plan == "":
			way = "by " + g.Then
		case g.Then == "":
			way = "by " + g.Plan
		}
		t.add("  %4d  %s  %s", g.Jobs, line(g.Repository, 100), way)
		if g.ThenReason != "" {
			t.add("        then: %s", g.ThenReason)
		}
		if g.Reason != "" && len(g.Failed) == 0 {
			t.add("        %s", g.Reason)
		}
		for _, c := range g.Failed {
			var one texts
			one.condition(c)
			t.block("      ", one.String())
		}
		t.add("        latest %s, %s", g.Last.Format("2006-01-02 15:04Z"), g.Exchange)
	}
	if groups.More > 0 {
		t.add("  and %s of further repositories", plural(groups.More, "job"))
	}
}
