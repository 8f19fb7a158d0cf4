package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jobgate/jobgate/internal/api"
)

func mappingsCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "mappings", Short: "Show and change mappings", Args: noArgs, RunE: help}
	c.AddCommand(
		&cobra.Command{Use: "ls", Short: "List the mappings, deleted ones among them", Args: noArgs, RunE: o.listMappings},
		&cobra.Command{Use: "show NAME", Short: "Show a mapping", Args: exactly(1, "a mapping's name"), RunE: o.showMapping},
		o.hitsCommand(),
		o.applyCommand(),
		o.planCommand(),
		o.suggestCommand(),
		&cobra.Command{Use: "delete NAME", Short: "Delete a mapping: its sessions end at once, open streams are cut",
			Args: exactly(1, "a mapping's name"), RunE: o.deleteMapping},
		&cobra.Command{Use: "restore NAME", Short: "Put a mapping of the file in force again that was deleted here",
			Args: exactly(1, "a mapping's name"), RunE: o.restoreMapping},
	)
	return c
}

func (o *options) listMappings(c *cobra.Command, _ []string) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var list api.MappingList
	if err := cl.do(c.Context(), http.MethodGet, "/v1/mappings", nil, nil, &list); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(list)
	}
	var rows [][]string
	for _, m := range list.Items {
		state := "in force"
		if m.Deleted {
			state = "deleted by " + m.By
		}
		if m.Stopped != nil {
			state += ", STOPPED by " + m.Stopped.By
		}
		rows = append(rows, []string{m.Name, strconv.FormatInt(m.Revision, 10), m.Source, state, strconv.Itoa(m.Sessions), m.Spec.Issuer, fromText(m.Origin)})
	}
	if err := o.table([]string{"NAME", "REVISION", "SOURCE", "STATE", "OPEN SESSIONS", "ISSUER", "FROM"}, rows); err != nil {
		return err
	}
	return o.listSources(list.Sources)
}

// listSources says where mappings come from, and what is wrong there.
func (o *options) listSources(list []api.SourceView) error {
	if len(list) == 0 {
		return nil
	}
	var t texts
	t.add("")
	for _, s := range list {
		t.add("%s %s: %s in force, %s", s.Kind, s.Source, plural(s.Mappings, "mapping"), shortRevision(s.Revision))
		if s.OK {
			continue
		}
		t.add("  IN ERROR since %s (%s); what was in force stays:", s.Since.Format("2006-01-02 15:04:05Z"), ago(*s.Since))
		for l := range strings.SplitSeq(s.Error, "\n") {
			t.add("    %s", l)
		}
	}
	_, err := io.WriteString(o.env.Stdout, t.String())
	return err
}

// fromText names the file that says a mapping.
func fromText(origin *api.Origin) string {
	if origin == nil {
		return "-"
	}
	return origin.From
}

// originText names the file that says a mapping, and the revision of its source.
func originText(origin *api.Origin) string {
	if origin == nil {
		return "the admin API"
	}
	return origin.From + " at " + shortRevision(origin.Revision)
}

// shortRevision keeps the first twelve digits of every digest.
func shortRevision(revision string) string {
	words := strings.Fields(revision)
	for i, w := range words {
		if kind, digits, ok := strings.Cut(w, ":"); ok && len(digits) > 12 {
			words[i] = kind + ":" + digits[:12]
		}
	}
	return strings.Join(words, " ")
}

func (o *options) showMapping(c *cobra.Command, args []string) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var m api.MappingView
	if err := cl.do(c.Context(), http.MethodGet, "/v1/mappings/"+url.PathEscape(args[0]), nil, nil, &m); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(m)
	}
	text, err := api.EncodeYAML(m.Spec)
	if err != nil {
		return err
	}
	hits, err := hitsOf(c, cl, m.Name, 7)
	if err != nil {
		return err
	}
	state := ""
	if m.Deleted {
		state = ", deleted by " + m.By
	}
	if s := m.Stopped; s != nil {
		state += fmt.Sprintf(", STOPPED %s by %s%s", ago(s.At), s.By, because(s.Reason))
	}
	from := originText(m.Origin)
	if m.Origin == nil && m.Source == "file" {
		from = "a file that says it no more"
	}
	_, err = fmt.Fprintf(o.env.Stdout, "# revision %d from %s%s, %s\n%s%s", m.Revision, escape(from), escape(state), plural(m.Sessions, "open session"), comments(hitsText(hits)), escape(text))
	return err
}

func (o *options) deleteMapping(c *cobra.Command, args []string) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	path := "/v1/mappings/" + url.PathEscape(args[0])
	var m api.MappingView
	if err := cl.do(c.Context(), http.MethodGet, path, nil, nil, &m); err != nil {
		return err
	}
	// What is deleted is what was there when this began: the same name put anew by somebody else meanwhile is a conflict.
	if err := cl.do(c.Context(), http.MethodDelete, path, ifMatch(m.Revision), nil, nil); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(map[string]any{"deleted": args[0]})
	}
	_, err = fmt.Fprintf(o.env.Stdout, "mapping %s is deleted; its sessions have ended\n", escape(args[0]))
	return err
}

func (o *options) restoreMapping(c *cobra.Command, args []string) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var m api.MappingView
	if err := cl.do(c.Context(), http.MethodPost, "/v1/mappings/"+url.PathEscape(args[0])+"/restore", nil, nil, &m); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(m)
	}
	_, err = fmt.Fprintf(o.env.Stdout, "mapping %s is in force again as revision %d\n", escape(m.Name), m.Revision)
	return err
}

func sessionsCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "sessions", Short: "Show and close sessions", Args: noArgs, RunE: help}
	var all bool
	ls := &cobra.Command{Use: "ls", Short: "List the open sessions", Args: noArgs, RunE: func(c *cobra.Command, _ []string) error { return o.listSessions(c, all) }}
	ls.Flags().BoolVarP(&all, "all", "a", false, "those that are over, too")
	c.AddCommand(ls,
		&cobra.Command{Use: "show ID", Short: "Show a session", Args: exactly(1, "a session's id"), RunE: o.showSession},
		&cobra.Command{Use: "close ID", Short: "End a session: its job can open no other under the same mapping", Args: exactly(1, "a session's id"), RunE: o.closeSession},
	)
	return c
}

func (o *options) listSessions(c *cobra.Command, all bool) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	path := "/v1/sessions?state=open"
	if all {
		path = "/v1/sessions"
	}
	var list api.List[api.SessionView]
	if err := cl.do(c.Context(), http.MethodGet, path, nil, nil, &list); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(list)
	}
	if len(list.Items) == 0 {
		return o.say("no session is open; -a lists those that are over, too", "there was no session yet", all)
	}
	var rows [][]string
	for _, s := range list.Items {
		state := s.State
		if s.EndReason != "" {
			state += " (" + s.EndReason + ")"
		}
		if len(s.Stopped) > 0 {
			state += " (" + stoppedText(s.Stopped) + ")"
		}
		closes := s.Closes
		if s.Ended != nil {
			closes = *s.Ended
		}
		rows = append(rows, []string{s.ID, state, s.Mapping, line(jobText(s.Job), 60), ago(s.Opened), ago(closes),
			strconv.FormatInt(s.Tally.Calls, 10), strconv.FormatInt(s.Tally.Denials, 10)})
	}
	return o.table([]string{"SESSION", "STATE", "MAPPING", "JOB", "OPENED", "CLOSES", "CALLS", "DENIALS"}, rows)
}

// mappingText says under which mapping a session is, and which of its overrides applies.
func mappingText(s api.SessionView) string {
	text := fmt.Sprintf("%s, revision %d", s.Mapping, s.Revision)
	if s.Override != "" {
		text += ", override " + s.Override
	}
	return text
}

// jobText is one line about a job.
func jobText(job any) string {
	fields, _ := job.(map[string]any)
	var parts []string
	for _, name := range []string{"repository", "ref", "workflow"} {
		if s, _ := fields[name].(string); s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, " ")
}

func (o *options) showSession(c *cobra.Command, args []string) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var s api.SessionView
	if err := cl.do(c.Context(), http.MethodGet, "/v1/sessions/"+url.PathEscape(args[0]), nil, nil, &s); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(s)
	}
	rows := [][2]string{
		{"session", s.ID}, {"state", strings.TrimSpace(s.State + " " + s.EndReason)}, {"mapping", mappingText(s)},
		{"from", originText(s.Origin)},
		{"job", jobText(s.Job)}, {"job key", s.JobKey}, {"issuer", s.Issuer}, {"opened", s.Opened.Format("2006-01-02 15:04:05Z")},
		{"lease until", s.Asleep.Format("2006-01-02 15:04:05Z")}, {"closes", s.Closes.Format("2006-01-02 15:04:05Z")},
		{"calls", fmt.Sprintf("%d, %d denied, %d would have been", s.Tally.Calls, s.Tally.Denials, s.Tally.Observed)},
		{"approvals", fmt.Sprintf("%d asked, %d approved, %d denied, %d expired", s.Tally.Asked, s.Tally.Approved, s.Tally.Denied, s.Tally.Expired)},
		{"archive", s.Archive},
	}
	if s.Sign != "" {
		rows = append(rows, [2]string{"sign of life", s.Sign})
	}
	for _, stop := range s.Stopped {
		rows = append(rows, [2]string{"stopped", fmt.Sprintf("%s, %s by %s%s", stopSubject(stop), ago(stop.At), stop.By, because(stop.Reason))})
	}
	for name, u := range s.Usage {
		rows = append(rows, [2]string{"used", fmt.Sprintf("%s: %s, %d input tokens, %d output tokens", name, plural(int(u.Requests), "request"), u.InputTokens, u.OutputTokens)})
	}
	for _, r := range rows {
		if _, err := fmt.Fprintf(o.env.Stdout, "%-14s %s\n", r[0], line(r[1], 200)); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) closeSession(c *cobra.Command, args []string) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	if err := cl.do(c.Context(), http.MethodDelete, "/v1/sessions/"+url.PathEscape(args[0]), nil, nil, nil); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(map[string]any{"closed": args[0]})
	}
	_, err = fmt.Fprintf(o.env.Stdout, "session %s is closed\n", escape(args[0]))
	return err
}

func approvalsCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "approvals", Short: "Answer questions", Args: noArgs, RunE: help}
	var all bool
	ls := &cobra.Command{Use: "ls", Short: "List the questions that wait for an answer", Args: noArgs, RunE: func(c *cobra.Command, _ []string) error { return o.listApprovals(c, all) }}
	ls.Flags().BoolVarP(&all, "all", "a", false, "those that are settled, too")
	var reason string
	vote := func(verb, short string) *cobra.Command {
		cmd := &cobra.Command{Use: verb + " ID", Short: short, Args: exactly(1, "a question's id"),
			RunE: func(c *cobra.Command, args []string) error { return o.vote(c, verb, args[0], reason) }}
		cmd.Flags().StringVarP(&reason, "reason", "r", "", "why; the agent reads it where the answer is no")
		return cmd
	}
	c.AddCommand(ls, vote("approve", "Let exactly this run"), vote("deny", "Let it not run"))
	return c
}

func (o *options) listApprovals(c *cobra.Command, all bool) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	path := "/v1/approvals?state=pending"
	if all {
		path = "/v1/approvals"
	}
	var list api.List[api.ApprovalView]
	if err := cl.do(c.Context(), http.MethodGet, path, nil, nil, &list); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(list)
	}
	if len(list.Items) == 0 {
		_, err := fmt.Fprintln(o.env.Stdout, "no question waits")
		return err
	}
	for i, a := range list.Items {
		if i > 0 {
			_, _ = fmt.Fprintln(o.env.Stdout)
		}
		o.printApproval(a)
	}
	return nil
}

// printApproval shows a question whole: what is approved here must have been seen here.
func (o *options) printApproval(a api.ApprovalView) {
	out := o.env.Stdout
	_, _ = fmt.Fprintf(out, "%s  %s", escape(a.ID), escape(a.State))
	if a.By != "" {
		_, _ = fmt.Fprintf(out, " by %s", line(a.By, 80))
	}
	when := "expires  " + ago(a.Expires)
	if a.Decided != nil {
		when = "settled  " + ago(*a.Decided) + because(a.VoteReason)
	}
	_, _ = fmt.Fprintf(out, "\n  job      %s\n  rule     %s of mapping %s: %s\n  %s\n  asks     %s on %s",
		line(jobText(a.Job), 160), escape(a.Rule), escape(a.Mapping), line(a.Reason, 200), when, line(a.Title, 160), escape(a.Connection))
	if a.Masked > 0 {
		_, _ = fmt.Fprintf(out, "  (%s masked)", plural(a.Masked, "value"))
	}
	_, _ = fmt.Fprintln(out)
	for _, text := range strings.Split(escape(a.Text), "\n") {
		_, _ = fmt.Fprintf(out, "    | %s\n", text)
	}
}

func (o *options) vote(c *cobra.Command, verb, id, reason string) error {
	cl, err := o.newClient()
	if err != nil {
		return err
	}
	var a api.ApprovalView
	if err := cl.do(c.Context(), http.MethodPost, "/v1/approvals/"+url.PathEscape(id)+"/"+verb, nil, api.Vote{Reason: reason}, &a); err != nil {
		return err
	}
	if o.json() {
		return o.printJSON(a)
	}
	_, err = fmt.Fprintf(o.env.Stdout, "%s: %s on %s is %s\n", escape(a.ID), line(a.Title, 100), escape(a.Connection), escape(a.State))
	return err
}
