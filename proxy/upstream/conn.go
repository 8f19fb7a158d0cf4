package upstream

import (
	"bufio"
	"bytes"
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

// handshakeTime bounds a TLS handshake.
const handshakeTime = 10 * time.Second

// errUnsent says that not a byte of the request left.
var errUnsent = errors.New("the upstream closed the connection before the request was sent")

// past is a deadline that ends reads and writes at once.
var past = time.Unix(1, 0)

// conn is one connection to an upstream, used by one call at a time.
type conn struct {
	t      *Transport
	key    key
	net    net.Conn // what is read and written: TCP or TLS
	tcp    net.Conn
	tls    *records // nil without TLS
	r      *bufio.Reader
	left   int64 // bytes that may still be read for a head; negative: no bound
	reused bool
	idle   time.Time // since when it lies in the pool

	ctx     context.Context // of the call under way
	unwatch func() bool
	write   error // of a body that is written while the answer is read
	writing chan struct{}
}

func (t *Transport) dial(ctx context.Context, k key) (*conn, error) {
	address := k.address()
	tcp, err := t.c.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, asDial(err)
	}
	c := &conn{t: t, key: k, net: tcp, tcp: tcp}
	if k.scheme == "https" {
		if err := c.handshake(ctx, t.c.TLS); err != nil {
			_ = tcp.Close()
			return nil, asDial(err)
		}
	}
	c.r = bufio.NewReaderSize(source{c}, bufferSize)
	return c, nil
}

func (c *conn) handshake(ctx context.Context, base *tls.Config) error {
	host, _, err := net.SplitHostPort(c.key.address())
	if err != nil {
		return err
	}
	cfg := base.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	c.tls = &records{Conn: c.tcp}
	secure := tls.Client(c.tls, cfg)
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake with %s: %w", host, err)
	}
	c.net = secure
	return nil
}

// asDial makes sure that the error says where it is from.
func asDial(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return err
	}
	return &net.OpError{Op: "dial", Net: "tcp", Err: err}
}

// source is what a connection's buffer reads from: it bounds heads, and gathers the TLS records that are there.
type source struct{ c *conn }

var errLongHead = errors.New("the head of the upstream's answer is too long")

func (s source) Read(p []byte) (int, error) {
	c := s.c
	switch {
	case c.left == 0:
		return 0, errLongHead
	case c.left > 0 && int64(len(p)) > c.left:
		p = p[:c.left]
	}
	n, err := c.net.Read(p)
	if err == nil && c.tls != nil {
		n, err = c.gather(p, n)
	}
	if c.left > 0 {
		c.left -= int64(n)
	}
	return n, err
}

// gather adds the records that have come to the n bytes of the first.
func (c *conn) gather(p []byte, n int) (int, error) {
	c.tls.here = true
	defer func() { c.tls.here = false }()
	for n < len(p) {
		more, err := c.net.Read(p[n:])
		n += more
		if err != nil || more == 0 {
			break // what ended the connection is told to the next read, too
		}
	}
	return n, nil
}

// exchange sends the request and reads the head of the answer.
func (c *conn) exchange(req *http.Request) (*http.Response, error) {
	c.ctx = req.Context()
	c.unwatch = context.AfterFunc(c.ctx, func() { _ = c.tcp.SetDeadline(past) })
	if err := c.send(req); err != nil {
		return nil, c.why(err)
	}
	resp, err := c.head(req)
	if err != nil {
		return nil, c.why(err)
	}
	keep := !resp.Close && !req.Close && resp.StatusCode != http.StatusSwitchingProtocols
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
	if req.ContentLength > inlineBody {
		*room = out
		if err := c.put(out); err != nil {
			return err
		}
		return c.sendBeside(req)
	}
	if out, err = appendBody(out, req); err != nil {
		return err
	}
	*room = out
	return c.put(out)
}

// put writes what begins a request.
func (c *conn) put(b []byte) error {
	n, err := c.net.Write(b)
	if err != nil && n == 0 && c.ctx.Err() == nil && c.tls == nil {
		return fmt.Errorf("%w: %w", errUnsent, err)
	}
	return err
}

func (c *conn) sendBeside(req *http.Request) error {
	src, err := req.GetBody()
	if err != nil {
		return err
	}
	c.writing, c.write = make(chan struct{}), nil
	go func(done chan<- struct{}) {
		defer close(done)
		n, err := io.Copy(struct{ io.Writer }{c.net}, src)
		if err == nil && n != req.ContentLength {
			err = fmt.Errorf("the request's body has %d bytes, not %d", n, req.ContentLength)
		}
		c.write = err // then the connection is broken, and reading ends, too
	}(c.writing)
	return nil
}

// head reads up to the body of the answer, past interim ones.
func (c *conn) head(req *http.Request) (*http.Response, error) {
	if c.t.c.Head > 0 {
		c.readUntil(time.Now().Add(c.t.c.Head))
		defer c.readUntil(time.Time{})
	}
	c.left = c.t.c.HeadBytes + bufferSize
	defer func() { c.left = -1 }()
	for range maxInterim + 1 {
		resp, err := http.ReadResponse(c.r, req)
		switch {
		case err != nil:
			return nil, noAnswer(err)
		case resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols:
			return resp, nil
		}
	}
	return nil, fmt.Errorf("the upstream sent more than %d interim answers", maxInterim)
}

// readUntil moves the deadline of reading, but never past the end of the call, which has set one already or will.
func (c *conn) readUntil(t time.Time) {
	_ = c.tcp.SetReadDeadline(t)
	if c.ctx.Err() != nil {
		_ = c.tcp.SetDeadline(past)
	}
}

func noAnswer(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the upstream closed the connection without an answer: %w", io.ErrUnexpectedEOF)
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
	if c.writing != nil {
		select {
		case <-c.writing:
			keep = keep && c.write == nil
		default:
			keep = false
		}
	}
	if !keep || c.r.Buffered() > 0 {
		c.abandon()
		return
	}
	c.ctx, c.unwatch, c.writing = nil, nil, nil
	c.t.pool.put(c)
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

// heads are lent to requests while they are written.
var heads = sync.Pool{New: func() any { b := make([]byte, 0, inlineBody+4<<10); return &b }}

func appendBody(out []byte, req *http.Request) ([]byte, error) {
	if req.ContentLength == 0 || req.GetBody == nil {
		return out, nil
	}
	src, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	before := len(out)
	w := bytes.NewBuffer(out)
	if _, err := w.ReadFrom(src); err != nil {
		return nil, err
	}
	out = w.Bytes()
	if n := int64(len(out) - before); n != req.ContentLength {
		return nil, fmt.Errorf("the request's body has %d bytes, not %d", n, req.ContentLength)
	}
	return out, nil
}
