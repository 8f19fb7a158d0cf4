package dialect

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest. Clients' bodies stay below twenty; a schema of a tool is the
// deepest part of one.
const MaxDepth = 200

// Strict reports whether data is one JSON value (RFC 8259) that every parser reads alike: no key twice in an object,
// whatever its escapes, no invalid UTF-8, no half of a surrogate pair, no nesting beyond MaxDepth, nothing behind the
// value. The error names the offset and never quotes the data.
func Strict(data []byte) error {
	s := newScanner(data)
	s.skip()
	return s.finish()
}

// scanner reads strict JSON in one pass. Its methods consume the value at the cursor; the first failure sticks, and
// everything after it reads as nothing. Byte slices that it hands out are valid until the next call.
type scanner struct {
	data  []byte
	pos   int
	depth int
	err   error
	seed  maphash.Seed
	keys  []keyRef // of the objects that are open, innermost last
	text  []byte   // the last string that had escapes, decoded
	key   []byte   // the last key that had escapes, decoded
}

// keyRef is one key of an open object: its hash, and where it stands, without quotes.
type keyRef struct {
	hash       uint64
	start, end int
}

// fewKeys is how many keys an object may have until its duplicates are looked for at its end, by sorting.
const fewKeys = 16

func newScanner(data []byte) *scanner {
	return &scanner{data: data, seed: maphash.MakeSeed(), keys: make([]keyRef, 0, 2*fewKeys)}
}

// reset prepares the scanner for other data and keeps its buffers.
func (s *scanner) reset(data []byte) {
	s.data, s.pos, s.depth, s.err, s.keys = data, 0, 0, nil, s.keys[:0]
}

func (s *scanner) fail(what string) {
	if s.err == nil {
		s.err = fmt.Errorf("json: %s at offset %d", what, s.pos)
	}
	s.pos = len(s.data)
}

// finish returns the first error; what stands behind the value is one.
func (s *scanner) finish() error {
	if s.err == nil && s.peek() != 0 {
		s.fail("more data after the value")
	}
	return s.err
}

// peek skips white space and returns the byte that the next token begins with, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\n', '\t', '\r':
			s.pos++
		case 0:
			s.fail("a NUL byte")
			return 0
		default:
			return c
		}
	}
	return 0
}

// skip consumes a value of any type.
func (s *scanner) skip() {
	switch c := s.peek(); {
	case c == '"':
		s.str()
	case c == '{':
		s.object(nil)
	case c == '[':
		s.array(nil)
	case c == '-' || '0' <= c && c <= '9':
		s.number()
	case c == 't':
		s.literal("true")
	case c == 'f':
		s.literal("false")
	case c == 'n':
		s.literal("null")
	case c == 0:
		s.fail("a value is missing")
	default:
		s.fail("a character that begins no value")
	}
}

// object consumes an object. fn is called with each key, decoded, and must consume its value; a nil fn skips them.
func (s *scanner) object(fn func(key []byte)) {
	if !s.enter('{') {
		return
	}
	first := len(s.keys)
	if s.peek() == '}' {
		s.leave(first)
		return
	}
	for s.err == nil {
		key := s.member(first)
		switch {
		case s.err != nil:
			return
		case fn != nil:
			fn(key)
		default:
			s.skip()
		}
		if s.err != nil {
			return
		}
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.leave(first)
			return
		default:
			s.fail("an object lacks a comma or its end")
		}
	}
}

// member consumes a key and its colon.
func (s *scanner) member(first int) []byte {
	if s.peek() != '"' {
		s.fail("a key is missing")
		return nil
	}
	start, end, escaped := s.str()
	if s.err != nil {
		return nil
	}
	key := s.data[start:end]
	if escaped {
		s.key = appendUnescaped(s.key[:0], key)
		key = s.key
	}
	s.remember(key, first, start, end)
	if s.peek() != ':' {
		s.fail("a key lacks its colon")
		return nil
	}
	s.pos++
	return key
}

// remember notes a key of the innermost object, whose keys begin at first, and fails where it stands there already.
func (s *scanner) remember(key []byte, first, start, end int) {
	ref := keyRef{hash: maphash.Bytes(s.seed, key), start: start, end: end}
	if own := s.keys[first:]; len(own) < fewKeys {
		for i := range own {
			if own[i].hash == ref.hash && s.sameKey(own[i], ref) {
				s.fail("a key stands twice in an object")
				return
			}
		}
	}
	s.keys = append(s.keys, ref)
}

// leave consumes the end of an object and looks for duplicates among its many keys.
func (s *scanner) leave(first int) {
	own := s.keys[first:]
	if len(own) > fewKeys {
		slices.SortFunc(own, func(a, b keyRef) int {
			return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.start, b.start))
		})
		for i := 1; i < len(own); i++ {
			if own[i-1].hash == own[i].hash && s.sameKey(own[i-1], own[i]) {
				s.fail("a key stands twice in an object")
				return
			}
		}
	}
	s.keys = s.keys[:first]
	s.pos++
	s.depth--
}

func (s *scanner) sameKey(a, b keyRef) bool {
	return bytes.Equal(appendUnescaped(nil, s.data[a.start:a.end]), appendUnescaped(nil, s.data[b.start:b.end]))
}

// array consumes an array. fn is called at each element and must consume it; a nil fn skips them.
func (s *scanner) array(fn func()) {
	if !s.enter('[') {
		return
	}
	if s.peek() == ']' {
		s.pos++
		s.depth--
		return
	}
	for s.err == nil {
		if fn != nil {
			s.peek()
			fn()
		} else {
			s.skip()
		}
		if s.err != nil {
			return
		}
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			s.depth--
			return
		default:
			s.fail("an array lacks a comma or its end")
		}
	}
}

func (s *scanner) enter(open byte) bool {
	if s.peek() != open {
		s.fail("another type of value than expected")
		return false
	}
	if s.depth++; s.depth > MaxDepth {
		s.fail("nesting deeper than " + strconv.Itoa(MaxDepth))
		return false
	}
	s.pos++
	return true
}

// string consumes a string and returns it decoded.
func (s *scanner) string() []byte {
	start, end, escaped := s.str()
	if s.err != nil {
		return nil
	}
	if !escaped {
		return s.data[start:end]
	}
	s.text = appendUnescaped(s.text[:0], s.data[start:end])
	return s.text
}

// str consumes a string and returns where its content lies, without quotes, and whether it has escapes.
func (s *scanner) str() (start, end int, escaped bool) {
	if s.peek() != '"' {
		s.fail("another type of value than expected")
		return 0, 0, false
	}
	s.pos++
	start = s.pos
	for {
		n, short := plain(s.data[s.pos:])
		s.pos += n
		escaped = escaped || short
		if s.pos >= len(s.data) {
			s.fail("a string lacks its end")
			return 0, 0, false
		}
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return start, s.pos - 1, escaped
		case c == '\\':
			escaped = true
			s.escape()
		case c < ' ':
			s.fail("a control character in a string")
		default:
			r, size := utf8.DecodeRune(s.data[s.pos:])
			if r == utf8.RuneError && size == 1 {
				s.fail("invalid UTF-8")
			}
			s.pos += size
		}
		if s.err != nil {
			return 0, 0, false
		}
	}
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain returns how many bytes of b need no further look, and whether escapes are among them: printable ASCII without a
// quote, and escapes of one character. Eight bytes are tested at once; a borrow can only mark bytes behind the first that
// is marked rightly, so the first one is exact.
func plain(b []byte) (n int, short bool) {
	for n+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[n:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		mark := (quote-ones)&^quote | (slash-ones)&^slash | (w-ones*' ')&^w | w
		if mark &= highs; mark == 0 {
			n += 8
			continue
		}
		n += bits.TrailingZeros64(mark) / 8
		if b[n] != '\\' || n+1 >= len(b) || shortEscapes[b[n+1]] == 0 {
			return n, short
		}
		n += 2
		short = true
	}
	for ; n < len(b); n++ {
		if c := b[n]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			break
		}
	}
	return n, short
}

// escape consumes one escape, or the two of a surrogate pair.
func (s *scanner) escape() {
	if s.pos+1 >= len(s.data) {
		s.fail("a string lacks its end")
		return
	}
	switch s.data[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return
	case 'u':
	default:
		s.fail("an unknown escape")
		return
	}
	r := unit(s.data[s.pos:])
	switch {
	case r < 0:
		s.fail("an escape that is no four hex digits")
		return
	case r < 0xd800 || r > 0xdfff:
		s.pos += 6
		return
	}
	if low := unit(s.data[s.pos+6:]); r > 0xdbff || low < 0xdc00 || low > 0xdfff {
		s.fail("half of a surrogate pair")
		return
	}
	s.pos += 12
}

// number consumes a number and returns its text.
func (s *scanner) number() []byte {
	s.peek()
	start := s.pos
	if s.at('-') {
		s.pos++
	}
	switch {
	case s.at('0'):
		s.pos++
	case s.digits() == 0:
		s.fail("a number lacks its digits")
	}
	if s.err == nil && s.at('.') {
		s.pos++
		if s.digits() == 0 {
			s.fail("a number lacks its digits")
		}
	}
	if s.err == nil && (s.at('e') || s.at('E')) {
		s.pos++
		if s.at('+') || s.at('-') {
			s.pos++
		}
		if s.digits() == 0 {
			s.fail("a number lacks its digits")
		}
	}
	if s.err != nil {
		return nil
	}
	return s.data[start:s.pos]
}

func (s *scanner) at(c byte) bool { return s.pos < len(s.data) && s.data[s.pos] == c }

func (s *scanner) digits() int {
	start := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos - start
}

func (s *scanner) literal(word string) {
	if len(s.data)-s.pos < len(word) || string(s.data[s.pos:s.pos+len(word)]) != word {
		s.fail("a character that begins no value")
		return
	}
	s.pos += len(word)
}

// span consumes a value of any type and returns where it lies.
func (s *scanner) span() (start, end int) {
	s.peek()
	start = s.pos
	s.skip()
	return start, s.pos
}
