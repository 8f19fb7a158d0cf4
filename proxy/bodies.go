package proxy

import (
	"bytes"
	"encoding/base64"
	"sync"
	"unicode/utf8"

	"github.com/jobgate/jobgate/proxy/record"
)

// bodies remembers the last recorded request body of each session: an agent's body grows by one turn with every call,
// and only what differs is written again.
type bodies struct {
	mu   sync.Mutex // guards last
	last map[string]lastBody
}

type lastBody struct {
	call string
	text []byte // masked, never written to
}

// keptBodies bounds the sessions of which a body is remembered; losing one costs bytes in the record, nothing else.
const keptBodies = 4096

// difference returns a body's form in the record. text is masked.
func (b *bodies) difference(session string, text []byte, truncated bool) *record.Body {
	if !utf8.Valid(text) {
		return &record.Body{Text: base64.StdEncoding.EncodeToString(text), Base64: true, Truncated: truncated}
	}
	if truncated || len(text) > baseBody {
		return &record.Body{Text: string(text), Truncated: truncated}
	}
	b.mu.Lock()
	last := b.last[session]
	b.mu.Unlock()
	prefix, suffix := common(last.text, text)
	if last.call == "" || prefix+suffix < len(text)/2 {
		return &record.Body{Text: string(text)}
	}
	return &record.Body{Base: last.call, Prefix: prefix, Suffix: suffix, Text: string(text[prefix : len(text)-suffix])}
}

// keep makes a recorded body the base of the session's next one. It is called after the body's event was appended, so
// that a base always stands earlier in the record.
func (b *bodies) keep(session, call string, text []byte) {
	if len(text) == 0 || len(text) > baseBody || !utf8.Valid(text) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil {
		b.last = make(map[string]lastBody)
	}
	if _, known := b.last[session]; !known && len(b.last) >= keptBodies {
		for other := range b.last {
			delete(b.last, other)
			break
		}
	}
	b.last[session] = lastBody{call: call, text: text}
}

// forget drops what is remembered of a session.
func (b *bodies) forget(session string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.last, session)
}

// common returns the lengths of the common prefix and of the common suffix behind it, cut so that what remains of both
// is UTF-8.
func common(a, b []byte) (prefix, suffix int) {
	n := min(len(a), len(b))
	for step := 4096; step > 0; step /= 8 { // whole blocks are compared faster than bytes
		for prefix+step <= n && bytes.Equal(a[prefix:prefix+step], b[prefix:prefix+step]) {
			prefix += step
		}
	}
	for prefix > 0 && prefix < len(b) && !utf8.RuneStart(b[prefix]) {
		prefix--
	}
	for prefix > 0 && prefix < len(a) && !utf8.RuneStart(a[prefix]) {
		prefix--
	}
	for suffix < n-prefix && a[len(a)-1-suffix] == b[len(b)-1-suffix] {
		suffix++
	}
	for suffix > 0 && !utf8.RuneStart(b[len(b)-suffix]) {
		suffix--
	}
	return prefix, suffix
}

// Forget drops what is remembered of a session that is over.
func (p *Proxy) Forget(session string) { p.bodies.forget(session) }
