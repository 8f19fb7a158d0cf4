package mask

import (
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// A unit is one reading of the source at one place: the bytes that it stands for, and where the next unit begins.
type unit struct {
	b    [4]byte
	n    uint8
	next int
}

func oneByte(b byte, next int) unit { return unit{b: [4]byte{b}, n: 1, next: next} }

// units are all the readings of one place, the plain byte first. Eight are more than there can be: the plain one, two
// leads, and two characters after each.
type units struct {
	u    [12]unit
	n    int
	more bool // the source ends within what may be a longer reading
}

func (us *units) add(u unit) {
	for i := range us.n {
		if us.u[i] == u {
			return
		}
	}
	if us.n < len(us.u) {
		us.u[us.n] = u
		us.n++
	}
}

// isLead reports whether c begins an escape.
func isLead(c byte) bool { return c == '%' || c == '\\' }

func hasLead(b []byte) bool { return slices.ContainsFunc(b, isLead) }

// readUnits gives the readings of src at pos, with up to two layers of escapes. pos is within src.
func readUnits(us *units, src []byte, pos int) {
	us.n, us.more = 0, false
	us.add(oneByte(src[pos], pos+1))
	if !isLead(src[pos]) {
		return
	}
	inner := us.n
	readEscape(us, src, src[pos], pos+1, 0)
	found := us.n
	readEscape(us, src, src[pos], pos+1, 1)
	for i := inner; i < found; i++ {
		if u := us.u[i]; u.n == 1 && isLead(u.b[0]) {
			readEscape(us, src, u.b[0], u.next, 1)
		}
	}
}

// readEscape adds what the escape that lead began stands for, where the characters after it, from pos on, may be escaped
// themselves by depth layers (0 or 1).
func readEscape(us *units, src []byte, lead byte, pos, depth int) {
	if lead == '%' {
		if v, next, ok := hexDigits(us, src, pos, 2, depth); ok {
			us.add(oneByte(byte(v), next))
		}
		return
	}
	var chars [2]unit
	for _, c := range chars[:readChar(us, &chars, src, pos, depth)] {
		if c.b[0] == 'u' {
			readRune(us, src, c.next, depth)
		} else if b := shortEscape(c.b[0]); b != 0 {
			us.add(oneByte(b, c.next))
		}
	}
}

// shortEscape gives the character of JSON's two-character escapes (RFC 8259 section 7), or 0.
func shortEscape(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return 0
}

// readChar stores the one-byte readings of src at pos under depth layers of escapes, and returns how many there are.
func readChar(us *units, chars *[2]unit, src []byte, pos, depth int) int {
	if pos >= len(src) {
		us.more = true
		return 0
	}
	chars[0] = oneByte(src[pos], pos+1)
	if depth == 0 || !isLead(src[pos]) {
		return 1
	}
	var in units
	readEscape(&in, src, src[pos], pos+1, 0)
	us.more = us.more || in.more
	if in.n == 1 && in.u[0].n == 1 {
		chars[1] = in.u[0]
		return 2
	}
	return 1
}

// hexDigits reads n hexadecimal digits, each under depth layers of escapes.
func hexDigits(us *units, src []byte, pos, n, depth int) (v rune, next int, ok bool) {
	var chars [2]unit
	for range n {
		found := false
		for _, c := range chars[:readChar(us, &chars, src, pos, depth)] {
			if d := hexValue(c.b[0]); d >= 0 {
				v, pos, found = v<<4|rune(d), c.next, true
				break
			}
		}
		if !found {
			return 0, 0, false
		}
	}
	return v, pos, true
}

func hexValue(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// readRune adds the character of a \u escape whose digits begin at pos. A surrogate counts with its other half only.
func readRune(us *units, src []byte, pos, depth int) {
	r, next, ok := hexDigits(us, src, pos, 4, depth)
	if !ok {
		return
	}
	if !utf16.IsSurrogate(r) {
		us.addRune(r, next)
		return
	}
	var leads, marks [2]unit
	for _, lead := range leads[:readChar(us, &leads, src, next, depth)] {
		if lead.b[0] != '\\' {
			continue
		}
		for _, u := range marks[:readChar(us, &marks, src, lead.next, depth)] {
			if u.b[0] != 'u' {
				continue
			}
			low, end, ok := hexDigits(us, src, u.next, 4, depth)
			if pair := utf16.DecodeRune(r, low); ok && pair != utf8.RuneError {
				us.addRune(pair, end)
			}
		}
	}
}

func (us *units) addRune(r rune, next int) {
	u := unit{next: next}
	u.n = uint8(utf8.EncodeRune(u.b[:], r))
	us.add(u)
}
