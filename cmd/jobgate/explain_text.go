package main

import (
	"fmt"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// conditionsShown is up to how many failed conditions a mapping is shown with all of them: one that fails more is not
// meant for the job, and what fails first says so.
const conditionsShown = 3

// explanationText writes an explanation for people. Whoever writes a repository chose much of it, so that every line of
// it is made safe for a terminal.
func explanationText(e api.Explanation, where string) string {
	var t texts
	t.verdict(e)
	if e.Then != nil {
		t.then(e.Then)
	}
	t.job(e)
	for _, n := range e.Notes {
		t.add("note: %s", n)
	}
	if e.Issuer != "" {
		t.add("")
		t.add("%s, %s of issuer %s:", where, plural(len(e.Mappings), "mapping"), e.Issuer)
	}
	for _, m := range e.Mappings {
		t.add("")
		t.mapping(m)
	}
	if e.Suggestion != "" {
		t.add("")
		t.add("a mapping of its own for jobs like this one, to look at and to put in force yourself:")
		t.add("")
		t.block("    ", e.Suggestion)
	}
	return t.String()
}

// texts is a text of lines.
type texts struct{ strings.Builder }

// longestLine bounds a line: a value that is longer was cut before.
const longestLine = 2000

func (t *texts) add(format string, args ...any) {
	t.WriteString(line(fmt.Sprintf(format, args...), longestLine))
	t.WriteByte('\n')
}

func (t *texts) block(indent, text string) {
	for _, one := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		t.add("%s%s", indent, one)
	}
}

func (t *texts) verdict(e api.Explanation) {
	switch {
	case e.Outcome == "granted":
		t.add("granted: a session under mapping %s", e.Mapping)
	case e.Refusal != nil:
		t.add("refused: %s", e.Refusal.Detail)
		if e.Refusal.Advice != "" {
			t.add("  do    %s", e.Refusal.Advice)
		}
	default:
		t.add("refused")
	}
}

func (t *texts) then(x *api.ExchangeView) {
	text := x.Outcome
	if x.Mapping != "" {
		text += " under mapping " + x.Mapping
	}
	if x.Session != "" {
		text += ", session " + x.Session
	}
	t.add("  then  %s at %s: %s", x.ID, x.Time.Format("2006-01-02 15:04:05Z"), text)
	if x.Detail != "" {
		t.add("        %s", x.Detail)
	}
}

func (t *texts) job(e api.Explanation) {
	if e.Issuer == "" {
		return
	}
	if text := jobText(e.Job); text != "" {
		t.add("  job   %s", text)
	}
	if e.JobKey != "" {
		t.add("  key   %s", e.JobKey)
	}
}

func (t *texts) mapping(m api.MappingExplanation) {
	switch {
	case m.Serves:
		t.add("%s serves this job", m.Name)
	case m.Failed == 1:
		t.add("%s does not: 1 of %s fails", m.Name, plural(len(m.Conditions), "condition"))
	default:
		t.add("%s does not: %d of %s fail", m.Name, m.Failed, plural(len(m.Conditions), "condition"))
	}
	for _, c := range m.Conditions {
		if c.Kind == "issuer" && c.Held || c.Held && m.Failed > conditionsShown {
			continue
		}
		t.condition(c)
	}
	t.grants(m)
	for _, a := range m.Advice {
		t.add("  do      %s", a)
	}
	if m.Change != nil {
		t.add("  nearest change, in place of these keys of the mapping:")
		t.block("      ", m.Change.YAML)
		for _, w := range m.Change.Warnings {
			t.add("  WARNING %s", w)
		}
	}
}

func (t *texts) condition(c api.MappingCondition) {
	name := c.Kind
	switch {
	case c.Kind == "match":
		name = c.On
	case c.On != "":
		name = c.Kind + " " + c.On
	}
	switch {
	case c.Kind == "override" && c.Held:
		t.add("  applies %s: %s; %s", name, c.Got, c.Wanted)
	case c.Held:
		t.add("  holds   %s: %s", name, c.Got)
	default:
		t.add("  FAILS   %s: %s", name, failing(c.Kind, c.Got, c.Wanted))
	}
}

// failing says why a condition of a kind does not hold.
func failing(kind, got, wanted string) string {
	switch kind {
	case "trigger":
		return got
	case "override":
		return "it takes out jobs with " + got
	}
	return fmt.Sprintf("it is %s, wanted %s", got, wanted)
}

// grants says in short what a session under the mapping would have.
func (t *texts) grants(m api.MappingExplanation) {
	if !m.Serves {
		return
	}
	if m.Window != nil {
		text := fmt.Sprintf("  window  %s, asleep after %s without a sign of life", shortDuration(m.Window.Max), shortDuration(m.Window.Lease))
		if m.Mode == "observe" {
			text += "; mode observe: rules, limits and allow lists refuse nothing"
		}
		t.add("%s", text)
	}
	for _, g := range m.Grants {
		t.add("  grants  %s: %s", g.Connection, strings.Join(grantParts(g), "; "))
		for _, r := range g.Rules {
			text := "          " + r.Effect + " " + r.Name + " when " + r.When
			if r.Mode == "observe" {
				text += " (observed only)"
			}
			t.add("%s", text)
		}
	}
}

func grantParts(g api.Grant) []string {
	out := []string{strings.Join(g.Allow, ", ")}
	if len(g.Allow) == 0 {
		out[0] = "no call at all: allow is empty"
	}
	for _, l := range g.Limits {
		out = append(out, limitParts(l)...)
	}
	if len(g.Features) > 0 {
		out = append(out, "features "+strings.Join(g.Features, ", "))
	}
	return out
}

func limitParts(l api.Limits) (out []string) {
	per := ""
	if l.Per != "" && l.Per != "job" {
		if l.Period == 0 {
			l.Period = api.Duration(access.DefaultPeriod)
		}
		per = fmt.Sprintf(" per %s in %s", l.Per, shortDuration(l.Period))
	}
	for _, limit := range []struct {
		n    int64
		name string
	}{{l.Requests, "requests"}, {l.InputTokens, "input tokens"}, {l.OutputTokens, "output tokens"}} {
		if limit.n > 0 {
			out = append(out, fmt.Sprintf("%d %s%s", limit.n, limit.name, per))
		}
	}
	if len(l.Models) > 0 {
		out = append(out, "models "+strings.Join(l.Models, ", "))
	}
	return out
}

func shortDuration(d api.Duration) string {
	text, _ := d.MarshalYAML()
	return fmt.Sprint(text)
}
