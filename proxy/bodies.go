package proxy

import (
	"sync"
	"unicode/utf8"

	"github.com/jobgate/jobgate/proxy/mask"
)

// bodies remembers the last recorded request body of each session: an agent's body grows by one turn with every call,
// and only what differs is written again.
type bodies struct {
	mu   sync.Mutex // guards last
	last map[string]lastBody
}

type lastBody struct {
	call  string
	text  []byte      // masked, never written to
	clean *mask.Clean // nil where something of it was masked
}

// keptBodies bounds the sessions of which a body is remembered; losing one costs bytes in the record, nothing else.
const keptBodies = 4096

// base returns the last body of a session, for one of a number of bytes.
func (b *bodies) base(session string, size int) lastBody {
	if size > baseBody {
		return lastBody{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last[session]
}

// keep makes a recorded body the base of the session's next one. It is called after the body's event was appended, so
// that a base always stands earlier in the record.
func (b *bodies) keep(session string, body lastBody) {
	if len(body.text) == 0 || len(body.text) > baseBody || !utf8.Valid(body.text) {
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
	b.last[session] = body
}

// forget drops what is remembered of a session.
func (b *bodies) forget(session string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.last, session)
}

// Forget drops what is remembered of a session that is over.
func (p *Proxy) Forget(session string) {
	p.bodies.forget(session)
	p.c.Maskers.forget(session)
}
