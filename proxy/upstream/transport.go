package upstream

import (
	"context"
	"crypto/tls"
	"errors"
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
)

// Config is what a Transport is made of.
type Config struct {
	// Dial opens a TCP connection. Required: who calls decides which addresses may be reached.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is the base of each connection's configuration; nil takes the system's roots.
	TLS *tls.Config
	// Head is how long an upstream may take from the last bytes of the request that it took to the head of its answer.
	// Zero: as long as it likes.
	Head time.Duration
	// HeadBytes is the longest head of an answer, interim ones counted in, give or take a buffer of 32 KiB; zero takes 64 KiB.
	HeadBytes int64
	// Idle is how long an unused connection is kept; zero takes 90 seconds.
	Idle time.Duration
	// MaxIdle is how many unused connections are kept for one host; zero takes 256.
	MaxIdle int
}

// Transport is an http.RoundTripper, safe for concurrent use. It follows no redirects, uses no proxy of the environment,
// speaks no HTTP/2, upgrades to no other protocol, and adds to a request nothing but Host, Content-Length and, where the
// request says so, Connection: close.
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
// of the request's context ends both, and its cause is in the error. A dial or handshake that failed is a *net.OpError of
// "dial": nothing was sent. A request is sent a second time only where an idle connection turned out to be closed, and
// either nothing of it was taken, or it has no body and a method that may be repeated.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := check(req); err != nil {
		closeBody(req)
		return nil, err
	}
	if !held(req) {
		return t.streamed.RoundTrip(plain(req))
	}
	defer closeBody(req)
	if cause := context.Cause(req.Context()); cause != nil {
		return nil, cause
	}
	k, err := keyOf(req.URL)
	if err != nil {
		return nil, err
	}
	for {
		c, err := t.connection(req.Context(), k)
		if err != nil {
			return nil, err
		}
		resp, err := c.exchange(req)
		if err == nil {
			return resp, nil
		}
		c.abandon()
		again := errors.Is(err, errUnsent) || errors.Is(err, errSilent) && repeatable(req)
		if !c.reused || !again || req.Context().Err() != nil {
			return nil, err
		}
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

// plain is a request as net/http's Transport is to send it: with no more of its own than ours adds.
func plain(req *http.Request) *http.Request {
	_, agent := req.Header["User-Agent"]
	_, connection := req.Header["Connection"]
	if agent && !connection {
		return req
	}
	out := *req
	out.Header = make(http.Header, len(req.Header)+1)
	out.Header["User-Agent"] = nil
	for name, values := range req.Header {
		if !framing(name) {
			out.Header[name] = values
		}
	}
	return &out
}

// connection returns an idle connection that still lives, or a new one.
func (t *Transport) connection(ctx context.Context, k key) (*conn, error) {
	for c := t.pool.take(k); c != nil; c = t.pool.take(k) {
		if c.alive() {
			c.reused = true
			c.wake()
			return c, nil
		}
		c.abandon()
	}
	return t.dial(ctx, k)
}
