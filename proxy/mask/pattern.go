package mask

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
)

// A kind says how a byte of the source is compared with a byte of a pattern.
type kind uint8

const (
	kindText   kind = iota
	kindHex         // in either case
	kindBase64      // in either alphabet
)

// fold gives the form of c in which patterns of this kind are written.
func (k kind) fold(c byte) byte {
	switch k {
	case kindHex:
		if 'A' <= c && c <= 'F' {
			return c + 'a' - 'A'
		}
	case kindBase64:
		switch c {
		case '-':
			return '+'
		case '_':
			return '/'
		}
	}
	return c
}

// variants appends to dst the bytes of the source that equal p, a byte of a pattern of this kind.
func (k kind) variants(dst []byte, p byte) []byte {
	dst = append(dst, p)
	switch {
	case k == kindText && p == ' ':
		dst = append(dst, '+')
	case k == kindHex && 'a' <= p && p <= 'f':
		dst = append(dst, p-'a'+'A')
	case k == kindBase64 && p == '+':
		dst = append(dst, '-')
	case k == kindBase64 && p == '/':
		dst = append(dst, '_')
	}
	return dst
}

// equal reports whether c of the source stands for p of a pattern of this kind.
func (k kind) equal(c, p byte) bool {
	return c == p || k.fold(c) == p || k == kindText && p == ' ' && c == '+'
}

// An edge is a base64 character of which the secret determines some bits: those under mask.
type edge struct{ mask, want uint8 }

func (e edge) match(c byte) bool {
	v := base64Value(c)
	return e.mask != 0 && v >= 0 && uint8(v)&e.mask == e.want
}

// rulesOut reports whether v, a base64 value or -1 for none, cannot stand where e does.
func (e edge) rulesOut(v int) bool { return v >= 0 && uint8(v)&e.mask != e.want }

// A pattern is one form of one secret, as unescaped bytes.
type pattern struct {
	kind   kind
	secret *Secret
	b      []byte // folded
	before edge   // base64 only: the character before b, which is not part of the match
	last   edge   // base64 only: the character after b
}

// patternsOf gives the forms of one value.
func patternsOf(dst []pattern, s *Secret) []pattern {
	dst = append(dst,
		pattern{kind: kindText, secret: s, b: s.Value},
		pattern{kind: kindHex, secret: s, b: []byte(hex.EncodeToString(s.Value))})
	for before := range 3 {
		dst = append(dst, base64Pattern(s, before))
	}
	return append(dst, shortened(&dst[len(dst)-3]))
}

// shortened makes of p, the form in which nothing shares a character with the value's beginning, the one for behind other
// base64: its first character is not masked, as those before the other forms are not. p is left for where none is.
func shortened(p *pattern) pattern {
	short := *p
	short.before = edge{mask: 0x3f, want: uint8(base64Value(p.b[0]))}
	short.b = p.b[1:]
	p.before = edge{want: 1} // which rules out every character
	return short
}

// base64Pattern is the value's form where before bytes (0 to 2) of something else come first in its group of three. Its
// body is the characters that the value alone determines. The one before them, which knows at most four bits of the
// value, is not masked: a stream would have to hold back the last character of nearly every text for it.
func base64Pattern(s *Secret, before int) pattern {
	padded := make([]byte, before+len(s.Value), before+len(s.Value)+2)
	copy(padded[before:], s.Value)
	bits := 8 * len(padded)
	text := []byte(base64.RawStdEncoding.EncodeToString(padded))
	start, end := (8*before+5)/6, bits/6
	p := pattern{kind: kindBase64, secret: s, b: text[start:end]}
	if own := 6*start - 8*before; own > 0 {
		p.before.mask = 1<<own - 1
		p.before.want = uint8(base64Value(text[start-1])) & p.before.mask
	}
	if own := bits % 6; own > 0 {
		p.last.mask = 0x3f &^ (1<<(6-own) - 1)
		p.last.want = uint8(base64Value(text[end])) & p.last.mask
	}
	return p
}

// base64Value gives the six bits of a character of either alphabet, or -1.
func base64Value(c byte) int {
	switch {
	case 'A' <= c && c <= 'Z':
		return int(c - 'A')
	case 'a' <= c && c <= 'z':
		return int(c-'a') + 26
	case '0' <= c && c <= '9':
		return int(c-'0') + 52
	case c == '+' || c == '-':
		return 62
	case c == '/' || c == '_':
		return 63
	}
	return -1
}

// A thread is one way of reading the source so far: it has come to pos, the first i bytes of the pattern are found, and
// breaks line breaks were stepped over since.
type thread struct{ pos, i, breaks int }

// maxThreads bounds the readings that are followed at once. There is more than one only where the secret itself looks
// like an escape, and more than a few only where it does so several times in a row.
const maxThreads = 16

// maxBreaks is how many line breaks may stand together within base64: CR and LF.
const maxBreaks = 2

// match compares the source from pos on with the pattern, under every reading. end is the longest match, -1 for none. more
// says that the end of src came before the answer.
func (p *pattern) match(src []byte, pos int) (end int, more bool) {
	var space [maxThreads]thread
	end = -1
	todo := append(space[:0], thread{pos: pos})
	for len(todo) > 0 {
		t := takeFirst(&todo)
		t = p.plain(src, t)
		switch {
		case t.i == len(p.b):
			e, m := p.lastEdge(src, t.pos)
			end, more = max(end, e), more || m
		case t.pos >= len(src):
			more = true
		case isLead(src[t.pos]):
			if p.step(src, t, &todo) {
				more = true
			}
		}
	}
	return end, more
}

// takeFirst removes the thread that has found the least. So all that may join another is there before that one goes on,
// and the work is bounded by the pattern's length times the places, whatever the text.
func takeFirst(todo *[]thread) thread {
	list, at := *todo, 0
	for i, t := range list {
		if t.i < list[at].i {
			at = i
		}
	}
	t := list[at]
	list[at] = list[len(list)-1]
	*todo = list[:len(list)-1]
	return t
}

// plain follows the thread up to an escape, a difference, or an end.
func (p *pattern) plain(src []byte, t thread) thread {
	for t.i < len(p.b) && t.pos < len(src) {
		c := src[t.pos]
		switch {
		case isLead(c):
			return t
		case p.kind.equal(c, p.b[t.i]):
			t.i, t.breaks = t.i+1, 0
		case p.skips(c, t):
			t.breaks++
		default:
			return t
		}
		t.pos++
	}
	return t
}

// skips reports whether c may stand between two characters of the pattern: line breaks in base64.
func (p *pattern) skips(c byte, t thread) bool {
	return p.kind == kindBase64 && t.i > 0 && t.breaks < maxBreaks && isBreak(c)
}

// step puts into todo what the readings at an escape lead to.
func (p *pattern) step(src []byte, t thread, todo *[]thread) (more bool) {
	var us units
	readUnits(&us, src, t.pos)
	for _, u := range us.u[:us.n] {
		next, ok := p.read(t, u)
		if ok && len(*todo) < maxThreads && !slices.Contains(*todo, next) {
			*todo = append(*todo, next)
		}
	}
	return us.more
}

// read moves the thread over a unit, if it is what the pattern has next.
func (p *pattern) read(t thread, u unit) (thread, bool) {
	if u.n == 1 && p.skips(u.b[0], t) {
		return thread{u.next, t.i, t.breaks + 1}, true
	}
	i := t.i
	for _, c := range u.b[:u.n] {
		if i == len(p.b) || !p.kind.equal(c, p.b[i]) {
			return thread{}, false
		}
		i++
	}
	return thread{pos: u.next, i: i}, true
}

// lastEdge takes the character after the pattern's body with it, where it holds bits of the secret.
func (p *pattern) lastEdge(src []byte, pos int) (end int, more bool) {
	if p.last.mask == 0 {
		return pos, false
	}
	if pos >= len(src) {
		return pos, true
	}
	end = pos
	var us units
	readUnits(&us, src, pos)
	for _, u := range us.u[:us.n] {
		if u.n == 1 && p.last.match(u.b[0]) {
			end = max(end, u.next)
		}
	}
	return end, us.more
}
