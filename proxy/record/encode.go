package record

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Every call writes some five events, and an answer's event is most of what a session's record is made of. Their data is written here by
// hand, with exactly the bytes that encoding/json gives for the structs in event.go (a test holds the two together, field by field); all
// other data is left to encoding/json.
//
// Each function appends a member of a JSON object and begins with the comma before it: in a line the envelope always comes first.

// appendData appends the members of an event's data. It reports false, and appends nothing, for data that is left to encoding/json.
func appendData(b []byte, data any) ([]byte, bool) {
	switch d := data.(type) {
	case Response:
		return appendResponse(b, &d), true
	case CallStarted:
		return appendCallStarted(b, &d), true
	case Decision:
		return appendDecision(b, &d), true
	case CallSent:
		return appendCallSent(b, &d), true
	case ToolUse:
		return appendToolUse(b, &d), true
	case CallEnded:
		return appendCallEnded(b, &d), true
	case *Response:
		return appendPointer(b, d, appendResponse)
	case *CallStarted:
		return appendPointer(b, d, appendCallStarted)
	case *Decision:
		return appendPointer(b, d, appendDecision)
	case *CallSent:
		return appendPointer(b, d, appendCallSent)
	case *ToolUse:
		return appendPointer(b, d, appendToolUse)
	case *CallEnded:
		return appendPointer(b, d, appendCallEnded)
	}
	return b, false
}

func appendPointer[T any](b []byte, d *T, f func([]byte, *T) []byte) ([]byte, bool) {
	if d == nil {
		return b, false
	}
	return f(b, d), true
}

func appendCallStarted(b []byte, e *CallStarted) []byte {
	b = text(b, `,"connection":`, e.Connection)
	b = text(b, `,"method":`, e.Method)
	b = text(b, `,"path":`, e.Path)
	b = textIf(b, `,"query":`, e.Query)
	b = headersIf(b, e.Headers)
	b = textIf(b, `,"model":`, e.Model)
	b = flagIf(b, `,"stream":true`, e.Stream)
	if e.Body != nil {
		b = append(b, `,"body":`...)
		start := len(b)
		b = object(appendBody(b, e.Body), start)
	}
	b = number(b, `,"body_bytes":`, e.BodyBytes)
	b = textIf(b, `,"client":`, e.Client)
	return numberIf(b, `,"masked":`, int64(e.Masked))
}

func appendBody(b []byte, e *Body) []byte {
	b = textIf(b, `,"base":`, e.Base)
	b = numberIf(b, `,"prefix":`, int64(e.Prefix))
	b = numberIf(b, `,"suffix":`, int64(e.Suffix))
	b = textIf(b, `,"text":`, e.Text)
	b = flagIf(b, `,"base64":true`, e.Base64)
	return flagIf(b, `,"truncated":true`, e.Truncated)
}

func appendDecision(b []byte, e *Decision) []byte {
	b = text(b, `,"subject":`, e.Subject)
	b = text(b, `,"effect":`, e.Effect)
	b = textIf(b, `,"rule":`, e.Rule)
	b = textIf(b, `,"reason":`, e.Reason)
	if len(e.Observed) == 0 {
		return b
	}
	b = append(b, `,"observed":`...)
	list := len(b)
	for i := range e.Observed {
		b = append(b, ',')
		start := len(b)
		b = object(appendObserved(b, &e.Observed[i]), start)
	}
	return array(b, list)
}

func appendObserved(b []byte, e *Observed) []byte {
	b = text(b, `,"rule":`, e.Rule)
	b = text(b, `,"effect":`, e.Effect)
	return textIf(b, `,"reason":`, e.Reason)
}

func appendCallSent(b []byte, e *CallSent) []byte {
	b = text(b, `,"upstream":`, e.Upstream)
	b = textIf(b, `,"credential":`, e.Credential)
	b = textIf(b, `,"credential_version":`, e.CredentialVersion)
	return countsIf(b, e.Counts)
}

func appendResponse(b []byte, e *Response) []byte {
	b = numberIf(b, `,"status":`, int64(e.Status))
	b = headersIf(b, e.Headers)
	if strings.HasPrefix(e.Text, eventStart) {
		b = append(appendEvents(append(b, `,"text":"`...), e.Text), '"')
	} else {
		b = textIf(b, `,"text":`, e.Text)
	}
	b = flagIf(b, `,"base64":true`, e.Base64)
	if len(e.Chunks) > 0 {
		b = append(b, `,"chunks":`...)
		list := len(b)
		for _, c := range e.Chunks {
			b = strconv.AppendInt(append(b, `,{"o":`...), int64(c.Offset), 10)
			b = strconv.AppendInt(append(b, `,"t":`...), c.At, 10)
			b = append(b, '}')
		}
		b = array(b, list)
	}
	return numberIf(b, `,"masked":`, int64(e.Masked))
}

func appendToolUse(b []byte, e *ToolUse) []byte {
	b = text(b, `,"id":`, e.ID)
	b = text(b, `,"name":`, e.Name)
	b = textIf(b, `,"input":`, e.Input)
	b = textIf(b, `,"effect":`, e.Effect)
	b = textIf(b, `,"rule":`, e.Rule)
	b = textIf(b, `,"reason":`, e.Reason)
	return text(b, `,"action":`, e.Action)
}

func appendCallEnded(b []byte, e *CallEnded) []byte {
	b = textIf(b, `,"connection":`, e.Connection)
	b = numberIf(b, `,"status":`, int64(e.Status))
	b = text(b, `,"reason":`, e.Reason)
	b = textIf(b, `,"detail":`, e.Detail)
	b = numberIf(b, `,"input_tokens":`, e.InputTokens)
	b = numberIf(b, `,"output_tokens":`, e.OutputTokens)
	b = numberIf(b, `,"cache_read_tokens":`, e.CacheReadTokens)
	b = numberIf(b, `,"cache_write_tokens":`, e.CacheWriteTokens)
	b = numberIf(b, `,"request_bytes":`, e.RequestBytes)
	b = numberIf(b, `,"response_bytes":`, e.ResponseBytes)
	b = textIf(b, `,"upstream_request_id":`, e.UpstreamRequestID)
	b = textIf(b, `,"credential":`, e.Credential)
	b = textIf(b, `,"credential_version":`, e.CredentialVersion)
	b = countsIf(b, e.Counts)
	return number(b, `,"duration_ms":`, e.DurationMS)
}

func countsIf(b []byte, c Counts) []byte {
	if c == (Counts{}) {
		return b
	}
	b = number(b, `,"counts":{"requests":`, c.Requests)
	b = number(b, `,"input_tokens":`, c.InputTokens)
	return append(number(b, `,"output_tokens":`, c.OutputTokens), '}')
}

// headersIf writes the headers in the order of their names, so that one event has one line.
func headersIf(b []byte, h map[string]string) []byte {
	if len(h) == 0 {
		return b
	}
	var room [24]string // spares the heap
	names := room[:0]
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, `,"headers":`...)
	start := len(b)
	for _, name := range names {
		b = append(appendString(append(b, ','), name), ':')
		b = appendString(b, h[name])
	}
	return object(b, start)
}

// object makes an object of the members that were appended from start on, array an array: the first comma becomes the bracket.
func object(b []byte, start int) []byte { return bracket(b, start, '{', '}') }
func array(b []byte, start int) []byte  { return bracket(b, start, '[', ']') }

func bracket(b []byte, start int, opens, closes byte) []byte {
	if len(b) == start {
		return append(b, opens, closes)
	}
	b[start] = opens
	return append(b, closes)
}

func text(b []byte, key, v string) []byte { return appendString(append(b, key...), v) }

func number(b []byte, key string, v int64) []byte { return strconv.AppendInt(append(b, key...), v, 10) }

// The functions that end in If leave a zero value out.

func textIf(b []byte, key, v string) []byte {
	if v == "" {
		return b
	}
	return text(b, key, v)
}

func numberIf(b []byte, key string, v int64) []byte {
	if v == 0 {
		return b
	}
	return number(b, key, v)
}

func flagIf(b []byte, member string, set bool) []byte {
	if !set {
		return b
	}
	return append(b, member...)
}

// escapes holds what an ASCII character becomes in a string: at most six bytes, the first lowest, and in the top byte how many they are.
var escapes = func() (table [utf8.RuneSelf]uint64) {
	for c := range table {
		table[c] = 1<<56 | uint64(c)
		if c < ' ' {
			table[c] = pack(`\u00` + hex.EncodeToString([]byte{byte(c)}))
		}
	}
	for c, short := range map[byte]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`} {
		table[c] = pack(short)
	}
	return table
}()

func pack(s string) uint64 {
	v := uint64(len(s)) << 56
	for i := range len(s) {
		v |= uint64(s[i]) << (8 * i)
	}
	return v
}

const (
	ones  = 0x0101010101010101 // a byte times this is a word of that byte
	highs = 0x80 * ones
	// piece is how much of a string is escaped before room is made again for the worst that it can become.
	piece   = 1024
	longest = 6 // bytes of an escape
)

// appendString appends a JSON string. What is no UTF-8 becomes U+FFFD, and U+2028 and U+2029 are escaped, as encoding/json does it.
func appendString(b []byte, s string) []byte {
	return append(appendText(append(b, '"'), s), '"')
}

// appendText appends the inside of a JSON string.
func appendText(b []byte, s string) []byte {
	for len(s) > 0 {
		n := min(len(s), piece)
		var read int
		b, read = appendPiece(grow(b, n), s, n)
		s = s[read:]
	}
	return b
}

// grow makes room for what n bytes of text can become at worst.
func grow(b []byte, n int) []byte { return slices.Grow(b, n*longest+roomOfWord) }

// appendPiece escapes the first n bytes of s, and up to three more where a character begins in them. It goes by words of eight bytes: nearly
// all of them are plain, or at least ASCII, which a table escapes without a branch. The caller made room.
func appendPiece(b []byte, s string, n int) ([]byte, int) {
	out, at, i := b[:cap(b)], len(b), 0
	for i < n {
		ascii := 1
		if i+8 <= n {
			w := word(s[i:])
			if plain(w) {
				binary.LittleEndian.PutUint64(out[at:], w)
				i, at = i+8, at+8
				continue
			}
			if w&highs == 0 {
				at += escapeWord((*[roomOfWord]byte)(out[at:]), w)
				i += 8
				continue
			}
			ascii = bits.TrailingZeros64(w&highs) / 8
		}
		for ; ascii > 0 && s[i] < utf8.RuneSelf; ascii-- {
			e := escapes[s[i]]
			binary.LittleEndian.PutUint64(out[at:], e)
			i, at = i+1, at+int(e>>56)
		}
		for i < n && s[i] >= utf8.RuneSelf {
			size, escape := foreign(s[i:])
			if escape != "" {
				at += copy(out[at:], escape)
			} else {
				for k := range size {
					out[at+k] = s[i+k]
				}
				at += size
			}
			i += size
		}
	}
	return out[:at], i
}

// plain reports whether a word is ASCII that needs no escape. Each term has a byte's highest bit set if the byte is what it looks for; a
// byte above that one may carry it, too.
func plain(w uint64) bool {
	control, quote, backslash := w-' '*ones, (w^'"'*ones)-ones, (w^'\\'*ones)-ones
	return (w|control|quote|backslash)&highs == 0
}

// roomOfWord is more than eight escapes and the rest of a last store, and allows for an index of six bits.
const roomOfWord = 64 + 8

// escapeWord writes eight characters of ASCII and returns how many bytes they became.
func escapeWord(out *[roomOfWord]byte, w uint64) int {
	at := uint64(0)
	for range 8 {
		e := escapes[w%utf8.RuneSelf]
		binary.LittleEndian.PutUint64(out[at%64:], e)
		at += e >> 56
		w >>= 8
	}
	return int(at)
}

// word returns the first eight bytes of s, the first one lowest.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// foreign returns the size of the first character of s, which is not ASCII, and what is written in its place, "" where it is itself.
func foreign(s string) (size int, escape string) {
	switch c := s[0]; { // the most frequent first: most of Europe's, most of Asia's
	case 0xc2 <= c && c <= 0xdf && len(s) >= 2 && s[1]&0xc0 == 0x80:
		return 2, ""
	case 0xe3 <= c && c <= 0xec && len(s) >= 3 && s[1]&0xc0 == 0x80 && s[2]&0xc0 == 0x80:
		return 3, ""
	}
	r, size := utf8.DecodeRuneInString(s)
	switch {
	case r == utf8.RuneError && size == 1:
		escape = `\ufffd`
	case r == '\u2028':
		escape = `\u2028`
	case r == '\u2029':
		escape = `\u2029`
	}
	return size, escape
}

// appendTime appends a time in UTC with nine digits of a second, as timeLayout does. The year has four digits.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = digits(b, year, 4)
	b = digits(append(b, '-'), int(month), 2)
	b = digits(append(b, '-'), day, 2)
	b = digits(append(b, 'T'), hour, 2)
	b = digits(append(b, ':'), minute, 2)
	b = digits(append(b, ':'), second, 2)
	b = digits(append(b, '.'), t.Nanosecond(), 9)
	return append(b, 'Z')
}

// digits appends v with so many digits, at most nine.
func digits(b []byte, v, n int) []byte {
	var out [9]byte
	for i := n - 1; i >= 0; i-- {
		out[i] = byte('0' + v%10)
		v /= 10
	}
	return append(b, out[:n]...)
}
