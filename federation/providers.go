package federation

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
)

// claimType is the JSON type of a claim as its provider issues it. Nothing is converted: a number where a string is
// expected is another issuer's shape, or an attack on a lenient reader.
type claimType uint8

const (
	typeText     claimType = iota + 1
	typeDigits             // a string of digits, or an empty one: an id
	typeRef                // a string: a full git ref, such as refs/heads/main
	typeASCII              // a string: a name in which the provider has ASCII only
	typeCommit             // a string: the hash of a commit, in hex
	typeWorkflow           // a string: OWNER/REPO/PATH@REF, the ref a full one or a commit's hash
	typeBoolean            // true or false, not "true"
	typeInteger            // a JSON number
	typeList               // an array of strings
	typeObject             // anything nested
)

// nullable is added to a type that may be null, too.
const nullable claimType = 0x80

// provider is a row of the provider table: what one kind of issuer puts into its tokens.
type provider struct {
	name string
	// url is the issuer where there is one for all; each says what there is one for otherwise.
	url, each string
	// shared reports whether strangers get tokens of an issuer, so that a mapping must pin a tenant. nil: never.
	shared func(issuerURL string) bool
	// audience is the fixed audience of an issuer; nil where the job chooses it.
	audience func(issuerURL string) string

	// claims is the schema. Claims that are not in it pass unchecked, and no mapping can name them, unless open.
	claims map[string]claimType
	// prefixes are those of claims whose rest is chosen by the customer.
	prefixes map[string]claimType
	// open says that customers add claims of their own.
	open bool

	// kind are claims that only a job's token has: the same keys sign logins, too. subject is what "sub" begins with.
	kind    []string
	subject string
	// jobKey names one job of one attempt. nil: tokens do not name a job, and the identity's key is empty.
	jobKey []keyPart
	// jti says that every token has an id of its own.
	jti bool
	// renewable says that a running job gets fresh tokens, so that one is a sign of life. Where all tokens of a job are made
	// at its start, a further one proves nothing.
	renewable bool
	// configured says that all but the name is the configuration's to say.
	configured bool
	// tenants are immutable ids of who owns the job, the widest first.
	tenants []string

	// denials are what is refused of tokens that a mapping would match, unless it names the denial's claim itself.
	denials []denial

	// shows names the claims that people read; run returns the run's page, "" where it cannot be told.
	shows jobClaims
	run   func(issuerURL string, c access.Claims) string
}

// keyPart is a claim of a job key, by its path. An optional part may be absent where the mapping says job_key: run.
type keyPart struct {
	path     []string
	optional bool
}

// denial refuses jobs that may run what somebody without write access wrote, or into which a person has a shell.
type denial struct {
	claim string                     // a mapping that matches this claim decides for itself
	what  string                     // what is refused, for a page that says so
	why   func(access.Claims) string // "" where there is nothing to refuse
}

// onlyEvents denies every event but those that take write access.
func onlyEvents(claim string, trusted ...string) denial {
	return denial{claim, "every value but " + strings.Join(trusted, ", "), func(c access.Claims) string {
		if event := c.Text(claim); !slices.Contains(trusted, event) {
			return "event " + shown(event) + " can be started by people without write access"
		}
		return ""
	}}
}

// deniedValue denies one value of a claim.
func deniedValue(claim, denied, why string) denial {
	return denial{claim, denied + ": " + why, func(c access.Claims) string {
		if c.Text(claim) == denied {
			return why
		}
		return ""
	}}
}

// jobClaims are the names of the claims that an access.Job is made of.
type jobClaims struct{ repository, workflow, ref, commit, actor, event string }

// Providers returns the names of the providers that issuers can be of, sorted.
func Providers() []string {
	var names []string
	for _, p := range providers() {
		names = append(names, p.name)
	}
	slices.Sort(names)
	return names
}

func providerNamed(name string) *provider {
	for _, p := range providers() {
		if p.name == name {
			return p
		}
	}
	return nil
}

//go:generate go test -run TestProviderPages -update .

// providers is the table. The pages in docs/providers are generated from it.
func providers() []*provider {
	return []*provider{
		githubActions(), forgejo(),
		gitlab(),
		circleCI(), buildkite(), bitbucket(), azureDevOps(), cloudBuild(), terraform(), codefresh(), spacelift(),
		harness(), jenkins(), kubernetes(), semaphore(), generic(),
	}
}

// texts returns a schema of strings, to which others are added.
func texts(names string, others map[string]claimType) map[string]claimType {
	schema := map[string]claimType{"sub": typeText}
	for _, name := range strings.Fields(names) {
		schema[name] = typeText
	}
	for name, kind := range others {
		schema[name] = kind
	}
	return schema
}

// keyParts returns a job key of claims that are required.
func keyParts(names ...string) []keyPart {
	var parts []keyPart
	for _, name := range names {
		parts = append(parts, keyPart{path: []string{name}})
	}
	return parts
}

func always(string) bool { return true }

// typeOf returns a claim's type, and false for one that the provider's tokens do not have.
func (p *provider) typeOf(claim string) (claimType, bool) {
	if kind, ok := p.claims[claim]; ok {
		return kind, true
	}
	for prefix, kind := range p.prefixes {
		if strings.HasPrefix(claim, prefix) && claim != prefix {
			return kind, true
		}
	}
	return 0, false
}

// checkTypes refuses claims of another type than the provider's.
func (p *provider) checkTypes(c access.Claims) error {
	if jti, there := c["jti"]; there && !typeText.admits(jti) {
		return refuse(reasonType, "jti is no string")
	}
	for name, value := range c {
		if kind, known := p.typeOf(name); known && !kind.admits(value) {
			return refuse(reasonType, "%s is no %s", shown(name), kind)
		}
	}
	return nil
}

// checkKind refuses tokens that the issuer made for something else than a job.
func (p *provider) checkKind(c access.Claims) error {
	for _, name := range p.kind {
		if value, there := c[name]; !there || value == nil || value == "" {
			return refuse(reasonKind, "no %s: no job's token", name)
		}
	}
	if p.subject != "" && !strings.HasPrefix(c.Text("sub"), p.subject) {
		return refuse(reasonKind, "sub does not begin with %s", p.subject)
	}
	if len(p.tenants) > 0 && !slices.ContainsFunc(p.tenants, func(name string) bool { _, ok := keyText(c[name]); return ok }) {
		return refuse(reasonMissing, "none of %s", strings.Join(p.tenants, ", "))
	}
	return nil
}

// keyOf returns the job key: the parts that are there, as name=value, escaped. A part that is required and absent or
// empty is an error.
func (p *provider) keyOf(c access.Claims) (access.JobKey, error) {
	var parts []string
	for _, part := range p.jobKey {
		found, name := nested(c, part.path), strings.Join(part.path, "/")
		value, ok := keyText(found)
		if _, isText := found.(string); ok && len(part.path) > 1 && !isText { // the schema does not reach into objects
			return "", refuse(reasonType, "%s is no string", name)
		}
		if ok {
			parts = append(parts, name+"="+url.QueryEscape(value))
		} else if !part.optional {
			return "", refuse(reasonMissing, "%s", name)
		}
	}
	return access.JobKey(strings.Join(parts, ";")), nil
}

// keyText returns a claim that can stand in a job key.
func keyText(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, v != ""
	case json.Number:
		return v.String(), true
	}
	return "", false
}

// nested returns the nested claim at a path, nil where there is none.
func nested(c access.Claims, path []string) any {
	var value any = map[string]any(c)
	for _, name := range path {
		members, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = members[name]
	}
	return value
}

// admits reports whether a claim's value is of the type.
func (t claimType) admits(value any) bool {
	if value == nil {
		return t&nullable != 0
	}
	ok := false
	switch t &^ nullable {
	case typeText, typeRef, typeASCII, typeCommit, typeWorkflow:
		_, ok = value.(string)
	case typeDigits:
		var s string
		s, ok = value.(string)
		ok = ok && (s == "" || onlyDigits.MatchString(s))
	case typeBoolean:
		_, ok = value.(bool)
	case typeInteger:
		var n json.Number
		if n, ok = value.(json.Number); ok {
			_, err := n.Int64()
			ok = err == nil
		}
	case typeList:
		var items []any
		items, ok = value.([]any)
		ok = ok && !slices.ContainsFunc(items, func(item any) bool { _, isText := item.(string); return !isText })
	case typeObject:
		ok = true
	}
	return ok
}

// String names the type for people.
func (t claimType) String() string {
	name := map[claimType]string{
		typeDigits: "string of digits", typeBoolean: "boolean", typeInteger: "integer", typeList: "list of strings", typeObject: "object",
	}[t&^nullable]
	if name == "" {
		name = "string"
	}
	if t&nullable != 0 {
		name += " or null"
	}
	return name
}
