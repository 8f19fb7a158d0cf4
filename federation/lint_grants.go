package federation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/cond"
)

// messagesCall is the call without which no agent works on a connection of kind anthropic.
const messagesCall = "POST /v1/messages"

// grants looks at each of the grants at a path; kinds are those of the connections.
func (l *linting) grants(path string, grants []api.Grant, kinds map[string]string) {
	for i, g := range grants {
		at, kind := fmt.Sprintf("%s[%d]", path, i), kinds[g.Connection]
		l.allow(at, g, kind)
		l.limits(at, g, kind)
		l.rules(at, g, kind)
	}
}

// allow finds entries and grants that nothing can use.
func (l *linting) allow(at string, g api.Grant, kind string) {
	if len(g.Allow) == 0 {
		l.find("unreachable", at+".allow", "it is empty, so that every call is refused; list what may be called, as METHOD /path, or take the grant out")
		return
	}
	seen := make(map[string]bool)
	for i, entry := range g.Allow {
		path := fmt.Sprintf("%s.allow[%d]", at, i)
		if seen[entry] {
			l.find("unreachable", path, "%q stands here twice; take one out", entry)
		}
		seen[entry] = true
		if feature := missingFeature(entry, g, kind); feature != "" {
			l.find("unreachable", path, "%q is refused all the same: it needs features: [%s]", entry, feature)
		}
	}
	if kind == "anthropic" && !seen[messagesCall] {
		l.find("unreachable", at+".allow", "without %q no agent can work, and rules on tools never apply; add it, if agents are to use this", messagesCall)
	}
}

// missingFeature returns what a path needs beside the entry, "" where nothing is missing.
func missingFeature(entry string, g api.Grant, kind string) string {
	if kind != "anthropic" {
		return ""
	}
	_, path, _ := strings.Cut(entry, " ")
	for prefix, feature := range featurePaths() {
		if (path == prefix || strings.HasPrefix(path, prefix+"/")) && !slices.Contains(g.Features, feature) {
			return feature
		}
	}
	return ""
}

// limits finds grants that bound nothing: an agent in a loop is not told apart from one at work.
func (l *linting) limits(at string, g api.Grant, kind string) {
	requests := slices.ContainsFunc(g.Limits, func(n api.Limits) bool { return n.Requests > 0 })
	output := slices.ContainsFunc(g.Limits, func(n api.Limits) bool { return n.OutputTokens > 0 })
	l.counted(at, g)
	switch {
	case kind == "anthropic" && !output && !requests:
		l.find("no-limit", at, "a job may spend without a bound; write limits: {requests: 500, output_tokens: 2000000}, or what a run of yours needs at most")
	case kind == "anthropic" && !output:
		l.find("no-limit", at+".limits", "requests are bounded and their cost is not; add output_tokens")
	case !requests:
		l.find("no-limit", at, "a job may send any number of requests; write limits: {requests: 500}, or what a run of yours needs at most")
	}
}

// rules finds rules that never speak, and those that look for text.
func (l *linting) rules(at string, g api.Grant, kind string) {
	for i, r := range g.Rules {
		path := fmt.Sprintf("%s.rules[%d]", at, i)
		c, err := cond.Compile(r.When, cond.Rule)
		if err != nil {
			continue // NewMapping refused it
		}
		if functions := c.Patterns(); len(functions) > 0 {
			l.find("text-pattern", path+".when", "%s over what a tool is told: there is always another way to write it (python3 -c, a Makefile that was written first). "+
				"Rules state intent; list what passes: !(tool.input.command in [\"make test\"])", strings.Join(functions, ", "))
		}
		l.reached(path, r, c, g, kind)
		l.spokenBefore(path, r, g.Rules[:i])
	}
}

// reached finds a rule that is never true, or for no call that the allow list lets through, and one that always is.
func (l *linting) reached(path string, r api.Rule, c *cond.Condition, g api.Grant, kind string) {
	value, constant := c.Constant()
	switch {
	case constant && !value:
		l.find("unreachable", path+".when", "it is never true; take the rule out, or mend it")
	case constant && r.Effect == "deny" && r.Mode != "observe":
		l.find("unreachable", path+".when", "it is always true, so that nothing of the grant can be used; say what is to be refused")
	case !constant && !c.Mentions("tool") && c.Mentions("call") && !mayMatchSome(c, g, kind):
		l.find("unreachable", path+".when", "no call that allow lets through can match it; mend the path, or take the rule out")
	}
}

// mayMatchSome reports whether a rule could be true for a call of the allow list. An entry with a template stands for
// more paths than can be tried.
func mayMatchSome(c *cond.Condition, g api.Grant, kind string) bool {
	return len(g.Allow) == 0 || slices.ContainsFunc(g.Allow, func(entry string) bool {
		method, path, _ := strings.Cut(entry, " ")
		return strings.Contains(path, "{") || c.MayMatchCall(access.Call{Connection: g.Connection, Kind: kind, Method: method, Path: path})
	})
}

// spokenBefore finds a rule with the condition of one before it: a deny beats it, and the same effect adds nothing.
func (l *linting) spokenBefore(path string, r api.Rule, before []api.Rule) {
	for _, other := range before {
		if other.Mode == "observe" || r.Mode == "observe" || strings.Join(strings.Fields(other.When), " ") != strings.Join(strings.Fields(r.When), " ") {
			continue
		}
		if other.Effect == r.Effect {
			l.find("unreachable", path, "rule %q has the same condition and effect; take one out", other.Name)
			continue
		}
		l.find("unreachable", path, "rule %q has the same condition, and deny beats approve: nobody is ever asked; take one out", other.Name)
	}
}
