package federation

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/cond"
)

// jobKeyRun is the job_key that accepts tokens which name a run and no job of it.
const jobKeyRun = "run"

// validName is what mappings and rules are called: it fits a DNS label, and a path segment as it is.
var validName = regexp.MustCompile(`\A[a-z][a-z0-9-]{0,62}\z`)

const nameRule = "write a small letter, then up to 62 small letters, digits and hyphens"

var (
	modes   = map[string]access.Mode{"": access.Enforce, "enforce": access.Enforce, "observe": access.Observe}
	onDenys = map[string]access.OnDeny{"": access.Tell, "tell": access.Tell, "stop": access.Stop, "fail": access.Fail}
)

// mappingCheck refuses what is unsafe or unknown in a mapping. The first finding ends it.
type mappingCheck struct {
	spec   *api.Mapping
	config MappingConfig
}

func wrong(path, format string, args ...any) error {
	return &api.FieldError{Path: path, Err: fmt.Errorf(format, args...)}
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// head checks what the mapping is called and of which issuer it is.
func (c mappingCheck) head() (p *provider, shared bool, err error) {
	if !validName.MatchString(c.spec.Name) {
		return nil, false, wrong("name", "%q is no name; %s", c.spec.Name, nameRule)
	}
	if _, ok := modes[c.spec.Mode]; !ok {
		return nil, false, wrong("mode", "%q is no mode; write enforce or observe", c.spec.Mode)
	}
	var names []string
	for _, issuer := range c.config.Issuers {
		if issuer.Name != c.spec.Issuer {
			names = append(names, issuer.Name)
			continue
		}
		issuer, row, err := issuer.complete()
		if err != nil {
			return nil, false, wrong("issuer", "issuer %q: %w", c.spec.Issuer, err)
		}
		return row, row.shared != nil && row.shared(issuer.URL), nil
	}
	return nil, false, wrong("issuer", "%q is no issuer of this deployment; write one of: %s", c.spec.Issuer, strings.Join(names, ", "))
}

// conditions checks which identities the mapping is for, and compiles its when.
func (c mappingCheck) conditions(p *provider, shared bool) (*cond.Condition, error) {
	if len(c.spec.Match) == 0 {
		return nil, wrong("match", "it is empty, and would serve every job of the issuer; name the claims of those it is for")
	}
	for _, name := range sortedNames(c.spec.Match) {
		if err := checkValues("match."+name, name, c.spec.Match[name], p); err != nil {
			return nil, err
		}
	}
	pins := func(tenant string) bool { _, named := c.spec.Match[tenant]; return named }
	if shared && !slices.ContainsFunc(p.tenants, pins) {
		return nil, wrong("match", "strangers get tokens of this issuer, too, and names can be taken over; pin an immutable id: one of %s", strings.Join(p.tenants, ", "))
	}
	for _, check := range []func(*provider) error{c.claimNames, c.values, c.binding} {
		if err := check(p); err != nil {
			return nil, err
		}
	}
	if c.spec.When == "" {
		return nil, nil
	}
	return compileWhen("when", c.spec.When, cond.Mapping, p)
}

// claimNames checks the lists of names.
func (c mappingCheck) claimNames(p *provider) error {
	for i, name := range c.spec.Require {
		if err := knownClaim(fmt.Sprintf("require[%d]", i), name, p); err != nil {
			return err
		}
	}
	for i, name := range c.spec.Forbid {
		if err := knownClaim(fmt.Sprintf("forbid[%d]", i), name, p); err != nil {
			return err
		}
	}
	for i, pair := range c.spec.Equal {
		path := fmt.Sprintf("equal[%d]", i)
		if len(pair) != 2 {
			return wrong(path, "it has %d claims; write the two that must be equal", len(pair))
		}
		for _, name := range pair {
			if err := knownClaim(path, name, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// values checks the conditions that have values, beside match.
func (c mappingCheck) values(p *provider) error {
	for _, name := range sortedNames(c.spec.Deny) {
		if err := checkValues("deny."+name, name, c.spec.Deny[name], p); err != nil {
			return err
		}
	}
	for i, condition := range c.spec.Paths {
		path := fmt.Sprintf("paths[%d]", i)
		switch {
		case len(condition.Path) == 0:
			return wrong(path+".path", "it is empty; write the names from the claim downwards")
		case len(condition.Value) == 0 && !condition.Present:
			return wrong(path, "it has neither value nor present: true")
		}
		if err := knownClaim(path+".path", condition.Path[0], p); err != nil {
			return err
		}
	}
	return nil
}

// binding checks what ties a session to a job.
func (c mappingCheck) binding(p *provider) error {
	optional := slices.ContainsFunc(p.jobKey, func(part keyPart) bool { return part.optional })
	bound := c.spec.Bound == nil || *c.spec.Bound
	switch {
	case c.spec.JobKey != "" && c.spec.JobKey != "job" && c.spec.JobKey != jobKeyRun:
		return wrong("job_key", "%q is not known; write job (the default) or run", c.spec.JobKey)
	case c.spec.JobKey == jobKeyRun && !optional:
		return wrong("job_key", "run makes no difference for provider %s; leave it out", p.name)
	case p.jobKey == nil && bound:
		return wrong("job_bound", "tokens of provider %s name no job, so that sessions cannot end with one; write job_bound: false to accept that", p.name)
	case p.jobKey != nil && !bound:
		return wrong("job_bound", "tokens of provider %s name their job; leave job_bound out", p.name)
	}
	return atLeastSecond("max_age", c.spec.MaxAge)
}

// windowOf checks a window at a path and fills in what it does not say.
func windowOf(path string, spec api.Window) (access.WindowSpec, error) {
	if err := atLeastSecond(path+".max", spec.Max); err != nil {
		return access.WindowSpec{}, err
	}
	if err := atLeastSecond(path+".lease", spec.Lease); err != nil {
		return access.WindowSpec{}, err
	}
	w := access.WindowSpec{Max: time.Duration(spec.Max), Lease: time.Duration(spec.Lease)}
	if w.Max == 0 {
		w.Max = defaultMax
	}
	if w.Lease == 0 {
		w.Lease = defaultLease
	}
	w.Lease = min(w.Lease, w.Max)
	return w, nil
}

// atLeastSecond refuses durations that are below a second, but for zero, which takes a default.
func atLeastSecond(path string, d api.Duration) error {
	if d != 0 && time.Duration(d) < time.Second {
		return wrong(path, "%s is too short; write at least 1s", time.Duration(d))
	}
	return nil
}

// knownClaim refuses claims that the provider's tokens do not have: a condition on one would never hold, or always.
func knownClaim(path, name string, p *provider) error {
	if _, known := p.typeOf(name); known || p.open && name != "" {
		return nil
	}
	return wrong(path, "tokens of provider %s have no claim %q; they have %s", p.name, name, strings.Join(sortedNames(p.claims), ", "))
}

// checkValues refuses values that a claim of this type can never have, and says how to write them.
func checkValues(path, name string, values api.Values, p *provider) error {
	if err := knownClaim(path, name, p); err != nil {
		return err
	}
	if len(values) == 0 {
		return wrong(path, "it has no value")
	}
	kind, known := p.typeOf(name)
	if !known {
		return nil // a claim of the customer's own
	}
	for _, value := range values {
		if err := checkValue(path, value, kind); err != nil {
			return err
		}
	}
	return nil
}

func checkValue(path string, value any, kind claimType) error {
	switch base := kind &^ nullable; base {
	case typeList, typeObject:
		return wrong(path, "the claim is a %s; use when or paths for what is in it", base)
	case typeBoolean:
		if _, ok := value.(bool); !ok {
			return wrong(path, "the claim is a boolean; write true or false, without quotes")
		}
	case typeInteger:
		if _, ok := value.(int64); !ok {
			return wrong(path, "the claim is an integer; write it without quotes")
		}
	default:
		s, ok := value.(string)
		switch {
		case value == nil && kind&nullable != 0:
			return nil
		case !ok:
			return wrong(path, "the claim is a string; quote it: \"%v\"", value)
		}
		return checkText(path, s, base)
	}
	return nil
}

var (
	commitHash  = regexp.MustCompile(`\A([0-9a-f]{40}|[0-9a-f]{64})\z`)
	workflowRef = regexp.MustCompile(`\A[^/@]+/[^/@]+/.+@(refs/.+|[0-9a-f]{40}|[0-9a-f]{64})\z`)
)

// checkText refuses texts that a claim of this type never has. An empty one stands for what is not there.
func checkText(path, s string, kind claimType) error {
	switch {
	case kind == typeDigits && !onlyDigits.MatchString(s):
		return wrong(path, "%q is no id; the claim is a number in quotes, such as \"123456\", not a name", s)
	case s == "":
		return nil
	case kind == typeRef && !strings.HasPrefix(s, "refs/"):
		return wrong(path, "%q is no full ref, and a tag can have a branch's name; write refs/heads/%s", s, s)
	case kind == typeCommit && !commitHash.MatchString(s):
		return wrong(path, "%q is no commit; write its whole hash, 40 or 64 small hex digits", s)
	case kind == typeWorkflow && !workflowRef.MatchString(s):
		return wrong(path, "%q names no workflow as tokens do; write OWNER/REPO/PATH@REF, the ref a commit's whole hash or a full one, such as refs/heads/main", s)
	case kind == typeASCII && strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e }):
		return wrong(path, "%+q has a character that such names never have, and that may only look like the one that is meant; type it anew, or match the id", s)
	case strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\ufffd' }):
		return wrong(path, "%q has control characters, which no claim has", s)
	}
	return nil
}

// compileWhen compiles a condition and looks for claims in it that the provider's tokens do not have.
func compileWhen(path, source string, scope cond.Scope, p *provider) (*cond.Condition, error) {
	c, err := cond.Compile(source, scope)
	if err != nil {
		return nil, wrong(path, "%w", err)
	}
	registered := []string{"iss", "aud", "exp", "iat", "nbf", "jti"}
	for _, name := range c.Fields("claims") {
		if slices.Contains(registered, name) {
			continue
		}
		if err := knownClaim(path, name, p); err != nil {
			return nil, err
		}
	}
	return c, nil
}
