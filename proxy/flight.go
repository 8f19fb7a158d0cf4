package proxy

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/guard"
	"github.com/jobgate/jobgate/proxy/record"
)

// flight is one call on its way. All of it belongs to the handler's goroutine but cancel, which a watcher may call.
type flight struct {
	p       *Proxy
	w       http.ResponseWriter
	r       *http.Request
	rc      *http.ResponseController
	ctx     context.Context
	cancel  context.CancelCauseFunc
	started time.Time

	conn   *Connection
	token  access.AccessToken
	shown  []byte // the token itself, to be kept out of what goes upstream
	s      *access.Session
	policy *access.Policy
	grant  *guard.Grant
	masks  Masks
	call   access.Call
	body   request

	recorded lastBody // the body as the record has it, the base of the next one

	pending        []record.Event // noted and not yet appended
	noted          bool           // call.started is in the record or pending: call.ended must follow
	reserved       int64          // output tokens
	counted        bool           // a request is counted in the ledger
	hold           access.Hold    // where it is counted
	sent           time.Time      // zero until the request left
	streaming      bool           // the client got the head of an event stream
	answering      bool           // the client got a head
	emitted        bool           // the client got a part of the answer itself
	written        int64          // bytes of the answer
	status         int            // of the answer that the client got; 0 for a refusal
	upstreamStatus int
	usage          dialect.Usage
	metered        bool // usage is known
	upstream       string
	cred           struct{ name, version string }
	denied         bool // a denial of this call is counted
	window         *window
	deadline       time.Time // of writing, as it was set last
	unwatch        func()

	// What others than the handler's goroutine look at:
	judged   atomic.Pointer[access.Call] // what a change of the policy judges again
	unjudged atomic.Bool                 // a model's answer is passed on, and no rule is asked about its tool uses
	unread   atomic.Bool                 // reading the request failed
	mu       sync.Mutex                  // guards the connection's deadlines, and what is below
	landed   bool                        // the connection belongs to the next call
	away     bool                        // nothing of the call reaches the upstream any more
	leaving  chan struct{}               // closed then, where somebody waits for it
	consumed bool                        // the request was read to its end, or has no body
	severed  bool                        // by cut: deadlines are near
	unusable bool                        // reading was broken off: no further request can be read
}

func newID(prefix string) (string, error) {
	var raw [15]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("read random bytes for an id: %w", err)
	}
	return prefix + base64.RawURLEncoding.EncodeToString(raw[:]), nil
}

// SessionEnded cuts the call: the reader of the upstream and whoever waits for people wake up with the reason. A client
// that does not read gets a moment to, and is then cut, too.
func (f *flight) SessionEnded(reason access.EndReason) {
	f.cut(&access.Error{Code: access.CodeEnded, Reason: string(reason),
		Public: fmt.Sprintf("Jobgate: the session of mapping %q is over: %s", f.s.Mapping, reason.Text())})
}

// cut ends the call from outside. Whoever waits for its upstream, its client or people wakes up.
func (f *flight) cut(why *access.Error) {
	f.cancel(why)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.landed {
		return
	}
	f.severed = true
	_ = f.rc.SetWriteDeadline(time.Now().Add(f.p.c.Limits.Cut))
	if !f.consumed && !f.away { // else net/http reads for the client's leaving, and a failure ends the calls that come after this one
		f.unusable = true
		_ = f.rc.SetReadDeadline(time.Now())
	}
}

// readUntil moves the deadline of reading, unless the call was cut: a cut has set nearer ones.
func (f *flight) readUntil(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.landed && f.ctx.Err() == nil {
		_ = f.rc.SetReadDeadline(t)
	}
}

// hurry gives the client of a call that was cut its moment from now on, where a busy machine has used it up already. A
// write that failed has failed for good.
func (f *flight) hurry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.severed && !f.landed {
		_ = f.rc.SetWriteDeadline(time.Now().Add(f.p.c.Limits.Cut))
	}
	if f.unusable && !f.answering {
		f.w.Header().Set("Connection", "close") // else its client may send another request meanwhile
	}
}

// consume notes that the request was read to its end.
func (f *flight) consume() {
	f.readUntil(time.Time{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.consumed = true
}

// writeUntil moves the deadline of writing, unless the call was cut.
func (f *flight) writeUntil(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.landed && f.ctx.Err() == nil {
		_ = f.rc.SetWriteDeadline(t)
	}
}

// land gives the connection back: the next call on it must not inherit a deadline.
func (f *flight) land() {
	if f.streaming && f.ctx.Err() != nil {
		_ = f.rc.Flush() // while the deadline of a cut holds
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.landed = true
	if f.severed || !f.deadline.IsZero() {
		_ = f.rc.SetWriteDeadline(time.Time{})
	}
	if f.unusable {
		closeAfterReply(f.w)
	}
}

// closeAfterReply has net/http close the connection behind the answer, whose head may have left already: that is what
// it does of itself where a request was longer than its limit.
func closeAfterReply(w http.ResponseWriter) {
	over := http.MaxBytesReader(w, io.NopCloser(strings.NewReader("..")), 1)
	_, _ = io.Copy(io.Discard, over)
}

// PolicyChanged judges the call again by the new revision and cuts it where that refuses.
func (f *flight) PolicyChanged() {
	call := f.judged.Load()
	if call == nil {
		return // not described yet: admit takes the new policy
	}
	grant := f.p.c.Guard.Grant(f.s.Policy(), f.conn.Name)
	if grant == nil {
		f.cut(f.grantsNothing())
		return
	}
	if d := grant.Call(f.ctx, guard.Facts{Session: f.s, Call: call, Now: f.p.c.Now()}); d.Effect == access.Deny {
		f.cut(denial(f.s.Mapping, "the mapping was changed: ", call, d))
	} else if f.unjudged.Load() && grant.JudgesTools() {
		f.cut(access.Refuse(access.CodeDenied, fmt.Sprintf(
			"Jobgate: mapping %q was changed and has rules about tool uses now, which this answer was not held for; send the request again", f.s.Mapping)))
	}
}

func (f *flight) grantsNothing() *access.Error {
	return access.Refuse(access.CodeDenied, fmt.Sprintf("Jobgate: mapping %q was changed and grants nothing on connection %q any more", f.s.Mapping, f.conn.Name))
}

// denial is the error of a decision that refuses a call.
func denial(mapping, because string, c *access.Call, d access.Decision) *access.Error {
	return &access.Error{Code: access.CodeDenied, Reason: d.Rule, Public: fmt.Sprintf(
		"Jobgate: %s%s %s on %q denied by %s of mapping %q: %s", because, c.Method, c.Path, c.Connection, part(d.Rule), mapping, d.Reason)}
}

// part names what of a grant refused.
func part(rule string) string {
	switch rule {
	case "allow":
		return "the allow list"
	case "features", "models", "limits", "config":
		return "the " + rule
	}
	return fmt.Sprintf("rule %q", rule)
}

// cause says why the call cannot go on: what ended its context (the session's end, a denial, the client's leaving)
// comes before what a reader or writer made of that.
func (f *flight) cause(err error) error {
	if err == nil || f.ctx.Err() == nil {
		return err
	}
	if code := access.CodeOf(err); code == access.CodeDenied || code == access.CodeEnded || code == access.CodeStopped {
		return err
	}
	var refusal *access.Error
	why := context.Cause(f.ctx)
	if errors.As(why, &refusal) {
		return refusal
	}
	return &access.Error{Code: access.CodeCanceled, Public: "Jobgate: the client left", Err: why}
}

// note keeps an event for the next append.
func (f *flight) note(kind string, data any) {
	f.pending = append(f.pending, record.Event{Type: kind, Call: f.call.ID, Time: f.p.c.Now(), Data: data})
}

// write appends what was noted. With wait it has survived the end of the process when write returns; what cannot be
// written refuses the call. It goes on when the client has left: what happened is still recorded.
func (f *flight) write(wait bool) error {
	if len(f.pending) == 0 {
		return nil
	}
	events := f.pending
	f.pending = nil
	if err := f.p.c.Recorder.Append(context.WithoutCancel(f.ctx), f.s.ID, wait, events...); err != nil {
		return unrecordable(err)
	}
	return nil
}

func unrecordable(err error) error {
	return &access.Error{Code: access.CodeRecord, Err: err,
		Public: "Jobgate: the call cannot be recorded now, and nothing is sent that is not recorded; the operator finds the cause in the server's log"}
}

// close ends the call: the client is told, usage is settled, the end is recorded.
func (f *flight) close(err error) {
	err = f.cause(err)
	reason := f.reason(err)
	if err != nil {
		f.hurry()
		f.tell(err)
	}
	if code := access.CodeOf(err); f.noted && !f.denied && (code == access.CodeDenied || code == access.CodeStopped) {
		if rule := ruleOf(err); rule != "" && code == access.CodeDenied { // a change of the mapping cut it
			f.hit(rule, access.OutcomeDenied, f.callText())
		}
		f.countDenial(access.Decision{Rule: ruleOf(err), Reason: access.PublicText(err)}, f.call.Method+" "+f.call.Path)
	}
	if f.window != nil {
		if rest, ok := f.window.close(); ok {
			f.pending = append(f.pending, rest)
		}
	}
	counts := f.settle(err)
	if f.noted {
		f.note(record.TypeCallEnded, record.CallEnded{
			Connection: f.call.Connection, Status: f.status, Reason: reason, Detail: f.detail(err),
			InputTokens: f.usage.InputTokens, OutputTokens: f.usage.OutputTokens,
			CacheReadTokens: f.usage.CacheReadTokens, CacheWriteTokens: f.usage.CacheCreationTokens,
			RequestBytes: f.call.Bytes, ResponseBytes: f.written, UpstreamRequestID: f.upstream,
			Credential: f.cred.name, CredentialVersion: f.cred.version,
			Counts: record.Counts(counts), DurationMS: f.p.c.Now().Sub(f.started).Milliseconds(),
		})
		if werr := f.write(false); werr != nil {
			f.p.c.Log.Error("the end of a call is not recorded", "session", f.s.ID, "call", f.call.ID, "error", werr)
		}
	}
	f.report(reason, err)
	if err != nil && f.answering && !f.streaming {
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	}
}

// settle puts what was used in the place of what was reserved. An answer that broke off before its usage was told
// keeps its reservation: what the upstream computed cannot be known, and a limit must not grow by leaving early. An
// upstream that was never reached computed nothing.
func (f *flight) settle(err error) access.Counts {
	if f.s == nil || !f.counted {
		return access.Counts{}
	}
	if f.sent.IsZero() {
		return f.s.Release(f.hold)
	}
	output := f.usage.OutputTokens
	if !f.metered && err != nil && f.upstreamStatus < 400 && !unreached(err) && output < f.reserved {
		output = f.reserved
	}
	return f.s.Settle(f.hold, f.usage.InputTokens+f.usage.CacheReadTokens+f.usage.CacheCreationTokens, output)
}

// ruleOf is what of a grant an error names.
func ruleOf(err error) string {
	var e *access.Error
	errors.As(err, &e)
	return e.Reason
}

func unreached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// reason is the word of the record for how the call ended.
func (f *flight) reason(err error) string {
	if interrupted := (*access.Error)(nil); errors.As(err, &interrupted) && interrupted.Reason == record.ReasonInterrupted {
		return record.ReasonInterrupted
	}
	switch access.CodeOf(err) {
	case "":
		return "done"
	case access.CodeDenied:
		return "denied"
	case access.CodeEnded:
		return "ended"
	case access.CodeStopped:
		return "stopped"
	case access.CodeLimit:
		return "limit"
	case access.CodeCanceled:
		return "client_gone"
	case access.CodeUpstream:
		return "upstream_error"
	case access.CodeRecord:
		return "unrecordable"
	case access.CodeInvalid, access.CodeTooLarge:
		return "invalid"
	case access.CodeUnauthenticated:
		return "unauthenticated"
	}
	return "error"
}

func (f *flight) detail(err error) string {
	if err == nil {
		return ""
	}
	return f.masked(access.PublicText(err))
}

func (f *flight) report(reason string, err error) {
	ended := Ended{Reason: reason, Status: f.status, Duration: f.p.c.Now().Sub(f.started)}
	if f.conn != nil {
		ended.Connection, ended.Kind = f.conn.Name, f.conn.Kind
	}
	if f.s != nil {
		ended.Mapping = f.s.Mapping
	}
	f.log(ended, err)
	if f.p.c.Observe != nil {
		f.p.c.Observe(ended)
	}
}

func (f *flight) log(ended Ended, err error) {
	level := slog.LevelDebug
	if err != nil {
		level = slog.LevelInfo
	}
	if !f.p.c.Log.Enabled(f.ctx, level) {
		return
	}
	attrs := []any{"reason", ended.Reason, "connection", ended.Connection, "status", f.status, "duration_ms", ended.Duration.Milliseconds()}
	if f.s != nil {
		attrs = append(attrs, "session", f.s.ID, "call", f.call.ID, "mapping", f.s.Mapping)
	}
	if err != nil {
		attrs = append(attrs, "code", string(access.CodeOf(err)))
	}
	if err != nil && f.s != nil {
		attrs = append(attrs, "detail", f.detail(err), "cause", f.hide(err))
	}
	f.p.c.Log.Log(context.WithoutCancel(f.ctx), level, "call ended", attrs...)
}

// hide is an error's whole text for the operator's log, without what must not be there: causes quote what came from
// outside.
func (f *flight) hide(err error) string { return f.masked(err.Error()) }
