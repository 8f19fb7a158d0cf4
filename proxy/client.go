package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/record"
)

// beginAnswer sends the head. length is -1 where it is not known.
func (f *flight) beginAnswer(answer *http.Response, length int64) {
	f.status = answer.StatusCode
	if f.answering {
		f.openWindow(nil)
		return
	}
	h := f.w.Header()
	copyAnswerHeaders(h, answer.Header)
	if f.conn.Kind == KindAnthropic {
		dialect.DropResponseHeaders(h)
		h["Request-Id"] = []string{f.call.ID}
	}
	h["Jobgate-Call"] = []string{f.call.ID}
	harden(h)
	f.maskHeaders(h)
	delete(h, "Content-Length")
	if length >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	f.answering = true
	f.streaming = f.conn.Kind == KindAnthropic && strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
	f.openWindow(h)
	f.patience()
	f.w.WriteHeader(answer.StatusCode)
	if length < 0 {
		_ = f.rc.Flush()
	}
}

// maskHeaders looks at all values at once, and at each only where that finds something.
func (f *flight) maskHeaders(h http.Header) {
	var all []byte
	for _, values := range h {
		for _, v := range values {
			all = append(append(all, v...), '\n')
		}
	}
	if !f.masks.Held.Contains(all) {
		return
	}
	for name := range h {
		for i, v := range h[name] {
			if f.masks.Held.Contains([]byte(v)) {
				h[name] = append([]string(nil), h[name]...)
				h[name][i] = f.masked(v)
			}
		}
	}
}

// masked is a text as the record and people may read it.
func (f *flight) masked(text string) string {
	out, n := f.masks.Full.Mask(nil, []byte(text))
	if n == 0 {
		return text
	}
	return string(out)
}

func copyAnswerHeaders(dst, src http.Header) {
	for name, values := range src {
		switch name {
		case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate",
			"Content-Security-Policy", "X-Content-Type-Options", "Jobgate-Call", "Set-Cookie", "Alt-Svc", "Strict-Transport-Security":
			continue
		}
		dst[name] = values
	}
	for _, value := range src["Connection"] {
		for _, name := range strings.Split(value, ",") {
			delete(dst, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
}

// beginStream answers a streaming call at once, so that it can be kept alive while people decide.
func (f *flight) beginStream() {
	h := f.w.Header()
	h["Content-Type"] = []string{"text/event-stream; charset=utf-8"}
	h["Cache-Control"] = []string{"no-cache"}
	h["Request-Id"] = []string{f.call.ID}
	h["Jobgate-Call"] = []string{f.call.ID}
	f.status = http.StatusOK
	f.answering, f.streaming = true, true
	f.patience()
	f.w.WriteHeader(http.StatusOK)
	_ = f.rc.Flush()
}

// ping keeps a held stream alive.
func (f *flight) ping() error {
	f.patience()
	if _, err := f.w.Write(dialect.Anthropic{}.Ping()); err != nil {
		return f.clientGone(err)
	}
	if err := f.rc.Flush(); err != nil {
		return f.clientGone(err)
	}
	return nil
}

// emit gives bytes to the client and to the record. Blocking writes hold the upstream back.
func (f *flight) emit(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if f.ctx.Err() != nil {
		return f.cause(f.ctx.Err())
	}
	f.window.add(b)
	f.patience()
	n, err := f.w.Write(b)
	f.written += int64(n)
	if err == nil {
		err = f.rc.Flush()
	}
	if err != nil {
		return f.clientGone(err)
	}
	return nil
}

func (f *flight) clientGone(err error) error {
	return f.cause(&access.Error{Code: access.CodeCanceled, Public: "the client left or stopped reading", Err: err})
}

// patience moves the client's deadline, not at every write: setting it costs a timer.
func (f *flight) patience() {
	if now := time.Now(); f.deadline.Sub(now) < f.p.c.Limits.Client/2 {
		f.deadline = now.Add(f.p.c.Limits.Client)
		f.writeUntil(f.deadline)
	}
}

// tell says to the client why the call was refused or broke off, as far as it can still be told.
func (f *flight) tell(err error) {
	f.patience()
	switch {
	case f.answering && f.streaming:
		event := dialect.Anthropic{}.ErrorEvent(err, f.call.ID)
		if f.window != nil {
			f.window.add(event)
		}
		if _, werr := f.w.Write(event); werr == nil {
			_ = f.rc.Flush()
		}
	case f.answering:
	case f.call.Kind == KindAnthropic, f.conn == nil && f.r.Header.Get("Anthropic-Version") != "":
		dialect.Anthropic{}.Refuse(f.w, err, f.call.ID)
		_ = f.rc.Flush()
	default:
		dialect.HTTP{}.Refuse(f.w, err, f.call.ID)
		_ = f.rc.Flush()
	}
}

// openWindow begins the record's copy of the answer.
func (f *flight) openWindow(h http.Header) {
	var redactor redactor = &textRedactor{set: f.masks.Full}
	if f.streaming {
		redactor = &eventRedactor{filter: dialect.NewFilter(dialect.FilterConfig{Text: f.masks.Full, Opaque: f.masks.Full, RedactAll: true})}
	}
	first := record.Response{Status: f.status}
	if h != nil {
		first.Headers = make(map[string]string, 4)
		for _, name := range []string{"Content-Type", "Location", "Retry-After", "Etag"} {
			if v := h.Get(name); v != "" {
				first.Headers[strings.ToLower(name)] = f.masked(v)
			}
		}
	}
	f.window = newWindow(f, redactor, first)
}
