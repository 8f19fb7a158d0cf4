package record

import (
	"strings"
	"time"
)

// AuditPrefix begins the id of an audit stream: the record of what no session's record holds, who was let in and who was refused, and
// what people did to that.
const AuditPrefix = "aud_"

// IsAudit reports whether an id is that of an audit stream.
func IsAudit(id string) bool { return strings.HasPrefix(id, AuditPrefix) }

// The types of events of an audit stream. Gap events stand there, too.
const (
	TypeAuditOpened = "audit.opened"
	TypeExchange    = "exchange"
	TypeRefusals    = "exchange.refusals"
	TypeAct         = "act"
	TypeAuditEnded  = "audit.ended"
)

// AuditOpened is the first event of an audit stream.
type AuditOpened struct {
	Day     string `json:"day"` // of the stream, in UTC, such as 2026-11-24
	Version string `json:"version,omitempty"`
	// After is the stream that this server wrote before; absent for its first one. So a whole stream cannot vanish unnoticed.
	After *AuditHead `json:"after,omitempty"`
}

// AuditHead says how an audit stream ended.
type AuditHead struct {
	Stream string `json:"stream"`
	Day    string `json:"day"`
	Events uint64 `json:"events"`
	Head   string `json:"head"` // SHA-256 of its last line, in hex
}

// AuditEnded is the last event of an audit stream.
type AuditEnded struct {
	Reason      string `json:"reason"` // day, stopped, or interrupted where the server went away and a later start closes it
	Interrupted bool   `json:"interrupted,omitempty"`
}

// Exchange is one exchange of a CI token, or of an access token for another: opened, renewed, joined, tried (nothing was given out) or refused. It is written before
// the answer leaves. Of a token that did not verify nothing is said but the issuer that it names and why it was refused.
type Exchange struct {
	Exchange string `json:"exchange"` // id, as the job's log and the server's log show it
	Door     string `json:"door"`
	Outcome  string `json:"outcome"`
	Verified bool   `json:"verified"`
	Issuer   string `json:"issuer,omitempty"` // name in this deployment
	// ClaimedIssuer is what a token that did not verify says; cut and escaped.
	ClaimedIssuer string         `json:"claimed_issuer,omitempty"`
	IssuerURL     string         `json:"issuer_url,omitempty"`
	Provider      string         `json:"provider,omitempty"`
	Subject       string         `json:"subject,omitempty"`
	JobKey        string         `json:"job_key,omitempty"`
	JobURL        string         `json:"job_url,omitempty"`
	Token         string         `json:"token,omitempty"`  // id of the CI token: its jti, or the SHA-256 of its signed part
	Claims        map[string]any `json:"claims,omitempty"` // of a verified token; not of a join, whose session's record has them
	Asked         *Asked         `json:"asked,omitempty"`
	Mapping       string         `json:"mapping,omitempty"`
	Revision      int64          `json:"revision,omitempty"`
	Session       string         `json:"session,omitempty"`
	Connections   []string       `json:"connections,omitempty"`
	Code          string         `json:"code,omitempty"`
	Reason        string         `json:"reason,omitempty"`
	Detail        string         `json:"detail,omitempty"`
	Failed        []Failed       `json:"failed,omitempty"`
	// Suppressed is how many refusals of the same kind were not written since the last one that was; they are summed up in
	// exchange.refusals.
	Suppressed int64 `json:"suppressed,omitempty"`
}

// Asked is what the job asked for beside showing its token.
type Asked struct {
	Mapping string   `json:"mapping,omitempty"`
	Scope   []string `json:"scope,omitempty"`
}

// Failed is a condition that a refused job did not hold, with both values.
type Failed struct {
	Mapping string `json:"mapping"`
	Kind    string `json:"kind"` // match, require, when, ...
	On      string `json:"on,omitempty"`
	Got     string `json:"got"`
	Wanted  string `json:"wanted"`
	Reason  string `json:"reason,omitempty"`
}

// Refusals sums up refusals that were too many to be written one by one.
type Refusals struct {
	Since time.Time      `json:"since"`
	Until time.Time      `json:"until"`
	Count int64          `json:"count"`
	By    []RefusalCount `json:"by"`
}

// RefusalCount counts refusals of one kind.
type RefusalCount struct {
	Class  string `json:"class"`            // unverified, stranger or known; trial for trials that would have been served
	Issuer string `json:"issuer,omitempty"` // name of a trusted issuer, or what the token says, cut and escaped; "" where it was not kept
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
}

// What people do that changes access, as Act.Act says it.
const (
	ActMappingPut     = "mapping.put"
	ActMappingDelete  = "mapping.delete"
	ActMappingRestore = "mapping.restore"
	ActMappingReload  = "mapping.reload" // the configuration file names it, or names it otherwise than before
	ActSessionClose   = "session.close"
	ActApprove        = "approval.approve"
	ActDeny           = "approval.deny"
	ActStop           = "stop"   // a kill switch is pulled
	ActResume         = "resume" // and let go
)

// Act is something a person did that changes what jobs may do. What gives access is written before it takes effect; what takes access
// away never waits for its record.
type Act struct {
	Act      string `json:"act"`
	Of       string `json:"of"` // name of the mapping, id of the session or of the approval; for a kill switch what it stops
	By       string `json:"by"`
	Via      string `json:"via,omitempty"` // api, cli, slack, socket, file
	Outcome  string `json:"outcome,omitempty"`
	Revision int64  `json:"revision,omitempty"` // of the mapping, after the act
	Mapping  string `json:"mapping,omitempty"`  // of the session or the approval
	Session  string `json:"session,omitempty"`
	Digest   string `json:"digest,omitempty"` // of what was approved or denied; of a mapping's new text, SHA-256 in hex
	Rule     string `json:"rule,omitempty"`
	Reason   string `json:"reason,omitempty"` // in the person's words
}

func newAuditData(eventType string) any {
	switch eventType {
	case TypeAuditOpened:
		return new(AuditOpened)
	case TypeExchange:
		return new(Exchange)
	case TypeRefusals:
		return new(Refusals)
	case TypeAct:
		return new(Act)
	case TypeAuditEnded:
		return new(AuditEnded)
	}
	return nil
}
