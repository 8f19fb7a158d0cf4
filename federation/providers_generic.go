package federation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// genericProvider is the row that takes its columns from the configuration.
const genericProvider = "generic"

// Tokens says what an issuer's tokens are like, for provider generic: nothing is known of them otherwise.
type Tokens struct {
	// Claims is the schema: a claim's name, and string, int, bool, list (of strings) or object. A claim of another type is
	// refused, and mappings can name these claims and "sub" only.
	Claims map[string]string
	// JobKey are the claims that together name one job of one attempt. Empty: tokens do not name a job, and mappings must
	// say job_bound: false.
	JobKey []string
	// Tenants are claims with immutable ids of who owns the job, the widest first; a mapping must pin one of them.
	Tenants []string
	// OneTenant says, in place of Tenants, that the issuer makes tokens for one owner.
	OneTenant bool
	// Trusted are, by claim, the values of jobs that take write access to start. Every other value, and a token without the
	// claim, is refused unless a mapping's match names the claim itself.
	Trusted map[string]api.Values
	// Audience is the audience of all the issuer's tokens, where a job cannot choose it. The issuer must say SharedAudience.
	Audience string
	// Renewable says that a running job gets fresh tokens, so that one is a sign of life.
	Renewable bool
	// Shows are the claims that people read. Each may be empty.
	Shows ShownClaims
}

// ShownClaims names the claims that an access.Job is made of.
type ShownClaims struct{ Repository, Workflow, Ref, Commit, Actor, Event string }

// generic is the row for issuers that nobody here knows. What it knows is what the configuration says: configured.
func generic() *provider {
	return &provider{name: genericProvider, each: "CI system of your own", configured: true}
}

// genericTypes are the types that a schema can state.
func genericTypes() map[string]claimType {
	return map[string]claimType{"string": typeText, "int": typeInteger, "bool": typeBoolean, "list": typeList, "object": typeObject}
}

// registeredClaims are those of RFC 7519, which are checked for every token and are no claims of a job.
var registeredClaims = []string{"iss", "aud", "exp", "nbf", "iat", "jti"}

// maxClaimName bounds a claim's name. The longest that is known is a URL of 90 characters.
const maxClaimName = 256

// row returns the row of the provider table with what the issuer says of its tokens.
func (i Issuer) row() (*provider, error) {
	row := providerNamed(i.Provider)
	switch {
	case row == nil:
		return nil, wrong("provider", "provider %q is not known; write one of %s", i.Provider, strings.Join(Providers(), ", "))
	case !row.configured && i.Tokens != nil:
		return nil, wrong("tokens", "what tokens of provider %s are like is known; tokens is for provider %s", row.name, genericProvider)
	case !row.configured:
		return row, nil
	case i.Tokens == nil:
		return nil, wrong("tokens", "it is missing: nothing is known of the tokens of provider %s; write their claims with their types, job_key, tenants and trusted", row.name)
	}
	return i.Tokens.fill(row)
}

// fill sets the columns of a row.
func (t *Tokens) fill(row *provider) (*provider, error) {
	row.claims = map[string]claimType{"sub": typeText}
	for _, name := range sortedNames(t.Claims) {
		kind, err := schemaEntry(name, t.Claims[name])
		if err != nil {
			return nil, err
		}
		row.claims[name] = kind
	}
	for _, set := range []func(*provider) error{t.setJobKey, t.setTenants, t.setTrusted, t.setAudience, t.setShows} {
		if err := set(row); err != nil {
			return nil, err
		}
	}
	row.renewable = t.Renewable
	return row, nil
}

func schemaEntry(name, text string) (claimType, error) {
	path := "tokens.claims." + name
	kind, known := genericTypes()[text]
	switch {
	case slices.Contains(registeredClaims, name):
		return 0, wrong(path, "%s is a registered claim, which is checked for every token and is none of the job's; leave it out", name)
	case name == "sub" && text != "string":
		return 0, wrong(path, "sub is a string in every token; leave it out, or write string")
	case name == "" || len(name) > maxClaimName || printable(name) != name || strings.TrimSpace(name) != name:
		return 0, wrong("tokens.claims", "%s is no name of a claim", shown(name))
	case !known:
		return 0, wrong(path, "%q is no type; write one of %s", text, strings.Join(slices.Sorted(maps.Keys(genericTypes())), ", "))
	}
	return kind, nil
}

// known refuses claims that are not in the schema, or of none of the types.
func (t *Tokens) known(row *provider, path, name string, kinds ...claimType) error {
	kind, ok := row.claims[name]
	switch {
	case slices.Contains(registeredClaims, name):
		return wrong(path, "%s is a registered claim: it is another in each token, or the same in all, and says nothing of the job", name)
	case !ok:
		return wrong(path, "claim %s is not in tokens.claims; those are %s", shown(name), strings.Join(sortedNames(row.claims), ", "))
	case !slices.Contains(kinds, kind):
		return wrong(path, "claim %s is a %s, which cannot stand here", name, kind)
	}
	return nil
}

func (t *Tokens) list(row *provider, key string, names []string) error {
	for n, name := range names {
		path := fmt.Sprintf("tokens.%s[%d]", key, n)
		if err := t.known(row, path, name, typeText, typeInteger); err != nil {
			return err
		}
		if slices.Contains(names[:n], name) {
			return wrong(path, "%s stands here twice", name)
		}
	}
	return nil
}

func (t *Tokens) setJobKey(row *provider) error {
	row.jobKey = keyParts(t.JobKey...)
	return t.list(row, "job_key", t.JobKey)
}

func (t *Tokens) setTenants(row *provider) error {
	switch {
	case len(t.Tenants) == 0 && !t.OneTenant:
		return wrong("tokens.tenants", "it is missing: name the claims with immutable ids of who owns a job, of which each mapping must pin one; "+
			"or write one_tenant: true where nobody else gets tokens of this issuer")
	case len(t.Tenants) > 0 && t.OneTenant:
		return wrong("tokens.one_tenant", "tenants says that there are several; write one of them")
	case len(t.Tenants) > 0:
		row.shared = always
	}
	row.tenants = t.Tenants
	return t.list(row, "tenants", t.Tenants)
}

func (t *Tokens) setTrusted(row *provider) error {
	for _, claim := range sortedNames(t.Trusted) {
		path, values := "tokens.trusted."+claim, t.Trusted[claim]
		if err := t.known(row, path, claim, typeText, typeInteger, typeBoolean); err != nil {
			return err
		}
		if err := checkValues(path, claim, values, row); err != nil {
			return err
		}
		row.denials = append(row.denials, onlyTrusted(claim, values))
	}
	return nil
}

// onlyTrusted denies every value of a claim but these, and that it is absent.
func onlyTrusted(claim string, trusted api.Values) denial {
	list := strings.TrimPrefix(displayAll(trusted), "one of ")
	return denial{claim, "every value but " + list, func(c access.Claims) string {
		value, there := c[claim]
		switch {
		case !there:
			return "the token has no " + claim + ", of which the issuer's configuration trusts only " + list
		case equalsOne(value, trusted), slices.Contains(trusted, value): // a mapping's value, too, which is no json.Number
			return ""
		}
		return claim + " is " + display(value) + ", and the issuer's configuration trusts only " + list
	}}
}

func (t *Tokens) setAudience(row *provider) error {
	switch {
	case t.Audience == "":
		return nil
	case slices.Contains(refusedAudiences, strings.TrimRight(t.Audience, "/")):
		return wrong("tokens.audience", "%s belongs to another service, which takes such tokens itself", shown(t.Audience))
	case printable(t.Audience) != t.Audience:
		return wrong("tokens.audience", "%s has characters that no audience has", shown(t.Audience))
	}
	row.audience = func(string) string { return t.Audience }
	return nil
}

func (t *Tokens) setShows(row *provider) error {
	s := t.Shows
	for path, name := range map[string]string{"repository": s.Repository, "workflow": s.Workflow, "ref": s.Ref, "commit": s.Commit, "actor": s.Actor, "event": s.Event} {
		if name == "" {
			continue
		}
		if err := t.known(row, "tokens.shows."+path, name, typeText); err != nil {
			return err
		}
	}
	row.shows = jobClaims{s.Repository, s.Workflow, s.Ref, s.Commit, s.Actor, s.Event}
	return nil
}
