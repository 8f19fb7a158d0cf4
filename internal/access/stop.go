package access

import (
	"fmt"
	"strings"
	"time"
)

// StopKind says what a stop holds back.
type StopKind string

const (
	// StopConnection holds back the calls of every mapping on one connection.
	StopConnection StopKind = "connection"
	// StopMapping holds back the calls and exchanges of one mapping.
	StopMapping StopKind = "mapping"
	// StopAll holds back all calls and exchanges, those of connections and mappings that come later among them.
	StopAll StopKind = "all"
)

// ReasonStopped is the reason of an exchange that a stop refuses.
const ReasonStopped = "stopped"

// StopOrder is an operator's word that nothing passes. It ends no session: what was open goes on
// once the stop is lifted, if its window is not over by then.
type StopOrder struct {
	Kind   StopKind
	Name   string // of the connection or mapping; "" for all
	Reason string // an operator's words, "" where none were given; jobs read them
	By     string
	At     time.Time
}

// String names what is stopped, as people say it.
func (s StopOrder) String() string {
	if s.Kind == StopAll {
		return "everything"
	}
	return fmt.Sprintf("%s %q", s.Kind, s.Name)
}

// because is the reason behind a colon, or nothing.
func (s StopOrder) because() string {
	if s.Reason == "" {
		return ""
	}
	return ": " + strings.TrimRight(s.Reason, ".;, ")
}

// Refusal is what a call gets that the stop holds back. It is final: no client sends it again by itself.
func (s StopOrder) Refusal() *Error {
	return &Error{Code: CodeStopped, Reason: ReasonStopped, Public: fmt.Sprintf(
		"Jobgate: %s is stopped by an operator%s; no call passes until an operator resumes it, so do not try again or look for a way around it. The session stays open.",
		s, s.because())}
}

// RefuseExchange is what an exchange gets that the stop holds back: RFC 8693 section 2.2.2, invalid_target.
func (s StopOrder) RefuseExchange() *Error {
	return &Error{Code: CodeTarget, Reason: ReasonStopped, Public: fmt.Sprintf(
		"%s is stopped by an operator%s; no job gets access until an operator resumes it. Nothing was used up: run the job again then",
		s, s.because())}
}
