package federation

import (
	"errors"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// MappingConfig is what a mapping may refer to.
type MappingConfig struct {
	Issuers     []Issuer
	Connections map[string]string // name to kind, such as "anthropic" or "http"
	Groups      []string          // of approvers
}

// Mapping is a checked mapping: which identities, and what they are granted. It does not change.
type Mapping struct {
	spec   api.Mapping
	policy access.Policy
}

// NewMapping checks a mapping's wire form. Errors are *api.FieldError and say what to write instead.
func NewMapping(spec api.Mapping, c MappingConfig) (*Mapping, error) {
	return nil, &api.FieldError{Path: "name", Err: errors.New("mappings are not built yet")}
}

// Name returns the mapping's name.
func (m *Mapping) Name() string { return m.spec.Name }

// Issuer returns the name of the issuer whose jobs it serves.
func (m *Mapping) Issuer() string { return m.spec.Issuer }

// Spec returns the wire form that the mapping was built from.
func (m *Mapping) Spec() api.Mapping { return m.spec }

// Policy returns what the mapping grants, as one revision of it.
func (m *Mapping) Policy(revision int64) *access.Policy {
	p := m.policy
	p.Revision = revision
	return &p
}

// RequiresLiveness reports whether a job may only open a session when its provider says that it runs.
func (m *Mapping) RequiresLiveness() bool { return m.spec.Live }

// PinsTenant reports whether the mapping pins exactly the immutable tenant id that the identity carries.
func (m *Mapping) PinsTenant(id access.Identity) bool { return false }

// Match returns nil when the mapping serves the identity, and else an *access.Error that says which condition failed.
func (m *Mapping) Match(id access.Identity, now time.Time) error {
	return access.Refuse(access.CodeTarget, string(access.CodeTarget))
}
