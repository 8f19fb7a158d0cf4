package api

import (
	"encoding/json"
	"time"
)

// List is how every list travels.
type List[T any] struct {
	Items []T `json:"items"`
}

// Problem is an error of the admin API, RFC 9457.
type Problem struct {
	Type   string `json:"type"` // "urn:jobgate:problem:" and the code
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// MappingList is the answer of GET /v1/mappings.
type MappingList struct {
	Items   []MappingView `json:"items"`
	Sources []SourceView  `json:"sources"` // those beside the configuration file
}

// SourceView is a place that mappings come from. What is wrong with it changes nothing of what is in force.
type SourceView struct {
	Source   string     `json:"source"` // a folder's path, a URL, or a bucket's with the prefix
	Kind     string     `json:"kind"`   // "folder", "url" or "bucket"
	Revision string     `json:"revision,omitempty"`
	Mappings int        `json:"mappings"` // in force
	OK       bool       `json:"ok"`
	Error    string     `json:"error,omitempty"` // why it cannot be read, or why what it says is not in force
	Since    *time.Time `json:"since,omitempty"` // of the error
	Read     *time.Time `json:"read,omitempty"`  // when it was last read
}

// MappingView is a mapping as the admin API shows it.
type MappingView struct {
	Name     string `json:"name"`
	Revision int64  `json:"revision"`
	Source   string `json:"source"` // "file" or "api"
	Deleted  bool   `json:"deleted,omitempty"`
	Changed  string `json:"changed,omitempty"` // RFC 3339
	By       string `json:"by,omitempty"`      // who changed it last
	// Origin is nil for one of the admin API, or that no file says any more.
	Origin   *Origin `json:"origin,omitempty"`
	Sessions int     `json:"open_sessions"`
	// Stopped is the stop that holds the mapping back: its own, or that of everything.
	Stopped *StopView `json:"stopped,omitempty"`
	Spec    Mapping   `json:"spec"`
}

// Origin is the file that says a mapping.
type Origin struct {
	From     string `json:"from"`     // a path, a URL, or an object of a bucket
	Revision string `json:"revision"` // names all that was read together with it
}

// SessionView is a session as the admin API shows it.
type SessionView struct {
	ID        string           `json:"id"`
	State     string           `json:"state"` // awake, dormant or ended
	Mapping   string           `json:"mapping"`
	Revision  int64            `json:"revision"`
	Origin    *Origin          `json:"origin,omitempty"`   // of the mapping's revision
	Override  string           `json:"override,omitempty"` // of the mapping's, that applies to the job
	Issuer    string           `json:"issuer"`
	Provider  string           `json:"provider"`
	Subject   string           `json:"subject"`
	JobKey    string           `json:"job_key"`
	Job       any              `json:"job"`
	Opened    time.Time        `json:"opened"`
	Closes    time.Time        `json:"closes"`
	Asleep    time.Time        `json:"lease_until"`
	Ended     *time.Time       `json:"ended,omitempty"`
	EndReason string           `json:"end_reason,omitempty"`
	Usage     map[string]Usage `json:"usage"` // by connection
	Tally     Tally            `json:"tally"`
	Sign      string           `json:"sign_of_life,omitempty"` // the latest: "fresh token", "job API" or "webhook"
	Stopped   []StopView       `json:"stopped,omitempty"`      // the stops that hold back its calls, or some of them
	Archive   string           `json:"archive"`                // where its archive lies or will lie
	Claims    map[string]any   `json:"claims,omitempty"`
}

// Usage is what a job used of one connection.
type Usage struct {
	Requests     int64 `json:"requests"`
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
}

// Tally counts what happened in a session.
type Tally struct {
	Calls     int64 `json:"calls"`
	Denials   int64 `json:"denials"`
	Observed  int64 `json:"would_have_denied"`
	Asked     int64 `json:"asked"`
	Approved  int64 `json:"approved"`
	Denied    int64 `json:"denied"`
	Expired   int64 `json:"expired"`
	Cancelled int64 `json:"cancelled"`
}

// HookResult is the answer to a CI provider's webhook.
type HookResult struct {
	Outcome  string `json:"outcome"`  // "ended", "running", "duplicate" or "ignored"
	Sessions int    `json:"sessions"` // how many were ended, or renewed
}

// ApprovalView is a question as the admin API shows it. Its texts are masked; who shows them must escape them.
type ApprovalView struct {
	ID         string     `json:"id"`
	State      string     `json:"state"`
	Session    string     `json:"session"`
	Call       string     `json:"call"`
	ToolUse    string     `json:"tool_use,omitempty"`
	Connection string     `json:"connection"`
	Mapping    string     `json:"mapping"`
	Rule       string     `json:"rule"`
	Reason     string     `json:"reason"`
	Approvers  []string   `json:"approvers"`
	Job        any        `json:"job"`
	Digest     string     `json:"digest"`
	Title      string     `json:"title"`
	Text       string     `json:"text"`
	Masked     int        `json:"masked"`
	Truncated  bool       `json:"truncated"`
	Asked      time.Time  `json:"asked"`
	Expires    time.Time  `json:"expires"`
	By         string     `json:"by,omitempty"`
	Via        string     `json:"via,omitempty"`
	VoteReason string     `json:"vote_reason,omitempty"`
	Decided    *time.Time `json:"decided,omitempty"`
}

// Vote is the body of POST /v1/approvals/{id}/approve and /deny. It may be empty.
type Vote struct {
	Reason string `json:"reason,omitempty"`
}

// Token is the answer of POST /oauth/token: RFC 8693 section 2.2.1, and what a job needs beside it.
type Token struct {
	AccessToken     string       `json:"access_token"`
	IssuedTokenType string       `json:"issued_token_type,omitempty"`
	TokenType       string       `json:"token_type"`
	ExpiresIn       int64        `json:"expires_in"` // seconds
	Scope           string       `json:"scope,omitempty"`
	SessionID       string       `json:"session_id,omitempty"`
	Mapping         string       `json:"mapping,omitempty"`
	Lease           int64        `json:"lease_seconds,omitempty"`
	Connections     []Connection `json:"connections,omitempty"`
}

// DryRun is what an exchange would have given out.
type DryRun struct {
	Exchange    string   `json:"exchange"` // its id
	Mapping     string   `json:"mapping"`
	Connections []string `json:"connections"`
	ExpiresIn   int64    `json:"expires_in"` // seconds
	Lease       int64    `json:"lease_seconds"`
	SessionID   string   `json:"session_id,omitempty"` // the job's, where it has one already
}

// Connection is one connection that a token is good for.
type Connection struct {
	Name    string            `json:"name"`
	Kind    string            `json:"kind"`
	BaseURL string            `json:"base_url"`
	Env     map[string]string `json:"env"` // what an SDK of the kind reads; never a token
}

// OAuthError is an error of the exchange, RFC 6749 section 5.2.
type OAuthError struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
	ExchangeID  string `json:"exchange_id,omitempty"`
	// Reason is "stopped" where an operator has stopped what the job asked for: that passes by itself, nothing else does.
	Reason string `json:"reason,omitempty"`
}

// Introspection is the answer of POST /oauth/introspect: RFC 7662 section 2.2, and the summary of the session.
type Introspection struct {
	Active      bool              `json:"active"`
	SessionID   string            `json:"session_id,omitempty"`
	Mapping     string            `json:"mapping,omitempty"`
	Override    string            `json:"override,omitempty"` // of the mapping's, that applies to the job
	Scope       string            `json:"scope,omitempty"`
	Exp         int64             `json:"exp,omitempty"` // seconds since 1970
	State       string            `json:"state,omitempty"`
	Window      *Span             `json:"window,omitempty"`
	Calls       int64             `json:"calls"`
	Denials     int64             `json:"denials"`
	Observed    int64             `json:"would_have_denied"`
	Approvals   Approvals         `json:"approvals"`
	Connections []ConnectionUsage `json:"connections,omitempty"`
	Denied      []Denial          `json:"denied,omitempty"`
	Archive     string            `json:"archive,omitempty"`
	EndReason   string            `json:"end_reason,omitempty"`
}

// Span is from Opens up to, not including, Closes.
type Span struct {
	Opens  time.Time `json:"opens"`
	Closes time.Time `json:"closes"`
}

// Approvals counts questions by how they ended.
type Approvals struct {
	Asked     int64 `json:"asked"`
	Approved  int64 `json:"approved"`
	Denied    int64 `json:"denied"`
	Expired   int64 `json:"expired"`
	Cancelled int64 `json:"cancelled"`
}

// ConnectionUsage is Usage with its connection's name.
type ConnectionUsage struct {
	Name string `json:"name"`
	Usage
}

// Denial is one refusal.
type Denial struct {
	Time       time.Time `json:"time"`
	Connection string    `json:"connection"`
	Rule       string    `json:"rule"`
	Reason     string    `json:"reason"`
	What       string    `json:"what"`
}

// DecodeMapping reads a mapping's JSON form strictly: an unknown key is an error, and so is one that is null.
func DecodeMapping(data []byte) (Mapping, error) {
	var m Mapping
	if err := decodeStrict(data, &m); err != nil {
		return m, err
	}
	return m, refuseNull(data)
}

// DecodeVote reads a vote's body; an empty one is a vote without a reason.
func DecodeVote(data []byte) (Vote, error) {
	var v Vote
	if len(data) == 0 {
		return v, nil
	}
	err := decodeStrict(data, &v)
	return v, err
}

// Encode returns a value's JSON with a line end.
func Encode(v any) ([]byte, error) {
	out, err := json.Marshal(v)
	return append(out, '\n'), err
}
