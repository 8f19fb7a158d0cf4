package proxy

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/mask"
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
