package federation

import (
	"maps"
	"slices"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/cond"
)

// MappingConfig is what a mapping may refer to.
type MappingConfig struct {
	Issuers     []Issuer
	Connections map[string]string // name to kind, such as "anthropic" or "http"
	Groups      []string          // of approvers
	// Features are what the grants on connections of a kind may name; a kind that is not there takes any name.
	Features map[string][]string
	// Signals say, by issuer, who tells of jobs; for Lint only. Nil: nothing is known of it.
	Signals map[string]Signals
	// CheckAllow checks an entry of an allow list; nil looks at its shape only.
	CheckAllow func(entry string) error
}

// Signals is who tells of the jobs of an issuer.
type Signals struct{ API, Webhook bool }

// What a mapping that says nothing gets.
const (
	defaultMax     = time.Hour
	defaultLease   = 15 * time.Minute
	defaultTimeout = 15 * time.Minute // of a question to people
)

// Mapping is a checked mapping: which identities, and what they are granted. It does not change.
type Mapping struct {
	spec     api.Mapping
	provider *provider
	shared   bool     // strangers get tokens of its issuer
	claims   []string // that match names, the tenants' first, the others sorted
	when     *cond.Condition
	policy   access.Policy // of jobs that no override is for

	overrides []override
}

// NewMapping checks a mapping's wire form. Errors are *api.FieldError and say what to write instead.
func NewMapping(spec api.Mapping, c MappingConfig) (*Mapping, error) {
	check := mappingCheck{spec: &spec, config: c}
	m := &Mapping{spec: spec}
	var err error
	if m.provider, m.shared, err = check.head(); err != nil {
		return nil, err
	}
	if m.when, err = check.conditions(m.provider, m.shared); err != nil {
		return nil, err
	}
	m.claims = matchOrder(spec.Match, m.provider)
	m.policy = access.Policy{Mapping: spec.Name, Mode: modes[spec.Mode]}
	if m.policy.Window, err = windowOf("window", spec.Window); err != nil {
		return nil, err
	}
	if m.policy.Grants, err = check.grants("grants", spec.Grants, m.provider); err != nil {
		return nil, err
	}
	if m.overrides, err = check.overrides(m.policy, m.provider); err != nil {
		return nil, err
	}
	return m, nil
}

func matchOrder(match map[string]api.Values, p *provider) []string {
	tenants := func(name string) bool { return slices.Contains(p.tenants, name) }
	names := slices.Sorted(maps.Keys(match))
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case tenants(a) && !tenants(b):
			return -1
		case tenants(b) && !tenants(a):
			return 1
		}
		return 0
	})
	return names
}

// Name returns the mapping's name.
func (m *Mapping) Name() string { return m.spec.Name }

// Issuer returns the name of the issuer whose jobs it serves.
func (m *Mapping) Issuer() string { return m.spec.Issuer }

// Spec returns the wire form that the mapping was built from. It must not be changed.
func (m *Mapping) Spec() api.Mapping { return m.spec }

// Policy returns what the mapping grants to jobs that no override is for, as one revision of it.
func (m *Mapping) Policy(revision int64) *access.Policy {
	p := m.policy
	p.Revision = revision
	return &p
}

// PolicyFor returns what the mapping grants to a job that it serves, as one revision of it.
func (m *Mapping) PolicyFor(id access.Identity, revision int64) *access.Policy {
	at := m.overrideOf(id)
	if at < 0 {
		return m.Policy(revision)
	}
	p := m.overrides[at].policy
	p.Revision = revision
	return &p
}

// RequiresLiveness reports whether a job may open a session only when its provider says that it runs.
func (m *Mapping) RequiresLiveness() bool { return m.spec.Live }

// PinsTenant reports whether the identity's owner is one that the mapping names by an immutable id: only such a job
// may be told what the mapping wants. On an issuer that no stranger gets tokens of, a mapping that names nobody speaks
// to everyone.
func (m *Mapping) PinsTenant(id access.Identity) bool {
	if id.Issuer != m.spec.Issuer || id.Provider != m.provider.name {
		return false
	}
	pinned := false
	for _, tenant := range m.provider.tenants {
		wanted, named := m.spec.Match[tenant]
		if !named {
			continue
		}
		pinned = true
		if value, there := id.Claims[tenant]; there && equalsOne(value, wanted) {
			return true
		}
	}
	return !pinned && !m.shared
}
