package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// byFile is who deletes a mapping that no file says any more, where it is not known which one did.
const byFile = "configuration file"

// ReasonIfMatch is a change of a mapping that did not say which revision it changes. It is CodeConflict.
const ReasonIfMatch = "if_match_required"

// Reload puts the mappings that the files say in force, all of them or none, and builds those of the API anew. A
// mapping that no file names any more is deleted; one that was deleted through the API stays deleted while a file
// names it. A name that was put through the API goes over to the file. Errors are *api.FieldError with a path that
// begins at "mappings".
func (m *Mappings) Reload(ctx context.Context, declared []Declared) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	file := make(map[string]Declared, len(declared))
	built := make(map[string]*Mapping, len(declared))
	for i, d := range declared {
		spec := d.Spec
		if _, twice := file[spec.Name]; twice {
			return &api.FieldError{Path: fmt.Sprintf("mappings[%d].name", i), Err: fmt.Errorf("two mappings are called %q; rename one", spec.Name)}
		}
		mapping, err := m.c.Build(spec)
		if err != nil {
			return inFile(i, err)
		}
		file[spec.Name], built[spec.Name] = d, mapping
	}
	if err := m.rebuildLocked(file, built); err != nil {
		return err
	}
	changes, err := m.fileChangesLocked(declared, file)
	if err != nil {
		return err
	}
	if err := m.saveLocked(ctx, changes); err != nil {
		return err
	}
	m.file = file
	m.forceLocked(built)
	m.reachLocked(ctx, changes)
	return nil
}

func inFile(i int, err error) error {
	var field *api.FieldError
	if errors.As(err, &field) {
		return &api.FieldError{Path: fmt.Sprintf("mappings[%d].%s", i, field.Path), Err: field.Err}
	}
	return &api.FieldError{Path: fmt.Sprintf("mappings[%d]", i), Err: err}
}

// rebuildLocked checks the API's mappings against what the configuration says now.
func (m *Mappings) rebuildLocked(file map[string]Declared, built map[string]*Mapping) error {
	for name, row := range m.rows {
		if _, taken := file[name]; taken || !row.Live() || row.Source != access.FromAPI {
			continue
		}
		spec, err := decodeMapping(row)
		if err != nil {
			return err
		}
		if built[name], err = m.c.Build(spec); err != nil {
			return fmt.Errorf("mapping %q, put through the API, does not fit the configuration: %w; mend the configuration, or delete the mapping first", name, err)
		}
	}
	return nil
}

// fileChangesLocked compares the files with the rows.
func (m *Mappings) fileChangesLocked(declared []Declared, file map[string]Declared) ([]access.MappingChange, error) {
	var changes []access.MappingChange
	for _, d := range declared {
		name := d.Spec.Name
		text, err := encodeMapping(d.Spec)
		if err != nil {
			return nil, err
		}
		row, known := m.rows[name]
		switch {
		case known && row.Source == access.FromFile && row.DeletedVia == access.FromAPI:
			m.c.Log.Warn("a mapping of a file stays deleted", "mapping", name, "file", d.Origin.From, "by", row.By, "since", row.Deleted)
			continue
		case known && row.Live() && row.Source == access.FromFile && bytes.Equal(row.Spec, text):
			continue
		}
		changes = append(changes, m.changeLocked(access.MappingRow{Name: name, Source: access.FromFile, Spec: text, By: byOrigin(d.Origin)}))
	}
	for name, row := range m.rows {
		if _, named := file[name]; named || row.Source != access.FromFile || row.DeletedVia == access.FromFile {
			continue
		}
		// Also of one that was deleted through the API: put back into the file, it lives again.
		changes = append(changes, m.deletionLocked(row, access.FromFile, byOrigin(m.file[name].Origin)))
	}
	return changes, nil
}

// byOrigin is who changes a mapping when its file does.
func byOrigin(o access.Origin) string {
	if o.From == "" {
		return byFile
	}
	return o.From
}

// changeLocked makes row the next revision of its mapping.
func (m *Mappings) changeLocked(row access.MappingRow) access.MappingChange {
	from := m.rows[row.Name].Revision
	row.Revision, row.Changed = from+1, m.c.Now()
	return access.MappingChange{Row: row, From: from}
}

func (m *Mappings) deletionLocked(row access.MappingRow, via access.MappingSource, by string) access.MappingChange {
	row.DeletedVia, row.By = via, by
	if row.Deleted.IsZero() {
		row.Deleted = m.c.Now()
	}
	return m.changeLocked(row)
}

// Put creates or replaces a mapping of the API. Over an existing one ifMatch is its revision; 0 says nothing. A mapping
// of a file is CodeConflict, also a deleted one; errors of the content are *api.FieldError.
func (m *Mappings) Put(ctx context.Context, spec api.Mapping, ifMatch int64, by string) (MappingInfo, error) {
	mapping, err := m.c.Build(spec)
	if err != nil {
		return MappingInfo{}, err
	}
	text, err := encodeMapping(spec)
	if err != nil {
		return MappingInfo{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	row, known := m.rows[spec.Name]
	_, named := m.file[spec.Name]
	switch {
	case named || known && row.Live() && row.Source == access.FromFile:
		return MappingInfo{}, m.ofAFileLocked(spec.Name)
	case known && row.Live() && ifMatch == 0:
		return MappingInfo{}, &access.Error{Code: access.CodeConflict, Reason: ReasonIfMatch, Public: fmt.Sprintf(
			"mapping %q exists; say with If-Match which revision you change, it is at %d", spec.Name, row.Revision)}
	}
	if err := matches(row, ifMatch, spec.Name); err != nil {
		return MappingInfo{}, err
	}
	change := m.changeLocked(access.MappingRow{Name: spec.Name, Source: access.FromAPI, Spec: text, By: by})
	return MappingInfo{Row: change.Row, Spec: spec}, m.applyLocked(ctx, change, mapping)
}

// Delete revokes a mapping: its sessions have ended when it returns. ifMatch is the revision, 0 for any. Where the
// store cannot be written, the mapping is out of force in this process all the same, and the error says so.
func (m *Mappings) Delete(ctx context.Context, name string, ifMatch int64, by string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, known := m.rows[name]
	if !known || !row.Live() {
		return access.Refuse(access.CodeNotFound, fmt.Sprintf("there is no mapping %q in force", name))
	}
	if err := matches(row, ifMatch, name); err != nil {
		return err
	}
	change := m.deletionLocked(row, access.FromAPI, by)
	err := m.applyLocked(ctx, change, nil)
	if access.CodeOf(err) == access.CodeUnavailable || access.CodeOf(err) == access.CodeInternal {
		m.outLocked(ctx, change)
		err = &access.Error{Code: access.CodeUnavailable, Err: err, Public: fmt.Sprintf(
			"mapping %q is out of force and its sessions are over, but this could not be written down: delete it again, or a restart brings it back", name)}
	}
	return err
}

// outLocked takes a mapping out of force without the store, until the deletion succeeds or the program ends.
func (m *Mappings) outLocked(ctx context.Context, change access.MappingChange) {
	m.out[change.Row.Name] = true
	m.forceLocked(nil)
	m.reachLocked(ctx, []access.MappingChange{change})
}

// Restore puts a mapping that was deleted through the API in force again, as its file says it now.
func (m *Mappings) Restore(ctx context.Context, name, by string) (MappingInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, known := m.rows[name]
	declared, named := m.file[name]
	spec := declared.Spec
	switch {
	case !known:
		return MappingInfo{}, access.Refuse(access.CodeNotFound, fmt.Sprintf("there is no mapping %q", name))
	case row.Live():
		return MappingInfo{}, access.Refuse(access.CodeConflict, fmt.Sprintf("mapping %q is not deleted", name))
	case row.Source == access.FromFile && !named:
		return MappingInfo{}, access.Refuse(access.CodeConflict, fmt.Sprintf("mapping %q is in no file any more; put it back there", name))
	case row.Source == access.FromAPI:
		var err error
		if spec, err = decodeMapping(row); err != nil {
			return MappingInfo{}, err
		}
	}
	mapping, err := m.c.Build(spec)
	if err != nil {
		return MappingInfo{}, err
	}
	text, err := encodeMapping(spec)
	if err != nil {
		return MappingInfo{}, err
	}
	change := m.changeLocked(access.MappingRow{Name: name, Source: row.Source, Spec: text, By: by})
	change.Restored = true
	return MappingInfo{Row: change.Row, Spec: spec, Origin: m.originLocked(change.Row)}, m.applyLocked(ctx, change, mapping)
}

func (m *Mappings) ofAFileLocked(name string) error {
	return access.Refuse(access.CodeConflict, fmt.Sprintf("mapping %q is from %s; change it there", name, byOrigin(m.file[name].Origin)))
}

func matches(row access.MappingRow, ifMatch int64, name string) error {
	if ifMatch == 0 || ifMatch == row.Revision && row.Live() {
		return nil
	}
	return &access.Error{Code: access.CodeConflict, Reason: access.ReasonRevision,
		Public: fmt.Sprintf("mapping %q is not at revision %d any more but at %d", name, ifMatch, row.Revision)}
}

func (m *Mappings) applyLocked(ctx context.Context, change access.MappingChange, mapping *Mapping) error {
	changes := []access.MappingChange{change}
	if err := m.saveLocked(ctx, changes); err != nil {
		return err
	}
	delete(m.out, change.Row.Name)
	m.forceLocked(map[string]*Mapping{change.Row.Name: mapping})
	m.reachLocked(ctx, changes)
	return nil
}

// saveLocked writes to the store before anything else knows: an exchange that was judged by the revision before is
// refused there from now on.
func (m *Mappings) saveLocked(ctx context.Context, changes []access.MappingChange) error {
	if len(changes) == 0 {
		return nil
	}
	if err := m.c.Store.SaveMappings(ctx, changes); err != nil {
		if access.CodeOf(err) == access.CodeConflict {
			err = errors.Join(err, m.readLocked(ctx))
		}
		return err
	}
	for _, c := range changes {
		m.rows[c.Row.Name] = c.Row
		m.c.Log.Info("mapping changed", "mapping", c.Row.Name, "revision", c.Row.Revision, "source", c.Row.Source, "deleted", !c.Row.Live(), "by", c.Row.By)
	}
	return nil
}

// reachLocked tells the open sessions. The set is in force already, so that a session which is registered after this
// sees it, and one that was registered before is found here.
func (m *Mappings) reachLocked(ctx context.Context, changes []access.MappingChange) {
	sessions := m.sessions.Load()
	if sessions == nil || len(changes) == 0 {
		return
	}
	by := make(map[string]string, len(changes))
	for _, c := range changes {
		by[c.Row.Name] = c.Row.By
	}
	sessions.mappingsChanged(ctx, by)
}
