package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// MappingStore keeps the mappings, tombstones among them. SaveMappings makes all changes or none.
type MappingStore interface {
	MappingRows(ctx context.Context) ([]access.MappingRow, error)
	SaveMappings(ctx context.Context, changes []access.MappingChange) error
	MappingRevision(ctx context.Context, name string) (int64, error)
}

// MappingsConfig is what a set of mappings is made of.
type MappingsConfig struct {
	Store MappingStore // required
	// Build checks a wire form against the deployment's issuers, connections and groups: NewMapping with its
	// configuration. Required.
	Build func(api.Mapping) (*Mapping, error)
	Now   func() time.Time // nil takes time.Now
	Log   *slog.Logger     // nil discards
}

// Mappings is the set of mappings in force: those that files say, and those put through the admin API.
// Every change grows a mapping's revision by one, in the store, and then reaches the open sessions: of a mapping that
// was deleted they end, of one that was changed they are matched again. It is safe for concurrent use.
type Mappings struct {
	c        MappingsConfig
	set      atomic.Pointer[mappingSet]
	sessions atomic.Pointer[Sessions]

	mu   sync.Mutex // guards all below, and is held by one change from its beginning to its reaching the sessions
	rows map[string]access.MappingRow
	file map[string]Declared // what the files say
	// out are mappings whose deletion could not be written down: in the store they live.
	out map[string]bool
}

// mappingSet is what is in force at one instant. It does not change.
type mappingSet struct {
	byName map[string]*mappingInForce
	sorted []*mappingInForce
}

type mappingInForce struct {
	*Mapping
	revision int64
	policies []*access.Policy // that of the mapping itself, then those of its overrides
}

// policyOf returns what rules a job that the mapping serves. It is the same pointer for all jobs of one override.
func (f *mappingInForce) policyOf(id access.Identity) *access.Policy {
	return f.policies[f.overrideOf(id)+1]
}

// NewMappings reads what the store has. Nothing is in force before the first Reload.
func NewMappings(ctx context.Context, c MappingsConfig) (*Mappings, error) {
	if c.Store == nil || c.Build == nil {
		return nil, errors.New("federation: MappingsConfig needs Store and Build")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mappings{c: c, out: make(map[string]bool)}
	m.set.Store(&mappingSet{})
	m.mu.Lock()
	defer m.mu.Unlock()
	return m, m.readLocked(ctx)
}

func (m *Mappings) readLocked(ctx context.Context) error {
	rows, err := m.c.Store.MappingRows(ctx)
	if err != nil {
		return err
	}
	m.rows = make(map[string]access.MappingRow, len(rows))
	for _, row := range rows {
		m.rows[row.Name] = row
	}
	return nil
}

// Declared is a mapping that a file says: the configuration file, or a file of a source that it names.
type Declared struct {
	Spec   api.Mapping
	Origin access.Origin
}

// MappingInfo is a mapping as people see it.
type MappingInfo struct {
	Row    access.MappingRow // Spec is Mapping in JSON
	Spec   api.Mapping
	Origin access.Origin // what says it now; zero for one of the API, and for one that no file says any more
}

// Get returns a mapping, also one that is deleted, or CodeNotFound.
func (m *Mappings) Get(name string) (MappingInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.rows[name]
	if !ok {
		return MappingInfo{}, access.Refuse(access.CodeNotFound, fmt.Sprintf("there is no mapping %q", name))
	}
	return m.infoLocked(row)
}

// List returns all mappings by name, those that are deleted among them.
func (m *Mappings) List() ([]MappingInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]MappingInfo, 0, len(m.rows))
	for _, row := range m.rows {
		info, err := m.infoLocked(row)
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Row.Name < out[j].Row.Name })
	return out, nil
}

func (m *Mappings) infoLocked(row access.MappingRow) (MappingInfo, error) {
	spec, err := decodeMapping(row)
	return MappingInfo{Row: row, Spec: spec, Origin: m.originLocked(row)}, err
}

// originLocked returns what says a mapping now.
func (m *Mappings) originLocked(row access.MappingRow) access.Origin {
	if row.Source != access.FromFile {
		return access.Origin{}
	}
	return m.file[row.Name].Origin
}

// InForce returns the mappings in force by name, for an explanation of what they say to an identity.
func (m *Mappings) InForce() []*Mapping {
	set := m.set.Load()
	out := make([]*Mapping, 0, len(set.sorted))
	for _, f := range set.sorted {
		out = append(out, f.Mapping)
	}
	return out
}

// Names returns the names of the mappings in force.
func (m *Mappings) Names() []string { return names(m.set.Load().sorted) }

// judge says what is in force now for a job that was matched at an instant: a policy, or why its session must end.
// The instant is the session's opening, so that a limit on the token's age does not end the session later.
func (m *Mappings) judge(name string, id access.Identity, at time.Time) (*access.Policy, access.EndReason) {
	f := m.set.Load().byName[name]
	switch {
	case f == nil:
		return nil, access.EndDeleted
	case f.Issuer() != id.Issuer || f.Match(id, at) != nil:
		return nil, access.EndMismatch
	}
	return f.policyOf(id), ""
}

// settled waits for a change that is under way.
func (m *Mappings) settled() {
	m.mu.Lock()
	defer m.mu.Unlock()
}

// forceLocked puts the rows in force. built holds the mappings that are new; the others are taken from the set before.
func (m *Mappings) forceLocked(built map[string]*Mapping) {
	before := m.set.Load()
	next := &mappingSet{byName: make(map[string]*mappingInForce, len(m.rows))}
	for name, row := range m.rows {
		if !row.Live() || m.out[name] {
			continue
		}
		mapping := built[name]
		if old := before.byName[name]; mapping == nil && old != nil {
			mapping = old.Mapping
		}
		if mapping == nil {
			continue
		}
		f := &mappingInForce{Mapping: mapping, revision: row.Revision, policies: mapping.policies(row.Revision)}
		for _, p := range f.policies {
			p.Origin = m.originLocked(row)
		}
		next.byName[name] = f
		next.sorted = append(next.sorted, f)
	}
	sort.Slice(next.sorted, func(i, j int) bool { return next.sorted[i].Name() < next.sorted[j].Name() })
	m.set.Store(next)
}

func encodeMapping(spec api.Mapping) ([]byte, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode mapping %q: %w", spec.Name, err)
	}
	return text, nil
}

func decodeMapping(row access.MappingRow) (api.Mapping, error) {
	var spec api.Mapping
	d := json.NewDecoder(bytes.NewReader(row.Spec))
	d.DisallowUnknownFields()
	if err := d.Decode(&spec); err != nil {
		return spec, fmt.Errorf("decode mapping %q of the store: %w", row.Name, err)
	}
	return spec, nil
}
