package dialect

import (
	"bytes"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/mask"
)

// class says what may be done to a string.
type class uint8

const (
	wordClass   class = iota // the model's text: masked
	opaqueClass              // must reach the client as it is
	idClass                  // opaque, and a detector has no say in it either
)

// classOf returns the class of a value by its key and the byte that it begins with, within a value of class c.
func classOf(key string, first byte, c class) class {
	switch {
	case key == "id" || strings.HasSuffix(key, "_id"):
		return idClass
	case key == "signature" || key == "input" || key == "data" && first == '"' || strings.HasPrefix(key, "encrypted_"):
		return max(c, opaqueClass)
	}
	return c
}

// policy is what a filter's configuration says about strings of each class.
type policy struct {
	text, opaque *mask.Set // nil where there is nothing to look for
	redact       bool
}

func newPolicy(cfg FilterConfig) policy {
	p := policy{text: cfg.Text, opaque: cfg.Opaque, redact: cfg.RedactAll}
	if p.text != nil && p.text.Empty() {
		p.text = nil
	}
	if p.opaque != nil && p.opaque.Empty() {
		p.opaque = nil
	}
	if p.redact && p.text == nil {
		p.text = p.opaque
	}
	return p
}

func (p *policy) idle() bool { return p.text == nil && p.opaque == nil }

// set returns what to look for in strings of a class, and whether a match is masked or ends the answer.
func (p *policy) set(c class) (set *mask.Set, masks bool) {
	if c == wordClass || p.redact && c == opaqueClass {
		return p.text, true
	}
	return p.opaque, p.redact
}

// hits reports whether anything that is looked for lies in b.
func (p *policy) hits(b []byte) bool {
	return p.text != nil && p.text.Contains(b) || p.opaque != nil && p.opaque != p.text && p.opaque.Contains(b)
}

// walker looks at every string of a JSON value, one by one, and gathers what has to be changed.
type walker struct {
	policy *policy
	s      *scanner
	except span // a string that is masked elsewhere
	edits  []edit
	places int
	ended  bool // there was a match in what must not be changed
}

func (w *walker) value(c class) {
	switch w.s.peek() {
	case '"':
		start, end, escaped := w.s.str()
		if w.s.err == nil && (span{start, end}) != w.except {
			w.look(c, start, end, escaped)
		}
	case '{':
		w.s.object(func(key []byte) {
			inner := classOf(string(key), w.s.peek(), c)
			if set, _ := w.policy.set(opaqueClass); set != nil && set.Contains(key) {
				ref := w.s.keys[len(w.s.keys)-1]
				w.look(opaqueClass, ref.start, ref.end, true)
			}
			w.value(inner)
		})
	case '[':
		w.s.array(func() { w.value(c) })
	default:
		start := w.s.pos
		w.s.skip()
		w.number(start, w.s.pos)
	}
}

// number looks at a value that is no string. Where it may be masked, a string takes its place.
func (w *walker) number(start, end int) {
	set, _ := w.policy.set(opaqueClass)
	if set == nil || w.s.err != nil || end-start < mask.MinSecret || !set.Contains(w.s.data[start:end]) {
		return
	}
	if !w.policy.redact {
		w.ended = true
		return
	}
	masked, n := set.Mask(nil, w.s.data[start:end])
	w.places += n
	w.edits = append(w.edits, edit{start, end, append(appendMasked([]byte{'"'}, masked), '"')})
}

// look masks one string, or notes that it must not be there.
func (w *walker) look(c class, start, end int, escaped bool) {
	set, masks := w.policy.set(c)
	if set == nil {
		return
	}
	text := w.s.data[start:end]
	if escaped {
		text = appendUnescaped(nil, text)
	}
	if !masks {
		w.ended = w.ended || set.Contains(text)
		return
	}
	if masked, n := set.Mask(nil, text); n > 0 {
		w.places += n
		w.edits = append(w.edits, edit{start, end, appendMasked(nil, masked)})
	}
}

// singles looks at the strings of data, strict JSON, but for except, and returns what to change.
func (p *policy) singles(s *scanner, data []byte, c class, except span) ([]edit, error) {
	if p.idle() || bytes.IndexByte(data, '\\') < 0 && !p.hits(data) {
		return nil, nil
	}
	w := walker{policy: p, s: s, except: except}
	s.reset(data)
	w.value(c)
	if w.ended {
		return nil, secretError()
	}
	return w.edits, nil
}

// secretError ends an answer that holds a secret where it cannot be masked.
func secretError() error {
	return &access.Error{Code: access.CodeDenied, Reason: "secret_in_answer", Public: "Jobgate: the answer repeats a credential that " +
		"Jobgate holds, in a place that must not be changed (a tool's input, thinking, an id); the answer was ended"}
}

// appendMasked appends what a masker left of a text, which may have been cut within a character.
func appendMasked(dst, text []byte) []byte {
	return appendEscaped(dst, bytes.ToValidUTF8(text, []byte("\uFFFD")))
}
