package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/record"
)

// request is the body of a call: held whole, or the beginning of a stream and its rest.
type request struct {
	held  []byte
	rest  io.Reader // nil where held is all
	facts dialect.Facts
}

// describe reads what the rules need of the request, and notes it.
func (f *flight) describe() error {
	defer func() {
		if f.body.rest == nil {
			f.readUntil(time.Time{}) // else it would end the wait for the answer
		}
	}()
	err := f.readRequest()
	f.noteStarted()
	if err != nil {
		return err
	}
	call := f.call
	f.judged.Store(&call)
	if f.s.Policy() == f.policy {
		return nil // a change from here on finds what to judge again
	}
	if refusal := f.lookUpGrant(); refusal != nil {
		return refusal
	}
	return nil
}

func (f *flight) readRequest() error {
	encoded := f.r.Header.Get("Content-Encoding") != ""
	switch {
	case encoded && (f.conn.Kind != KindHTTP || f.grant.AsksAboutCalls() || f.grant.MaskRequests()):
		return access.Refuse(access.CodeInvalid, "Jobgate: requests to this connection are judged or masked and must come without a content-encoding")
	case f.conn.Kind == KindAnthropic:
		return f.describeModel()
	}
	return f.describePlain()
}

// noteStarted notes the call, a malformed one too.
func (f *flight) noteStarted() {
	f.note(record.TypeCallStarted, f.startedEvent())
	f.noted = true
	f.s.Count(func(t *access.Tally) { t.Calls++ })
}

// describeModel holds the whole request and reads it as the dialect does.
func (f *flight) describeModel() error {
	limit := f.p.c.Limits.Body
	if f.grant.AsksAboutCalls() {
		limit = min(limit, f.p.c.Limits.Held)
	}
	body, err := f.readHeld(limit)
	if err != nil {
		return err
	}
	if bytes.Contains(body, f.shown) { // an agent has read it, and its model would
		body = bytes.ReplaceAll(body, f.shown, []byte(hiddenToken))
	}
	f.body.held = body
	f.body.facts, err = dialect.Anthropic{}.Parse(f.call.Method, f.call.Path, f.r.Header, body)
	if err != nil {
		return err
	}
	facts := &f.body.facts
	f.call.Bytes = int64(len(body))
	f.call.Model, f.call.MaxTokens = facts.Model, facts.MaxTokens
	f.call.Stream = facts.Stream && f.asksModel()
	f.call.Tools, f.call.Features = facts.Tools, facts.Features
	return nil
}

// hiddenToken stands in place of the job's token in what a model reads.
const hiddenToken = "[masked:jobgate-token]"

// asksModel reports whether the answer is a model's message.
func (f *flight) asksModel() bool {
	return f.conn.Kind == KindAnthropic && f.call.Method == http.MethodPost && f.call.Path == "/v1/messages"
}

// describePlain reads the beginning of the request; all of it where a rule may ask about the call.
func (f *flight) describePlain() error {
	f.call.Bytes = f.r.ContentLength
	if f.grant.AsksAboutCalls() {
		body, err := f.readHeld(f.p.c.Limits.Held)
		if err != nil {
			return err
		}
		f.body.held, f.call.Bytes = body, int64(len(body))
		return f.refuseStrayBody()
	}
	if f.r.Body == nil || f.r.Body == http.NoBody {
		return nil
	}
	if f.r.ContentLength < 0 || f.r.ContentLength > peekBody {
		_ = f.rc.EnableFullDuplex() // an upstream may answer before it has read everything
	}
	size := int64(peekBody)
	if n := f.r.ContentLength; n >= 0 && n < size {
		size = n + 1 // with room to see the end
	}
	head := make([]byte, size)
	n, err := io.ReadFull(f.clientBody(), head)
	f.body.held = head[:n]
	switch {
	case err == nil:
		f.body.rest = f.clientBody()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if f.r.ContentLength > int64(n) {
			return &access.Error{Code: access.CodeCanceled, Public: "the client left within its request", Err: err}
		}
		f.call.Bytes = int64(n)
	default:
		return readError(err)
	}
	return f.refuseStrayBody()
}

// refuseStrayBody refuses a body that holds the token: what it is there for cannot be known.
func (f *flight) refuseStrayBody() error {
	if bytes.Contains(f.body.held, f.shown) {
		return strayBody()
	}
	return nil
}

// readHeld reads the whole body, at most limit bytes of it.
func (f *flight) readHeld(limit int64) ([]byte, error) {
	n := f.r.ContentLength
	tooLarge := func() error {
		return access.Refuse(access.CodeTooLarge, fmt.Sprintf("Jobgate: the request is longer than the %d bytes that can be held and judged here", limit))
	}
	switch {
	case n > limit:
		return nil, tooLarge()
	case n == 0 || f.r.Body == nil || f.r.Body == http.NoBody:
		return nil, nil
	case n > 0 && n <= 1<<20:
		body := make([]byte, n)
		if _, err := io.ReadFull(f.clientBody(), body); err != nil {
			return nil, readError(err)
		}
		return body, nil
	}
	var buf bytes.Buffer // a length that is only claimed takes no memory
	if _, err := io.Copy(&buf, io.LimitReader(f.clientBody(), limit+1)); err != nil {
		return nil, readError(err)
	}
	switch {
	case int64(buf.Len()) > limit:
		return nil, tooLarge()
	case n >= 0 && int64(buf.Len()) < n:
		return nil, readError(io.ErrUnexpectedEOF)
	}
	return buf.Bytes(), nil
}

func readError(err error) error {
	return &access.Error{Code: access.CodeCanceled, Public: "the request could not be read to its end", Err: err}
}

// clientBody reads the request and gives up on a client that stalls.
func (f *flight) clientBody() io.Reader { return &patientReader{f: f} }

type patientReader struct {
	f     *flight
	until time.Time
}

func (r *patientReader) Read(b []byte) (int, error) {
	if now := time.Now(); r.until.Sub(now) < r.f.p.c.Limits.Client/2 {
		r.until = now.Add(r.f.p.c.Limits.Client)
		r.f.readUntil(r.until)
	}
	n, err := r.f.r.Body.Read(b)
	switch {
	case err == io.EOF:
		r.f.consume()
	case err != nil:
		r.f.unread.Store(true)
	}
	return n, err
}

// digest binds a decision to exactly this call: everything that goes upstream but whether the answer is streamed.
func (f *flight) digest() string {
	h := sha256.New()
	for _, part := range []string{"call", f.s.ID, f.conn.Name, f.call.Method, f.call.Path, f.call.Query} {
		fmt.Fprintf(h, "%d:%s\n", len(part), part)
	}
	span := f.body.facts.StreamSpan
	h.Write(f.body.held[:span[0]])
	h.Write(f.body.held[span[1]:])
	return hex.EncodeToString(h.Sum(nil))
}

// keptHeaders stand in the record: who the client says that it is, and what it asks for.
var keptHeaders = []string{"Accept", "Anthropic-Beta", "Anthropic-Version", "Content-Type", "Idempotency-Key", "Traceparent", "User-Agent", "X-App"}

// maxKeptHeader is how much of one the record has, in bytes.
const maxKeptHeader = 1024

func keepHeader(name string) bool {
	return strings.HasPrefix(name, "X-Claude-Code-") || strings.HasPrefix(name, "X-Stainless-") || slices.Contains(keptHeaders, name)
}

func (f *flight) startedEvent() record.CallStarted {
	e := record.CallStarted{
		Connection: f.call.Connection, Method: f.call.Method, Path: f.call.Path, Model: f.call.Model, Stream: f.call.Stream,
		BodyBytes: f.call.Bytes, Client: f.r.RemoteAddr, Headers: make(map[string]string, 12),
	}
	e.Query = f.call.Query
	for name, values := range f.r.Header {
		if keepHeader(name) {
			e.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	f.maskStarted(&e)
	switch {
	case f.body.rest != nil:
		// what a masker cannot decide about yet, the beginning of a secret, is left out
		text := f.masks.Full.NewStream().Write(nil, f.body.held)
		e.Body = record.NewBody("", nil, text)
		e.Body.Truncated = true
	case len(f.body.held) > 0:
		base := f.p.bodies.base(f.s.ID, len(f.body.held))
		text, n, clean := f.masks.Full.MaskLike(base.clean, f.body.held)
		e.Masked += n
		e.Body = record.NewBody(base.call, base.text, text)
		f.recorded = lastBody{call: f.call.ID, text: text, clean: clean}
	}
	return e
}

// maskStarted masks what is no body. It looks at all at once, and at each only where that finds something.
func (f *flight) maskStarted(e *record.CallStarted) {
	var room [1024]byte
	all := append(append(append(append(append(room[:0], e.Path...), '\n'), e.Query...), '\n'), e.Model...)
	for _, value := range e.Headers {
		all = append(append(all, '\n'), value...)
	}
	if f.masks.Full.Contains(all) {
		masked := func(text string) string {
			out, n := f.masks.Full.Mask(nil, []byte(text))
			e.Masked += n
			return string(out)
		}
		e.Path, e.Query, e.Model = masked(e.Path), masked(e.Query), masked(e.Model)
		for name, value := range e.Headers {
			e.Headers[name] = masked(value)
		}
	}
	for name, value := range e.Headers {
		if len(value) > maxKeptHeader {
			e.Headers[name] = clip(value, maxKeptHeader)
		}
	}
}
