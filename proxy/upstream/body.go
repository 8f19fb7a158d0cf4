package upstream

import (
	"io"
	"net/http"
	"sync/atomic"
)

// body is an answer's body; at its end the connection goes back to the pool, and its buffer to other connections: src is
// read no more then. Close may come while a Read waits, as with net/http.
type body struct {
	src  io.Reader
	c    *conn
	keep bool        // the connection can take another request
	done atomic.Bool // the connection belongs to others
	err  error       // what Read has ended with
}

// Read passes the upstream's bytes on as they come.
func (b *body) Read(p []byte) (int, error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.done.Load():
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.src.Read(p)
	switch err {
	case nil:
		return n, nil
	case io.EOF:
		b.finish(b.keep)
	default:
		err = b.c.why(err)
		b.finish(false)
	}
	b.err = err
	return n, err
}

// Close ends the answer. What was not read to its end costs the connection.
func (b *body) Close() error {
	b.finish(false)
	return nil
}

func (b *body) finish(keep bool) {
	if b.done.CompareAndSwap(false, true) {
		b.c.finish(keep)
	}
}
