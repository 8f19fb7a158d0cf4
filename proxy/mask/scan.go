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

// nextEscape gives the first place from pos on at which an escape begins that may stand for a byte of a key, len(src)
// when there is none.
func (s *Set) nextEscape(src []byte, pos int, closed bool) int {
	percent, backslash := pos-1, pos-1
	for {
		if percent < pos {
			percent = indexFrom(src, pos, '%')
		}
		if backslash < pos {
			backslash = indexFrom(src, pos, '\\')
		}
		at := min(percent, backslash)
		if at == len(src) || s.matters(src, at, closed) {
			return at
		}
		pos = at + 1
	}
}

func indexFrom(src []byte, pos int, c byte) int {
	if i := bytes.IndexByte(src[pos:], c); i >= 0 {
		return pos + i
	}
	return len(src)
}

// matters reports whether the escape at pos may stand for a byte of a key.
func (s *Set) matters(src []byte, pos int, closed bool) bool {
	if pos+1 < len(src) {
		c := src[pos+1]
		switch {
		case isLead(c):
		case src[pos] == '%':
			if hexValue(c) < 0 {
				return false
			}
		case c != 'u':
			return s.filter.early[shortEscape(c)] && shortEscape(c) != 0
		}
	}
	var us units
	readUnits(&us, src, pos)
	for _, u := range us.u[1:us.n] {
		if s.filter.early[u.b[0]] {
			return true
		}
	}
	return us.more && !closed
}

// A find is what was found at one place of the text.
type find struct {
	start, end int
	secret     *Secret   // one of these two
	detector   *Detector //
	tail       *charset  // a detector's match goes on while the text is of these
}

// better reports whether f is to be named rather than g, of the same place.
func (f *find) better(g *find) bool {
	return f.end > g.end || f.end == g.end && f.secret != nil && g.secret == nil
}

// An examination is what is known about one place: what begins there, what its detectors found further on, and whether
// the text so far does not tell.
type examination struct {
	set    *Set
	src    []byte
	at     int
	before []byte // what stands before src, the last maxBefore bytes at most
	closed bool

	best  find // end is -1 when there is none
	later []find
	more  bool
}

// walk follows the readings of the text from pos on, n bytes of a key being known.
func (e *examination) walk(pos int, key uint32, n int) {
	for ; n < keyLen; n++ {
		if pos == len(e.src) {
			e.more = e.more || !e.closed && e.set.begins(key, n)
			return
		}
		if isLead(e.src[pos]) {
			break
		}
		key = key<<8 | uint32(e.src[pos])
		pos++
	}
	if n == keyLen {
		e.lookUp(key, pos == e.at+keyLen)
		return
	}
	if n > 0 && !e.set.begins(key, n) {
		return
	}
	var us units
	readUnits(&us, e.src, pos)
	e.more = e.more || us.more && !e.closed
	for _, u := range us.u[:us.n] {
		key, n := key, n
		for _, c := range u.b[:u.n] {
			if n < keyLen {
				key, n = key<<8|uint32(c), n+1
			}
		}
		e.walk(u.next, key, n)
	}
}

// lookUp tries what begins with key. Detectors look only at text as it stands.
func (e *examination) lookUp(key uint32, plain bool) {
	for _, x := range e.set.layers {
		for _, entry := range x.find(key) {
			if entry.what >= 0 {
				e.tryPattern(&x.patterns[entry.what])
			} else if plain {
				e.tryDetector(&x.detectors[^entry.what])
			}
		}
	}
}

func (e *examination) tryPattern(p *pattern) {
	end, more := p.match(e.src, e.at)
	if more && !e.closed {
		e.more = true
	}
	if end >= 0 {
		e.take(find{start: p.first.start(e.src, e.at), end: end, secret: p.secret})
	}
}

func (e *examination) tryDetector(d *Detector) {
	before := e.src[max(0, e.at-maxBefore):e.at]
	if len(before) < maxBefore {
		before = lastBefore(slices.Concat(e.before, before))
	}
	f, v := d.match(text{src: e.src[e.at:], before: before, closed: e.closed})
	switch v {
	case unknown:
		e.more = true
	case found:
		f.start, f.end, f.detector = f.start+e.at, f.end+e.at, d
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
