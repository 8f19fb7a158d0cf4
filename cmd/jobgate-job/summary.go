package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/api"
)

// report tells what a session did, as JSON on w where that is asked for, and returns what that means for the exit code. No
// job in which something was refused, or of which that cannot be told, is silently green.
func report(o *options, w io.Writer, end told, session string, failed error) int {
	switch {
	case failed != nil:
		tellError(o.env, fmt.Errorf("what session %s did is not known: %w", session, failed))
	case o.json():
		_ = writeJSON(w, end.info) // the job's log is gone
	default:
		for _, line := range lines(end) {
			o.env.say("%s", line)
		}
	}
	if file := o.env.get("GITHUB_STEP_SUMMARY"); file != "" {
		if err := appendFile(file, page(end.info, session, failed)); err != nil {
			o.env.say("the job's summary could not be written: %v", err)
		}
	}
	fail := o.onDenial != "warn"
	switch {
	case !fail:
		return exitDone
	case failed != nil:
		return exitFailed
	case end.info.Denials > 0:
		tellError(o.env, fmt.Errorf("%s. With --on-denial warn the job would not fail for it", deniedText(end.info)))
		return exitDenied
	}
	return exitDone
}

// deniedText says how much was refused, and the first of it.
func deniedText(info api.Introspection) string {
	text := fmt.Sprintf("%d calls and tool uses were refused", info.Denials)
	if info.Denials == 1 {
		text = "1 call or tool use was refused"
	}
	if len(info.Denied) > 0 {
		first := info.Denied[0]
		text += fmt.Sprintf("; the first: %s: %s", visible(first.Rule, 80), strings.TrimRight(visible(first.Reason, 200), "."))
	}
	return text
}

// lines is the summary for the job's log.
func lines(end told) []string {
	info := end.info
	out := []string{fmt.Sprintf("session %s under mapping %s: %s, %d refused, %s",
		info.SessionID, mappingText(info), count(info.Calls, "call"), info.Denials, approvals(info.Approvals))}
	for _, c := range info.Connections {
		out = append(out, fmt.Sprintf("  %s: %s, %s, %s", c.Name, count(c.Requests, "request"), count(c.InputTokens, "input token"), count(c.OutputTokens, "output token")))
	}
	for _, d := range info.Denied[:min(len(info.Denied), 20)] {
		out = append(out, fmt.Sprintf("  refused: %s, rule %s: %s (%s)", d.Connection, visible(d.Rule, 80), visible(d.Reason, 200), visible(d.What, 200)))
	}
	if info.Observed > 0 {
		out = append(out, fmt.Sprintf("  %d more would have been refused by what is only observed", info.Observed))
	}
	if info.EndReason != "" && info.EndReason != "closed" {
		out = append(out, "  it had ended before the job did: "+info.EndReason)
	}
	if end.closed != "" {
		out = append(out, "  "+end.closed)
	}
	if info.Archive != "" {
		out = append(out, "  archive: "+info.Archive)
	}
	return out
}

// mappingText names the mapping, and its override that applies to the job, where one does.
func mappingText(info api.Introspection) string {
	if info.Override == "" {
		return info.Mapping
	}
	return info.Mapping + ", override " + info.Override
}

func approvals(a api.Approvals) string {
	if a.Asked == 0 {
		return "no questions"
	}
	return fmt.Sprintf("%s (%d approved, %d denied, %d expired, %d cancelled)", count(a.Asked, "question"), a.Approved, a.Denied, a.Expired, a.Cancelled)
}

// page is the summary for a GitHub job's page. Nothing in it is trusted: rule names come from people, reasons and commands
// from models and from whoever wrote to them.
func page(info api.Introspection, session string, failed error) string {
	var out strings.Builder
	fmt.Fprintf(&out, "### Jobgate session %s\n\n", markdown(session, 100))
	if failed != nil {
		fmt.Fprintf(&out, "What this session did is not known: %s\n", markdown(failed.Error(), 500))
		return out.String()
	}
	row := func(cells ...string) {
		for _, cell := range cells {
			out.WriteString("| " + markdown(cell, 300) + " ")
		}
		out.WriteString("|\n")
	}
	out.WriteString("|  |  |\n| --- | --- |\n")
	row("Mapping", mappingText(info))
	row("Connections", info.Scope)
	if info.Window != nil {
		row("Window", stamp(info.Window.Opens)+" to "+stamp(info.Window.Closes)+" at the latest")
	}
	if info.EndReason != "" {
		row("Ended before the job", info.EndReason)
	}
	row("Calls", number(info.Calls))
	row("Refused", number(info.Denials))
	row("Approvals", approvals(info.Approvals))
	row("Archive", info.Archive)
	if len(info.Connections) > 0 {
		out.WriteString("\n| Connection | Requests | Input tokens | Output tokens |\n| --- | --- | --- | --- |\n")
		for _, c := range info.Connections {
			row(c.Name, number(c.Requests), number(c.InputTokens), number(c.OutputTokens))
		}
	}
	if len(info.Denied) > 0 {
		out.WriteString("\n#### Refused\n\n| Time | Connection | Rule | Reason | What |\n| --- | --- | --- | --- | --- |\n")
		for _, d := range info.Denied[:min(len(info.Denied), 20)] {
			row(stamp(d.Time), d.Connection, d.Rule, d.Reason, d.What)
		}
	}
	return out.String()
}

func count(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return number(n) + " " + what
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
