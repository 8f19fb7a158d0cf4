package access

import (
	"errors"
	"time"
)

// Code says what kind of failure an error is. Listeners translate codes into statuses by one table each; programs
// test codes, never texts.
type Code string

const (
	// CodeInternal is any failure that has no other code.
	CodeInternal Code = "internal"
	// CodeInvalid is a request that cannot be understood.
	CodeInvalid Code = "invalid_request"
	// CodeGrant is a token that is not accepted: RFC 6749 section 5.2, invalid_grant.
	CodeGrant Code = "invalid_grant"
	// CodeTarget is an identity that no mapping serves: RFC 8693 section 2.2.2, invalid_target.
	CodeTarget Code = "invalid_target"
	// CodeScope is a connection that was asked for and is not granted: RFC 6749 section 5.2, invalid_scope.
	CodeScope Code = "invalid_scope"
	// CodeUnavailable is a dependency that does not answer: keys of an issuer, the store.
	CodeUnavailable Code = "temporarily_unavailable"
	// CodeUnauthenticated is an access token that is unknown or expired, or whose session is dormant: a client that can
	// exchanges again.
	CodeUnauthenticated Code = "unauthenticated"
	// CodeEnded is a session that is over. Final: never answered with 401.
	CodeEnded Code = "ended"
	// CodeDenied is a call or tool use that a rule, a person, an allow list or a feature refuses.
	CodeDenied Code = "denied"
	// CodeStopped is a call that an operator's stop holds back. Final for this call: never answered with 401.
	CodeStopped Code = "stopped"
	// CodeLimit is a limit that is spent.
	CodeLimit Code = "limit"
	// CodeTooLarge is a request or a held part of one beyond its bound.
	CodeTooLarge Code = "too_large"
	// CodeRecord is an event that could not be written down, so that nothing may be sent.
	CodeRecord Code = "unrecordable"
	// CodeUpstream is an upstream that cannot be reached or breaks off.
	CodeUpstream Code = "upstream"
	// CodeNotFound is a thing that does not exist.
	CodeNotFound Code = "not_found"
	// CodeConflict is a change that lost against another.
	CodeConflict Code = "conflict"
	// CodeCanceled is a caller that left.
	CodeCanceled Code = "canceled"
)

// Error is a failure with a code for programs, a text for the caller, and a cause for the log. Public never holds a
// secret, nor more than the caller may know.
type Error struct {
	Code   Code
	Public string
	// Reason is a stable machine word below the code, such as "aud_mismatch" or "replayed". Empty where there is none.
	Reason string
	// RetryAfter is when it makes sense to ask again; zero where it does not.
	RetryAfter time.Duration
	// Exchange is the id of the exchange that was refused; "" elsewhere.
	Exchange string
	Err      error
}

// Error returns the text for the log: the public one and the cause.
func (e *Error) Error() string {
	text := e.Public
	if text == "" {
		text = string(e.Code)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Refuse returns an error of a code with a text for the caller.
func Refuse(code Code, public string) *Error { return &Error{Code: code, Public: public} }

// CodeOf returns the code of the first *Error in err's chain, CodeInternal for any other error and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// PublicText returns what the caller may read of err.
func PublicText(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Public != "" {
		return e.Public
	}
	return "internal error"
}
