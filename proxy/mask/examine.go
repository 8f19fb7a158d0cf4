package mask

import "slices"

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
			e.more = e.more || !e.closed && e.set.begins(key, n, e.valueBefore())
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
	if n > 0 && (!e.set.begins(key, n, -1) || e.again(prefix{key, uint16(pos - e.at), uint8(n), uint8(breaks)})) {
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

// valueBefore gives the base64 value of the character before at, -1 where that is none, or may belong to an escape.
func (e *examination) valueBefore() int {
	near := e.src[max(0, e.at-maxBefore):e.at]
	far := e.before[max(0, len(e.before)+len(near)-maxBefore):]
	if len(near) == 0 {
		near, far = far, nil
	}
	if len(near) == 0 || hasLead(near) || hasLead(far) {
		return -1
	}
	return base64Value(near[len(near)-1])
}

func (e *examination) tryPattern(p *pattern, rank int) {
	if p.before.rulesOut(e.valueBefore()) {
		return // the text is base64, and of something else
	}
	end, more := p.match(e.src, e.at)
	if more && !e.closed {
		e.more = true
	}
	if end >= 0 {
		e.take(find{start: e.at, end: end, secret: p.secret, rank: rank})
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
