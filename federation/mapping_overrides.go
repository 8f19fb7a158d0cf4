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

// override is an exception of a mapping, checked: the jobs that it is for, and what rules them.
type override struct {
	name   string
	match  map[string]api.Values
	deny   bool
	policy access.Policy
}

// overrides checks the mapping's exceptions. What one does not say, it has of the mapping; what it says takes the place
// of the mapping's whole key, so that an exception grants what stands in it and nothing else.
func (c mappingCheck) overrides(base access.Policy, p *provider) ([]override, error) {
	var out []override
	seen := map[string]bool{}
	for i, spec := range c.spec.Overrides {
		at := fmt.Sprintf("overrides[%d]", i)
		o := override{name: spec.Name, match: spec.Match, deny: spec.Deny, policy: base}
		switch {
		case spec.Name == "":
			o.name = at
		case !validName.MatchString(spec.Name):
			return nil, wrong(at+".name", "%q is no name; %s", spec.Name, nameRule)
		case seen[spec.Name]:
			return nil, wrong(at+".name", "%q is another override's, too", spec.Name)
		}
		seen[spec.Name] = true
		o.policy.Override = o.name
		if err := c.override(at, spec, &o, p); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func (c mappingCheck) override(at string, spec api.Override, o *override, p *provider) (err error) {
	if len(spec.Match) == 0 {
		return wrong(at+".match", "it is empty, and would hold for every job of the mapping; name the claims of those it is for, or change the mapping")
	}
	for _, name := range sortedNames(spec.Match) {
		if err := checkValues(at+".match."+name, name, spec.Match[name], p); err != nil {
			return err
		}
	}
	changes := spec.Mode != "" || spec.Window != nil || spec.Grants != nil
	switch {
	case spec.Deny && changes:
		return wrong(at+".deny", "it takes these jobs out, so that mode, window and grants beside it say nothing; leave them out, or deny")
	case !spec.Deny && !changes:
		return wrong(at, "it changes nothing; write deny: true, or one of mode, window and grants")
	}
	if spec.Mode != "" {
		mode, ok := modes[spec.Mode]
		if !ok {
			return wrong(at+".mode", "%q is no mode; write enforce or observe", spec.Mode)
		}
		o.policy.Mode = mode
	}
	if spec.Window != nil {
		if o.policy.Window, err = windowOf(at+".window", *spec.Window); err != nil {
			return err
		}
	}
	if spec.Grants != nil {
		o.policy.Grants, err = c.grants(at+".grants", spec.Grants, p)
	}
	return err
}

// overrideOf returns the place of the first override that is for a job, -1 where none is.
func (m *Mapping) overrideOf(id access.Identity) int {
	return slices.IndexFunc(m.overrides, func(o override) bool {
		for name, wanted := range o.match {
			if value, there := id.Claims[name]; !there || !equalsOne(value, wanted) {
				return false
			}
		}
		return true
	})
}

// policies returns one revision of what the mapping grants: to jobs that no override is for, then by override.
func (m *Mapping) policies(revision int64) []*access.Policy {
	out := []*access.Policy{m.Policy(revision)}
	for i := range m.overrides {
		p := m.overrides[i].policy
		p.Revision = revision
		out = append(out, &p)
	}
	return out
}

// grantsFor returns the wire form of what a job is granted.
func (m *Mapping) grantsFor(id access.Identity) []api.Grant {
	if at := m.overrideOf(id); at >= 0 && m.spec.Overrides[at].Grants != nil {
		return m.spec.Overrides[at].Grants
	}
	return m.spec.Grants
}

// takenOut refuses a job that an override takes out of the mapping.
func (m *Mapping) takenOut(id access.Identity, _ time.Time) []error {
	at := m.overrideOf(id)
	if at < 0 || !m.overrides[at].deny {
		return nil
	}
	o := m.overrides[at]
	return []error{m.fails(reasonOverride, "its override %s takes out jobs with %s", o.name, o.shownMatch(id))}
}

// shownMatch says which claims of a job an override is for, with their values.
func (o *override) shownMatch(id access.Identity) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(o.match)) {
		out = append(out, name+" "+display(id.Claims[name]))
	}
	return strings.Join(out, ", ")
}

// override writes down which exception is for the job, and what it does.
func (e *examination) override() {
	at := e.m.overrideOf(e.id)
	if at < 0 {
		return
	}
	o, spec := &e.m.overrides[at], e.m.spec.Overrides[at]
	if o.deny {
		e.add("override", o.name, o.shownMatch(e.id), "no job that the override takes out", reasonOverride)
		return
	}
	var keys []string
	for _, key := range []struct {
		name string
		has  bool
	}{{"mode", spec.Mode != ""}, {"window", spec.Window != nil}, {"grants", spec.Grants != nil}} {
		if key.has {
			keys = append(keys, key.name)
		}
	}
	e.add("override", o.name, o.shownMatch(e.id), strings.Join(keys, ", ")+" of the override hold", "")
}
