package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// pieceSize of a long body is written at once.
	pieceSize = 256 << 10
	// writtenTime is waited at the end of an answer for the end of its request.
	writtenTime = 50 * time.Millisecond
)

var (
	// errUnsent says that not a byte of the request left.
	errUnsent = errors.New("the upstream closed the connection before the request was sent")
	// errSilent says that the connection ended before a byte of an answer came.
	errSilent = errors.New("the upstream closed the connection without an answer")
)

// past is a deadline that ends reads and writes at once.
var past = time.Unix(1, 0)

// conn is one connection to an upstream, used by one call at a time.
type conn struct {
	t     *Transport
	key   key
	net   net.Conn // what is read and written: TCP or TLS
	tcp   net.Conn
	tls   *records // nil without TLS
	state *tls.ConnectionState
	// drained says that TLS has no plain text left: it gave less than it was asked for.
	drained bool
	r       *bufio.Reader
	left    int64 // bytes that may still be read for a head; negative: no bound
	got     int64 // bytes that were read for this call
	broke   error // what reading ended with
	peek    *peeker
	expire  func() // ends reads and writes; kept, since each call needs it
	reused  bool
	idle    time.Time // since when it lies in the pool

	ctx     context.Context // of the call under way
	unwatch func() bool
	write   error // of a body that is written while the answer is read
	writing chan struct{}

	mu      sync.Mutex // guards the deadlines against a body that is written beside
	waiting bool       // for the head
}

// source is what a connection's buffer reads from: it bounds heads, and gathers the TLS records that are there.
type source struct{ c *conn }

var errLongHead = errors.New("the head of the upstream's answer is too long")

func (s source) Read(p []byte) (int, error) {
	c := s.c
	switch {
	case c.left == 0:
		c.broke = errLongHead
		return 0, errLongHead
	case c.left > 0 && int64(len(p)) > c.left:
		p = p[:c.left]
	}
	n, err := c.net.Read(p)
	if err == nil && c.tls != nil {
		n = c.gather(p, n)
	}
	c.got += int64(n)
	if c.left > 0 {
		c.left -= int64(n)
	}
	if err != nil {
		c.broke = err
	}
	return n, err
}

// gather adds the records that have come whole to the n bytes of the first.
func (c *conn) gather(p []byte, n int) int {
	if n < len(p) && c.tls.whole() {
		c.tls.here = true
		defer func() { c.tls.here = false }()
	}
	for n < len(p) && c.tls.whole() {
		more, err := c.net.Read(p[n:])
		n += more
		if err != nil {
			c.drained = false
			return n // what ended the connection is told to the next read, too
		}
	}
	c.drained = n < len(p)
	return n
}

// exchange sends the request and reads the head of the answer.
func (c *conn) exchange(req *http.Request) (*http.Response, error) {
	c.ctx, c.got, c.broke = req.Context(), 0, nil
	c.unwatch = context.AfterFunc(c.ctx, c.expire)
	c.await(true)
	werr := c.send(req)
	if werr != nil && !errors.Is(werr, errWrite) {
		return nil, c.why(werr)
	}
	resp, err := c.head(req)
	switch {
	case err != nil && werr != nil:
		return nil, c.why(werr)
	case err != nil:
		return nil, c.why(err)
	}
	resp.TLS = c.state
	keep := werr == nil && !resp.Close && !req.Close && resp.StatusCode != http.StatusSwitchingProtocols
	if resp.Body == http.NoBody {
		c.finish(keep)
		return resp, nil
	}
	resp.Body = &body{src: resp.Body, c: c, keep: keep}
	return resp, nil
}

// send writes head and body. A long body is written beside, since an upstream may answer before it has read it.
func (c *conn) send(req *http.Request) error {
	room := heads.Get().(*[]byte)
	defer func() { heads.Put(room) }()
	out, err := appendHead((*room)[:0], req)
	if err != nil {
		return err
	}
	n := length(req)
	if n > inlineBody {
		*room = out
		if err := c.put(out); err != nil {
			return err
		}
		return c.sendBeside(req, n)
	}
	if out, err = appendBody(out, req, n); err != nil {
		return err
	}
	*room = out
	return c.put(out)
}

// errWrite says that a part of the request left before the connection broke. The upstream may have answered before that.
var errWrite = errors.New("the request was not sent to its end")

// put writes what begins a request.
func (c *conn) put(b []byte) error {
	var before int64
	if c.tls != nil {
		before = c.tls.sent
	}
	n, err := c.net.Write(b)
	switch {
	case err == nil:
		return nil
	case n > 0, c.tls != nil && c.tls.sent > before:
		return fmt.Errorf("%w: %w", errWrite, err)
	}
	return fmt.Errorf("%w: %w", errUnsent, err)
}

func (c *conn) sendBeside(req *http.Request, n int64) error {
	src, err := req.GetBody()
	if err != nil {
		return err
	}
	done := make(chan struct{})
	c.writing, c.write = done, nil
	go func() {
		own, err := copyBody(pieces{c}, src, n)
		c.write = err
		close(done)
		if own { // else reading ends, too, but not before an answer that has come
			_ = c.tcp.Close()
		}
	}()
	return nil
}

// pieces writes a long body so that it shows when an upstream still takes some of it.
type pieces struct{ c *conn }

func (w pieces) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := w.c.net.Write(p[done:min(done+pieceSize, len(p))])
		done += n
		if err != nil {
			return done, err
		}
		w.c.await(false)
	}
	return done, nil
}

// head reads up to the body of the answer, past interim ones, all of which together are bounded as one head is.
func (c *conn) head(req *http.Request) (*http.Response, error) {
	defer c.arrived()
	c.left = c.t.c.HeadBytes + bufferSize
	defer func() { c.left = -1 }()
	for {
		resp, err := http.ReadResponse(c.r, req)
		switch {
		case err != nil:
			return nil, c.noAnswer(err)
		case resp.StatusCode < 100:
			return nil, fmt.Errorf("the upstream answered with status %d, which does not exist", resp.StatusCode)
		case resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols:
			return resp, nil
		}
	}
}

// await gives the upstream its time to the head. It begins with the call, and again with each piece of the body that the
// upstream takes.
func (c *conn) await(first bool) {
	if c.t.c.Head <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting = c.waiting || first; c.waiting {
		c.until(time.Now().Add(c.t.c.Head))
	}
}

// arrived takes the head's deadline away.
func (c *conn) arrived() {
	if c.t.c.Head <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = false
	c.until(time.Time{})
}

// until moves the deadlines, but not those that ended the call.
func (c *conn) until(t time.Time) {
	_ = c.tcp.SetDeadline(t)
	if c.ctx.Err() != nil {
		_ = c.tcp.SetDeadline(past)
	}
}

// noAnswer says why there is no head. Who parses one takes the part of a line that came before the end for a line.
func (c *conn) noAnswer(err error) error {
	if c.broke != nil {
		err = c.broke
	}
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("the upstream did not answer within %s: %w", c.t.c.Head, err)
	case c.got == 0:
		return fmt.Errorf("%w: %w", errSilent, unexpected(err))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the upstream broke off within the head of its answer: %w", unexpected(err))
	}
	return err
}

// unexpected is an end that is no good end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// why puts the end of the call before what it made of a read or write.
func (c *conn) why(err error) error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	if c.writing != nil {
		select {
		case <-c.writing:
			if c.write != nil {
				return c.write
			}
		default:
		}
	}
	return err
}

// finish ends the call. The connection can take another one only if all of this one was written and read, and nothing
// came that was not asked for.
func (c *conn) finish(keep bool) {
	if !c.unwatch() {
		keep = false // its deadline may be set at any moment
	}
	if keep && c.writing != nil {
		keep = c.written()
	}
	if !keep || c.r.Buffered() > 0 {
		c.abandon()
		return
	}
	c.ctx, c.unwatch, c.writing = nil, nil, nil
	c.rest()
	c.t.pool.put(c)
}

// written reports whether a body that is written beside was taken whole. Whoever wrote it may need a moment to say so.
func (c *conn) written() bool {
	moment := time.NewTimer(writtenTime)
	defer moment.Stop()
	select {
	case <-c.writing:
		return c.write == nil
	case <-moment.C:
		return false
	}
}

// abandon closes the connection, and waits for who writes to it.
func (c *conn) abandon() {
	if c.unwatch != nil {
		c.unwatch()
	}
	_ = c.tcp.Close() // without TLS's goodbye, which could wait for a peer that does not read
	if c.writing != nil {
		<-c.writing
	}
}
