package mask

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// next gives the first place from pos on at which a match may begin with a key as it is, len(src) when there is none.
func (s *Set) next(src []byte, pos int, closed bool) int {
	f, i := s.filter, pos
	for ; i+8 <= len(src); i += 6 {
		v := binary.LittleEndian.Uint64(src[i:])
		if (f.bit(uint32(v))|f.bit(uint32(v>>16))|f.bit(uint32(v>>32)))&1 == 0 {
			continue
		}
		for at := max(pos, i-1); at < i+5; at++ { // what begins at i+5 shows at the next i
			key := binary.LittleEndian.Uint32(src[at:])
			if f.bit(key)&f.bit(key>>8)&1 != 0 && s.isKey(src[at:]) {
				return at
			}
		}
	}
	for i = max(pos, i-1); i < len(src); i++ {
		if rest := src[i:]; len(rest) >= keyLen {
			if s.isKey(rest) {
				return i
			}
		} else if !closed && s.begins(prefixKey(rest), len(rest)) {
			return i
		}
	}
	return len(src)
}

func prefixKey(b []byte) (key uint32) {
	for _, c := range b {
		key = key<<8 | uint32(c)
	}
	return key
}

func (s *Set) isKey(src []byte) bool {
	key := binary.BigEndian.Uint32(src)
	for _, x := range s.layers {
		if len(x.find(key)) > 0 {
			return true
		}
	}
	return false
}

func (s *Set) begins(prefix uint32, n int) bool {
	for _, x := range s.layers {
		if x.begins(prefix, n) {
			return true
		}
	}
	return false
}

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
	if len(src)-pos > 2 && src[pos+1] == '\\' && lead == '\\' {
		if c := src[pos+2]; !isLead(c) && c != 'u' {
			c = shortEscape(c)
			return s.filter.early['\\'] || c != 0 && s.wants(src, c, pos, pos+3, closed)
		}
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

// wants reports whether the escape src[pos:next] matters where it stands for c.
func (s *Set) wants(src []byte, c byte, pos, next int, closed bool) bool {
	return s.filter.early[c] || isBreak(c) && s.divides(src, pos, next, closed)
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
	after := src[next:min(len(src), next+2)]
	if len(after) < 2 {
		return !closed
	}
	if isLead(after[0]) {
		return after[0] == '%' || isLead(after[1]) || after[1] == 'u' || after[1] == '/'
	}
	if base64Value(after[0]) < 0 {
		return false
	}
	f, last, first := s.filter, uint32(src[pos-1]), uint32(after[0])
	return isLead(after[1]) || isBreak(after[1]) || f.has(last|first<<8|uint32(after[1])<<16) ||
		pos > 1 && f.has(uint32(src[pos-2])|last<<8|first<<16)
}

// A find is what was found at one place of the text.
type find struct {
	start, end int
	secret     *Secret // this or detector
	detector   *Detector
	rank       int      // the lower is named first
	tail       *charset // a detector's match goes on while the text is of these
}

// better reports whether f is to be named rather than g, of the same place.
func (f *find) better(g *find) bool {
	return f.end > g.end || f.end == g.end && f.rank < g.rank
}

// An examination is what is known about one place: what begins there, what its detectors found further on, and whether
// the text so far does not tell.
type examination struct {
	set    *Set
	src    []byte
	at     int
	before []byte // what stands before src, the last maxBefore bytes at most
	closed bool
	masked bool // at is within a match: detectors have nothing to add

	best  find // end is -1 when there is none
	later []find
	more  bool
	seen  [24]prefix // the first n states of walk in front of an escape
	n     int
}

// walk follows the readings of the text from pos on, n bytes of a key being known and so many line breaks stepped over
// since the last of them.
func (e *examination) walk(pos int, key uint32, n, breaks int) {
	for ; n < keyLen; n++ {
		if pos == len(e.src) {
			e.more = e.more || !e.closed && e.set.begins(key, n)
			return
		}
		if isLead(e.src[pos]) {
			break
		}
		if isBreak(e.src[pos]) && n > 0 && breaks < maxBreaks {
			e.walk(pos+1, key, n, breaks+1) // within base64
		}
		key, breaks = key<<8|uint32(e.src[pos]), 0
		pos++
	}
	if n == keyLen {
		if plain := pos == e.at+keyLen; plain || !e.again(prefix{key: key, n: keyLen}) {
			e.lookUp(key, plain)
		}
		return
	}
	if n > 0 && (!e.set.begins(key, n) || e.again(prefix{key, uint16(pos - e.at), uint8(n), uint8(breaks)})) {
		return
	}
	var us units
	readUnits(&us, e.src, pos)
	e.more = e.more || us.more && !e.closed
	for _, u := range us.u[:us.n] {
		if isBreak(u.b[0]) && n > 0 && breaks < maxBreaks {
			e.walk(u.next, key, n, breaks+1) // within base64
		}
		key, n := key, n
		for _, c := range u.b[:u.n] {
			if n < keyLen {
				key, n = key<<8|uint32(c), n+1
			}
		}
		e.walk(u.next, key, n, 0)
	}
}

// A prefix is a state of walk: how far behind at it is, and what it knows. It is small for its number.
type prefix struct {
	key       uint32
	behind    uint16
	n, breaks uint8
}

// again reports whether p has been seen. Backslashes in a row have many readings that come to the same.
func (e *examination) again(p prefix) bool {
	if slices.Contains(e.seen[:e.n], p) {
		return true
	}
	if e.n < len(e.seen) {
		e.seen[e.n] = p
		e.n++
	}
	return false
}

// detectorRank puts every detector behind every secret.
const detectorRank = 1 << 32

// lookUp tries what begins with key. Detectors look only at text as it stands.
func (e *examination) lookUp(key uint32, plain bool) {
	for i, x := range e.set.layers {
		for _, entry := range x.find(key) {
			if entry.what >= 0 {
				e.tryPattern(&x.patterns[entry.what], i*detectorRank/2+int(entry.what))
			} else if plain && !e.masked {
				e.tryDetector(&x.detectors[^entry.what], detectorRank+int(^entry.what))
			}
		}
	}
}

func (e *examination) tryPattern(p *pattern, rank int) {
	end, more := p.match(e.src, e.at)
	if more && !e.closed {
		e.more = true
	}
	if end >= 0 {
		e.take(find{start: p.first.start(e.before, e.src, e.at), end: end, secret: p.secret, rank: rank})
	}
}

func (e *examination) tryDetector(d *Detector, rank int) {
	before := e.src[max(0, e.at-maxBefore):e.at]
	if len(before) < maxBefore {
		before = lastBefore(slices.Concat(e.before, before))
	}
	f, v := d.match(text{src: e.src[e.at:], before: before, closed: e.closed})
	switch v {
	case unknown:
		e.more = true
	case found:
		f.start, f.end, f.detector, f.rank = f.start+e.at, f.end+e.at, d, rank
		if f.start > e.at {
			e.later = append(e.later, f)
			return
		}
		e.take(f)
	}
}

func lastBefore(b []byte) []byte { return b[max(0, len(b)-maxBefore):] }

// take keeps the best name, and all that any match covers.
func (e *examination) take(f find) {
	if e.best.end < 0 {
		e.best = f
		return
	}
	start, end := min(e.best.start, f.start), max(e.best.end, f.end)
	if f.better(&e.best) {
		e.best = f
	}
	e.best.start, e.best.end = start, end
}
