package upstream_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/proxy/upstream"
)

// TestBadBodies have another length than they should. Not a byte more may leave than was announced.
func TestBadBodies(t *testing.T) {
	for _, length := range []int64{5, 100 << 10} {
		for name, give := range map[string]int64{"short": length - 1, "long": length + 1, "much longer": length * 3} {
			for _, whole := range []bool{true, false} {
				t.Run(name, func(t *testing.T) {
					got := make(chan int64, 1)
					srv := serveRaw(t, func(_ int, c net.Conn) {
						r := bufio.NewReader(c)
						if _, err := http.ReadRequest(r); err != nil {
							got <- 0
							return
						}
						n, _ := io.Copy(io.Discard, r)
						got <- n
					})
					req := request(t, "POST", srv.url, "x")
					req.ContentLength = length
					closed := make(chan struct{}, 10)
					req.GetBody = func() (io.ReadCloser, error) {
						var r io.Reader = strings.NewReader(strings.Repeat("x", int(give)))
						if !whole {
							r = struct{ io.Reader }{r} // no WriteTo
						}
						return closer{r, closed}, nil
					}
					within(t, patience, "a body of another length", func() {
						if _, err := newTransport(t, upstream.Config{}).RoundTrip(req); err == nil || !strings.Contains(err.Error(), "the request's body") {
							t.Errorf("got %v", err)
						}
					})
					if srv.accepts.Load() > 0 {
						if n := <-got; n > length {
							t.Errorf("%d bytes came, announced were %d", n, length)
						}
					}
					<-closed
				})
			}
		}
	}
	broken := errors.New("the disk is gone")
	for _, length := range []int64{5, 100 << 10} {
		req := request(t, "POST", mustMute(t), "x")
		req.ContentLength = length
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(failing{broken}), nil }
		within(t, patience, "a body that breaks", func() {
			if _, err := newTransport(t, upstream.Config{}).RoundTrip(req); !errors.Is(err, broken) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func mustMute(t *testing.T) string {
	srv, _ := mute(t, 1<<30)
	return srv.url
}

type closer struct {
	io.Reader
	closed chan struct{}
}

func (c closer) Close() error { c.closed <- struct{}{}; return nil }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestEarly has upstreams that refuse a long body as soon as they have seen the head.
func TestEarly(t *testing.T) {
	const refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo long"
	after := map[string]func(net.Conn, <-chan struct{}){
		"stays open": func(_ net.Conn, end <-chan struct{}) { <-end },
		"closes":     func(net.Conn, <-chan struct{}) {},
		"resets":     func(c net.Conn, _ <-chan struct{}) { setLinger(c) },
		"closes for writing": func(c net.Conn, end <-chan struct{}) {
			if half, ok := c.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			<-end
		},
	}
	certificate, trusted := secureServer(t, http.NotFoundHandler(), nil)
	for name, then := range after {
		for _, secure := range []bool{false, true} {
			for _, size := range []int{1000, 40 << 10, 64 << 10, 1 << 20, 16 << 20} {
				t.Run(name, func(t *testing.T) {
					end := make(chan struct{})
					srv := serveRaw(t, func(_ int, c net.Conn) {
						if secure {
							c = tls.Server(c, certificate.TLS)
						}
						if _, err := http.ReadRequest(bufio.NewReaderSize(c, 16)); err != nil {
							return
						}
						_, _ = io.WriteString(c, refusal)
						then(c, end)
					})
					defer close(end)
					url := srv.url
					if secure {
						url = "https://" + srv.address
					}
					tr := newTransport(t, upstream.Config{TLS: trusted, Head: time.Hour})
					within(t, patience, "an early answer", func() {
						resp, err := tr.RoundTrip(request(t, "POST", url, strings.Repeat("x", size)))
						if err != nil {
							t.Errorf("%d bytes, TLS %t: %v", size, secure, err)
							return
						}
						b, err := io.ReadAll(resp.Body)
						if resp.StatusCode != 413 || string(b) != "too long" || err != nil {
							t.Errorf("%d bytes, TLS %t: got %d %q, %v", size, secure, resp.StatusCode, b, err)
						}
						_ = resp.Body.Close()
					})
				})
			}
		}
	}
}

// setLinger makes Close a reset.
func setLinger(c net.Conn) {
	if s, ok := c.(*tls.Conn); ok {
		c = s.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}
