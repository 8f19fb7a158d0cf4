package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/api"
)

// stopTarget is what the flags of stop and resume name.
type stopTarget struct {
	connection, mapping string
	all                 bool
}

func (t *stopTarget) flags(c *cobra.Command) {
	c.Flags().StringVar(&t.connection, "connection", "", "this connection, for every mapping")
	c.Flags().StringVar(&t.mapping, "mapping", "", "this mapping: its calls, and the exchanges of its jobs")
	c.Flags().BoolVar(&t.all, "all", false, "everything, also what is configured later")
}

// path is where the API has what was named.
func (t *stopTarget) path() (string, error) {
	var paths []string
	if t.connection != "" {
		paths = append(paths, "/v1/stops/connection/"+url.PathEscape(t.connection))
	}
	if t.mapping != "" {
		paths = append(paths, "/v1/stops/mapping/"+url.PathEscape(t.mapping))
	}
	if t.all {
		paths = append(paths, "/v1/stops/all")
	}
	if len(paths) != 1 {
		return "", usageError{errors.New("say what: one of --connection NAME, --mapping NAME, --all")}
	}
	return paths[0], nil
}

func stopCommand(o *options) *cobra.Command {
	var target stopTarget
	var reason string
	c := &cobra.Command{
		Use: "stop", Args: noArgs,
		Short: "Let nothing pass any more, at once: a connection, a mapping or everything",
		Long: "Let nothing pass any more: open streams are cut, questions are cancelled, calls are refused until resume.\n" +
			"No session ends by it. It holds over restarts.",
		Example: "  jobgate stop --connection anthropic --reason \"key leaked, INC-42\"\n  jobgate stop --all\n  jobgate stop ls\n  jobgate resume --connection anthropic",
		RunE:    func(c *cobra.Command, _ []string) error { return o.stop(c, target, reason) },
	}
	target.flags(c)
	c.Flags().StringVarP(&reason, "reason", "r", "", "why, in one line; jobs and their owners read it")
	c.AddCommand(&cobra.Command{Use: "ls", Short: "List what is stopped", Args: noArgs, RunE: o.listStops})
	return c
}

func resumeCommand(o *options) *cobra.Command {
	var target stopTarget
	c := &cobra.Command{
		Use: "resume", Args: noArgs, Short: "Lift a stop: sessions whose windows are open go on",
		RunE: func(c *cobra.Command, _ []string) error { return o.resume(c, target) },
	}
	target.flags(c)
	return c
}

func (o *options) stop(c *cobra.Command, target stopTarget, reason string) error {
	path, err := target.path()
	if err != nil {
		return err
	}
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var change api.StopChange
	if err := cl.do(c.Context(), http.MethodPut, path, nil, api.StopRequest{Reason: reason}, &change); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(change)
	}
	s := change.Stop
	_, err = fmt.Fprintf(o.env.Stdout, "%s is stopped%s, by %s%s\n%s cut; %s until it is resumed\nlift it with: jobgate resume %s\n",
		stopSubject(*s), since(*s, change.Changed), line(s.By, 80), because(s.Reason),
		plural(change.Cut, "call"), held(s.Sessions), escape(stopFlag(*s)))
	return err
}

// held says which sessions wait.
func held(n int) string {
	if n == 1 {
		return "1 open session waits"
	}
	return strconv.Itoa(n) + " open sessions wait"
}

func since(s api.StopView, changed bool) string {
	if changed {
		return ""
	}
	return " already, since " + s.At.Format("2006-01-02 15:04:05Z")
}

func (o *options) resume(c *cobra.Command, target stopTarget) error {
	path, err := target.path()
	if err != nil {
		return err
	}
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var change api.StopChange
	if err := cl.do(c.Context(), http.MethodDelete, path, nil, nil, &change); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(change)
	}
	text := "nothing to lift: this is not stopped\n"
	if s := change.Stop; s != nil {
		text = fmt.Sprintf("%s is resumed; it was stopped %s by %s%s\n", stopSubject(*s), ago(s.At), line(s.By, 80), because(s.Reason))
	}
	for _, s := range change.InForce {
		text += fmt.Sprintf("STILL STOPPED: %s%s (jobgate resume %s)\n", stopSubject(s), because(s.Reason), escape(stopFlag(s)))
	}
	_, err = fmt.Fprint(o.env.Stdout, text)
	return err
}

func (o *options) listStops(c *cobra.Command, _ []string) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var list api.List[api.StopView]
	if err := cl.do(c.Context(), http.MethodGet, "/v1/stops", nil, nil, &list); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(list)
	}
	if len(list.Items) == 0 {
		return o.say("nothing is stopped", "", false)
	}
	var rows [][]string
	for _, s := range list.Items {
		rows = append(rows, []string{s.Kind, cmp.Or(s.Name, "-"), ago(s.At), s.By, strconv.Itoa(s.Sessions), cmp.Or(s.Reason, "-")})
	}
	return o.table([]string{"KIND", "NAME", "STOPPED", "BY", "OPEN SESSIONS", "REASON"}, rows)
}

func stopSubject(s api.StopView) string {
	if s.Name == "" {
		return "everything"
	}
	return escape(s.Kind) + " " + line(s.Name, 64)
}

func stopFlag(s api.StopView) string {
	return strings.TrimSpace("--" + s.Kind + " " + s.Name)
}

// stoppedText is what of a session waits: all of it, or the calls of some connections.
func stoppedText(stops []api.StopView) string {
	var connections []string
	for _, s := range stops {
		if s.Kind != "connection" {
			return "STOPPED"
		}
		connections = append(connections, s.Name)
	}
	return "STOPPED: " + strings.Join(connections, ", ")
}

// stopsMetric tells what is stopped, so that a stop that was forgotten is seen.
type stopsMetric struct {
	stops *federation.Stops
	desc  *prometheus.Desc
}

func newStopsMetric(stops *federation.Stops) stopsMetric {
	return stopsMetric{stops, prometheus.NewDesc("jobgate_stopped", "What an operator has stopped: 1 for each, none where nothing is.", []string{"kind", "name"}, nil)}
}

func (m stopsMetric) Describe(out chan<- *prometheus.Desc) { out <- m.desc }

func (m stopsMetric) Collect(out chan<- prometheus.Metric) {
	for _, s := range m.stops.InForce() {
		out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, 1, string(s.Kind), s.Name)
	}
}
