package federation

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// Finding is something in a mapping that is allowed and most often not meant. Text says what to write instead.
type Finding struct {
	Mapping int    // its place in the list
	Path    string // in the mapping, such as "grants[0].rules[1].when"
	Lint    string // a stable name, such as "name-not-id"
	Text    string
}

// Lint looks for what is allowed in mappings and most often not meant. The configuration is the one that they were made
// with.
func Lint(mappings []*Mapping, c MappingConfig) []Finding {
	var out []Finding
	for i, m := range mappings {
		l := &linting{m: m, at: i, issuer: issuerURL(m.Issuer(), c.Issuers)}
		l.names()
		l.properties()
		l.triggers()
		l.environment()
		l.trust()
		l.life(c)
		l.contradictions()
		l.window("window.max", m.policy.Window.Max)
		l.grants("grants", m.spec.Grants, c.Connections)
		l.overrides(c.Connections)
		out = append(out, l.found...)
	}
	return append(out, shadows(mappings)...)
}

// linting is one mapping under the lints.
type linting struct {
	m      *Mapping
	at     int
	issuer string // its URL
	found  []Finding
}

func issuerURL(name string, issuers []Issuer) string {
	for _, issuer := range issuers {
		if issuer.Name != name {
			continue
		}
		if whole, _, err := issuer.complete(); err == nil {
			return whole.URL
		}
	}
	return ""
}

func (l *linting) find(lint, path, format string, args ...any) {
	l.found = append(l.found, Finding{Mapping: l.at, Path: path, Lint: lint, Text: fmt.Sprintf(format, args...)})
}

func (l *linting) named(claim string) bool { _, named := l.m.spec.Match[claim]; return named }

// names finds conditions on names without the id of the same thing beside them.
func (l *linting) names() {
	ids := idOf(l.m.provider.name)
	for _, claim := range sortedNames(l.m.spec.Match) {
		if id, known := ids[claim]; known && !l.named(id) {
			l.find("name-not-id", "match."+claim, "%s is a name, which somebody else can take over; match %s, and keep the name beside it for people if you like", claim, id)
		}
	}
	if l.m.when == nil {
		return
	}
	for _, claim := range l.m.when.Fields("claims") {
		if id, known := ids[claim]; known && !l.named(id) {
			l.find("name-not-id", "when", "%s is a name, which somebody else can take over; match %s", claim, id)
		}
	}
}

// triggers finds values of match that let in what is refused by default.
func (l *linting) triggers() {
	for _, claim := range sortedNames(l.m.spec.Match) {
		for _, value := range l.m.spec.Match[claim] {
			if why := l.denied(claim, value); why != "" {
				l.find("open-trigger", "match."+claim, "%s, with text of their own that the agent reads; if that is meant, grant this mapping little, "+
					"let rules ask for every tool that writes, and keep other triggers in a mapping of their own", why)
			}
		}
	}
}

// denied returns why jobs with this value are refused by default, "" where they are not.
func (l *linting) denied(claim string, value any) string {
	for _, d := range l.m.provider.denials {
		if d.claim != claim {
			continue
		}
		if why := d.why(access.Claims{claim: value}); why != "" {
			return why
		}
	}
	return ""
}

// environment finds an environment that nothing ties to a ref or a trigger.
func (l *linting) environment() {
	if !l.named("environment") || slices.ContainsFunc(environmentClaims, l.named) {
		return
	}
	var known []string
	for _, claim := range environmentClaims {
		if _, has := l.m.provider.typeOf(claim); has {
			known = append(known, claim)
		}
	}
	if len(known) > 0 {
		l.find("environment-alone", "match.environment", "a workflow of any branch can name an environment, unless the provider protects it; match one of %s, too", strings.Join(known, ", "))
	}
}

// contradictions finds mappings that serve nobody.
func (l *linting) contradictions() {
	for i, claim := range l.m.spec.Forbid {
		_, denied := l.m.spec.Deny[claim]
		if l.named(claim) || denied || slices.Contains(l.m.spec.Require, claim) {
			l.find("unreachable", fmt.Sprintf("forbid[%d]", i), "%s must be there by another condition, and must not by this one: the mapping serves nobody; take one of them out", claim)
		}
	}
	for _, claim := range sortedNames(l.m.spec.Deny) {
		wanted, named := l.m.spec.Match[claim]
		if named && !slices.ContainsFunc(wanted, func(v any) bool { return !slices.Contains(l.m.spec.Deny[claim], v) }) {
			l.find("unreachable", "deny."+claim, "every value that match wants is denied: the mapping serves nobody; take it out of one of them")
		}
	}
	if l.m.when == nil {
		return
	}
	if value, constant := l.m.when.Constant(); constant && value {
		l.find("unreachable", "when", "it is always true; leave it out")
	} else if constant {
		l.find("unreachable", "when", "it is never true: the mapping serves nobody; take the mapping out, or mend its when")
	}
}

// window finds windows that outlast every job.
func (l *linting) window(path string, most time.Duration) {
	limit := jobLimitOf(l.m.provider.name, l.issuer)
	self := slices.Contains(l.m.spec.Match["runner_environment"], any(limit.self))
	switch {
	case limit.longest > 0 && most > limit.longest:
		l.find("long-window", path, "no job of %s runs longer than %s: a window of %s is open for nobody but a thief; write %s or less",
			l.m.provider.name, hours(limit.longest), hours(most), hours(limit.longest))
	case limit.hosted > 0 && most > limit.hosted && !self:
		l.find("long-window", path, "jobs on %s's own runners end after %s: write %s or less, or match runner_environment: %s if these run elsewhere",
			l.m.provider.name, hours(limit.hosted), hours(limit.hosted), limit.self)
	}
}

func hours(d time.Duration) string {
	text, _ := api.Duration(d).MarshalYAML()
	return fmt.Sprint(text)
}

// shadows finds mappings of which another serves every job, too: an exchange that names none is ambiguous then.
func shadows(mappings []*Mapping) []Finding {
	var out []Finding
	for i, inner := range mappings {
		for j, outer := range mappings {
			if i == j || !outer.covers(inner) || i < j && inner.covers(outer) {
				continue
			}
			out = append(out, Finding{Mapping: i, Path: "match", Lint: "shadowed", Text: fmt.Sprintf(
				"mapping %q serves every job that this one does: an exchange that names neither is refused as ambiguous; let the job name one (mapping: %s), or make that one narrower",
				outer.Name(), inner.Name())})
		}
	}
	return out
}

// covers reports whether every identity that other serves is served by m, as far as their texts show it.
func (m *Mapping) covers(other *Mapping) bool {
	if slices.ContainsFunc(m.overrides, func(o override) bool { return o.deny }) {
		return false // what it takes out may be what the other is for
	}
	if m.spec.Issuer != other.spec.Issuer || m.provider.jobKey != nil && m.spec.JobKey != jobKeyRun && other.spec.JobKey == jobKeyRun {
		return false
	}
	for claim, values := range m.spec.Match {
		narrower, named := other.spec.Match[claim]
		if !named || slices.ContainsFunc(narrower, func(v any) bool { return !slices.Contains(values, v) }) {
			return false
		}
	}
	return m.defaultsPass(other) && m.restrictsNoMore(other)
}

// defaultsPass reports whether a trigger that other lets in by name is not refused by default here.
func (m *Mapping) defaultsPass(other *Mapping) bool {
	l := &linting{m: m}
	for claim, values := range other.spec.Match {
		if !l.named(claim) && slices.ContainsFunc(values, func(v any) bool { return l.denied(claim, v) != "" }) {
			return false
		}
	}
	return true
}

// restrictsNoMore reports whether m has no condition beside match, or the same ones as other.
func (m *Mapping) restrictsNoMore(other *Mapping) bool {
	beside := func(s api.Mapping) api.Mapping {
		return api.Mapping{When: s.When, Require: s.Require, Forbid: s.Forbid, Deny: s.Deny, Equal: s.Equal, Paths: s.Paths,
			Subject: s.Subject, MaxAge: s.MaxAge, Live: s.Live}
	}
	mine := beside(m.spec)
	return reflect.DeepEqual(mine, api.Mapping{}) || reflect.DeepEqual(mine, beside(other.spec))
}
