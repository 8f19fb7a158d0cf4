package federation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/api"
)

// properties finds custom properties that stand alone, and those that are searched for text. Whoever administers the
// organization says what a property is, and may let those who administer a repository set it: it tells repositories of
// one owner apart, and says nothing about who the owner is.
func (l *linting) properties() {
	is := func(claim string) bool { return strings.HasPrefix(claim, propertyPrefix) }
	names, path := sortedNames(l.m.spec.Match), "match."
	if l.m.when != nil && !slices.ContainsFunc(names, is) {
		names, path = l.m.when.Fields("claims"), "when"
	}
	at := slices.IndexFunc(names, is)
	if at < 0 {
		return
	}
	if path != "when" {
		path += names[at]
	}
	if !slices.ContainsFunc(l.m.provider.tenants, l.named) {
		l.find("property-alone", path, "whoever administers a repository or its organization sets %s, and every owner can have one of that name; match one of %s beside it",
			names[at], strings.Join(l.m.provider.tenants, ", "))
	}
	if l.m.when == nil {
		return
	}
	if functions := l.m.when.ClaimPatterns(propertyPrefix); len(functions) > 0 {
		l.find("property-text", "when", "%s over a custom property: several values are one text, joined by commas, so that a part of it may be a part of another value; compare the whole text with == or in",
			strings.Join(functions, ", "))
	}
}

// overrides looks at the exceptions: whom they are for, whether they are reached, and what they grant.
func (l *linting) overrides(kinds map[string]string) {
	for i, o := range l.m.spec.Overrides {
		at := fmt.Sprintf("overrides[%d]", i)
		l.overrideReached(at, i)
		if ids := immutable(l.m.provider); len(ids) > 0 && !slices.ContainsFunc(ids, func(id string) bool { _, named := o.Match[id]; return named }) {
			l.find("override-not-pinned", at+".match", "nothing in it stays with one repository for good: names are given up and taken by others; match one of %s", strings.Join(ids, ", "))
		}
		if o.Window != nil {
			l.window(at+".window.max", l.m.overrides[i].policy.Window.Max)
		}
		l.grants(at+".grants", o.Grants, kinds)
	}
}

// overrideReached finds an exception that is for no job: the mapping serves none of them, or one before it takes all.
func (l *linting) overrideReached(at string, i int) {
	o := l.m.spec.Overrides[i]
	for _, claim := range sortedNames(o.Match) {
		wanted, named := l.m.spec.Match[claim]
		if named && !slices.ContainsFunc(o.Match[claim], func(v any) bool { return slices.Contains(wanted, v) }) {
			l.find("unreachable", at+".match."+claim, "the mapping's own match serves no job with this %s; add it there, or take the override out", claim)
		}
	}
	for j, before := range l.m.spec.Overrides[:i] {
		if coversMatch(before.Match, o.Match) {
			l.find("unreachable", at, "override %s before it is for every job of this one, and the first that matches holds; put this one before it, or take it out", l.m.overrides[j].name)
			return
		}
	}
}

// coversMatch reports whether every job that the narrower conditions hold for meets the wider ones, too.
func coversMatch(wider, narrower map[string]api.Values) bool {
	for claim, values := range wider {
		own, named := narrower[claim]
		if !named || slices.ContainsFunc(own, func(v any) bool { return !slices.Contains(values, v) }) {
			return false
		}
	}
	return true
}

// immutable returns the claims of a provider that are ids of what a job belongs to: they survive a change of name and
// are given to nobody else.
func immutable(p *provider) []string {
	ids := slices.Clone(p.tenants)
	for _, id := range idOf(p.name) {
		if _, known := p.typeOf(id); known && id != "sub" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids[len(p.tenants):])
	return ids
}
