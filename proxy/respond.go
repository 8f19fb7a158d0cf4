package proxy

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/mask"
	"github.com/jobgate/jobgate/proxy/record"
)

var buffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// respond judges and masks the answer, and gives the record its own copy.
func (f *flight) respond(answer *http.Response) error {
	f.upstream, f.upstreamStatus = f.masked(answer.Header.Get("Request-Id")), answer.StatusCode
	if answer.StatusCode < 200 || answer.StatusCode > 599 {
		return f.badAnswer(fmt.Errorf("status %d", answer.StatusCode))
	}
	bodiless := f.r.Method == http.MethodHead || answer.StatusCode == http.StatusNoContent || answer.StatusCode == http.StatusNotModified
	if bodiless && !f.asksModel() {
		f.beginAnswer(answer, answer.ContentLength)
		return nil
	}
	body := newLivelyReader(answer.Body, f.p.c.Limits.Idle, f.silent)
	defer body.stop()
	answer.Body = body
	if err := f.decode(answer); err != nil {
		return err
	}
	media, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	switch {
	case f.conn.Kind == KindHTTP:
		return f.respondPlain(answer)
	case answer.StatusCode >= 400:
		return f.respondError(answer, media)
	case answer.StatusCode >= 300:
		return f.badAnswer(fmt.Errorf("status %d, a redirect, which is not followed", answer.StatusCode))
	case f.asksModel():
		return f.respondMessage(answer, media)
	case media == "text/event-stream":
		return f.respondStream(answer)
	}
	return f.respondPlain(answer)
}

// respondMessage takes an answer in the form that the client asked for, since in that form it will be read: an answer
// in another form could hold a tool use that is judged nowhere.
func (f *flight) respondMessage(answer *http.Response, media string) error {
	wanted := "application/json"
	if f.call.Stream {
		wanted = "text/event-stream"
	}
	if media != wanted {
		return f.badAnswer(fmt.Errorf("content-type is %q, %s was asked for", media, wanted))
	}
	if f.call.Stream {
		return f.respondStream(answer)
	}
	return f.respondWhole(answer)
}

func (f *flight) badAnswer(err error) error {
	return &access.Error{Code: access.CodeUpstream, Err: err,
		Public: fmt.Sprintf("Jobgate: the upstream of connection %q answered what cannot be judged: %v", f.conn.Name, err)}
}

// decode undoes an encoding that was not asked for: what is encoded can be neither judged nor masked.
func (f *flight) decode(answer *http.Response) error {
	switch encoding := strings.ToLower(strings.Join(answer.Header["Content-Encoding"], ", ")); encoding {
	case "", "identity":
		return nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(answer.Body)
		if err != nil {
			return f.badAnswer(fmt.Errorf("bad gzip: %w", err))
		}
		answer.Body = decoded{z, answer.Body}
		answer.ContentLength = -1
		answer.Header.Del("Content-Encoding")
		return nil
	default:
		return f.badAnswer(fmt.Errorf("content-encoding %q was not asked for", clip(encoding, 32)))
	}
}

type decoded struct {
	io.Reader
	io.Closer
}

// respondStream passes a stream of events on, as far and as fast as it may.
func (f *flight) respondStream(answer *http.Response) error {
	f.beginAnswer(answer, -1)
	cfg := f.filterConfig()
	cfg.Flush = func(pending []byte) error { return f.emit(pending) }
	filter := dialect.NewFilter(cfg)
	defer func() { f.usage, f.metered = filter.Usage(), filter.Usage().StopReason != "" }()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, rerr := answer.Body.Read(*buf)
		out := buffers.Get().(*[]byte) // not while the stream is idle
		pending, ferr := filter.Write((*out)[:0], (*buf)[:n])
		if rerr != nil && ferr == nil {
			pending, ferr = filter.Close(pending, errors.Is(rerr, io.EOF))
		}
		f.emitted = filter.Emitted()
		err := f.emit(pending)
		buffers.Put(out)
		if err != nil {
			return err
		}
		switch {
		case ferr != nil:
			return f.cause(ferr)
		case errors.Is(rerr, io.EOF):
			return nil
		case rerr != nil:
			return f.broken(rerr)
		}
	}
}

func (f *flight) broken(err error) error {
	return f.cause(&access.Error{Code: access.CodeUpstream, Err: err,
		Public: fmt.Sprintf("Jobgate: the upstream of connection %q broke off within its answer", f.conn.Name)})
}

// respondWhole reads an answer that is no stream, judges it, and passes it on.
func (f *flight) respondWhole(answer *http.Response) error {
	raw, err := f.readAnswer(answer)
	if err != nil {
		return err
	}
	out, usage, err := dialect.Anthropic{}.FilterMessage(nil, raw, f.filterConfig())
	f.usage, f.metered = usage, err == nil
	if err != nil {
		return f.cause(err)
	}
	f.beginAnswer(answer, int64(len(out)))
	return f.emit(out)
}

func (f *flight) readAnswer(answer *http.Response) ([]byte, error) {
	if n := answer.ContentLength; n >= 0 && n <= wholeAnswer {
		return f.readExactly(answer.Body, n)
	}
	var buf bytes.Buffer
	if _, err := io.Copy(&buf, io.LimitReader(answer.Body, f.p.c.Limits.Answer+1)); err != nil {
		return nil, f.broken(err)
	}
	if int64(buf.Len()) > f.p.c.Limits.Answer {
		return nil, f.badAnswer(fmt.Errorf("its answer is longer than the %d bytes that are read whole", f.p.c.Limits.Answer))
	}
	return buf.Bytes(), nil
}

func (f *flight) readExactly(body io.Reader, n int64) ([]byte, error) {
	raw := make([]byte, n)
	if _, err := io.ReadFull(body, raw); err != nil {
		return nil, f.broken(err)
	}
	return raw, nil
}

// respondError passes an upstream's refusal on with its words: clients recover by them. On a stream that was kept
// alive it is an event.
func (f *flight) respondError(answer *http.Response, media string) error {
	if media != "application/json" && !f.streaming {
		return f.respondPlain(answer)
	}
	raw, err := f.readAnswer(answer)
	if err != nil {
		return err
	}
	if f.streaming && dialect.Strict(raw) != nil {
		f.status = answer.StatusCode
		return f.badAnswer(fmt.Errorf("status %d", answer.StatusCode))
	}
	out, _ := dialect.Anthropic{}.FilterError(nil, raw, f.masks.Held)
	if f.streaming {
		f.beginAnswer(answer, -1)
		event := append([]byte("event: error\ndata: "), oneLine(out)...)
		return f.emit(append(event, "\n\n"...))
	}
	f.beginAnswer(answer, int64(len(out)))
	return f.emit(out)
}

// oneLine takes the line breaks out of JSON; within strings there are none.
func oneLine(b []byte) []byte {
	return bytes.TrimSpace(bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, b))
}

// respondPlain masks any other body as bytes.
func (f *flight) respondPlain(answer *http.Response) error {
	set := f.masks.Held
	if f.grant.MaskResponses(f.conn.Kind == KindHTTP) {
		set = f.masks.Full
	}
	if answer.ContentLength >= 0 && answer.ContentLength <= wholeAnswer {
		raw, err := f.readExactly(answer.Body, answer.ContentLength)
		if err != nil {
			return err
		}
		out, _ := set.Mask(nil, raw)
		f.beginAnswer(answer, int64(len(out)))
		return f.emit(out)
	}
	f.beginAnswer(answer, -1)
	return f.copyMasked(answer.Body, set)
}

func (f *flight) copyMasked(body io.Reader, set *mask.Set) error {
	stream := set.NewStream()
	buf := buffers.Get().(*[]byte)
	out := buffers.Get().(*[]byte)
	defer func() { buffers.Put(buf); buffers.Put(out) }()
	for {
		n, rerr := body.Read(*buf)
		pending := stream.Write((*out)[:0], (*buf)[:n])
		if errors.Is(rerr, io.EOF) {
			pending = stream.Close(pending)
		}
		if err := f.emit(pending); err != nil {
			return err
		}
		switch {
		case errors.Is(rerr, io.EOF):
			return nil
		case rerr != nil:
			return f.broken(rerr)
		}
	}
}

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

// livelyReader reads an upstream and notices when it is silent for too long. What else takes time between two reads,
// people who decide or a client that is slow, does not count.
type livelyReader struct {
	io.ReadCloser
	pause  time.Duration
	silent func()
	timer  *time.Timer
	set    time.Time    // when the timer was
	since  atomic.Int64 // when the read under way began, 0 between reads
}

func newLivelyReader(src io.ReadCloser, pause time.Duration, silent func()) *livelyReader {
	r := &livelyReader{ReadCloser: src, pause: pause, silent: silent, set: time.Now()}
	r.timer = time.AfterFunc(pause, r.check)
	return r
}

func (r *livelyReader) Read(b []byte) (int, error) {
	now := time.Now()
	if now.Sub(r.set) > r.pause/8 { // not at every read: that costs
		r.set = now
		r.timer.Reset(r.pause)
	}
	r.since.Store(now.UnixNano())
	n, err := r.ReadCloser.Read(b)
	r.since.Store(0)
	return n, err
}

func (r *livelyReader) check() {
	since := r.since.Load()
	if since == 0 {
		return // the next read sets the timer
	}
	if left := r.pause - time.Since(time.Unix(0, since)); left > r.pause/8 {
		r.timer.Reset(left)
		return
	}
	r.silent()
}

func (r *livelyReader) stop() { r.timer.Stop() }

// maskingReader masks a request's body on its way to the upstream.
type maskingReader struct {
	src    io.Reader
	stream *mask.Stream
	ready  []byte
	err    error
}

func (r *maskingReader) Read(b []byte) (int, error) {
	for len(r.ready) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		chunk := make([]byte, copyBuffer)
		n, err := r.src.Read(chunk)
		r.ready = r.stream.Write(nil, chunk[:n])
		if err != nil {
			r.err = err
			if errors.Is(err, io.EOF) {
				r.ready = r.stream.Close(r.ready)
			}
		}
	}
	n := copy(b, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}
