package mask_test

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/jobgate/jobgate/proxy/mask"
)

// The oracle masks as slowly and as plainly as can be: it tries every form of every secret at every place, under every
// reading, and shares nothing with the package but the definition.
type oracle struct {
	key     string
	secrets []mask.Secret
}

type reading struct {
	b    string
	next int
}

// readings are what src may stand for at pos under so many layers of escapes.
func readings(src string, pos, layers int) []reading {
	if pos >= len(src) {
		return nil
	}
	if layers == 0 {
		return []reading{{src[pos : pos+1], pos + 1}}
	}
	all := readings(src, pos, layers-1)
	for _, lead := range slices.Clone(all) {
		switch lead.b {
		case "%":
			for _, h := range digits(src, lead.next, 2, layers-1) {
				all = append(all, reading{string([]byte{byte(h.v)}), h.next})
			}
		case `\`:
			for _, c := range readings(src, lead.next, layers-1) {
				if i := strings.Index(`"\/bfnrt`, c.b); i >= 0 && len(c.b) == 1 {
					all = append(all, reading{"\"\\/\b\f\n\r\t"[i : i+1], c.next})
				}
				if c.b == "u" {
					all = append(all, runes(src, c.next, layers-1)...)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b reading) int { return cmp.Or(a.next-b.next, strings.Compare(a.b, b.b)) })
	return slices.Compact(all)
}

type number struct {
	v    rune
	next int
}

func digits(src string, pos, n, layers int) []number {
	list := []number{{0, pos}}
	for range n {
		var longer []number
		for _, x := range list {
			for _, c := range readings(src, x.next, layers) {
				if i := strings.Index("0123456789abcdef", strings.ToLower(c.b)); i >= 0 && len(c.b) == 1 {
					longer = append(longer, number{x.v<<4 | rune(i), c.next})
				}
			}
		}
		list = longer
	}
	return list
}

func runes(src string, pos, layers int) (all []reading) {
	for _, high := range digits(src, pos, 4, layers) {
		if !utf16.IsSurrogate(high.v) {
			all = append(all, reading{string(high.v), high.next})
			continue
		}
		for _, lead := range readings(src, high.next, layers) {
			if lead.b != `\` {
				continue
			}
			for _, u := range readings(src, lead.next, layers) {
				if u.b != "u" {
					continue
				}
				for _, low := range digits(src, u.next, 4, layers) {
					if r := utf16.DecodeRune(high.v, low.v); r != 0xfffd {
						all = append(all, reading{string(r), low.next})
					}
				}
			}
		}
	}
	return all
}

// A form is what each unescaped byte must be. The last character of a base64 form may be missing.
type form struct {
	must       []func(c byte) bool
	head, tail func(c byte) bool // head is not masked, but another base64 character in its place says that this is none
	wraps      bool
}

func exactly(want byte, also string) func(byte) bool {
	return func(c byte) bool { return c == want || strings.IndexByte(also, c) >= 0 }
}

func oracleForms(value []byte) []form {
	var text, hexa form
	for _, c := range value {
		also := ""
		if c == ' ' {
			also = "+"
		}
		text.must = append(text.must, exactly(c, also))
		for _, d := range fmt.Sprintf("%02x", c) {
			hexa.must = append(hexa.must, exactly(byte(d), strings.ToUpper(string(d))))
		}
	}
	all := []form{text, hexa}
	for before := range 3 {
		f := form{wraps: true}
		from, to := 8*before, 8*(before+len(value))
		for at := 0; at < to; at += 6 {
			var known []int
			for bit := at; bit < at+6; bit++ {
				if from <= bit && bit < to {
					known = append(known, bit)
				}
			}
			agrees := func(c byte) bool {
				v := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", c)
				if i := strings.IndexByte("-_", c); i >= 0 {
					v = 62 + i
				}
				for _, bit := range known {
					own := bit - from
					if v < 0 || v>>(5-(bit-at))&1 != int(value[own/8]>>(7-own%8)&1) {
						return false
					}
				}
				return true
			}
			switch {
			case len(known) == 6:
				f.must = append(f.must, agrees)
			case len(known) > 0 && at < from:
				f.head = agrees
			case len(known) > 0:
				f.tail = agrees
			}
		}
		all = append(all, f)
		if before == 0 {
			short := f
			short.head, short.must = f.must[0], f.must[1:]
			all[len(all)-1].head = func(byte) bool { return false }
			all = append(all, short)
		}
	}
	return all
}

// ends are all places where the form may end that begins at pos.
func (f form) ends(read [][]reading, pos int) []int {
	type state struct{ pos, i, breaks int }
	todo, seen := []state{{pos, 0, 0}}, map[state]bool{}
	var ends []int
	for len(todo) > 0 {
		s := todo[0]
		todo = todo[1:]
		if seen[s] {
			continue
		}
		seen[s] = true
		if s.i == len(f.must) {
			ends = append(ends, s.pos)
			for _, r := range read[s.pos] {
				if f.tail != nil && len(r.b) == 1 && f.tail(r.b[0]) {
					ends = append(ends, r.next)
				}
			}
			continue
		}
		for _, r := range read[s.pos] {
			i := s.i
			for i < len(f.must) && i-s.i < len(r.b) && f.must[i](r.b[i-s.i]) {
				i++
			}
			if i-s.i == len(r.b) {
				todo = append(todo, state{r.next, i, 0})
			} else if f.wraps && s.i > 0 && s.breaks < 2 && (r.b == "\n" || r.b == "\r") {
				todo = append(todo, state{r.next, s.i, s.breaks + 1})
			}
		}
	}
	return ends
}

// excluded reports whether the form cannot begin behind before: a base64 character that is not its head stands there, as
// it is.
func (f form) excluded(before string) bool {
	if f.head == nil || before == "" || strings.ContainsAny(before[max(0, len(before)-36):], `%\`) {
		return false
	}
	last := rune(before[len(before)-1])
	is64 := last < 128 && (unicode.IsLetter(last) || unicode.IsDigit(last) || strings.ContainsRune("+/-_", last))
	return is64 && !f.head(byte(last))
}

func (o oracle) mask(src string) string {
	var out strings.Builder
	done, masked := 0, -1
	var forms [][]form
	for _, s := range o.secrets {
		forms = append(forms, oracleForms(s.Value))
	}
	read := make([][]reading, len(src)+1)
	for at := range len(src) {
		read[at] = readings(src, at, 2)
	}
	for at := range len(src) {
		end, best := -1, 0
		for i := range o.secrets {
			for _, f := range forms[i] {
				ends := f.ends(read, at)
				if len(ends) == 0 || f.excluded(src[:at]) {
					continue
				}
				if e := slices.Max(ends); e > end {
					end, best = e, i
				}
			}
		}
		if end <= masked {
			continue
		}
		if at > masked {
			mac := hmac.New(sha256.New, []byte(o.key))
			mac.Write(o.secrets[best].Value)
			fmt.Fprintf(&out, "%s[masked:%s:%x]", src[done:at], o.secrets[best].Name, mac.Sum(nil)[:4])
		}
		done, masked = end, end
	}
	return out.String() + src[done:]
}
