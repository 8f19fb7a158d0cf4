package archive

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/jobgate/jobgate/proxy/record"
)

// The names of a session's objects.
const (
	openingName  = "open.jws"
	manifestName = "manifest.json"
	manifestSig  = "manifest.jws"
	partFormat   = "events-%06d.jsonl.zst"
)

// What the archive's key signs, as the typ of the JWS.
const (
	typOpening  = "jobgate-open"
	typManifest = "jobgate-manifest"
)

// Manifest closes a session's archive. It is written once, at the end of the session, and signed.
type Manifest struct {
	SchemaVersion int                      `json:"schema_version"`
	Session       string                   `json:"session"`
	Mapping       string                   `json:"mapping"`
	Revision      int64                    `json:"revision"`
	Override      string                   `json:"override,omitempty"` // of the mapping's, that applied at the opening
	Issuer        string                   `json:"issuer"`
	IssuerURL     string                   `json:"issuer_url"`
	Provider      string                   `json:"provider"`
	Subject       string                   `json:"subject"`
	JobKey        string                   `json:"job_key"`
	JobURL        string                   `json:"job_url,omitempty"`
	Claims        map[string]any           `json:"claims,omitempty"`
	Connections   []string                 `json:"connections"`
	Mode          string                   `json:"mode"`
	Door          string                   `json:"door"`
	Opened        time.Time                `json:"opened"`
	Closes        time.Time                `json:"closes"` // when the window would have ended by itself
	Ended         time.Time                `json:"ended"`
	Reason        string                   `json:"reason"`
	By            string                   `json:"by,omitempty"`
	Interrupted   bool                     `json:"interrupted"` // the server went away at least once while the session was open
	Calls         int64                    `json:"calls"`
	Denials       int64                    `json:"denials"`
	Approvals     int64                    `json:"approvals"`
	Missing       int64                    `json:"missing"` // events that gap events speak of
	Counts        map[string]record.Counts `json:"counts,omitempty"`
	Parts         []Part                   `json:"parts"`
	Events        uint64                   `json:"events"`
	Head          string                   `json:"head"` // SHA-256 of the last line, in hex
}

// Part is one object of a record.
type Part struct {
	Name     string `json:"name"`
	Size     int64  `json:"size"`   // bytes of the object
	SHA256   string `json:"sha256"` // of the object, in hex
	FirstSeq uint64 `json:"first_seq"`
	LastSeq  uint64 `json:"last_seq"`
	Bytes    int64  `json:"bytes"` // of the lines, before compression
}

// root is the folder of all sessions, or of all audit streams.
type root string

const (
	sessionsRoot root = "v1/sessions"
	auditRoot    root = "v1/audit"
)

// rootOf tells by an id where its record lies.
func rootOf(id string) root {
	if record.IsAudit(id) {
		return auditRoot
	}
	return sessionsRoot
}

// under is the folder within a prefix, with a slash at its end.
func (r root) under(prefix string) string {
	return path.Join(strings.Trim(prefix, "/"), string(r)) + "/"
}

func (r root) day(prefix string, opened time.Time) string {
	return r.under(prefix) + "dt=" + opened.UTC().Format(time.DateOnly) + "/"
}

// Location returns the folder of a session or of an audit stream, with a slash at its end.
func Location(prefix, id string, opened time.Time) string {
	return rootOf(id).day(prefix, opened) + id + "/"
}

func partName(n int) string { return fmt.Sprintf(partFormat, n) }

// validSession reports whether an id can be the name of a folder in any bucket.
func validSession(id string) bool {
	for i := range len(id) {
		c := id[i]
		if c != '_' && c != '-' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return id != "" && len(id) <= 128
}

func parseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", manifestName, err)
	}
	if m.SchemaVersion != record.SchemaVersion {
		return m, fmt.Errorf("read %s: schema_version %d, this reader knows %d", manifestName, m.SchemaVersion, record.SchemaVersion)
	}
	return m, nil
}
