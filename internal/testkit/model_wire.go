package testkit

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// wire sends one answer: in the pieces, at the pace and with the fault that
// the response wants.
type wire struct {
	w     http.ResponseWriter
	r     *http.Request
	model *Model
	got   *received

	pace   Pacing
	zip    *gzip.Writer
	events int
}

// fail answers in Anthropic's error envelope.
func (o *wire) fail(status int, kind, message string) {
	o.json(status, map[string]any{
		"type":       "error",
		"error":      map[string]any{"type": kind, "message": message},
		"request_id": o.got.request.ID,
	})
}

func (o *wire) json(status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("testkit: an answer that does not encode: %v", err))
	}
	o.w.Header().Set("Content-Type", "application/json")
	o.w.WriteHeader(status)
	o.write(body)
}

func (o *wire) respond(req Request, resp Response) {
	o.pace = *resp.Pacing
	header := o.w.Header()
	for name, value := range resp.Header {
		header.Set(name, value)
	}
	switch resp.Fault.Kind {
	case FaultStatus:
		fault := resp.Fault.orOverloaded()
		o.fail(fault.Status, fault.Type, fault.Message)
		return
	case FaultBadGzip:
		header.Set("Content-Encoding", "gzip")
		header.Set("Content-Type", contentType(req))
		o.write([]byte("\x1f\x8b\x08\x00this is no deflate stream at all"))
		return
	case FaultBigHeader:
		header.Set("X-Padding", strings.Repeat("x", resp.Fault.After))
	}
	header.Set("Content-Type", contentType(req))
	if req.Body.Stream {
		header.Set("Cache-Control", "no-cache")
	}
	if resp.Gzip {
		header.Set("Content-Encoding", "gzip")
		o.zip = gzip.NewWriter(o.w)
		defer o.zip.Close()
	}
	messageID := "msg_01" + random(22)
	if !req.Body.Stream {
		o.sendWhole(resp.whole(req, messageID), resp.Fault)
		return
	}
	o.sendFrames(resp.frames(req, messageID), resp.Fault)
}

func contentType(req Request) string {
	if req.Body.Stream {
		return "text/event-stream; charset=utf-8"
	}
	return "application/json"
}

func (f Fault) orOverloaded() Fault {
	if f.Status == 0 {
		f.Status = 529
	}
	if f.Type == "" {
		f.Type = "overloaded_error"
	}
	if f.Message == "" {
		f.Message = "Overloaded"
	}
	return f
}

func (o *wire) sendFrames(frames []frame, fault Fault) {
	last := lastTextDelta(frames)
	for n, f := range frames {
		if o.broken(fault) || !o.send(f) {
			return
		}
		for fault.Kind == FaultEndless && n == last {
			if !o.send(f) {
				return
			}
		}
	}
	o.broken(fault)
}

// lastTextDelta finds what an endless stream repeats; without any text it is
// the last event.
func lastTextDelta(frames []frame) int {
	for n := len(frames) - 1; n >= 0; n-- {
		if strings.Contains(frames[n].data, `"type":"text_delta"`) {
			return n
		}
	}
	return len(frames) - 1
}

// broken plays the fault when its moment has come, and reports whether the
// answer is over by that.
func (o *wire) broken(fault Fault) bool {
	if o.events < fault.After {
		return false
	}
	switch fault.Kind {
	case FaultReset:
		o.reset()
	case FaultStall:
		<-o.r.Context().Done()
	case FaultErrorEvent:
		fault = fault.orOverloaded()
		o.send(frame{"error", -1, fmt.Sprintf(`{"type":"error","error":{"type":%s,"message":%s},"request_id":%s}`,
			quote(fault.Type), quote(fault.Message), quote(o.got.request.ID))})
	case FaultCut:
	default:
		return false
	}
	return true
}

// send gates, delays and writes one event, and reports whether the client is
// still there.
func (o *wire) send(f frame) bool {
	if o.pace.Gate != nil {
		o.pace.Gate(Event{N: o.events, Name: f.name, Index: f.index, Done: o.r.Context().Done()})
	}
	if !pause(o.r.Context(), o.pace.Delay) {
		return false
	}
	o.events++
	return o.write(f.bytes(o.pace))
}

// sendWhole sends an answer without a stream: two halves, so that a fault can
// come between them.
func (o *wire) sendWhole(body string, fault Fault) {
	half := len(body) / 2
	for _, part := range []string{body[:half], body[half:]} {
		if fault.Kind != FaultEndless && fault.Kind != FaultErrorEvent && o.broken(fault) {
			return
		}
		if !pause(o.r.Context(), o.pace.Delay) || !o.write([]byte(part)) {
			return
		}
		o.events++
	}
	for fault.Kind == FaultEndless && o.write([]byte(strings.Repeat(" ", 1024))) {
	}
}

// write sends b in the chunks that the pacing wants, each flushed, and
// reports whether the client is still there.
func (o *wire) write(b []byte) bool {
	size := o.pace.ChunkBytes
	if size <= 0 {
		size = max(len(b), 1)
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if o.r.Context().Err() != nil {
			return false
		}
		o.model.keep(o.got, b[:n])
		if _, err := o.sink().Write(b[:n]); err != nil {
			return false
		}
		o.flush()
		b = b[n:]
	}
	return true
}

func (o *wire) sink() io.Writer {
	if o.zip != nil {
		return o.zip
	}
	return o.w
}

func (o *wire) flush() {
	if o.zip != nil {
		_ = o.zip.Flush() // a client that left is noticed by the next write
	}
	_ = http.NewResponseController(o.w).Flush()
}

// reset cuts the connection so that the client sees a TCP reset, not an end.
func (o *wire) reset() {
	conn, _, err := http.NewResponseController(o.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func (m *Model) keep(got *received, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if room := maxSent - got.sent.Len(); room > 0 {
		got.sent.Write(b[:min(room, len(b))])
	}
}
