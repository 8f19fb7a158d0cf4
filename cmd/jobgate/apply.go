package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"

	"github.com/jobgate/jobgate/internal/api"
)

// applyFlags say how a mapping is applied.
type applyFlags struct {
	file     string
	yes, dry bool
}

func (o *options) applyCommand() *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use:   "apply -f FILE|-",
		Short: "Create or replace a mapping from a YAML or JSON file: shows what changes and which sessions end, and asks",
		Args:  noArgs,
	}
	c.Flags().StringVarP(&f.file, "file", "f", "", "the mapping's file; - reads the standard input")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "apply without asking, for scripts")
	c.Flags().BoolVar(&f.dry, "dry-run", false, "show what would happen, and change nothing")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.file == "" {
			return usageError{errors.New("name the mapping's file with -f")}
		}
		if f.yes && f.dry {
			return usageError{errors.New("--yes applies, --dry-run does not: take one of them")}
		}
		return o.apply(c, f)
	}
	return c
}

func (o *options) apply(c *cobra.Command, f applyFlags) error {
	spec, err := o.readMapping(f.file)
	if err != nil {
		return err
	}
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	path := "/v1/mappings/" + url.PathEscape(spec.Name)
	var preview api.MappingPreview
	if err := cl.do(c.Context(), http.MethodPut, path+"?dry_run=true", nil, spec, &preview); err != nil {
		return err
	}
	if !o.json() {
		if err := o.printPreview(preview); err != nil {
			return err
		}
	}
	switch {
	case f.dry && o.json():
		return o.printJSON(preview)
	case !f.dry && !preview.Changed && o.json():
		return o.showMapping(c, []string{spec.Name})
	case f.dry, !preview.Changed:
		return nil
	}
	if goOn, err := o.agreed(f); !goOn {
		return err
	}
	// The change that was shown is the one that is made: another that came between is a conflict.
	var m api.MappingView
	if err := cl.do(c.Context(), http.MethodPut, path, ifMatch(preview.Revision), spec, &m); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(m)
	}
	_, err = fmt.Fprintf(o.env.Stdout, "mapping %s: revision %d is in force, %s\n", escape(m.Name), m.Revision, plural(m.Sessions, "open session"))
	return err
}

// ifMatch is the header of a write that changes this revision and no other; 0 is a mapping that is not there yet.
func ifMatch(revision int64) map[string]string {
	if revision == 0 {
		return nil
	}
	return map[string]string{"If-Match": `"` + strconv.FormatInt(revision, 10) + `"`}
}

// printPreview shows the change line by line, and what it does to open sessions.
func (o *options) printPreview(p api.MappingPreview) error {
	var t texts
	switch {
	case !p.Changed:
		t.add("mapping %s says this already: revision %d", p.Name, p.Revision)
	case p.Before == nil:
		t.add("mapping %s is new:", p.Name)
	default:
		t.add("mapping %s, revision %d, changes:", p.Name, p.Revision)
	}
	if p.Changed {
		before := ""
		var err error
		if p.Before != nil {
			if before, err = api.EncodeYAML(*p.Before); err != nil {
				return err
			}
		}
		after, err := api.EncodeYAML(p.After)
		if err != nil {
			return err
		}
		for _, l := range diffLines(before, after) {
			t.add("  %s", l)
		}
		t.ends(p)
	}
	_, err := io.WriteString(o.env.Stdout, t.String())
	return err
}

func (t *texts) ends(p api.MappingPreview) {
	switch {
	case p.Before == nil:
		return
	case len(p.Ends)+p.Stay == 0:
		t.add("no session of it is open")
		return
	case len(p.Ends) == 0:
		t.add("no open session ends; the new grants rule %s from the next call on", plural(p.Stay, "open session"))
		return
	}
	t.add("ENDS %s at once, open streams are cut; %d go on:", plural(len(p.Ends), "open session"), p.Stay)
	for _, s := range p.Ends {
		t.add("  %s  %s: %s", s.ID, jobText(s.Job), s.Reason)
	}
}

// agreed asks on a terminal. Where nobody can be asked, only --yes agrees.
func (o *options) agreed(f applyFlags) (bool, error) {
	if f.yes {
		return true, nil
	}
	if f.file == "-" || o.json() || !o.env.interactive() {
		return false, usageError{errors.New("nothing was changed: nobody can be asked here; --yes applies, --dry-run only shows")}
	}
	yes, err := confirm(o.env.Stdin, o.env.Stdout, "apply? [y/N] ")
	if err == nil && !yes {
		_, err = fmt.Fprintln(o.env.Stdout, "nothing was changed")
	}
	return yes, err
}

// interactive reports whether a person can be asked.
func (e environment) interactive() bool {
	f, ok := e.Stdin.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && e.terminal()
}

// confirm asks a question of which everything but a yes is a no.
func confirm(in io.Reader, out io.Writer, question string) (bool, error) {
	if _, err := io.WriteString(out, question); err != nil {
		return false, err
	}
	answer, err := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// readMapping reads one mapping; JSON is YAML.
func (o *options) readMapping(file string) (api.Mapping, error) {
	var m api.Mapping
	raw, err := o.readInput(file, maxMapping)
	if err != nil {
		return m, err
	}
	found := &problems{file: file}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil || len(doc.Content) == 0 {
		return m, fmt.Errorf("%s is no YAML or JSON document: %w", file, err)
	}
	checkKeys(doc.Content[0], &m, found)
	if err := found.or(); err != nil {
		return m, err
	}
	if err := doc.Content[0].Decode(&m); err != nil {
		addDecodeErrors(found, err)
		return m, found
	}
	if m.Name == "" {
		found.add(1, "name", "the mapping has no name")
	}
	return m, found.or()
}
