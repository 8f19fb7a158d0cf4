package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// bufferSize is read from an upstream at once, so that many small events become one read.
	bufferSize = 32 << 10
	// inlineBody is the longest body that is written before the answer is read. Two kernels' buffers hold that much, so
	// that an upstream which answers early and reads no more cannot block the writer.
	inlineBody = 64 << 10
	// maxInterim is how many 1xx answers one request may get before its own.
	maxInterim = 5
)

// Config is what a Transport is made of.
type Config struct {
	// Dial opens a TCP connection. Required: who calls decides which addresses may be reached.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is the base of each connection's configuration; nil takes the system's roots.
	TLS *tls.Config
	// Head is how long an upstream may take from the request to the head of its answer. Zero: as long as it likes.
	Head time.Duration
	// HeadBytes is the longest head of an answer; zero takes 64 KiB.
	HeadBytes int64
	// Idle is how long an unused connection is kept; zero takes 90 seconds.
	Idle time.Duration
	// MaxIdle is how many unused connections are kept for one host; zero takes 256.
	MaxIdle int
}

// Transport is an http.RoundTripper, safe for concurrent use. It follows no redirects, uses no proxy of the environment,
// speaks no HTTP/2, and asks for no encoding of its own.
type Transport struct {
	c        Config
	pool     pool
	streamed *http.Transport
}

// New returns a ready Transport.
func New(c Config) *Transport {
	if c.HeadBytes <= 0 {
		c.HeadBytes = 64 << 10
	}
	if c.Idle <= 0 {
		c.Idle = 90 * time.Second
	}
	if c.MaxIdle <= 0 {
		c.MaxIdle = 256
	}
	if c.TLS == nil {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	c.TLS = c.TLS.Clone()
	c.TLS.NextProtos = []string{"http/1.1"}
	if c.TLS.ClientSessionCache == nil {
		c.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(64)
	}
	t := &Transport{c: c, streamed: &http.Transport{
		DialContext: c.Dial, TLSClientConfig: c.TLS.Clone(), TLSHandshakeTimeout: handshakeTime,
		MaxIdleConnsPerHost: c.MaxIdle, IdleConnTimeout: c.Idle, ResponseHeaderTimeout: c.Head, MaxResponseHeaderBytes: c.HeadBytes,
		ExpectContinueTimeout: time.Second, DisableCompression: true, ReadBufferSize: bufferSize, WriteBufferSize: bufferSize,
		Protocols: new(http.Protocols), // HTTP/1.1 alone
	}}
	t.streamed.Protocols.SetHTTP1(true)
	t.pool = pool{max: c.MaxIdle, age: c.Idle}
	return t
}

// CloseIdleConnections closes the connections that no call uses.
func (t *Transport) CloseIdleConnections() {
	t.pool.clear()
	t.streamed.CloseIdleConnections()
}

// RoundTrip sends a request and returns the head of its answer, whose body the caller reads to its end or closes. The end
// of the request's context ends both. A dial or handshake that failed is a *net.OpError of "dial": nothing was sent.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !held(req) {
		return t.streamed.RoundTrip(req)
	}
	defer closeBody(req)
	for {
		c, err := t.connection(req)
		if err != nil {
			return nil, err
		}
		resp, err := c.exchange(req)
		if err == nil {
			return resp, nil
		}
		c.abandon()
		if !c.reused || !errors.Is(err, errUnsent) || req.Context().Err() != nil {
			return nil, err
		}
		// The upstream closed a connection that lay idle, and nothing of the request was taken.
	}
}

// held reports whether the body lies in memory: it can be had again.
func held(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil && req.ContentLength > 0
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// connection returns an idle connection that still lives, or a new one.
func (t *Transport) connection(req *http.Request) (*conn, error) {
	k := key{scheme: req.URL.Scheme, host: req.URL.Host}
	if k.scheme != "http" && k.scheme != "https" || k.host == "" {
		return nil, fmt.Errorf("an upstream of scheme %q and host %q cannot be called", k.scheme, k.host)
	}
	for c := t.pool.take(k); c != nil; c = t.pool.take(k) {
		if c.alive() {
			c.reused = true
			return c, nil
		}
		c.abandon()
	}
	return t.dial(req.Context(), k)
}

// body is an answer's body; at its end the connection goes back to the pool.
type body struct {
	src  io.ReadCloser
	c    *conn
	keep bool // the connection can take another request
	done bool
}

// Read passes the upstream's bytes on as they come.
func (b *body) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	n, err := b.src.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.finish(b.keep)
	default:
		err = b.c.why(err)
		b.finish(false)
	}
	return n, err
}

// Close ends the answer. What was not read to its end costs the connection.
func (b *body) Close() error {
	if !b.done {
		b.finish(false)
	}
	return nil
}

func (b *body) finish(keep bool) {
	b.done = true
	b.c.finish(keep)
}
