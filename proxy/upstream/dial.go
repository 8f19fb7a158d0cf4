package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// handshakeTime bounds a TLS handshake.
const handshakeTime = 10 * time.Second

func (t *Transport) dial(ctx context.Context, k key) (*conn, error) {
	tcp, err := t.c.Dial(ctx, "tcp", k.address())
	if err != nil {
		return nil, asDial(ctx, err)
	}
	c := &conn{t: t, key: k, net: tcp, tcp: tcp, left: -1, peek: newPeeker(tcp), expire: func() { _ = tcp.SetDeadline(past) }}
	if k.scheme == "https" {
		if err := c.handshake(ctx, t.c.TLS); err != nil {
			_ = tcp.Close()
			return nil, asDial(ctx, err)
		}
	}
	c.wake()
	return c, nil
}

// Buffers are lent to connections while they are used: most lie idle most of the time.
var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}
	buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}
)

// wake gives a connection its buffer.
func (c *conn) wake() {
	c.r = readers.Get().(*bufio.Reader)
	c.r.Reset(source{c})
}

// rest takes the buffers from a connection whose call is over. Nothing is in them, and nobody reads.
func (c *conn) rest() {
	c.r.Reset(nil)
	readers.Put(c.r)
	c.r = nil
	if c.tls != nil {
		c.tls.rest()
	}
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
	limited, cancel := context.WithTimeoutCause(ctx, handshakeTime, errSlowHandshake)
	defer cancel()
	if err := secure.HandshakeContext(limited); err != nil {
		if cause := context.Cause(limited); cause != nil {
			err = cause
		}
		return fmt.Errorf("TLS handshake with %s: %w", host, err)
	}
	state := secure.ConnectionState()
	c.net, c.state = secure, &state
	return nil
}

var errSlowHandshake = fmt.Errorf("it took longer than %s", handshakeTime)

// asDial makes sure that the error says where it is from, and why the call was ended where it was.
func asDial(ctx context.Context, err error) error {
	var op *net.OpError
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if errors.As(err, &op) && op.Op == "dial" {
		return err
	}
	return &net.OpError{Op: "dial", Net: "tcp", Err: err}
}

// alive reports whether an idle connection can take a request: an upstream that closed it, or that says something nobody
// asked for, gets none on it.
func (c *conn) alive() bool { return c.quiet() && c.peek.silent() }

// quiet reports whether TLS holds nothing: neither plain text behind the last answer, nor a part of a record.
func (c *conn) quiet() bool {
	if c.tls == nil {
		return true
	}
	if c.drained || !c.tls.between() {
		return c.tls.between()
	}
	c.tls.here = true
	defer func() { c.tls.here = false }()
	var one [1]byte
	_, err := c.net.Read(one[:])
	return errors.Is(err, errNothingHere)
}
