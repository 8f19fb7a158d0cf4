package federation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// mending looks for the smallest change of a mapping after which it serves an identity. It widens match, and nothing
// else but the job key: what a mapping denies, forbids or computes was put there on purpose. A claim that says whose
// job it is is widened only inside an owner whom the mapping names already.
type mending struct {
	m        *Mapping
	id       access.Identity
	match    map[string]api.Values // what changes
	jobKey   string
	warnings []string
	advice   []string
	stuck    bool // something is in the way that no change should mend
}

// mend returns a change that was tried out, or nil, and advice for what is in the way of one.
func (m *Mapping) mend(id access.Identity, now time.Time, conditions []api.MappingCondition) (*api.MappingFix, []string) {
	f := &mending{m: m, id: id, match: make(map[string]api.Values)}
	for _, c := range conditions {
		if !c.Held {
			f.condition(c)
		}
	}
	if f.stuck || !f.works(now) {
		return nil, f.advice
	}
	text, err := api.EncodeYAML(struct {
		Match  map[string]api.Values `yaml:"match,omitempty"`
		JobKey string                `yaml:"job_key,omitempty"`
	}{f.match, f.jobKey})
	if err != nil {
		return nil, f.advice
	}
	return &api.MappingFix{YAML: text, Warnings: f.warnings}, f.advice
}

// works reports whether the mapping serves the identity once it is changed.
func (f *mending) works(now time.Time) bool {
	changed := *f.m
	changed.spec.Match = maps.Clone(f.m.spec.Match)
	maps.Copy(changed.spec.Match, f.match)
	if f.jobKey != "" {
		changed.spec.JobKey = f.jobKey
	}
	changed.claims = matchOrder(changed.spec.Match, changed.provider)
	for _, name := range sortedNames(f.match) {
		if checkValues("match."+name, name, changed.spec.Match[name], changed.provider) != nil {
			return false
		}
	}
	return changed.Match(f.id, now) == nil
}

func (f *mending) condition(c api.MappingCondition) {
	switch c.Kind {
	case "issuer":
		f.stop("it is for jobs of issuer %s", c.Wanted)
	case "match":
		f.matched(c)
	case "trigger":
		f.triggered(c)
	case "job_key":
		f.unnamed(c)
	case "max_age":
		f.stop("the token is too old: let the job fetch a fresh one right before the exchange")
	case "require", "paths", "deny", "equal", "limits":
		if c.Reason == reasonMissing {
			f.missing(c.On)
			return
		}
		f.stop("%s on %s is there on purpose: change the job, or write a mapping of its own for it", c.Kind, c.On)
	case "forbid", "subject_scheme":
		f.stop("%s on %s is there on purpose: change the job, or write a mapping of its own for it", c.Kind, c.On)
	case "override":
		f.stop("override %s takes this job out on purpose: change the override, if that was not meant for it", c.On)
	case "when":
		f.stop("its when keeps this job out, and no change of it can be told from the outside: %s", c.Wanted)
	}
}

func (f *mending) stop(format string, args ...any) {
	f.stuck = true
	f.advice = append(f.advice, fmt.Sprintf(format, args...))
}

// matched widens a claim of match by the job's own value.
func (f *mending) matched(c api.MappingCondition) {
	if c.Reason == reasonMissing {
		f.missing(c.On)
		return
	}
	value, ok := written(f.id.Claims[c.On])
	if !ok {
		f.stop("the value of claim %s is none that a suggestion repeats: look at it yourself", c.On)
		return
	}
	tenants := f.m.provider.tenants
	if at := slices.Index(tenants, c.On); at >= 0 {
		if !f.ownerHeld(tenants[:at]) {
			f.stop("%s says whose job it is, and this is another's: do not widen it; if the job is yours, write a mapping of its own for it", c.On)
			return
		}
		f.warn("%s is widened: every job of %s that meets the other conditions gets these grants, too", c.On, c.Got)
	}
	for _, d := range f.m.provider.denials {
		if why := d.why(f.id.Claims); d.claim == c.On && why != "" {
			f.untrusted(why)
		}
	}
	if c.On == "ref" || c.On == "ref_path" {
		f.unprotected(c.Got)
	}
	f.match[c.On] = append(slices.Clone(f.m.spec.Match[c.On]), value)
}

// ownerHeld reports whether the mapping names one of these owners, and the job is of it.
func (f *mending) ownerHeld(owners []string) bool {
	return slices.ContainsFunc(owners, func(name string) bool {
		wanted, named := f.m.spec.Match[name]
		value, there := f.id.Claims[name]
		return named && there && equalsOne(value, wanted)
	})
}

// unprotected warns of a ref that everybody with write access can push to: GitHub and GitLab say so in a string.
func (f *mending) unprotected(ref string) {
	if f.id.Claims.Text("ref_protected") == "false" {
		f.warn("%s is not protected: whoever can push to the repository gets these grants", ref)
	}
}

// triggered names a trigger that is refused by default, where naming it makes sense.
func (f *mending) triggered(c api.MappingCondition) {
	partOfKey := slices.ContainsFunc(f.m.provider.jobKey, func(p keyPart) bool { return p.path[0] == c.On })
	value, ok := written(f.id.Claims[c.On])
	if !ok || partOfKey || slices.Contains(f.m.provider.tenants, c.On) {
		f.stop("the job is of a trigger that is refused by default (%s), and no value of match can tell it from others: write a mapping of its own for it", c.Got)
		return
	}
	for _, d := range f.m.provider.denials {
		if why := d.why(f.id.Claims); d.claim == c.On && why != "" {
			f.untrusted(why)
		}
	}
	f.warn("match then serves only the values of %s that it lists: add the others that it is to go on serving", c.On)
	f.match[c.On] = append(f.match[c.On], value)
}

func (f *mending) untrusted(why string) {
	text := why + ": the agent reads what they wrote, with these grants. A mapping of its own, with fewer of them, is safer"
	if !slices.Contains(f.warnings, text) {
		f.warnings = append(f.warnings, text)
	}
}

// unnamed accepts a token that names the run only, where the provider has such tokens.
func (f *mending) unnamed(c api.MappingCondition) {
	optional := slices.ContainsFunc(f.m.provider.jobKey, func(p keyPart) bool { return p.optional && p.path[0] == c.On })
	if !optional {
		f.missing(c.On)
		return
	}
	f.jobKey = jobKeyRun
	f.warn("without %s the token names the run and not the job: all jobs of a run then share one session, its limits and its end", c.On)
}

func (f *mending) warn(format string, args ...any) {
	f.warnings = append(f.warnings, fmt.Sprintf(format, args...))
}

// missingAdvice says how a job comes to a claim that only some jobs have.
var missingAdvice = map[string]string{
	"environment":           "give the job an environment in its workflow, environment: NAME",
	"environment_node_id":   "give the job an environment in its workflow, environment: NAME",
	"environment_protected": "give the job an environment in its definition",
	"deployment_tier":       "give the job an environment in its definition",
	"enterprise_id":         "only repositories of an enterprise have it",
	"enterprise":            "only repositories of an enterprise have it",
	"check_run_id":          "the server does not put it into tokens yet: update it",
	"build_tag":             "only builds of a tag have it",
	"agent_tag":             "let the agent put it into the token with --claim",
}

// missingHow returns how a job comes to a claim, and false for one of which nothing is known.
func missingHow(claim string) (string, bool) {
	if property, is := strings.CutPrefix(claim, propertyPrefix); is {
		return fmt.Sprintf("give the repository a value of the custom property %s, and have the organization or the enterprise put that property into OIDC tokens (Settings, Actions, OIDC)", property), true
	}
	how, known := missingAdvice[claim]
	return how, known
}

func (f *mending) missing(claim string) {
	if how, known := missingHow(claim); known {
		f.stop("the token has no %s: %s", claim, how)
		return
	}
	f.stop("the token has no %s: let the job's token have it, or take the condition out of the mapping if it was never meant", claim)
}
