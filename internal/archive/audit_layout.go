package archive

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/jobgate/jobgate/proxy/record"
)

// AuditManifest closes an audit stream. It is written once, at the end of the stream, and signed.
type AuditManifest struct {
	SchemaVersion int               `json:"schema_version"`
	Stream        string            `json:"stream"`
	Day           string            `json:"day"`
	Version       string            `json:"version,omitempty"`
	Opened        time.Time         `json:"opened"`
	Ended         time.Time         `json:"ended"`
	Reason        string            `json:"reason"`      // day, stopped or interrupted
	Interrupted   bool              `json:"interrupted"` // the server went away while the stream was open
	After         *record.AuditHead `json:"after,omitempty"`
	Totals        AuditTotals       `json:"totals"`
	Missing       int64             `json:"missing"` // events that gap events speak of
	Parts         []Part            `json:"parts"`
	Events        uint64            `json:"events"`
	Head          string            `json:"head"` // SHA-256 of the last line, in hex
}

// AuditTotals are what a stream's events add up to.
type AuditTotals struct {
	Opened     int64 `json:"opened"`
	Renewed    int64 `json:"renewed"`
	Joined     int64 `json:"joined"`
	Refused    int64 `json:"refused"`    // written one by one
	Tried      int64 `json:"tried"`      // likewise; nothing was given out
	Suppressed int64 `json:"suppressed"` // summed up
	Acts       int64 `json:"acts"`
}

func (t *AuditTotals) add(e record.Event) {
	switch e.Type {
	case record.TypeExchange:
		d, _ := as[record.Exchange](e.Data)
		for outcome, n := range map[string]*int64{"opened": &t.Opened, "renewed": &t.Renewed, "joined": &t.Joined, "refused": &t.Refused, "tried": &t.Tried} {
			if d.Outcome == outcome {
				*n++
			}
		}
	case record.TypeRefusals:
		d, _ := as[record.Refusals](e.Data)
		t.Suppressed += d.Count
	case record.TypeAct:
		t.Acts++
	}
}

func newAuditManifest(st state) (AuditManifest, error) {
	o, err := parseLine[record.AuditOpened](st.Opened)
	if err != nil {
		return AuditManifest{}, err
	}
	last, err := record.ParseLine([]byte(st.Ended))
	if err != nil {
		return AuditManifest{}, err
	}
	var e record.AuditEnded
	if err := last.Decode(&e); err != nil {
		return AuditManifest{}, err
	}
	return AuditManifest{
		SchemaVersion: record.SchemaVersion, Stream: st.Session, Day: o.Day, Version: o.Version, Opened: st.OpenedAt, Ended: last.Time,
		Reason: e.Reason, Interrupted: e.Interrupted, After: o.After, Totals: st.Audit, Missing: st.Totals.Missing,
		Parts: st.Parts, Events: st.Seq, Head: st.Head.String(),
	}, nil
}

func parseAuditManifest(data []byte) (AuditManifest, error) {
	var m AuditManifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", manifestName, err)
	}
	if m.SchemaVersion != record.SchemaVersion {
		return m, fmt.Errorf("read %s: schema_version %d, this reader knows %d", manifestName, m.SchemaVersion, record.SchemaVersion)
	}
	return m, nil
}
