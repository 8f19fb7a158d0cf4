package federation

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/cond"
)

// Match returns nil when the mapping serves the identity, and else an *access.Error whose Reason says what kind of
// condition failed and whose Public text names it, what the token says, and what was wanted. Whether the job may read
// that is for PinsTenant to say.
func (m *Mapping) Match(id access.Identity, now time.Time) error {
	for failure := range m.failures(id, now) {
		return failure
	}
	return nil
}

// Explain returns every condition that the identity fails, in the order in which they are looked at.
func (m *Mapping) Explain(id access.Identity, now time.Time) []error {
	var all []error
	for failure := range m.failures(id, now) {
		all = append(all, failure)
	}
	return all
}

// failures runs through the conditions. Claims that are absent come first: what is compared with them says less.
func (m *Mapping) failures(id access.Identity, now time.Time) iter.Seq[error] {
	return func(yield func(error) bool) {
		if id.Issuer != m.spec.Issuer || id.Provider != m.provider.name {
			yield(m.fails(reasonIssuer, "it serves jobs of issuer %s, and this one is of %s", m.spec.Issuer, id.Issuer))
			return
		}
		for _, phase := range []func(access.Identity, time.Time) []error{
			m.absent, m.mismatches, m.restrictions, m.unbound, m.aged, m.untrusted, m.condition, m.takenOut,
		} {
			for _, failure := range phase(id, now) {
				if !yield(failure) {
					return
				}
			}
		}
	}
}

func (m *Mapping) fails(reason, format string, args ...any) error {
	code := access.CodeTarget
	if reason == reasonAge {
		code = access.CodeGrant
	}
	return &access.Error{Code: code, Reason: reason, Public: fmt.Sprintf("mapping %s: "+format, append([]any{m.spec.Name}, args...)...)}
}

// absent lists claims that a condition names and the token does not have. A name that may be left out would be a way
// around every condition on it.
func (m *Mapping) absent(id access.Identity, _ time.Time) []error {
	var out []error
	names := slices.Concat(m.claims, sortedNames(m.spec.Deny), slices.Concat(m.spec.Equal...))
	for _, name := range names {
		if _, there := id.Claims[name]; !there {
			out = append(out, m.lacks(name))
		}
	}
	for _, name := range m.spec.Require {
		if value, there := id.Claims[name]; !there || value == nil || value == "" {
			out = append(out, m.lacks(name))
		}
	}
	for _, name := range m.countedBy(id) {
		if _, ok := id.Claims.Value(name); !ok {
			out = append(out, m.fails(reasonMissing, "its limits are counted per %s, which the token does not have", name))
		}
	}
	for _, p := range m.spec.Paths {
		if nested(id.Claims, p.Path) == nil {
			out = append(out, m.fails(reasonMissing, "it needs claim %s, which the token does not have", strings.Join(p.Path, "/")))
		}
	}
	return out
}

// lacks refuses a token without a claim, and says how jobs come to one that their owner can give them.
func (m *Mapping) lacks(claim string) error {
	text := fmt.Sprintf("it needs claim %s, which the token does not have", claim)
	if strings.HasPrefix(claim, propertyPrefix) {
		how, _ := missingHow(claim)
		text += ": " + how
	}
	return m.fails(reasonMissing, "%s", text)
}

func (m *Mapping) mismatches(id access.Identity, _ time.Time) []error {
	var out []error
	for _, name := range m.claims {
		if value, there := id.Claims[name]; there {
			out = append(out, m.compare(name, value, m.spec.Match[name])...)
		}
	}
	for _, p := range m.spec.Paths {
		if value := nested(id.Claims, p.Path); value != nil && len(p.Value) > 0 {
			out = append(out, m.compare(strings.Join(p.Path, "/"), value, p.Value)...)
		}
	}
	return out
}

func (m *Mapping) compare(name string, value any, wanted api.Values) []error {
	if equalsOne(value, wanted) {
		return nil
	}
	reason := reasonMismatch
	if !slices.ContainsFunc(wanted, func(want any) bool { return want == nil || sameType(value, want) }) {
		reason = reasonType
	}
	return []error{m.fails(reason, "claim %s is %s, wanted %s", name, display(value), displayAll(wanted))}
}

// restrictions are the conditions beside match.
func (m *Mapping) restrictions(id access.Identity, _ time.Time) []error {
	var out []error
	for _, name := range sortedNames(m.spec.Deny) {
		if value, there := id.Claims[name]; there && equalsOne(value, m.spec.Deny[name]) {
			out = append(out, m.fails(reasonUntrusted, "claim %s is %s, which it denies", name, display(value)))
		}
	}
	for _, name := range m.spec.Forbid {
		if value, there := id.Claims[name]; there {
			out = append(out, m.fails(reasonUntrusted, "claim %s is %s, and it forbids that claim", name, display(value)))
		}
	}
	for _, pair := range m.spec.Equal {
		a, hasA := id.Claims[pair[0]]
		b, hasB := id.Claims[pair[1]]
		if hasA && hasB && (display(a) != display(b) || !sameType(a, b)) {
			out = append(out, m.fails(reasonMismatch, "claims %s and %s must be equal, and are %s and %s", pair[0], pair[1], display(a), display(b)))
		}
	}
	if !strings.HasPrefix(id.Claims.Text("sub"), m.spec.Subject) {
		out = append(out, m.fails(reasonKind, "claim sub is %s, wanted one that begins with %s", display(id.Claims["sub"]), shown(m.spec.Subject)))
	}
	return out
}

// unbound lists the parts of the job key that the token lacks, unless the mapping does without.
func (m *Mapping) unbound(id access.Identity, _ time.Time) []error {
	if m.spec.JobKey == jobKeyRun {
		return nil
	}
	var out []error
	for _, part := range m.provider.jobKey {
		if _, ok := keyText(nested(id.Claims, part.path)); !ok {
			out = append(out, m.fails(reasonMissing,
				"the token has no claim %s and so names the run, not the job; job_key: run on the mapping accepts that", strings.Join(part.path, "/")))
		}
	}
	return out
}

func (m *Mapping) aged(id access.Identity, now time.Time) []error {
	limit := time.Duration(m.spec.MaxAge)
	if age := now.Sub(id.IssuedAt); limit > 0 && age > limit {
		return []error{m.fails(reasonAge, "the token was issued %s ago, more than its max_age of %s", age.Round(time.Second), limit)}
	}
	return nil
}

// untrusted applies the provider's denials, except those whose claim the mapping matches itself.
func (m *Mapping) untrusted(id access.Identity, _ time.Time) []error {
	var out []error
	for _, d := range m.provider.denials {
		if _, named := m.spec.Match[d.claim]; named {
			continue
		}
		if why := d.why(id.Claims); why != "" {
			out = append(out, m.fails(reasonUntrusted, "%s; to accept such jobs all the same, name the values of %s in match", why, d.claim))
		}
	}
	return out
}

// condition evaluates when. An error is no match.
func (m *Mapping) condition(id access.Identity, _ time.Time) []error {
	if m.when == nil {
		return nil
	}
	match, err := m.when.Eval(context.Background(), cond.Input{Claims: id.Claims, Provider: id.Provider, Issuer: id.Issuer})
	switch {
	case err != nil:
		return []error{m.fails(reasonMismatch, "its when fails: %s", printable(err.Error()))}
	case !match:
		return []error{m.fails(reasonMismatch, "its when is not true: %s", printable(m.when.String()))}
	}
	return nil
}

// equalsOne reports whether a claim equals one of the values, type and all.
func equalsOne(claim any, values api.Values) bool {
	return slices.ContainsFunc(values, func(want any) bool {
		switch want := want.(type) {
		case nil:
			return claim == nil
		case string:
			s, ok := claim.(string)
			return ok && s == want
		case bool:
			b, ok := claim.(bool)
			return ok && b == want
		case int64:
			n, ok := claim.(json.Number)
			if !ok {
				return false
			}
			i, err := n.Int64()
			return err == nil && i == want
		}
		return false
	})
}

func sameType(a, b any) bool { return typeName(a) == typeName(b) }

func typeName(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case bool:
		return "boolean"
	case json.Number, int64:
		return "integer"
	}
	return "object"
}

// display shows a claim, or a value of a mapping, in one line.
func display(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case string:
		return shown(v)
	}
	return printable(fmt.Sprint(value))
}

// shownValues bounds how many values of a list are shown.
const shownValues = 8

func displayAll(values api.Values) string {
	var out []string
	for _, v := range values {
		if len(out) == shownValues {
			out = append(out, "...")
			break
		}
		out = append(out, display(v))
	}
	if len(out) == 1 {
		return out[0]
	}
	return "one of " + strings.Join(out, ", ")
}
