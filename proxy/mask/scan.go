package mask

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// next gives the first place from pos on at which a match may begin with a key as it is, len(src) when there is none.
func (s *Set) next(src []byte, pos int, closed bool) int {
	i := pos
	for ; i+keyLen <= len(src); i += 2 {
		if !s.filter.has(binary.LittleEndian.Uint32(src[i:])) {
			continue
		}
		if i > pos && s.isKey(src[i-1:]) {
			return i - 1
		}
		if s.isKey(src[i:]) {
			return i
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

// nextOdd gives the first place from pos on of an escape that may stand for a byte of a key, or of a line break that may
// divide one; len(src) when there is none.
func (s *Set) nextOdd(src []byte, pos int, closed bool) int {
	var next [len(oddBytes)]int
	for {
		at := len(src)
		for i, c := range []byte(oddBytes) {
			if next[i] <= pos {
				next[i] = indexFrom(src, pos, c)
			}
			at = min(at, next[i])
		}
		if at == len(src) || s.matters(src, at, closed) {
			return at
		}
		pos = at + 1
	}
}

const oddBytes = "\\%\n\r"

func indexFrom(src []byte, pos int, c byte) int {
	if i := bytes.IndexByte(src[pos:], c); i >= 0 {
		return pos + i
	}
	return len(src)
}

// matters reports whether the escape or line break at pos may stand for a byte of a key, or divide one.
func (s *Set) matters(src []byte, pos int, closed bool) bool {
	lead := src[pos]
	if !isLead(lead) {
		return s.divides(src, pos, pos+1, closed)
	}
	if pos+1 < len(src) {
		c := src[pos+1]
		switch {
		case isLead(c):
		case lead == '%' && hexValue(c) < 0:
			return false
		case lead == '\\' && c != 'u':
			b := shortEscape(c)
			return b != 0 && (s.filter.early[b] || isBreak(b) && s.divides(src, pos, pos+2, closed))
		}
	}
	var us units
	readUnits(&us, src, pos)
	for _, u := range us.u[1:us.n] {
		if s.filter.early[u.b[0]] || isBreak(u.b[0]) && s.divides(src, pos, u.next, closed) {
			return true
		}
	}
	return us.more && !closed
}

func isBreak(c byte) bool { return c == '\n' || c == '\r' }

// divides reports whether the line break src[pos:next] may stand between two of the base64 characters of a key.
func (s *Set) divides(src []byte, pos, next int, closed bool) bool {
	if pos == 0 || base64Value(src[pos-1]) < 0 {
		return false // every spelling of such a character ends with one
	}
	for next < len(src) && isBreak(src[next]) {
		next++
	}
	after := src[next:min(len(src), next+2)]
	if len(after) < 2 {
		return !closed
	}
	before := src[max(0, pos-longestUnit):pos]
	if isLead(after[0]) || isLead(after[1]) || isBreak(after[1]) || bytes.IndexByte(before, '%') >= 0 || bytes.IndexByte(before, '\\') >= 0 {
		return true
	}
	f, last := s.filter, uint32(before[len(before)-1])
	first, second := uint32(after[0]), uint32(after[1])
	return f.has(last|first<<8|second<<16) || len(before) > 1 && f.has(uint32(before[len(before)-2])|last<<8|first<<16)
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
	seen  [32]prefix // the first n states of walk in front of an escape
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
		if plain := pos == e.at+keyLen; plain || !e.again(prefix{0, key, n, 0}) {
			e.lookUp(key, plain)
		}
		return
	}
	if n > 0 && (!e.set.begins(key, n) || e.again(prefix{pos, key, n, breaks})) {
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

// A prefix is a state of walk.
type prefix struct {
	pos    int
	key    uint32
	n      int
	breaks int
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
		e.take(find{start: p.first.start(e.src, e.at), end: end, secret: p.secret, rank: rank})
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
