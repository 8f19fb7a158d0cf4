package access

import "time"

// Reasons of the refusals that a store gives when a change loses against another. They are CodeConflict.
const (
	// ReasonReplayed is a CI token that was used before.
	ReasonReplayed = "replayed"
	// ReasonRevision is a mapping whose revision is no longer the one that was judged, or that is deleted.
	ReasonRevision = "mapping_changed"
	// ReasonOpened is a job that has a session under the mapping already.
	ReasonOpened = "already_open"
	// ReasonJoins is a CI token that has joined as often as it may.
	ReasonJoins = "joins_spent"
)

// MappingSource says who owns a mapping.
type MappingSource string

const (
	// FromFile is a mapping of the configuration file.
	FromFile MappingSource = "file"
	// FromAPI is a mapping that was put through the admin API.
	FromAPI MappingSource = "api"
)

// Origin is what says a mapping: zero for one that was put through the admin API.
type Origin struct {
	// From is the file, as people find it: a path, a URL, or an object of a bucket.
	From string
	// Revision names all that was read together with it: "sha256:" and a digest, and the commit where there is one.
	Revision string
}

// MappingRow is what is kept of a mapping. A deleted one stays as a tombstone, so that its revisions go on.
type MappingRow struct {
	Name     string
	Revision int64 // from 1, grows by one with every change, deletions included
	Source   MappingSource
	Spec     []byte // the wire form, JSON
	Changed  time.Time
	By       string // who changed it last
	// Deleted is when it was deleted, zero for one in force; DeletedVia is who took it away: the file that names it no
	// more, or the API, whose word holds against the file.
	Deleted    time.Time
	DeletedVia MappingSource
}

// Live reports whether the mapping is in force.
func (m MappingRow) Live() bool { return m.Deleted.IsZero() }

// MappingChange replaces a mapping whose revision is From; 0 for one that must not exist.
type MappingChange struct {
	Row  MappingRow
	From int64
	// Restored says that a mapping which was deleted is put in force again as it was.
	Restored bool
}

// LedgerKey names one job under one mapping.
type LedgerKey struct {
	Issuer  string
	Job     JobKey
	Mapping string
}

// SessionRow is what is kept of a session and of its job's ledger. A job has one session under a mapping, ever.
type SessionRow struct {
	ID       string
	Mapping  string
	Revision int64 // of the mapping, at the opening
	Origin   Origin
	Override string // of the mapping's, that applied then; "" for none
	Identity Identity
	Door     string // where it was opened: "/oauth/token" or a connection's
	Opened   time.Time
	Closes   time.Time
	Asleep   time.Time

	Ended   time.Time // zero while it is open
	Reason  EndReason
	EndedBy string

	Counts map[string]Counts
	Tally  Tally
}

// Key returns the ledger's key.
func (r SessionRow) Key() LedgerKey {
	return LedgerKey{Issuer: r.Identity.Issuer, Job: r.Identity.JobKey, Mapping: r.Mapping}
}

// SeenToken is a CI token that was used, named as Identity.TokenID names it.
type SeenToken struct {
	Issuer  string
	ID      string
	Mapping string
	Session string
	Until   time.Time // until when it could be shown again
	Joins   int
}

// Opening is what an exchange that opens a session writes at once: nothing of it, or all.
type Opening struct {
	Session SessionRow
	Seen    SeenToken
	Token   AccessToken
}

// Renewal is what a fresh CI token of a job that has a session writes at once.
type Renewal struct {
	Asleep  time.Time
	Seen    SeenToken
	Token   AccessToken
	Dropped []TokenHash // tokens that make room
}

// Joining is what a further access token without a fresh CI token writes at once.
type Joining struct {
	// Issuer and TokenID name the CI token that joins; both empty where an access token does.
	Issuer, TokenID string
	// MaxJoins is how often a CI token may.
	MaxJoins int
	Token    AccessToken
	Dropped  []TokenHash
}

// SessionEnd is the end of a session, with what the job had used by then.
type SessionEnd struct {
	Session string
	Reason  EndReason
	By      string
	At      time.Time
	Counts  map[string]Counts
	Tally   Tally
}

// Usage is what a session has used so far.
type Usage struct {
	Session string
	Counts  map[string]Counts
	Tally   Tally
	Tokens  []TokenUse
	// Asleep is the end of a lease that was renewed without a token, zero where there is nothing to write.
	Asleep time.Time
}

// TokenUse is when a token was last shown.
type TokenUse struct {
	Hash TokenHash
	Last time.Time
}

// StoredToken is an access token with its last use.
type StoredToken struct {
	AccessToken
	LastUsed time.Time
}
