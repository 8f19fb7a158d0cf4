package proxy

import (
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
	var base lastBody
	if !truncated && len(text) <= baseBody {
		b.mu.Lock()
		base = b.last[session]
		b.mu.Unlock()
	}
	body := record.NewBody(base.call, base.text, text)
	body.Truncated = truncated
	return body
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

// Forget drops what is remembered of a session that is over.
func (p *Proxy) Forget(session string) { p.bodies.forget(session) }
