package dialect

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// refusal is how a code looks to a client: a status, and what the dialect calls it.
type refusal struct {
	status int
	kind   string
}

// anthropicRefusals renders codes as Claude Code shows them best. A 400 of type policy_blocked is shown as it stands, is
// not asked again and makes the client try no other model; a 403 would read as a failed login, a 404 as a wrong model, a
// 413 as a body over 32 MB. What is not in the table is a 400.
var anthropicRefusals = map[access.Code]refusal{
	access.CodeUnauthenticated: {http.StatusUnauthorized, "authentication_error"},
	access.CodeLimit:           {http.StatusTooManyRequests, "billing_error"},
	access.CodeRecord:          {http.StatusServiceUnavailable, "api_error"},
	access.CodeUnavailable:     {http.StatusServiceUnavailable, "api_error"},
	access.CodeCanceled:        {http.StatusServiceUnavailable, "api_error"},
	access.CodeUpstream:        {http.StatusBadGateway, "api_error"},
	access.CodeInternal:        {http.StatusInternalServerError, "api_error"},
}

func anthropicRefusal(err error) refusal {
	if r, ok := anthropicRefusals[access.CodeOf(err)]; ok {
		return r
	}
	return refusal{http.StatusBadRequest, "policy_blocked"}
}

// Refuse answers a call with err's code and public text, and tells the client not to ask again. callID is what a user
// quotes.
func (Anthropic) Refuse(w http.ResponseWriter, err error, callID string) {
	r := anthropicRefusal(err)
	refuse(w, err, callID, "application/json", r.status, anthropicError(nil, r.kind, err, callID))
}

// ErrorEvent returns the event that ends a stream with err: clients show its message, also behind text that they have
// shown already.
func (Anthropic) ErrorEvent(err error, callID string) []byte {
	out := append([]byte(nil), "event: error\ndata: "...)
	out = anthropicError(out, anthropicRefusal(err).kind, err, callID)
	return append(out, "\n\n"...)
}

// Ping returns the event that keeps a stream alive.
func (Anthropic) Ping() []byte { return []byte("event: ping\ndata: {\"type\": \"ping\"}\n\n") }

func anthropicError(dst []byte, kind string, err error, callID string) []byte {
	dst = append(dst, `{"type":"error","error":{"type":`...)
	dst = appendString(dst, kind)
	dst = append(dst, `,"message":`...)
	dst = appendString(dst, publicText(err))
	dst = append(dst, `},"request_id":`...)
	dst = appendString(dst, callID)
	return append(dst, '}')
}

// HTTP is the dialect of connections whose body Jobgate does not understand.
type HTTP struct{}

// httpRefusals renders codes as statuses; what is not in the table is a 403.
var httpRefusals = map[access.Code]int{
	access.CodeInvalid:         http.StatusBadRequest,
	access.CodeUnauthenticated: http.StatusUnauthorized,
	access.CodeLimit:           http.StatusTooManyRequests,
	access.CodeTooLarge:        http.StatusRequestEntityTooLarge,
	access.CodeNotFound:        http.StatusNotFound,
	access.CodeConflict:        http.StatusConflict,
	access.CodeRecord:          http.StatusServiceUnavailable,
	access.CodeUnavailable:     http.StatusServiceUnavailable,
	access.CodeCanceled:        http.StatusServiceUnavailable,
	access.CodeUpstream:        http.StatusBadGateway,
	access.CodeInternal:        http.StatusInternalServerError,
}

// Refuse answers a call with problem details (RFC 9457). Their type is "urn:jobgate:problem:" and the code, their
// instance the call id.
func (HTTP) Refuse(w http.ResponseWriter, err error, callID string) {
	code := access.CodeOf(err)
	status, ok := httpRefusals[code]
	if !ok {
		status = http.StatusForbidden
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	body := append([]byte(nil), `{"type":`...)
	body = appendString(body, "urn:jobgate:problem:"+string(code))
	body = append(body, `,"title":`...)
	body = appendString(body, http.StatusText(status))
	body = append(body, `,"status":`...)
	body = strconv.AppendInt(body, int64(status), 10)
	body = append(body, `,"detail":`...)
	body = appendString(body, publicText(err))
	body = append(body, `,"instance":`...)
	body = appendString(body, callID)
	refuse(w, err, callID, "application/problem+json", status, append(body, '}'))
}

// refuse writes what both dialects have in common.
func refuse(w http.ResponseWriter, err error, callID, contentType string, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Should-Retry", "false")
	h.Set("Request-Id", callID)
	var e *access.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		seconds := (e.RetryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left has nobody to tell
}

// publicText is what the caller may read, with the word in front that says who speaks.
func publicText(err error) string {
	text := access.PublicText(err)
	if strings.HasPrefix(text, "Jobgate:") {
		return text
	}
	return "Jobgate: " + text
}

func appendString(dst []byte, text string) []byte {
	dst = append(dst, '"')
	dst = appendEscaped(dst, validText(text))
	return append(dst, '"')
}

func validText(text string) []byte { return []byte(strings.ToValidUTF8(text, "\uFFFD")) }
