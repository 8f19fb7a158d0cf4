package mask

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
)

// Bounds of a secret's value, after white space around it is cut, in bytes. MinLine is the shortest line of a value with
// several lines that is a secret of its own.
const (
	MinSecret = 6
	MaxSecret = 64 << 10
	MinLine   = 20
)

// A Secret is one known value. Name is what a placeholder shows of it: 1 to 63 of a-z, 0-9 and -.
type Secret struct {
	Name  string
	Value []byte
}

// Config says what a Set masks.
type Config struct {
	Secrets   []Secret
	Detectors []Detector
	// Key is the HMAC key of the placeholders, one a session. Without one the Set makes a key of its own.
	Key []byte
}

// A Set masks what it was compiled for. It does not change, and any number of goroutines may use it.
type Set struct {
	layers []*index // what was compiled, and what was added to it
	filter *filter
	key    []byte
	root   *Set   // the compiled Set that this one was derived from, nil in that one
	shown  []byte // a placeholder for every name, to check that none matches
	added  []Secret
	join   *sync.Pool // of *[]byte: memory for what streams hold back and what follows it
}

// Compile makes a Set. It refuses a secret whose value is too short, too long, too repetitive or part of a placeholder, and
// a name that is none; the error names the secret and never holds its value.
func Compile(c Config) (*Set, error) {
	values, err := derive(c.Secrets)
	if err != nil {
		return nil, err
	}
	detectors := slices.Clone(c.Detectors)
	for i := range detectors {
		if err := detectors[i].check(); err != nil {
			return nil, fmt.Errorf("mask: %w", err)
		}
	}
	s := &Set{layers: []*index{indexOf(values, detectors)}, filter: new(filter), key: keyOr(c.Key)}
	s.join = &sync.Pool{New: func() any { return new([]byte) }}
	s.filter.add(s.layers[0])
	var names []string
	for _, d := range detectors {
		names = append(names, d.Name)
	}
	return s.showing(names, c.Secrets)
}

func keyOr(key []byte) []byte {
	if len(key) > 0 {
		return slices.Clone(key)
	}
	key = make([]byte, sha256.Size)
	rand.Read(key) // never fails
	return key
}

// WithKey returns the Set with another key for its placeholders; an empty one is replaced by one of the Set's own.
func (s *Set) WithKey(key []byte) *Set {
	other := *s
	other.key = keyOr(key)
	return &other
}

// With returns the Set with further secrets. It copies little of s: every session may have its own.
func (s *Set) With(secrets ...Secret) (*Set, error) {
	root := s
	if s.root != nil {
		root = s.root
	}
	added := slices.Concat(s.added, secrets)
	values, err := derive(added)
	if err != nil {
		return nil, err
	}
	x, f := indexOf(values, nil), *root.filter
	f.add(x)
	other := &Set{
		layers: []*index{root.layers[0], x}, filter: &f,
		key: s.key, root: root, shown: s.shown, added: added, join: s.join,
	}
	return other.showing(nil, secrets)
}

// Mask returns src with every match replaced, and how many places that were. The result is in dst's memory, from its
// beginning, where that suffices; where nothing matched it is src itself.
func (s *Set) Mask(dst, src []byte) (out []byte, n int) {
	if !s.suspects(src) {
		return src, 0
	}
	st := s.whole(src)
	out = st.emit(dst[:0])
	if st.count == 0 {
		return src, 0
	}
	return st.release(out, len(src)), st.count
}

// Contains reports whether Mask would replace anything.
func (s *Set) Contains(src []byte) bool {
	if !s.suspects(src) {
		return false
	}
	st := s.whole(src)
	_, ok := st.step()
	return ok
}

// suspects reports whether there is any place in src that a Stream would look at more closely.
func (s *Set) suspects(src []byte) bool {
	if s.next(src, 0, true) < len(src) {
		return true
	}
	var o odds
	o.reset()
	return o.next(s, src, 0, true) < len(src)
}

// Empty reports whether there is nothing to look for.
func (s *Set) Empty() bool {
	for _, x := range s.layers {
		if len(x.entries) > 0 {
			return false
		}
	}
	return true
}

// whole is a Stream over all of src, which it does not copy.
func (s *Set) whole(src []byte) Stream {
	st := s.stream()
	st.buf, st.closed = src, true
	st.rewind()
	return st
}

func indexOf(values []Secret, detectors []Detector) *index {
	var patterns []pattern
	for i := range values {
		patterns = patternsOf(patterns, &values[i])
	}
	return newIndex(patterns, detectors)
}

// showing notes further names. It refuses a Set that would find something in its own placeholders.
func (s *Set) showing(names []string, secrets []Secret) (*Set, error) {
	for _, secret := range secrets {
		names = append(names, secret.Name)
	}
	shown := slices.Clone(s.shown)
	for _, name := range names {
		shown = append(shown, placeholderOf(name, make([]byte, sha256.Size))...)
		shown = append(shown, ' ')
	}
	s.shown = shown
	st := s.whole(shown)
	if m, ok := st.step(); ok {
		from := bytes.LastIndexByte(shown[:m.Start+1], '[')
		return nil, fmt.Errorf("mask: a secret's value is part of the placeholder %q; give another name or value",
			shown[max(from, 0):][:bytes.IndexByte(shown[max(from, 0):], ' ')])
	}
	return s, nil
}

// derive gives the values to look for: each secret's own, trimmed, and its parts.
func derive(secrets []Secret) ([]Secret, error) {
	var values []Secret
	seen := make(map[string]bool)
	for _, s := range secrets {
		if err := checkName(s.Name); err != nil {
			return nil, fmt.Errorf("mask: %w", err)
		}
		whole := bytes.TrimSpace(s.Value)
		if len(whole) < MinSecret {
			return nil, fmt.Errorf("mask: secret %s is shorter than %d bytes and would mask ordinary text", s.Name, MinSecret)
		}
		if len(whole) > MaxSecret {
			return nil, fmt.Errorf("mask: secret %s is longer than %d bytes", s.Name, MaxSecret)
		}
		if repetitive(whole) {
			return nil, fmt.Errorf("mask: secret %s repeats itself so often that it cannot be looked for", s.Name)
		}
		for _, v := range append([][]byte{whole}, parts(whole)...) {
			if !seen[string(v)] && !repetitive(v) {
				seen[string(v)] = true
				values = append(values, Secret{Name: s.Name, Value: bytes.Clone(v)})
			}
		}
	}
	return values, nil
}

func checkName(name string) error {
	if len(name) == 0 || len(name) > 63 {
		return fmt.Errorf("name %q: write 1 to 63 characters", name)
	}
	for _, c := range []byte(name) {
		if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("name %q: write a-z, 0-9 and - only", name)
		}
	}
	return nil
}

// placeholder makes what is put in place of a find in src.
func (s *Set) placeholder(f find, src []byte) string {
	name, value := "", src[f.start:f.end]
	if f.secret != nil {
		name, value = f.secret.Name, f.secret.Value
	} else {
		name = f.detector.Name
	}
	mac := hmac.New(sha256.New, s.key)
	mac.Write(value)
	return placeholderOf(name, mac.Sum(nil))
}

func placeholderOf(name string, sum []byte) string {
	return "[masked:" + name + ":" + hex.EncodeToString(sum[:4]) + "]"
}
