package federation

import (
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/api"
)

// OverrideOf returns the first of the mappings that is for all that the suggestion's owner has: an override of it is
// enough for one repository. nil where there is none.
func (s Suggestion) OverrideOf(mappings []*Mapping) *Mapping {
	for _, m := range mappings {
		if m.Issuer() == s.Mapping.Issuer && s.within(m) {
			return m
		}
	}
	return nil
}

// within reports whether the mapping pins an owner of the suggestion's job, and nothing narrower that the job has.
func (s Suggestion) within(m *Mapping) bool {
	held, narrower := false, false
	for _, tenant := range m.provider.tenants {
		own, has := s.Mapping.Match[tenant]
		wanted, named := m.spec.Match[tenant]
		switch {
		case named && (!has || !slices.Contains(wanted, own[0])):
			return false
		case named:
			held, narrower = true, false
		case has:
			narrower = true
		}
	}
	return held && narrower
}

// OverrideYAML returns the suggestion as an override of a mapping that serves its owner: an entry of overrides, with the
// narrowest id of the job.
func (s Suggestion) OverrideYAML(m *Mapping) (string, error) {
	narrowest := ""
	for _, tenant := range m.provider.tenants {
		if _, has := s.Mapping.Match[tenant]; has {
			narrowest = tenant
		}
	}
	o := api.Override{Name: s.Mapping.Name, Match: map[string]api.Values{narrowest: s.Mapping.Match[narrowest]}, Grants: s.Mapping.Grants}
	text, err := api.EncodeYAML(struct {
		Overrides []api.Override `yaml:"overrides"`
	}{[]api.Override{o}})
	if err != nil {
		return "", err
	}
	var head strings.Builder
	if s.About != "" {
		head.WriteString("# for jobs like this one: " + s.About + "\n")
	}
	head.WriteString("# mapping " + m.Name() + " is for this owner: an override of it is enough, and jobs must meet its other conditions, too\n")
	for _, w := range s.Warnings {
		head.WriteString("# WARNING: " + w + "\n")
	}
	return head.String() + text, nil
}
