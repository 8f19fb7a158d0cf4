package federation

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// Preview is what a Put would do.
type Preview struct {
	// Row is the mapping that would be replaced, zero for a new one or one that is deleted; Before is its wire form.
	Row    access.MappingRow
	Before api.Mapping
	// Changed is false where the mapping says this already.
	Changed bool
	// Ends are the open sessions that would end, and Stay counts those that would go on under the new grants.
	Ends []PreviewEnd
	Stay int
}

// PreviewEnd is an open session that a change would end, and why.
type PreviewEnd struct {
	SessionInfo
	Why string
}

// Preview returns what Put would do, and changes nothing. Errors are those of Put, but for those of the revision: one
// that is named must be the one in force.
func (m *Mappings) Preview(spec api.Mapping, ifMatch int64) (Preview, error) {
	mapping, err := m.c.Build(spec)
	if err != nil {
		return Preview{}, err
	}
	text, err := encodeMapping(spec)
	if err != nil {
		return Preview{}, err
	}
	m.mu.Lock()
	row, known := m.rows[spec.Name]
	_, named := m.file[spec.Name]
	ofAFile := m.ofAFileLocked(spec.Name)
	m.mu.Unlock()
	if named || known && row.Live() && row.Source == access.FromFile {
		return Preview{}, ofAFile
	}
	if err := matches(row, ifMatch, spec.Name); err != nil {
		return Preview{}, err
	}
	out := Preview{Changed: true}
	if known && row.Live() {
		out.Row, out.Changed = row, !bytes.Equal(row.Spec, text)
		if out.Before, err = decodeMapping(row); err != nil {
			return Preview{}, err
		}
	}
	out.Ends, out.Stay = m.judgedBy(mapping)
	return out, nil
}

// judgedBy tells the open sessions of a mapping apart by whether a changed form of it serves them, as a change does: with
// their stored claims, at the instant of their opening.
func (m *Mappings) judgedBy(changed *Mapping) (ends []PreviewEnd, stay int) {
	sessions := m.sessions.Load()
	if sessions == nil {
		return nil, 0
	}
	now := sessions.c.Now()
	for _, e := range sessions.all() {
		info := e.info(now)
		if info.Mapping != changed.Name() || info.State == access.Ended {
			continue
		}
		switch err := changed.Match(info.Identity, info.Opened); {
		case err != nil:
			ends = append(ends, PreviewEnd{info, access.PublicText(err)})
		case !now.Before(info.Opened.Add(changed.PolicyFor(info.Identity, 0).Window.Max)):
			ends = append(ends, PreviewEnd{info, fmt.Sprintf("window.max of %s is over", changed.PolicyFor(info.Identity, 0).Window.Max)})
		default:
			stay++
		}
	}
	slices.SortFunc(ends, func(a, b PreviewEnd) int { return strings.Compare(a.ID, b.ID) })
	return ends, stay
}
