package mask

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// odds are the next places of the bytes that begin escapes or are line breaks. Those before the place that is asked for
// are not known.
type odds struct{ backslash, percent, lf, cr int }

func (o *odds) reset() { *o = odds{-1, -1, -1, -1} }

// next gives the first place from pos on of an escape that may stand for a byte of a key, or of a line break that may
// divide one; len(src) when there is none.
func (o *odds) next(s *Set, src []byte, pos int, closed bool) int {
	for {
		o.seek(&o.percent, src, pos, '%')
		o.seek(&o.lf, src, pos, '\n')
		o.seek(&o.cr, src, pos, '\r')
		rare := min(o.percent, o.lf, o.cr)
		o.seek(&o.backslash, src, pos, '\\')
		for o.backslash < rare {
			at := o.backslash
			if at+1 == len(src) || !s.filter.dull[src[at+1]] && !s.endsLine(src, at) && s.matters(src, at, closed) {
				return at
			}
			o.backslash = indexNear(src, at+1, '\\')
		}
		if rare == len(src) || s.matters(src, rare, closed) {
			return rare
		}
		pos = rare + 1
	}
}

// endsLine reports whether the escape at pos is a line break that does nothing but end a line: what is before it is no
// base64, and no key holds a line break.
func (s *Set) endsLine(src []byte, pos int) bool {
	f := s.filter
	return src[pos+1] == 'n' && !f.early['\n'] && (pos == 0 || !f.in64[src[pos-1]])
}

func (o *odds) seek(place *int, src []byte, pos int, c byte) {
	if *place < pos {
		*place = indexFrom(src, pos, c)
	}
}

func indexFrom(src []byte, pos int, c byte) int {
	if i := bytes.IndexByte(src[pos:], c); i >= 0 {
		return pos + i
	}
	return len(src)
}

// indexNear is indexFrom for what is most often near, as the next backslash is in JSON: it saves the call.
func indexNear(src []byte, pos int, c byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for end := min(pos+64, len(src)-7); pos < end; pos += 8 {
		v := binary.LittleEndian.Uint64(src[pos:]) ^ ones*uint64(c)
		if zero := (v - ones) &^ v & tops; zero != 0 {
			return pos + bits.TrailingZeros64(zero)/8
		}
	}
	return indexFrom(src, pos, c)
}

// matters reports whether the escape or line break at pos may stand for a byte of a key, or divide one.
func (s *Set) matters(src []byte, pos int, closed bool) bool {
	lead := src[pos]
	if !isLead(lead) {
		return s.divides(src, pos, pos+1, closed)
	}
	if c, ok := escapedTwice(src[pos:]); ok {
		return s.filter.early['\\'] || c != 0 && s.wants(src, c, pos, pos+3, closed)
	}
	if c, next, ok := commonEscape(src[pos:]); ok {
		return c != 0 && s.wants(src, c, pos, pos+next, closed)
	}
	var us units
	readUnits(&us, src, pos)
	for _, u := range us.u[1:us.n] {
		if s.wants(src, u.b[0], pos, u.next, closed) {
			return true
		}
	}
	return us.more && !closed
}

// commonEscape reads one of the escapes that texts are full of: those with but one reading beside the plain one, which
// begins with c and has n bytes, or none with c 0.
func commonEscape(src []byte) (c byte, n int, ok bool) {
	if len(src) < 6 {
		return 0, 0, false
	}
	switch {
	case src[0] == '\\' && src[1] == 'u':
		v := hexValue(src[2])<<12 | hexValue(src[3])<<8 | hexValue(src[4])<<4 | hexValue(src[5])
		if v <= 0 || v >= 0x800 && utf16.IsSurrogate(rune(v)) || isLead(byte(v)) {
			return 0, 0, false
		}
		var b [utf8.UTFMax]byte
		utf8.EncodeRune(b[:], rune(v))
		return b[0], 6, true
	case src[0] == '\\' && !isLead(src[1]):
		return shortEscape(src[1]), 2, true
	case src[0] == '%' && !isLead(src[1]):
		v := hexValue(src[1])<<4 | hexValue(src[2])
		if v < 0 && hexValue(src[1]) < 0 {
			return 0, 3, true
		}
		return byte(v), 3, v > 0 && !isLead(byte(v))
	}
	return 0, 0, false
}

// escapedTwice reads an escape as JSON in JSON has it, three bytes that stand for a backslash and a character or for c, 0
// when there is no such escape.
func escapedTwice(src []byte) (c byte, ok bool) {
	if len(src) < 3 || src[0] != '\\' || src[1] != '\\' || isLead(src[2]) || src[2] == 'u' {
		return 0, false
	}
	return shortEscape(src[2]), true
}

// wants reports whether the escape src[pos:next] matters where it stands for c.
func (s *Set) wants(src []byte, c byte, pos, next int, closed bool) bool {
	return s.filter.early[c] && s.completes(src, c, pos, next) || isBreak(c) && s.divides(src, pos, next, closed)
}

// completes reports whether the escape src[pos:next], where it stands for c, may be in a key with its neighbours. Those
// before it are as they stand: where they are escaped, they matter themselves.
func (s *Set) completes(src []byte, c byte, pos, next int) bool {
	a, next, ok := s.peek(src, next)
	if !ok || c >= utf8.RuneSelf {
		return true
	}
	f, own, first := s.filter, uint32(c), uint32(a)
	if pos > 0 && f.has(uint32(src[pos-1])|own<<8|first<<16) || pos > 1 && f.has(uint32(src[pos-2])|uint32(src[pos-1])<<8|own<<16) {
		return true
	}
	b, _, ok := s.peek(src, next)
	return !ok || f.has(own|first<<8|uint32(b)<<16)
}

// peek gives the byte that src has at pos, if it is the only one that may be part of a key there.
func (s *Set) peek(src []byte, pos int) (c byte, next int, ok bool) {
	if pos >= len(src) || isBreak(src[pos]) {
		return 0, pos, false
	}
	if lead := src[pos]; !isLead(lead) || s.filter.early[lead] {
		return lead, pos + 1, !isLead(lead)
	}
	c, n, ok := commonEscape(src[pos:])
	if e, twice := escapedTwice(src[pos:]); twice {
		c, n, ok = e, 3, true
	}
	return c, pos + n, ok && c != 0 && c < utf8.RuneSelf && !isBreak(c)
}

func isBreak(c byte) bool { return c == '\n' || c == '\r' }

// divides reports whether the line break src[pos:next] may stand between two of the base64 characters of a key.
func (s *Set) divides(src []byte, pos, next int, closed bool) bool {
	if pos == 0 || base64Value(src[pos-1]) < 0 {
		return false // every spelling of such a character ends with one
	}
	for next < len(src) {
		if isBreak(src[next]) {
			next++
		} else if len(src)-next > 1 && src[next] == '\\' && isBreak(shortEscape(src[next+1])) {
			next += 2
		} else {
			break
		}
	}
	// Where what is before the break is escaped, that escape matters itself. So it is as it stands.
	a, next, ok := s.peek(src, next)
	if !ok {
		return next < len(src) || !closed
	}
	if base64Value(a) < 0 {
		return false
	}
	f, last, first := s.filter, uint32(src[pos-1]), uint32(a)
	if pos > 1 && f.has(uint32(src[pos-2])|last<<8|first<<16) {
		return true
	}
	b, _, ok := s.peek(src, next)
	return !ok || f.has(last|first<<8|uint32(b)<<16)
}
