package dialect

import (
	"bytes"
	"unicode/utf8"
)

// frame is how the last event was written, where it brought nothing but a piece of text: what stood before the text and
// behind it. An event that repeats both to the byte says the same of another piece, so that it need not be read again.
// That is nearly all of a stream.
type frame struct {
	stream     *flowStream // nil: the last event was another
	index      int         // of its block
	head, tail []byte
}

// runEvent is one event of a run: where it ends in the run, and its text in the batch.
type runEvent struct {
	end, text int
	content   span // of its text in the event
}

// learnFrame keeps the form of an event that brought a piece of text. One with further lines is looked at each time, since
// they go where the whole of it holds a secret; and so is one with a CR, to which an LF of the next chunk may belong.
func (f *Filter) learnFrame(ev *event, fs *flowStream) {
	if !ev.plain || ev.fresh || ev.extra || ev.dataAt != len(deltaFrame) || f.holding != nil || len(f.deferred) > 0 ||
		string(ev.raw[:len(deltaFrame)]) != deltaFrame || bytes.IndexByte(ev.raw[ev.dataAt+ev.text.end:], '\r') >= 0 {
		return
	}
	at := ev.dataAt
	f.frame.stream, f.frame.index = fs, ev.index
	f.frame.head = append(f.frame.head[:0], ev.raw[:at+ev.text.start]...)
	f.frame.tail = append(f.frame.tail[:0], ev.raw[at+ev.text.end:]...)
}

// takeRun takes the events at the beginning of a chunk that are framed as the last one was, and returns how many bytes
// they have. They stay in the chunk until drain.
func (f *Filter) takeRun(chunk []byte) int {
	fr := &f.frame
	if f.batched == nil {
		f.borrow()
		f.batched, f.batchIndex = fr.stream, fr.index
	}
	room, at := f.room, 0
	if len(room.run) == 0 {
		room.runText = len(room.text)
	}
	for {
		rest := chunk[at:]
		if len(rest) < len(fr.head) || string(rest[:len(fr.head)]) != string(fr.head) {
			break
		}
		text, n := appendContent(room.text, rest[len(fr.head):])
		end := len(fr.head) + n + len(fr.tail)
		if n < 0 || len(rest) < end || string(rest[end-len(fr.tail):end]) != string(fr.tail) || f.waits()+at+end > f.cfg.MaxHeld {
			break
		}
		at += end
		room.text = text
		room.run = append(room.run, runEvent{end: at, text: len(text), content: span{len(fr.head), len(fr.head) + n}})
	}
	room.runRaw = chunk[:at]
	return at
}

// appendContent appends the text of a JSON string whose opening quote is behind, and returns how many bytes it has up
// to the closing one; -1 where it has no end here, or must be read with more care.
func appendContent(dst, b []byte) ([]byte, int) {
	wide, from := false, 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			if wide && !utf8.Valid(b[:i]) {
				return dst, -1
			}
			return append(dst, b[from:i]...), i
		case c == '\\':
			if i+1 >= len(b) || shortEscapes[b[i+1]] == 0 {
				return dst, -1
			}
			dst = append(append(dst, b[from:i]...), shortEscapes[b[i+1]])
			i++
			from = i + 1
		case c < ' ':
			return dst, -1
		case c >= utf8.RuneSelf:
			wide = true
		}
	}
	return dst, -1
}

// shortEscapes are the characters that stand behind a backslash for others: RFC 8259 section 7.
var shortEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// endRun lets go of what its masker has decided about a run, and puts the rest behind the pending events.
func (f *Filter) endRun(dst []byte, fs *flowStream, base int64) []byte {
	room := f.room
	run, raw := room.run, room.runRaw
	if len(run) == 0 {
		return dst
	}
	first := base + int64(room.runText) // where its text begins in the flow
	n := 0
	if len(f.items) == 0 {
		for n < len(run) && base+int64(run[n].text) <= fs.decided {
			n++
		}
		if n > 0 && fs.touched(first, base+int64(run[n-1].text)) {
			n = 0
		}
	}
	at, from := 0, first
	if n > 0 {
		at, from = run[n-1].end, base+int64(run[n-1].text)
		dst = f.pass(dst, raw[:at], blockDelta)
		fs.forget(from)
	}
	f.pushRun(fs, run[n:], raw, at, base, from)
	room.run, room.runRaw = run[:0], nil
	return f.flush(dst)
}

// standRun puts a run behind the pending events before its masker has seen it, since other events come.
func (f *Filter) standRun(fs *flowStream) {
	if len(f.room.run) == 0 {
		return
	}
	f.pushRun(fs, f.room.run, f.room.runRaw, 0, fs.fed, fs.fed+int64(f.room.runText))
	f.room.run, f.room.runRaw = f.room.run[:0], nil
}

// pushRun puts events of a run, which begin at at, behind the pending ones. The batch's text begins at base in the flow,
// theirs at from.
func (f *Filter) pushRun(fs *flowStream, run []runEvent, raw []byte, at int, base, from int64) {
	for _, e := range run {
		to := base + int64(e.text)
		text := span{e.content.start - len(deltaFrame), e.content.end - len(deltaFrame)}
		f.push(item{stream: fs, from: from, to: to, text: text}, raw[at:e.end])
		at, from = e.end, to
	}
}
