package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

func (o *options) hitsCommand() *cobra.Command {
	var days int
	c := &cobra.Command{
		Use: "hits [NAME]", Short: "Show what mappings are used for: how often each rule matched, and what it did",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%s takes one mapping's name, or none for all", c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return o.showHits(c, args[0], days)
			}
			return o.listHits(c, days)
		},
	}
	c.Flags().IntVar(&days, "days", 7, "of the last days, today among them")
	return c
}

func hitsOf(c *cobra.Command, cl *client, name string, days int) (api.MappingHits, error) {
	var hits api.MappingHits
	err := cl.do(c.Context(), http.MethodGet, "/v1/mappings/"+url.PathEscape(name)+"/hits?days="+strconv.Itoa(days), nil, nil, &hits)
	return hits, err
}

// showHits shows one mapping, with the latest hits of its rules.
func (o *options) showHits(c *cobra.Command, name string, days int) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	hits, err := hitsOf(c, cl, name, days)
	if err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(hits)
	}
	_, err = io.WriteString(o.env.Stdout, hitsText(hits)+samplesText(hits))
	return err
}

// listHits shows one line for each mapping.
func (o *options) listHits(c *cobra.Command, days int) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var list api.List[api.MappingView]
	if err := cl.do(c.Context(), http.MethodGet, "/v1/mappings", nil, nil, &list); err != nil {
		return err
	}
	all := api.List[api.MappingHits]{Items: []api.MappingHits{}}
	var rows [][]string
	for _, m := range list.Items {
		hits, err := hitsOf(c, cl, m.Name, days)
		if err != nil {
			return err
		}
		all.Items = append(all.Items, hits)
		var calls, refused, unused int64
		for _, r := range hits.Rules {
			if r.Part == "grant" {
				calls += r.Hits
			}
			refused += r.Denied + r.Refused + r.Expired
			if r.Hits == 0 && (r.Part == "grant" || r.Part == "rule") {
				unused++
			}
		}
		rows = append(rows, []string{m.Name, number(hits.Exchange.Opened), number(calls), number(refused),
			number(hits.Enforce.WouldDeny + hits.Enforce.WouldAsk), number(unused), lastText(hits.LastUsed)})
	}
	if o.json() {
		return o.printJSON(all)
	}
	return o.table([]string{"NAME", "SESSIONS", "CALLS", "REFUSED", "WOULD HAVE BEEN", "UNUSED RULES AND GRANTS", "LAST USED"}, rows)
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func lastText(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return ago(*t)
}

// hitsText is the table of a mapping, with a sentence about exchanges above it and one about enforcing below.
func hitsText(h api.MappingHits) string {
	var out strings.Builder
	x := h.Exchange
	fmt.Fprintf(&out, "the last %s: %s opened, %d renewed, %d joined, %s refused; last used %s\n", plural(h.Days, "day"),
		plural(int(x.Opened), "session"), x.Renewed, x.Joined, plural(int(x.Refused), "exchange"), lastText(h.LastUsed))
	w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CONNECTION\tRULE\tEFFECT\tMODE\tHITS\tREFUSED\tASKED\tWOULD HAVE\tLAST")
	for _, r := range h.Rules {
		_, _ = fmt.Fprintln(w, strings.Join([]string{line(r.Connection, 40), line(ruleName(r), 60), cmp.Or(escape(r.Effect), "-"), cmp.Or(escape(r.Mode), "-"),
			number(r.Hits), number(r.Denied + r.Refused + r.Expired), askedText(r), wouldText(r), lastHit(r)}, "\t"))
	}
	_ = w.Flush()
	out.WriteString(enforceText(h))
	return out.String()
}

func ruleName(r api.RuleHits) string {
	name := r.Rule
	switch {
	case r.Part == "grant":
		name = "(all calls)"
	case r.Part != "rule":
		name = "(" + r.Part + ")"
	}
	if r.Gone {
		name += " (gone)"
	}
	return name
}

func lastHit(r api.RuleHits) string {
	if r.Hits == 0 {
		return "never"
	}
	return lastText(r.Last)
}

// askedText is what people said.
func askedText(r api.RuleHits) string {
	if r.Asked == 0 {
		return "-"
	}
	return fmt.Sprintf("%d: %d yes, %d no, %d late", r.Asked, r.Approved, r.Refused, r.Expired)
}

func wouldText(r api.RuleHits) string {
	var parts []string
	if r.WouldDeny > 0 {
		parts = append(parts, fmt.Sprintf("denied %d", r.WouldDeny))
	}
	if r.WouldAsk > 0 {
		parts = append(parts, fmt.Sprintf("asked %d", r.WouldAsk))
	}
	return cmp.Or(strings.Join(parts, ", "), "-")
}

// enforceText says what the step from observe to enforce would have meant.
func enforceText(h api.MappingHits) string {
	e := h.Enforce
	switch {
	case !e.Observing && e.WouldDeny+e.WouldAsk == 0:
		return ""
	case e.WouldDeny+e.WouldAsk == 0:
		return fmt.Sprintf("enforce instead of observe would have changed nothing in the last %s\n", plural(h.Days, "day"))
	}
	return fmt.Sprintf("enforce instead of observe would have refused %d and asked people about %d of the calls and tool uses of the last %s\n",
		e.WouldDeny, e.WouldAsk, plural(h.Days, "day"))
}

// samplesText lists the latest hits of each rule.
func samplesText(h api.MappingHits) string {
	var out strings.Builder
	for _, r := range h.Rules {
		if len(r.Samples) == 0 {
			continue
		}
		fmt.Fprintf(&out, "\nlatest of %s on %s\n", line(ruleName(r), 80), line(r.Connection, 64))
		for _, s := range r.Samples {
			fmt.Fprintf(&out, "  %s  %-10s  %s  %s  %s\n", s.Time.Format("2006-01-02 15:04:05Z"), line(s.Outcome, 16), line(s.Session, 40), line(s.Call, 40), line(s.What, 100))
		}
	}
	return out.String()
}

// comments makes a text comments of YAML, so that what is shown of a mapping can be applied as it is.
func comments(text string) string {
	return "# " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n# ") + "\n"
}

// countHits tells both the counts of the mapping and the metrics of a hit. Rules that a mapping names are few; names that
// a job chose are none of them.
func countHits(hits *federation.Hits, registry *prometheus.Registry) func(access.Hit) {
	matches := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "jobgate_rule_matches_total",
		Help: "How often rules and parts of grants spoke, by what became of it."}, []string{"mapping", "rule", "outcome"})
	registry.MustRegister(matches)
	return func(h access.Hit) {
		hits.Add(h)
		if h.Rule != "" {
			matches.WithLabelValues(h.Mapping, h.Rule, string(h.Outcome)).Inc()
		}
	}
}
