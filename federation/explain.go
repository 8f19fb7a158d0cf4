package federation

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/cond"
)

// nothing is what is shown of a claim that the token does not have.
const nothing = "absent"

// Examine returns every condition of the mapping with what the identity says to it, also those that are held. All are
// held exactly when Match returns nil.
func (m *Mapping) Examine(id access.Identity, now time.Time) []api.MappingCondition {
	e := examination{m: m, id: id, now: now}
	issuer := api.MappingCondition{Kind: "issuer", Held: true, Got: shown(id.Issuer), Wanted: shown(m.spec.Issuer)}
	if id.Issuer != m.spec.Issuer || id.Provider != m.provider.name {
		issuer.Held, issuer.Reason = false, reasonIssuer
		return []api.MappingCondition{issuer}
	}
	e.out = append(e.out, issuer)
	for _, part := range []func(){e.matches, e.required, e.paths, e.denied, e.forbidden, e.equal, e.subject, e.jobKey, e.age, e.triggers, e.when, e.override, e.counted} {
		part()
	}
	return e.out
}

// examination is one run through the conditions of a mapping, in the order in which people write them.
type examination struct {
	m   *Mapping
	id  access.Identity
	now time.Time
	out []api.MappingCondition
}

// add writes a condition down; an empty reason holds it.
func (e *examination) add(kind, on, got, wanted, reason string) {
	e.out = append(e.out, api.MappingCondition{Kind: kind, On: on, Held: reason == "", Got: got, Wanted: wanted, Reason: reason})
}

// claim returns a claim for people, and whether the token has it.
func (e *examination) claim(name string) (string, bool) {
	value, there := e.id.Claims[name]
	if !there {
		return nothing, false
	}
	return display(value), true
}

func (e *examination) matches() {
	for _, name := range e.m.claims {
		value, there := e.id.Claims[name]
		e.compared("match", name, value, there, e.m.spec.Match[name])
	}
}

func (e *examination) compared(kind, on string, value any, there bool, wanted api.Values) {
	got, reason := nothing, reasonMissing
	if there {
		got, reason = display(value), mismatch(value, wanted)
	}
	e.add(kind, on, got, displayAll(wanted), reason)
}

// mismatch returns why a claim is none of the values, "" where it is one.
func mismatch(value any, wanted api.Values) string {
	switch {
	case equalsOne(value, wanted):
		return ""
	case slices.ContainsFunc(wanted, func(want any) bool { return want == nil || sameType(value, want) }):
		return reasonMismatch
	}
	return reasonType
}

func (e *examination) required() {
	for _, name := range e.m.spec.Require {
		got, there := e.claim(name)
		reason := ""
		if value := e.id.Claims[name]; !there || value == nil || value == "" {
			reason = reasonMissing
		}
		e.add("require", name, got, "present and not empty", reason)
	}
}

func (e *examination) paths() {
	for _, p := range e.m.spec.Paths {
		on, value := strings.Join(p.Path, "/"), nested(e.id.Claims, p.Path)
		if len(p.Value) > 0 {
			e.compared("paths", on, value, value != nil, p.Value)
			continue
		}
		if value == nil {
			e.add("paths", on, nothing, "present", reasonMissing)
			continue
		}
		e.add("paths", on, display(value), "present", "")
	}
}

func (e *examination) denied() {
	for _, name := range sortedNames(e.m.spec.Deny) {
		got, there := e.claim(name)
		reason := ""
		switch {
		case !there:
			reason = reasonMissing
		case equalsOne(e.id.Claims[name], e.m.spec.Deny[name]):
			reason = reasonUntrusted
		}
		e.add("deny", name, got, "present, and not "+displayAll(e.m.spec.Deny[name]), reason)
	}
}

func (e *examination) forbidden() {
	for _, name := range e.m.spec.Forbid {
		got, there := e.claim(name)
		reason := ""
		if there {
			reason = reasonUntrusted
		}
		e.add("forbid", name, got, nothing, reason)
	}
}

func (e *examination) equal() {
	for _, pair := range e.m.spec.Equal {
		a, hasA := e.claim(pair[0])
		b, hasB := e.claim(pair[1])
		reason := ""
		switch {
		case !hasA, !hasB:
			reason = reasonMissing
		case a != b, !sameType(e.id.Claims[pair[0]], e.id.Claims[pair[1]]):
			reason = reasonMismatch
		}
		e.add("equal", strings.Join(pair, ", "), a+" and "+b, "equal", reason)
	}
}

func (e *examination) subject() {
	if e.m.spec.Subject == "" {
		return
	}
	got, _ := e.claim("sub")
	reason := ""
	if !strings.HasPrefix(e.id.Claims.Text("sub"), e.m.spec.Subject) {
		reason = reasonKind
	}
	e.add("subject_scheme", "sub", got, "begins with "+shown(e.m.spec.Subject), reason)
}

// jobKey writes down only the parts that are not there: those that are say nothing.
func (e *examination) jobKey() {
	if e.m.spec.JobKey == jobKeyRun {
		return
	}
	for _, part := range e.m.provider.jobKey {
		if _, ok := keyText(nested(e.id.Claims, part.path)); !ok {
			e.add("job_key", strings.Join(part.path, "/"), nothing, "present: it names the job", reasonMissing)
		}
	}
}

func (e *examination) age() {
	limit := time.Duration(e.m.spec.MaxAge)
	if limit <= 0 {
		return
	}
	age, reason := e.now.Sub(e.id.IssuedAt), ""
	if age > limit {
		reason = reasonAge
	}
	e.add("max_age", "iat", age.Round(time.Second).String(), "at most "+limit.String(), reason)
}

// triggers writes down what is refused by default and not named in match, each claim once: what somebody without write
// access can start.
func (e *examination) triggers() {
	var claims []string
	why := make(map[string]string)
	for _, d := range e.m.provider.denials {
		if _, named := e.m.spec.Match[d.claim]; named {
			continue
		}
		if !slices.Contains(claims, d.claim) {
			claims = append(claims, d.claim)
		}
		if text := d.why(e.id.Claims); text != "" && why[d.claim] == "" {
			why[d.claim] = text
		}
	}
	for _, claim := range claims {
		got, _ := e.claim(claim)
		reason := ""
		if text := why[claim]; text != "" {
			got, reason = text, reasonUntrusted
		}
		e.add("trigger", claim, got, "a trigger that takes write access", reason)
	}
}

func (e *examination) when() {
	if e.m.when == nil {
		return
	}
	match, err := e.m.when.Eval(context.Background(), cond.Input{Claims: e.id.Claims, Provider: e.id.Provider, Issuer: e.id.Issuer})
	var got []string
	for _, name := range e.m.when.Fields("claims") {
		value, _ := e.claim(name)
		got = append(got, name+" "+value)
	}
	text, reason := strings.Join(got, ", "), ""
	switch {
	case err != nil:
		text, reason = strings.TrimPrefix(text+"; ", "; ")+"it fails: "+printable(err.Error()), reasonMismatch
	case !match:
		reason = reasonMismatch
	}
	e.add("when", "", text, printable(e.m.when.String()), reason)
}

// explain says what the mapping makes of an identity: its conditions, what it would grant, and the nearest change.
func (m *Mapping) explain(id access.Identity, now time.Time) api.MappingExplanation {
	out := api.MappingExplanation{Name: m.spec.Name, Conditions: m.Examine(id, now)}
	for _, c := range out.Conditions {
		if !c.Held {
			out.Failed++
		}
	}
	out.Serves = out.Failed == 0
	if out.Serves {
		p := m.PolicyFor(id, 0)
		window := api.Window{Max: api.Duration(p.Window.Max), Lease: api.Duration(p.Window.Lease)}
		out.Mode, out.Window, out.Grants, out.Override = p.Mode.String(), &window, m.grantsFor(id), p.Override
		return out
	}
	out.Change, out.Advice = m.mend(id, now, out.Conditions)
	return out
}

// written returns a claim as a mapping writes it, and false for one that no mapping can compare with.
func written(value any) (any, bool) {
	switch v := value.(type) {
	case string:
		return v, ordinary(v)
	case bool:
		return v, true
	case json.Number:
		i, err := v.Int64()
		return i, err == nil
	}
	return nil, false
}

// longestWritten bounds what a suggestion repeats of a claim.
const longestWritten = 200

// ordinary reports whether a claim's text can be put before people to be copied: what it looks like is what it is.
func ordinary(s string) bool {
	return s != "" && len(s) <= longestWritten && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}
