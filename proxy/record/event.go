package record

import "time"

// SchemaVersion is the version of the line format that this package writes and reads.
const SchemaVersion = 1

// MaxLine is the longest line, newline included, that is written or read: a body of 32 MiB, every byte of it escaped once, and room.
const MaxLine = 96 << 20

// The types of events, in the order in which a call meets them.
const (
	TypeSessionOpened   = "session.opened"
	TypeSessionJoined   = "session.joined"
	TypeCallStarted     = "call.started"
	TypeDecision        = "decision"
	TypeApprovalAsked   = "approval.asked"
	TypeApprovalDecided = "approval.decided"
	TypeCallSent        = "call.sent"
	TypeResponse        = "response"
	TypeToolUse         = "tool_use"
	TypeCallEnded       = "call.ended"
	TypeSessionEnded    = "session.ended"
	TypeGap             = "gap"
)

// ReasonInterrupted is the reason of a call whose process went away before the call had ended.
const ReasonInterrupted = "interrupted"

// Event is one line of a session's record before it is chained.
type Event struct {
	Type string    // one of the Type constants
	Call string    // id of the call, "" for events of the session
	Time time.Time // when it happened; written in UTC
	Data any       // the struct that belongs to Type, by value or pointer; nil writes no data
}

// SessionOpened is the first event of every record: who, under which mapping, for how long.
type SessionOpened struct {
	Mapping     string         `json:"mapping"`
	Revision    int64          `json:"revision"`
	Origin      *Origin        `json:"origin,omitempty"`   // nil for a mapping of the admin API
	Override    string         `json:"override,omitempty"` // of the mapping's, that applied to the job
	Issuer      string         `json:"issuer"`
	IssuerURL   string         `json:"issuer_url"`
	Provider    string         `json:"provider"`
	Subject     string         `json:"subject"`
	JobKey      string         `json:"job_key"`
	JobURL      string         `json:"job_url,omitempty"`
	Claims      map[string]any `json:"claims,omitempty"`
	Connections []string       `json:"connections"`
	Opens       time.Time      `json:"opens"`
	Closes      time.Time      `json:"closes"`
	Lease       string         `json:"lease"` // a Go duration, such as "15m0s"
	Mode        string         `json:"mode"`  // "enforce" or "observe"
	Door        string         `json:"door"`  // which exchange opened it
	Version     string         `json:"version,omitempty"`
}

// Origin is the file that said a mapping when a session was opened.
type Origin struct {
	From     string `json:"from"`     // a path, a URL, or an object of a bucket
	Revision string `json:"revision"` // names all that was read together with it: "sha256:" and a digest, and the commit where there is one
}

// SessionJoined is a further access token of an open session, or a renewal of its lease.
type SessionJoined struct {
	Door           string `json:"door"`
	Connection     string `json:"connection,omitempty"`
	TokenHash      string `json:"token_hash,omitempty"` // SHA-256 in hex of the CI token's signed part
	Renewed        bool   `json:"renewed,omitempty"`
	ServiceAccount string `json:"service_account,omitempty"`
	Workspace      string `json:"workspace,omitempty"`
}

// CallStarted is a request as it came, masked, before anything was decided about it.
type CallStarted struct {
	Connection string            `json:"connection"`
	Method     string            `json:"method"`
	Path       string            `json:"path"`
	Query      string            `json:"query,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Model      string            `json:"model,omitempty"`
	Stream     bool              `json:"stream,omitempty"`
	Body       *Body             `json:"body,omitempty"`
	BodyBytes  int64             `json:"body_bytes"` // length as sent by the client, before masking
	Client     string            `json:"client,omitempty"`
	Masked     int               `json:"masked,omitempty"` // number of places masked
}

// Decision is what the rules said of a call or of one tool use.
type Decision struct {
	Subject  string     `json:"subject"` // "call", or the id of the tool use
	Effect   string     `json:"effect"`
	Rule     string     `json:"rule,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Observed []Observed `json:"observed,omitempty"`
}

// Observed is what a rule in observe mode would have done.
type Observed struct {
	Rule   string `json:"rule"`
	Effect string `json:"effect"`
	Reason string `json:"reason,omitempty"`
}

// ApprovalAsked is a question put to people.
type ApprovalAsked struct {
	Approval  string    `json:"approval"`
	ToolUse   string    `json:"tool_use,omitempty"`
	Rule      string    `json:"rule"`
	Reason    string    `json:"reason,omitempty"`
	Digest    string    `json:"digest"` // what exactly was asked about, as SHA-256 in hex
	Approvers []string  `json:"approvers,omitempty"`
	Expires   time.Time `json:"expires"`
	Text      string    `json:"text,omitempty"` // what the people were shown, masked
}

// ApprovalDecided is how a question ended.
type ApprovalDecided struct {
	Approval string `json:"approval"`
	State    string `json:"state"` // approved, denied, expired, cancelled
	By       string `json:"by,omitempty"`
	Via      string `json:"via,omitempty"` // slack, console, cli, api
	Reason   string `json:"reason,omitempty"`
}

// CallSent says that the request is about to leave for the upstream. It is written before the first byte leaves.
type CallSent struct {
	Upstream          string `json:"upstream"`
	Credential        string `json:"credential,omitempty"` // name of the credential, never its value
	CredentialVersion string `json:"credential_version,omitempty"`
	Counts            Counts `json:"counts,omitzero"`
}

// Counts are the absolute counters of the job's ledger for the session's connection after the event that carries them. In call.sent they
// include what is reserved for the call.
type Counts struct {
	Requests     int64 `json:"requests"`
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
}

// Response is a piece of what the upstream answered. Status and Headers stand in the first one of a call only.
type Response struct {
	Status  int               `json:"status,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Text    string            `json:"text,omitempty"`
	Base64  bool              `json:"base64,omitempty"` // Text is base64 (RFC 4648 section 4) of bytes that are not UTF-8
	Chunks  []Chunk           `json:"chunks,omitempty"`
	Masked  int               `json:"masked,omitempty"`
}

// Chunk says when a part of a Response's text came.
type Chunk struct {
	Offset int   `json:"o"` // where it begins in the text, in bytes (of the decoded text where Base64 is set)
	At     int64 `json:"t"` // milliseconds since call.sent
}

// ToolUse is a tool use that the model asked for, and what became of it.
type ToolUse struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Input  string `json:"input,omitempty"` // the upstream's own JSON text, masked
	Effect string `json:"effect,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Reason string `json:"reason,omitempty"`
	Action string `json:"action"` // passed, told, stopped, failed
}

// CallEnded closes a call. Every call.started is followed by exactly one.
type CallEnded struct {
	Connection        string `json:"connection,omitempty"`
	Status            int    `json:"status,omitempty"`
	Reason            string `json:"reason"` // done, denied, client_gone, upstream_error, ended, interrupted, …
	Detail            string `json:"detail,omitempty"`
	InputTokens       int64  `json:"input_tokens,omitempty"`
	OutputTokens      int64  `json:"output_tokens,omitempty"`
	CacheReadTokens   int64  `json:"cache_read_tokens,omitempty"`
	CacheWriteTokens  int64  `json:"cache_write_tokens,omitempty"`
	RequestBytes      int64  `json:"request_bytes,omitempty"`
	ResponseBytes     int64  `json:"response_bytes,omitempty"`
	UpstreamRequestID string `json:"upstream_request_id,omitempty"`
	Credential        string `json:"credential,omitempty"`
	CredentialVersion string `json:"credential_version,omitempty"`
	Counts            Counts `json:"counts,omitzero"`
	DurationMS        int64  `json:"duration_ms"`
}

// SessionEnded is the last event of every finished record.
type SessionEnded struct {
	Reason      string            `json:"reason"`
	By          string            `json:"by,omitempty"`
	Calls       int64             `json:"calls"`
	Denials     int64             `json:"denials"`
	Approvals   int64             `json:"approvals"`
	Interrupted bool              `json:"interrupted,omitempty"`
	Counts      map[string]Counts `json:"counts,omitempty"` // by connection
}

// Gap stands where events could not be written.
type Gap struct {
	Reason  string `json:"reason"`
	Missing int64  `json:"missing"` // how many events; 0 when nobody knows
}

// NewData returns a pointer to the empty struct that belongs to an event type, or nil for a type that this version does not know.
func NewData(eventType string) any {
	switch eventType {
	case TypeSessionOpened:
		return new(SessionOpened)
	case TypeSessionJoined:
		return new(SessionJoined)
	case TypeCallStarted:
		return new(CallStarted)
	case TypeDecision:
		return new(Decision)
	case TypeApprovalAsked:
		return new(ApprovalAsked)
	case TypeApprovalDecided:
		return new(ApprovalDecided)
	case TypeCallSent:
		return new(CallSent)
	case TypeResponse:
		return new(Response)
	case TypeToolUse:
		return new(ToolUse)
	case TypeCallEnded:
		return new(CallEnded)
	case TypeSessionEnded:
		return new(SessionEnded)
	case TypeGap:
		return new(Gap)
	}
	return newAuditData(eventType)
}
