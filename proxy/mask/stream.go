package mask

import "slices"

// A Match is one stretch of the source that is masked. Start and End are offsets from the beginning of the source. An
// empty Placeholder says that the stretch belongs to the match before it, which ends where this one begins.
type Match struct {
	Start, End  int64
	Placeholder string
}

// A Stream masks a text that comes in pieces. It is used with Write and Close, or with Scan and ScanClose, by one
// goroutine at a time. What it holds back is bounded: at most 36 bytes of source for each byte of the longest secret, or
// the longest match of a detector, and only where the text could be the beginning of one.
type Stream struct {
	set  *Set
	buf  []byte // the source from base on
	base int64
	prev [maxBefore]byte // what stands before buf: the last seen of these
	seen int

	at      int // the first place in buf that is not decided
	nextKey int // the next candidates, from at on; less than at when they are to be looked for
	nextOdd int // the next escape or line break that matters, likewise
	odds    odds
	done    int64 // all before it is decided
	end     int64 // of the last match, -1 before the first
	tail    *charset
	later   []find // what detectors found behind at, by start; offsets in buf
	count   int
	closed  bool
}

// NewStream returns a Stream at the beginning of a text.
func (s *Set) NewStream() *Stream {
	st := s.stream()
	return &st
}

func (s *Set) stream() Stream { return Stream{set: s, end: -1} }

// Write takes the next piece of the source and appends to dst what is decided. dst and src must not overlap.
func (st *Stream) Write(dst, src []byte) []byte {
	own, borrowed := st.take(src)
	dst = st.emit(dst)
	dst = st.release(dst, st.at)
	st.keep(own, borrowed)
	return dst
}

// Close ends the source and appends the rest to dst. Nothing may be written after it.
func (st *Stream) Close(dst []byte) []byte {
	st.closed = true
	st.rewind()
	dst = st.release(st.emit(dst), len(st.buf))
	st.finish()
	return dst
}

// Held returns how many bytes of the source are held back now.
func (st *Stream) Held() int { return int(st.base + int64(len(st.buf)) - st.done) }

// Count returns how many places have been masked so far.
func (st *Stream) Count() int { return st.count }

// Scan is Write for those who put the text together themselves: it takes the next piece of the source and returns the
// matches that are now decided, in order and without overlap, and the offset before which all is.
func (st *Stream) Scan(src []byte) (decided int64, matches []Match) {
	own, borrowed := st.take(src)
	matches = st.collect()
	st.done = max(st.done, st.base+int64(st.at))
	st.keep(own, borrowed)
	return st.done, matches
}

// ScanClose ends the source and returns the matches that remain. All of the source is decided then.
func (st *Stream) ScanClose() (matches []Match) {
	st.closed = true
	st.rewind()
	matches = st.collect()
	st.finish()
	return matches
}

func (st *Stream) finish() {
	st.base += int64(len(st.buf))
	st.done, st.at, st.buf, st.later = st.base, 0, nil, nil
}

func (st *Stream) collect() (matches []Match) {
	for m, ok := st.step(); ok; m, ok = st.step() {
		matches = append(matches, m)
	}
	return matches
}

// smallBuf is how much memory a stream keeps while it holds little back.
const smallBuf = 128

// take makes buf what was held back and src after it: src itself where nothing was, and else, where it is long, in
// borrowed memory.
func (st *Stream) take(src []byte) (own []byte, borrowed *[]byte) {
	own = st.buf
	st.rewind()
	switch {
	case len(own) == 0:
		st.buf = src
	case len(own)+len(src) <= max(cap(own), smallBuf):
		own = append(own, src...)
		st.buf = own
	default:
		borrowed = st.set.join.Get().(*[]byte)
		st.buf = append(append((*borrowed)[:0], own...), src...)
		*borrowed = st.buf
	}
	return own, borrowed
}

func (st *Stream) rewind() {
	st.nextKey, st.nextOdd = -1, -1
	st.odds.reset()
}

// keep drops from buf what is before at, and leaves the rest in memory of the stream's own.
func (st *Stream) keep(own []byte, borrowed *[]byte) {
	st.pass(st.buf[:st.at])
	rest := st.buf[st.at:]
	st.base += int64(st.at)
	for i := range st.later {
		st.later[i].start -= st.at
		st.later[i].end -= st.at
	}
	st.at = 0
	if cap(own) > smallBuf && len(rest) <= smallBuf {
		own = nil // a long match is over
	}
	st.buf = append(own[:0], rest...)
	if borrowed != nil && cap(*borrowed) <= maxJoin {
		st.set.join.Put(borrowed)
	}
}

// maxJoin is the largest memory that is kept for the next to borrow.
const maxJoin = 1 << 20

// pass notes the end of what leaves buf.
func (st *Stream) pass(gone []byte) {
	last := lastBefore(gone)
	kept := min(st.seen, maxBefore-len(last))
	copy(st.prev[maxBefore-kept-len(last):], st.prev[maxBefore-kept:])
	copy(st.prev[maxBefore-len(last):], last)
	st.seen = kept + len(last)
}

func (st *Stream) before() []byte { return st.prev[maxBefore-st.seen:] }

// emit appends what comes before each match that is decided, and its placeholder.
func (st *Stream) emit(dst []byte) []byte {
	for {
		from := st.done
		m, ok := st.step()
		if !ok {
			return dst
		}
		dst = append(dst, st.buf[from-st.base:m.Start-st.base]...)
		dst = append(dst, m.Placeholder...)
	}
}

// release appends the text before limit.
func (st *Stream) release(dst []byte, limit int) []byte {
	if end := st.base + int64(limit); end > st.done {
		dst = append(dst, st.buf[st.done-st.base:limit]...)
		st.done = end
	}
	return dst
}

// step goes on to the next match. Without one, at is the first place that is not decided.
func (st *Stream) step() (Match, bool) {
	for {
		if m, ok := st.follow(); ok {
			return m, true
		}
		at := st.candidate()
		if at >= len(st.buf) {
			st.at = len(st.buf)
			return Match{}, false
		}
		e := examination{
			set: st.set, src: st.buf, at: at, before: st.before(),
			closed: st.closed, masked: st.base+int64(at) < st.end, best: find{end: -1},
		}
		e.walk(at, 0, 0, 0)
		st.at = at
		if e.more {
			return Match{}, false
		}
		for len(st.later) > 0 && st.later[0].start == at {
			e.take(st.later[0])
			st.later = st.later[1:]
		}
		st.at = at + 1
		st.postpone(e.later)
		if e.best.end < 0 {
			continue
		}
		if m, ok := st.place(e.best); ok {
			return m, true
		}
	}
}

// candidate gives the next place at which a match may begin.
func (st *Stream) candidate() int {
	if st.nextKey < st.at {
		st.nextKey = st.set.next(st.buf, st.at, st.closed)
	}
	if st.nextOdd < st.at {
		st.nextOdd = st.odds.next(st.set, st.buf, st.at, st.closed)
	}
	// What is odd within a key has at most the rest of the key before it.
	at := min(st.nextKey, max(st.at, st.nextOdd-keyLen+1))
	if st.nextOdd == len(st.buf) {
		at = st.nextKey
	}
	if len(st.later) > 0 {
		at = min(at, st.later[0].start)
	}
	return at
}

func (st *Stream) postpone(finds []find) {
	if len(finds) == 0 {
		return
	}
	st.later = append(st.later, finds...)
	slices.SortStableFunc(st.later, func(a, b find) int { return a.start - b.start })
}

// place makes a match of what was found, less what is masked already.
func (st *Stream) place(f find) (Match, bool) {
	m := Match{Start: st.base + int64(f.start), End: st.base + int64(f.end)}
	if m.Start <= st.end {
		if m.End < st.end || m.End == st.end && f.tail == nil {
			return Match{}, false
		}
		m.Start = st.end
	} else {
		m.Placeholder = st.set.placeholder(f, st.buf)
		st.count++
	}
	st.end, st.done = m.End, m.End
	st.tail = f.tail
	return m, m.End > m.Start || m.Placeholder != ""
}

// follow takes into the last match what belongs to its tail.
func (st *Stream) follow() (Match, bool) {
	if st.tail == nil {
		return Match{}, false
	}
	from := int(st.end - st.base)
	to := from
	for to < len(st.buf) && st.tail.has(st.buf[to]) {
		to++
	}
	if to < len(st.buf) {
		st.tail = nil
	}
	st.end += int64(to - from)
	st.done = st.end
	return Match{Start: st.end - int64(to-from), End: st.end}, to > from
}
