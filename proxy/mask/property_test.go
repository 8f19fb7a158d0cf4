package mask_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jobgate/jobgate/proxy/mask"
)

// A writer spells texts in the forms that are claimed, and nearly so.
type writer struct{ *rand.Rand }

func (w writer) pick(list ...string) string { return list[w.IntN(len(list))] }

func (w writer) secret() string {
	alphabet := w.pick("ab", `\u0041`, "%25", "aZ9+/=-_ ", "é😀\"\n", `\"nu%2BC5`, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
	r := []rune(alphabet)
	var b strings.Builder
	for n := 6 + w.IntN(12); b.Len() < n; {
		b.WriteRune(r[w.IntN(len(r))])
	}
	return "x" + b.String() + "x"
}

// escaped spells each character as it is or in some escape.
func (w writer) escaped(s string) string {
	var b strings.Builder
	style := w.IntN(5)
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		c := s[:n]
		s = s[n:]
		how := style
		if style == 4 {
			how = w.IntN(4)
		}
		switch how {
		case 0:
			b.WriteString(c)
		case 1:
			b.WriteString(escapeAll(w.pick("%%%02x", "%%%02X"), c))
		case 2:
			if r == utf8.RuneError {
				b.WriteString(c)
			} else {
				b.WriteString(strings.Replace(w.pick(strings.ToUpper(utf16Escapes(c)), utf16Escapes(c)), `\U`, `\u`, -1))
			}
		case 3:
			b.WriteString(jsonEscape(c))
		}
	}
	return b.String()
}

func (w writer) form(s string) string {
	switch w.IntN(6) {
	case 0:
		s = strings.Map(func(r rune) rune {
			if 'a' <= r && r <= 'f' && w.IntN(2) == 0 {
				return r - 32
			}
			return r
		}, hex.EncodeToString([]byte(s)))
	case 1, 2:
		enc := []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding}[w.IntN(4)]
		s = enc.EncodeToString([]byte(w.pick("", "x", "xy", "~~~", "\xff") + s + w.pick("", "x", "\xff\xff")))
		if w.IntN(4) == 0 {
			at := w.IntN(len(s))
			s = s[:at] + w.pick("\n", "\r\n", `\n`) + s[at:]
			at = w.IntN(len(s))
			s = s[:at] + w.pick("", "\n") + s[at:]
		}
	}
	for range w.IntN(3) {
		s = w.escaped(s)
	}
	return s
}

func (w writer) text(secrets []string) string {
	var b strings.Builder
	for range 1 + w.IntN(5) {
		b.WriteString(w.pick("", "", " ", "a", "%", `\`, `\u`, "%2", "=", "\n", "A", `\\`, "%25", "-"))
		form := w.form(secrets[w.IntN(len(secrets))])
		switch w.IntN(6) {
		case 0:
			form = form[w.IntN(len(form)):]
		case 1:
			form = form[:w.IntN(len(form))]
		}
		b.WriteString(form)
	}
	return b.String()
}

// agree checks that the set masks src as the oracle does, and the same over splits.
func agree(t *testing.T, rng *rand.Rand, o oracle, set *mask.Set, src string) {
	t.Helper()
	want := o.mask(src)
	out, n := set.Mask(nil, []byte(src))
	if string(out) != want {
		t.Fatalf("secrets %q\nMask(%q)\n got %q\nwant %q", o.secrets, src, out, want)
	}
	if set.Contains([]byte(src)) != (n > 0) {
		t.Fatalf("Contains(%q) = %v, Mask found %d", src, n == 0, n)
	}
	for range 3 {
		split := splits(rng, src)
		if got := streamed(set, split); got != want {
			t.Fatalf("secrets %q\npieces %q\n got %q\nwant %q", o.secrets, split, got, want)
		}
		if got := scanned(t, set, split); got != want {
			t.Fatalf("secrets %q\nscanned %q\n got %q\nwant %q", o.secrets, split, got, want)
		}
	}
}

func splits(rng *rand.Rand, src string) (pieces []string) {
	most := 1 + rng.IntN(12)
	for len(src) > 0 {
		n := min(len(src), rng.IntN(most+1))
		pieces = append(pieces, src[:n])
		src = src[n:]
	}
	return pieces
}

func streamed(set *mask.Set, pieces []string) string {
	st := set.NewStream()
	var out, piece []byte
	for _, p := range pieces {
		piece = append(piece[:0], p...)
		out = st.Write(out, piece)
		clear(piece) // what the stream keeps must be its own
	}
	return string(st.Close(out))
}

// scanned puts the text together from matches, and checks that each comes in time and in order.
func scanned(t *testing.T, set *mask.Set, pieces []string) string {
	t.Helper()
	st := set.NewStream()
	src := strings.Join(pieces, "")
	var out strings.Builder
	var sofar, decided, at int64
	take := func(list []mask.Match) {
		for _, m := range list {
			if m.Start < decided || m.Start < at || m.End <= m.Start || m.Placeholder == "" && m.Start != at {
				t.Fatalf("pieces %q: match %+v after %d, decided %d", pieces, m, at, decided)
			}
			out.WriteString(src[at:m.Start] + m.Placeholder)
			at = m.End
		}
	}
	for _, p := range pieces {
		d, list := st.Scan([]byte(p))
		sofar += int64(len(p))
		take(list)
		if d < decided || d > sofar || d < at || int64(st.Held()) != sofar-d {
			t.Fatalf("pieces %q: decided %d after %d of %d, held %d", pieces, d, decided, sofar, st.Held())
		}
		decided = d
	}
	take(st.ScanClose())
	return out.String() + src[at:]
}

func TestAgreesWithOracle(t *testing.T) {
	rounds := 120
	if testing.Short() {
		rounds = 30
	}
	for seed := range uint64(rounds) {
		w := writer{rand.New(rand.NewPCG(seed, 7))}
		o := oracle{key: "session"}
		var values []string
		for i := range 1 + w.IntN(3) {
			values = append(values, w.secret())
			o.secrets = append(o.secrets, mask.Secret{Name: fmt.Sprintf("s%d", i), Value: []byte(values[i])})
		}
		set := compile(t, mask.Config{Secrets: o.secrets[:1]})
		set, err := set.With(o.secrets[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			agree(t, w.Rand, o, set, w.text(values))
		}
	}
}
