package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
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
