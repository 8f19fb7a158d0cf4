package access

import (
	"fmt"
	"time"
)

// ApprovalState is where a question stands. Pending is the only one that changes.
type ApprovalState string

const (
	Pending   ApprovalState = "pending"
	Approved  ApprovalState = "approved"
	Denied    ApprovalState = "denied"
	Expired   ApprovalState = "expired"
	Cancelled ApprovalState = "cancelled"
)

// Approval is a question to people about one exact call or tool use. Its texts are masked before they get here.
type Approval struct {
	ID         string
	Session    string
	Call       string
	ToolUse    string // id of the tool use; "" for a call
	Connection string
	Mapping    string
	Revision   int64
	Rule       string
	Reason     string
	Approvers  []string // groups
	Job        Job
	// Digest binds the answer: SHA-256, hex, of what would run.
	Digest string
	// Title is one line ("Bash", "POST /v1/deploys"); Text what would run, masked.
	Title  string
	Text   string
	Masked int // how many values are masked in Text
	// Truncated says that Text does not show all of it: such a question cannot be approved from a place that shows Text only.
	Truncated bool
	Asked     time.Time
	Expires   time.Time

	State   ApprovalState
	Vote    Vote   // who settled it; zero while pending
	Version int64  // grows by one with every change
	Note    string // why it was cancelled
}

// Vote is one person's answer, or the reason why a question needs none any more.
type Vote struct {
	State ApprovalState // Approved, Denied, Expired or Cancelled
	By    string        // who, in words: "Ana (U123)", "admin token"
	Via   string        // "slack", "cli", "api", "console", "" for the desk itself
	// Reason is the person's own text.
	Reason string
	At     time.Time
}

// Settle answers the question. Only a pending one can be settled; a loser gets CodeConflict with the outcome, and a
// vote that comes after the expiry is one, whether or not the expiry was written down already.
func (a Approval) Settle(v Vote) (Approval, error) {
	switch {
	case a.State != Pending:
		return a, &Error{Code: CodeConflict, Public: fmt.Sprintf("the question was already %s", a.Outcome())}
	case v.State == Pending || v.State == "":
		return a, Refuse(CodeInvalid, "a vote says approved or denied")
	case (v.State == Approved || v.State == Denied) && !v.At.Before(a.Expires):
		return a, &Error{Code: CodeConflict, Reason: string(Expired), Public: "the question had expired at " + a.Expires.UTC().Format(time.RFC3339)}
	}
	a.State, a.Vote = v.State, v
	a.Version++
	return a, nil
}

// Outcome says in words how the question ended.
func (a Approval) Outcome() string {
	switch a.State {
	case Approved, Denied:
		return fmt.Sprintf("%s by %s", a.State, a.Vote.By)
	case Cancelled:
		if a.Vote.Reason != "" {
			return "cancelled: " + a.Vote.Reason
		}
	}
	return string(a.State)
}
