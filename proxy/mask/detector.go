package mask

import (
	"errors"
	"fmt"
	"regexp"
)

// A Detector recognises values that nobody told us by their shape, in the text as it stands. Its name goes into the
// placeholder.
type Detector struct {
	Name string
	// Anchors are literals, at least one, of three bytes or more. The detector is tried where one of them stands.
	Anchors []string
	// Pattern is an RE2 expression that must match from the anchor on. Its first group, if it has one, is what is masked.
	Pattern string
	// Max is the longest match of Pattern in bytes, from the anchor on, at most MaxMatch. A stream holds back as much
	// after each anchor. A longer match is not found. Built-in detectors bring their own limits and leave it 0.
	Max int

	after *charset // what may follow an anchor of three bytes; nil for anything
	match matcher  // set for built-in detectors, and made from Pattern for others
}

// MaxMatch bounds Detector.Max.
const MaxMatch = 16 << 10

// A text is what a matcher sees: the source from the anchor on.
type text struct {
	src    []byte
	before []byte // what stands before the anchor, the last maxBefore bytes at most
	closed bool   // nothing follows src
}

// maxBefore is how much of the text before a place may tell what is there: an escape, whose last character is no
// neighbour. The longest is \uXXXX with each character of it so again.
const maxBefore = 36

// joined reports whether what stands before ends with one of set, other than as part of an escape.
func joined(before []byte, set *charset) bool {
	n := len(before)
	switch {
	case n == 0 || !set.has(before[n-1]):
		return false
	case n >= 2 && before[n-2] == '\\':
		return shortEscape(before[n-1]) == 0
	case n >= 3 && before[n-3] == '%':
		return hexValue(before[n-2]) < 0 || hexValue(before[n-1]) < 0
	}
	return n < 6 || before[n-6] != '\\' || before[n-5] != 'u'
}

// short is the verdict where src ended too early.
func (t text) short() verdict {
	if t.closed {
		return absent
	}
	return unknown
}

type verdict uint8

const (
	absent  verdict = iota
	unknown         // the text so far does not tell
	found
)

// A matcher looks for a value at the beginning of a text. It sets start, end and tail of the find. Its answer depends on
// src alone, and does not change when more follows, unless it is unknown.
type matcher func(t text) (find, verdict)

// check completes a detector, or says what is wrong with it.
func (d *Detector) check() error {
	if err := checkName(d.Name); err != nil {
		return err
	}
	if len(d.Anchors) == 0 {
		return fmt.Errorf("detector %s: no anchors; name the literals that its values begin with", d.Name)
	}
	for _, a := range d.Anchors {
		if len(a) < keyLen-1 {
			return fmt.Errorf("detector %s: anchor %q is shorter than %d bytes", d.Name, a, keyLen-1)
		}
	}
	if d.match != nil {
		return nil
	}
	if d.Max < 1 || d.Max > MaxMatch {
		return fmt.Errorf("detector %s: max is %d; set the longest match, 1 to %d bytes", d.Name, d.Max, MaxMatch)
	}
	re, err := regexp.Compile(`\A(?:` + d.Pattern + `)`)
	if err != nil {
		return fmt.Errorf("detector %s: %w", d.Name, err)
	}
	if re.MatchString("") {
		return errors.New("detector " + d.Name + ": the pattern matches the empty text")
	}
	d.match = expression(re, d.Max)
	return nil
}

// expression matches re within the next limit bytes, all of which it wants to see.
func expression(re *regexp.Regexp, limit int) matcher {
	return func(t text) (find, verdict) {
		if len(t.src) < limit && !t.closed {
			return find{}, unknown
		}
		at := re.FindSubmatchIndex(t.src[:min(limit, len(t.src))])
		if at == nil {
			return find{}, absent
		}
		f := find{start: at[0], end: at[1]}
		if len(at) > 2 && at[2] >= 0 {
			f.start, f.end = at[2], at[3]
		}
		if f.start == f.end {
			return find{}, absent
		}
		return f, found
	}
}

// anchorBytes gives the bytes that may stand at the places of the anchor's key.
func anchorBytes(anchor string, after *charset) [][]byte {
	places := make([][]byte, keyLen)
	for i := range places {
		if i < len(anchor) {
			places[i] = []byte{anchor[i]}
			continue
		}
		for c := range 256 {
			if after == nil || after.has(byte(c)) {
				places[i] = append(places[i], byte(c))
			}
		}
	}
	return places
}

// A charset is a set of bytes.
type charset [256]bool

func (c *charset) has(b byte) bool { return c[b] }

// chars makes a set from its members; a-z, A-Z and 0-9 stand for their ranges.
func chars(members string) *charset {
	var set charset
	for i := 0; i < len(members); i++ {
		if i+2 < len(members) && members[i+1] == '-' && members[i] < members[i+2] && hexOrLetter(members[i+2]) {
			for c := int(members[i]); c <= int(members[i+2]); c++ {
				set[c] = true
			}
			i += 2
			continue
		}
		set[members[i]] = true
	}
	return &set
}

func hexOrLetter(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// A step of a shape is a literal, or a run of bytes of a set.
type step struct {
	lit      string
	set      *charset
	min, max int  // of a run; a run goes on as far as it can
	value    bool // what is masked begins here, up to the end of the last step so marked; with none marked, all is
	endless  bool // of a last run: what goes on behind max belongs to the value
}

func lit(s string) step                 { return step{lit: s} }
func run(c *charset, min, max int) step { return step{set: c, min: min, max: max} }
func endless(c *charset, min int) step  { return step{set: c, min: min, max: maxRun, endless: true} }
func (s step) masked() step             { s.value = true; return s }

// oneOf gives the answer of the first that has one.
func oneOf(first matcher, rest ...matcher) matcher {
	all := append([]matcher{first}, rest...)
	return func(t text) (find, verdict) {
		for _, m := range all {
			if f, v := m(t); v != absent {
				return f, v
			}
		}
		return find{}, absent
	}
}

// maxRun is how much of an endless run a stream holds back. What follows is masked as it comes.
const maxRun = 4 << 10

// shape matches steps one after the other. left is what may not stand before, right what may not stand behind; nil is
// for nothing.
func shape(left, right *charset, steps ...step) matcher {
	return func(t text) (find, verdict) {
		if left != nil && joined(t.before, left) {
			return find{}, absent
		}
		f, pos := find{start: -1}, 0
		for _, s := range steps {
			next, v := s.take(t, pos)
			if v != found {
				return find{}, v
			}
			if s.value && f.start < 0 {
				f.start = pos
			}
			if s.value {
				f.end = next
			}
			if s.endless && next-pos == s.max {
				f.tail = s.set
			}
			pos = next
		}
		if f.start < 0 {
			f.start, f.end = 0, pos
		}
		if right != nil && pos == len(t.src) && !t.closed {
			return find{}, unknown
		}
		if right != nil && pos < len(t.src) && right.has(t.src[pos]) {
			return find{}, absent
		}
		return f, found
	}
}

// take gives where the step ends that begins at pos.
func (s step) take(t text, pos int) (int, verdict) {
	if s.set == nil {
		for i := range len(s.lit) {
			if pos+i == len(t.src) {
				return 0, t.short()
			}
			if t.src[pos+i] != s.lit[i] {
				return 0, absent
			}
		}
		return pos + len(s.lit), found
	}
	end := pos
	for end < len(t.src) && end-pos < s.max && s.set.has(t.src[end]) {
		end++
	}
	switch {
	case end == len(t.src) && end-pos < s.max && !t.closed:
		return 0, unknown
	case end-pos < s.min:
		return 0, absent
	}
	return end, found
}
