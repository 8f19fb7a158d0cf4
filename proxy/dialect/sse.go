package dialect

import (
	"bytes"
	"strings"
)

// maxEvent bounds one event, and so one line, in bytes. The largest that the Messages API is known to send are results
// of server-side tools, well below a megabyte.
const maxEvent = 32 << 20

// splitter finds the ends of events: a blank line, whether lines end in LF, CR or CRLF (WHATWG HTML, section 9.2.6). It
// looks at each byte once, however they are cut.
type splitter struct {
	inLine bool // the current line has bytes
	cr     bool // the last byte was a CR: an LF that follows belongs to it
	ended  bool // next found an end
	lines  int  // of the event that is read
	anyCR  bool // one of them ended in one
}

// next returns the offset behind the first event in b that ends there, -1 where none does. An event that ends in CR is
// over at once; an LF that comes with the next chunk is the caller's to put in its place.
func (s *splitter) next(b []byte) int {
	i := 0
	if s.ended {
		s.ended, s.lines, s.anyCR = false, 0, false
	}
	if s.cr && len(b) > 0 {
		if s.cr = false; b[0] == '\n' {
			i = 1
		}
	}
	l := lines{b, -1}
	for i < len(b) {
		end, next := l.end(i)
		if end == len(b) {
			s.inLine = true
			return -1
		}
		blank := end == i && !s.inLine
		s.inLine = false
		s.lines++
		i = next
		if b[end] == '\r' {
			s.anyCR = true
			s.cr = i == len(b) && b[i-1] == '\r'
		}
		if blank {
			s.ended = true
			return i
		}
	}
	return -1
}

// event is one server-sent event.
type event struct {
	raw    []byte // as it came, with the blank line
	name   []byte // of its event field, the last one where there are several
	data   []byte // its data lines, joined by LF
	dataAt int    // where data lies in raw; -1 where it was joined from several lines
	lines  int    // of data
	extra  bool   // there are lines besides event and data
	odd    bool   // a client that knows only some line ends, or reads names laxly, could read something else
	fresh  bool   // raw was written here, with line ends of its own
	joined []byte // memory for data
	body          // what the data says, after read
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// deltaFrame is how nearly every event of a stream begins.
const deltaFrame = "event: content_block_delta\ndata: "

// splitDelta takes apart raw, an event of three lines that end in LF alone, where it begins like a delta.
func (e *event) splitDelta(raw []byte) bool {
	if len(raw) < len(deltaFrame)+2 || string(raw[:len(deltaFrame)]) != deltaFrame {
		return false
	}
	*e = event{raw: raw, name: raw[len("event: "):len("event: content_block_delta")], joined: e.joined,
		data: raw[len(deltaFrame) : len(raw)-2], dataAt: len(deltaFrame), lines: 1}
	return true
}

// split takes apart raw, one event, into its fields. The first event of a stream may begin with a byte order mark.
func (e *event) split(raw []byte, first bool) {
	*e = event{raw: raw, dataAt: -1, joined: e.joined[:0]}
	at := 0
	if first && bytes.HasPrefix(raw, byteOrderMark) {
		at = len(byteOrderMark)
		e.extra = true
	}
	bareCR, unknown := false, false
	l := lines{raw, -1}
	for at < len(raw) {
		end, next := l.end(at)
		bareCR = bareCR || next < len(raw) && raw[end] == '\r' && next == end+1 // at the end, an LF may still come
		unknown = !e.field(raw[at:end], at) || unknown
		at = next
	}
	e.odd = e.odd || bareCR && unknown
	if e.lines > 1 {
		e.data, e.dataAt = e.joined, -1
	}
}

// lines gives the lines of b one after the other.
type lines struct {
	b  []byte
	lf int // where the next LF is, once that is known; less than the line's beginning until then
}

// end returns where the line that begins at i ends and where the next one begins.
func (l *lines) end(i int) (end, next int) {
	if l.lf < i {
		if l.lf = bytes.IndexByte(l.b[i:], '\n'); l.lf < 0 {
			l.lf = len(l.b)
		} else {
			l.lf += i
		}
	}
	end = l.lf
	if cr := bytes.IndexByte(l.b[i:end], '\r'); cr >= 0 {
		end = i + cr
		if end+1 == l.lf && l.lf < len(l.b) {
			return end, end + 2
		}
	}
	return end, min(end+1, len(l.b))
}

// field takes one line, which begins at offset at of raw. It reports whether a client knows it.
func (e *event) field(line []byte, at int) (known bool) {
	switch {
	case len(line) == 0:
		return true
	case bytes.HasPrefix(line, byteOrderMark):
		e.odd, e.extra = true, true // @anthropic-ai/sdk skips the mark at the beginning of any line
		return false
	}
	name, value, colon := bytes.Cut(line, []byte(":"))
	at += len(name)
	if colon {
		at++
	}
	if len(value) > 0 && value[0] == ' ' {
		value, at = value[1:], at+1
	}
	switch string(name) {
	case "event":
		e.extra = e.extra || e.name != nil // the one before still stands there
		e.odd = e.odd || e.name != nil && !bytes.Equal(e.name, value)
		e.odd = e.odd || laxName(value)
		e.name = value
	case "data":
		e.addData(value, at)
	case "", "id", "retry":
		e.extra = true
	default:
		e.extra = true
		lax := strings.ToLower(strings.TrimSpace(string(name)))
		e.odd = e.odd || lax == "event" || lax == "data"
		return false
	}
	return true
}

// laxName reports whether a client that trims names, or reads them in any case, would take one for one of the provider's.
func laxName(name []byte) bool {
	return kindOf(name) == otherEvent && kindOf(bytes.ToLower(bytes.TrimSpace(name))) != otherEvent
}

// empty reports whether there is nothing in the data, or the mark at the end of other streams.
func (e *event) empty() bool {
	return len(e.data) < 32 && (len(bytes.TrimSpace(e.data)) == 0 || string(e.data) == "[DONE]")
}

func (e *event) addData(value []byte, at int) {
	if e.lines++; e.lines == 1 {
		e.data, e.dataAt = value, at
		return
	}
	if e.lines == 2 {
		e.joined = append(e.joined, e.data...)
	}
	e.joined = append(append(e.joined, '\n'), value...)
}

// edit replaces data[start:end] by text.
type edit struct {
	start, end int
	text       []byte
}

// render appends the event with edits of its data, which are in order and do not overlap. All else stays as it came
// where the data is one line; otherwise the event is written anew.
func (e *event) render(dst []byte, edits []edit) []byte {
	if e.dataAt < 0 {
		return e.canonical(dst, edits)
	}
	dst = append(dst, e.raw[:e.dataAt]...)
	dst = e.edited(dst, edits)
	return append(dst, e.raw[e.dataAt+len(e.data):]...)
}

// change puts edits of the data into raw.
func (e *event) change(edits []edit) {
	e.raw = e.render(nil, edits)
	e.fresh = e.fresh || e.dataAt < 0
}

// canonical appends the event as two lines that every client reads alike. The line ends between data lines can only be
// white space of the JSON in it.
func (e *event) canonical(dst []byte, edits []edit) []byte {
	if len(e.name) > 0 {
		dst = append(append(append(dst, "event: "...), e.name...), '\n')
	}
	dst = append(dst, "data: "...)
	from := len(dst)
	dst = e.edited(dst, edits)
	for i := from; i < len(dst); i++ {
		if dst[i] == '\n' {
			dst[i] = ' '
		}
	}
	return append(dst, "\n\n"...)
}

func (e *event) edited(dst []byte, edits []edit) []byte {
	from := 0
	for _, d := range edits {
		dst = append(append(dst, e.data[from:d.start]...), d.text...)
		from = d.end
	}
	return append(dst, e.data[from:]...)
}
