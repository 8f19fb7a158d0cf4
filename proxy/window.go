package proxy

import (
	"context"
	"encoding/base64"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/mask"
	"github.com/jobgate/jobgate/proxy/record"
)

// redactor makes the record's copy of an answer, more thoroughly masked than the job's.
type redactor interface {
	write(dst, chunk []byte) []byte
	close(dst []byte) []byte
}

type textRedactor struct {
	set    *mask.Set
	stream *mask.Stream
}

func (r *textRedactor) write(dst, chunk []byte) []byte {
	if r.stream == nil {
		r.stream = r.set.NewStream()
	}
	return r.stream.Write(dst, chunk)
}

func (r *textRedactor) close(dst []byte) []byte {
	if r.stream == nil {
		return dst
	}
	return r.stream.Close(dst)
}

type eventRedactor struct {
	filter *dialect.Filter
	failed bool
}

func (r *eventRedactor) write(dst, chunk []byte) []byte {
	if r.failed {
		return dst
	}
	out, err := r.filter.Write(dst, chunk)
	if err != nil {
		r.failed = true // what cannot be masked is not recorded
		return append(out, "\n: the rest cannot be masked and is left out\n\n"...)
	}
	return out
}

func (r *eventRedactor) close(dst []byte) []byte {
	if r.failed {
		return dst
	}
	out, err := r.filter.Close(dst, true)
	if err != nil {
		return dst
	}
	return out
}

// window gathers what the client got, and makes one event of the record of every 64 KiB or 100 ms of it.
type window struct {
	f        *flight
	redactor redactor
	sent     time.Time

	mu     sync.Mutex // guards all below: the timer flushes, too
	next   record.Response
	first  bool
	raw    []byte         // in room
	room   *[]byte        // lent while there are bytes, so that an idle stream holds none
	chunks []record.Chunk // offsets into raw
	timer  *time.Timer
	closed bool
	failed error
}

func newWindow(f *flight, r redactor, first record.Response) *window {
	return &window{f: f, redactor: r, sent: f.sent, next: first, first: true}
}

func (w *window) add(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		w.timer = time.AfterFunc(windowTime, w.tick)
	} else if len(w.raw) == 0 {
		w.timer.Reset(windowTime)
	}
	if w.room == nil {
		w.room = windows.Get().(*[]byte)
		w.raw = (*w.room)[:0]
	}
	w.chunks = append(w.chunks, record.Chunk{Offset: len(w.raw), At: w.f.p.c.Now().Sub(w.sent).Milliseconds()})
	w.raw = append(w.raw, b...)
	if len(w.raw) >= windowBytes {
		w.flushLocked()
	}
}

func (w *window) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.flushLocked()
	}
}

// close returns the event of what is left, to be appended with what ends the call; none where nothing is.
func (w *window) close() (record.Event, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.closed = true
	return w.takeLocked(true)
}

func (w *window) flushLocked() {
	if len(w.raw) == 0 {
		return
	}
	event, ok := w.takeLocked(false)
	if !ok {
		return
	}
	if err := w.f.p.c.Recorder.Append(context.WithoutCancel(w.f.ctx), w.f.s.ID, false, event); err != nil && w.failed == nil {
		w.failed = err
		w.f.p.c.Log.Error("an answer is not recorded; the call is cut", "session", w.f.s.ID, "call", w.f.call.ID, "error", err)
		w.f.cancel(unrecordable(err))
	}
}

// takeLocked makes the event of what was gathered.
func (w *window) takeLocked(last bool) (record.Event, bool) {
	room := windows.Get().(*[]byte)
	text := w.redactLocked((*room)[:0], last)
	event, ok := w.eventLocked(text)
	giveBack(room, text)
	if w.room != nil {
		giveBack(w.room, w.raw)
	}
	w.raw, w.room, w.chunks = nil, nil, nil
	return event, ok
}

// redactLocked makes the record's copy of what was gathered; the chunks' offsets become those in the copy.
func (w *window) redactLocked(text []byte, last bool) []byte {
	for i, c := range w.chunks {
		end := len(w.raw)
		if i+1 < len(w.chunks) {
			end = w.chunks[i+1].Offset
		}
		w.chunks[i].Offset = len(text)
		text = w.redactor.write(text, w.raw[c.Offset:end])
	}
	if last {
		text = w.redactor.close(text)
	}
	return text
}

func (w *window) eventLocked(text []byte) (record.Event, bool) {
	if len(text) == 0 && !w.first {
		return record.Event{}, false
	}
	e := w.next
	e.Text, e.Chunks = string(text), w.chunks
	if !utf8.Valid(text) {
		e.Text, e.Base64 = base64.StdEncoding.EncodeToString(text), true
	}
	w.next, w.first = record.Response{}, false
	return record.Event{Type: record.TypeResponse, Call: w.f.call.ID, Time: w.f.p.c.Now(), Data: e}, true
}

// windows are lent to windows that hold bytes.
var windows = sync.Pool{New: func() any { b := make([]byte, 0, windowBytes+copyBuffer); return &b }}

// giveBack takes a lent buffer back, as it has become.
func giveBack(room *[]byte, now []byte) {
	if cap(now) <= 4*windowBytes {
		*room = now[:0]
		windows.Put(room)
	}
}
