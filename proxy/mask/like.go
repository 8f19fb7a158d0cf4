package mask

import (
	"bytes"
	"sort"
)

// Clean is a text in which a Set found nothing, and what the Set knew along the way. A text that begins and ends like it,
// as the next request of an agent does, is looked at only where it differs. It does not change.
type Clean struct {
	filter *filter // of the Set, and of those that differ from it in nothing but their key
	text   []byte
	marks  []mark // by fed
}

// mark is a state of a Stream that has found nothing so far: after fed bytes, all before at is decided. What a stream
// does from there on depends on nothing but the text from maxBefore bytes before at on.
type mark struct{ fed, at int }

// markEvery is how many bytes lie between two marks.
const markEvery = 4 << 10

// MaskLike is Mask for a text that is probably much like base, nil for none. It returns what Mask returns, and the Clean
// for the next such text, nil where something was masked. The text must not be written to while that is used.
func (s *Set) MaskLike(base *Clean, src []byte) (out []byte, n int, clean *Clean) {
	l := likeness{set: s, src: src, st: s.stream()}
	if base != nil && base.filter == s.filter {
		l.resume(base)
	}
	for l.fed < len(src) && !l.arrived {
		l.feed()
	}
	if !l.arrived {
		l.matches = append(l.matches, l.st.ScanClose()...)
	}
	if len(l.matches) > 0 {
		return l.replaced(), l.st.count, nil
	}
	return src, 0, &Clean{filter: s.filter, text: src, marks: l.marks}
}

// likeness is one MaskLike.
type likeness struct {
	set     *Set
	src     []byte
	st      Stream
	fed     int
	marks   []mark
	matches []Match

	ahead   []mark // of the base, where its text is that of src again, in places of src
	arrived bool   // the state is that of the base: so is all that follows
}

// resume takes the state of the last mark before the texts part, and notes those behind the place where they meet again.
func (l *likeness) resume(base *Clean) {
	prefix, suffix := common(base.text, l.src)
	known := sort.Search(len(base.marks), func(i int) bool { return base.marks[i].fed > prefix })
	l.marks = append(make([]mark, 0, len(l.src)/markEvery+2), base.marks[:known]...)
	if known > 0 {
		m := base.marks[known-1]
		l.fed = m.fed
		l.st.base, l.st.done = int64(m.at), int64(m.at)
		l.st.pass(l.src[max(0, m.at-maxBefore):m.at])
		l.st.buf = bytes.Clone(l.src[m.at:m.fed])
	}
	shift, meet := len(l.src)-len(base.text), len(base.text)-suffix+maxBefore
	for _, m := range base.marks[known:] {
		if m.at >= meet {
			l.ahead = append(l.ahead, mark{m.fed + shift, m.at + shift})
		}
	}
	if prefix == len(l.src) && shift == 0 {
		l.arrived = true
		l.marks = base.marks
	}
}

// feed gives the stream the next piece, up to a mark of the base where one is near.
func (l *likeness) feed() {
	for len(l.ahead) > 0 && l.ahead[0].fed <= l.fed {
		l.ahead = l.ahead[1:]
	}
	end := min(l.fed+markEvery, len(l.src))
	if len(l.ahead) > 0 {
		end = min(end, l.ahead[0].fed)
	}
	_, found := l.st.Scan(l.src[l.fed:end])
	l.fed = end
	if l.matches = append(l.matches, found...); len(l.matches) > 0 || len(l.st.later) > 0 || l.st.tail != nil {
		return
	}
	here := mark{l.fed, int(l.st.base)}
	if len(l.ahead) > 0 && l.ahead[0] == here {
		l.marks = append(l.marks, l.ahead...)
		l.arrived = true
		return
	}
	l.marks = append(l.marks, here)
}

// replaced is the text with its matches replaced.
func (l *likeness) replaced() []byte {
	out, at := make([]byte, 0, len(l.src)), 0
	for _, m := range l.matches {
		out = append(append(out, l.src[at:m.Start]...), m.Placeholder...)
		at = int(m.End)
	}
	return append(out, l.src[at:]...)
}

// common returns how many bytes two texts share at their beginning and, beyond that, at their end.
func common(x, y []byte) (prefix, suffix int) {
	const block = 256
	n := min(len(x), len(y))
	for prefix+block <= n && string(x[prefix:prefix+block]) == string(y[prefix:prefix+block]) {
		prefix += block
	}
	for prefix < n && x[prefix] == y[prefix] {
		prefix++
	}
	x, y, n = x[prefix:], y[prefix:], n-prefix
	for suffix+block <= n && string(x[len(x)-suffix-block:len(x)-suffix]) == string(y[len(y)-suffix-block:len(y)-suffix]) {
		suffix += block
	}
	for suffix < n && x[len(x)-1-suffix] == y[len(y)-1-suffix] {
		suffix++
	}
	return prefix, suffix
}
