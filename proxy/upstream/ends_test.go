package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/proxy/upstream"
)

var errOver = errors.New("the session is over")

// mute takes connections, and says when it has read some bytes of the first. It answers nothing.
func mute(t testing.TB, read int) (*rawServer, <-chan struct{}) {
	t.Helper()
	came, end := make(chan struct{}, 10), make(chan struct{})
	srv := serveRaw(t, func(_ int, c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, read)); err == nil {
			came <- struct{}{}
		}
		<-end
	})
	t.Cleanup(func() { close(end) })
	return srv, came
}

// ends cancels a call as soon as it has come somewhere, and returns what comes of it.
func ends(t *testing.T, tr http.RoundTripper, req *http.Request, there <-chan struct{}) error {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	result := make(chan error, 1)
	go func() {
		resp, err := tr.RoundTrip(req.WithContext(ctx))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		result <- err
	}()
	select {
	case <-there:
	case err := <-result:
		t.Fatalf("it ended before it was cancelled: %v", err)
	case <-time.After(patience):
		t.Fatal("it does not come to where it is to be cancelled")
	}
	cancel(errOver)
	select {
	case err := <-result:
		return err
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	return nil
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// TestCancel ends calls wherever they may be; the cause comes out, and nothing is left (TestMain looks).
func TestCancel(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(errOver)
		dialled := false
		tr := newTransport(t, upstream.Config{Dial: func(context.Context, string, string) (net.Conn, error) {
			dialled = true
			return nil, errors.New("no")
		}})
		if _, err := tr.RoundTrip(request(t, "GET", "http://a.test", "").WithContext(ctx)); !errors.Is(err, errOver) || dialled {
			t.Errorf("got %v, dialled: %t", err, dialled)
		}
	})
	t.Run("while dialling", func(t *testing.T) {
		there := make(chan struct{})
		tr := newTransport(t, upstream.Config{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			close(there)
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("operation was canceled")}
		}})
		if err := ends(t, tr, request(t, "GET", "http://a.test", ""), there); !errors.Is(err, errOver) || !isDial(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("in the handshake", func(t *testing.T) {
		srv, there := mute(t, 100)
		if err := ends(t, newTransport(t, upstream.Config{}), request(t, "GET", "https://"+srv.address, ""), there); !errors.Is(err, errOver) || !isDial(err) {
			t.Errorf("got %v", err)
		}
	})
	for name, size := range map[string]int{"waiting for the head": 10, "writing a long body": 8 << 20} {
		t.Run(name, func(t *testing.T) {
			for _, head := range []time.Duration{0, time.Hour} {
				srv, there := mute(t, 50)
				tr := newTransport(t, upstream.Config{Head: head})
				if err := ends(t, tr, request(t, "POST", srv.url, strings.Repeat("x", size)), there); !errors.Is(err, errOver) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	t.Run("writing a short body", func(t *testing.T) { // a pipe takes nothing that is not read
		there, end := make(chan struct{}), make(chan struct{})
		tr := newTransport(t, upstream.Config{Head: time.Hour, Dial: dialPipe(func(c net.Conn) {
			_, _ = io.ReadFull(c, make([]byte, 100))
			close(there)
			<-end
		})})
		defer close(end)
		if err := ends(t, tr, request(t, "POST", "http://a.test", strings.Repeat("x", 40<<10)), there); !errors.Is(err, errOver) {
			t.Errorf("got %v", err)
		}
	})
	for name, head := range map[string]string{
		"in a body with a length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhi",
		"in chunks":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
		"in a body until close":   "HTTP/1.1 200 OK\r\n\r\nhi",
		"in a head":               "HTTP/1.1 200 OK\r\nContent-Le",
		"behind a 103":            "HTTP/1.1 103 Early Hints\r\n\r\n",
	} {
		for _, size := range []int{1, 1 << 20} {
			t.Run(name, func(t *testing.T) {
				there, end := make(chan struct{}), make(chan struct{})
				srv := serveRaw(t, func(_ int, c net.Conn) {
					_ = readRequest(bufio.NewReader(c))
					_, _ = io.WriteString(c, head)
					close(there)
					<-end
				})
				defer close(end)
				if err := ends(t, newTransport(t, upstream.Config{Head: time.Hour}), request(t, "POST", srv.url, strings.Repeat("x", size)), there); !errors.Is(err, errOver) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

// TestCancelRaced cancels at any moment: a call must not wait for its head's deadline, and no connection in use may
// inherit one.
func TestCancelRaced(t *testing.T) {
	srv := serveRaw(t, func(_ int, c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.URL.Path == "/" {
				_, _ = io.WriteString(c, small)
			} // else nothing
		}
	})
	tr := newTransport(t, upstream.Config{Head: time.Hour})
	for i := range 300 {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(time.Duration(i)*time.Microsecond, func() { cancel(errOver) })
		within(t, patience, "a call that was cancelled", func() {
			if _, err := tr.RoundTrip(request(t, "GET", srv.url+"/never", "").WithContext(ctx)); !errors.Is(err, errOver) {
				t.Errorf("got %v", err)
			}
		})
		ctx, cancel = context.WithCancelCause(context.Background())
		time.AfterFunc(time.Duration(i/2)*time.Microsecond, func() { cancel(errOver) })
		resp, err := tr.RoundTrip(request(t, "GET", srv.url+"/", "").WithContext(ctx))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		if err != nil && !errors.Is(err, errOver) {
			t.Errorf("got %v", err)
		}
		get(t, tr, "GET", srv.url+"/", "")
	}
}

// late has a head come at the moment at which the call is cancelled.
type late struct {
	net.Conn
	cancel context.CancelCauseFunc
	ended  chan struct{}
	once   sync.Once
}

func (l *late) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.cancel(errOver)
	<-l.ended
	return n, err
}

func (l *late) SetDeadline(d time.Time) error {
	err := l.Conn.SetDeadline(d)
	if !d.IsZero() && d.Before(time.Now()) {
		l.once.Do(func() { close(l.ended) })
	}
	return err
}

func TestCancelWithTheHead(t *testing.T) {
	end := make(chan struct{})
	srv := serveRaw(t, func(_ int, c net.Conn) {
		_ = readRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhi")
		<-end
	})
	defer close(end)
	ctx, cancel := context.WithCancelCause(context.Background())
	tr := newTransport(t, upstream.Config{Head: time.Hour, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return &late{Conn: c, cancel: cancel, ended: make(chan struct{})}, err
	}})
	within(t, patience, "a call that was cancelled", func() {
		resp, err := tr.RoundTrip(request(t, "GET", srv.url, "").WithContext(ctx))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		if !errors.Is(err, errOver) {
			t.Errorf("got %v", err)
		}
	})
}

func TestHeadTimeout(t *testing.T) {
	drip := func(c net.Conn, text string) { // a byte each 5 ms
		for i := range len(text) {
			time.Sleep(5 * time.Millisecond)
			if _, err := io.WriteString(c, text[i:i+1]); err != nil {
				return
			}
		}
	}
	tests := []struct {
		name   string
		size   int
		answer func(net.Conn)
	}{
		{"no answer", 1, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		{"no answer to a long body", 4 << 20, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		{"nobody reads", 16 << 20, func(c net.Conn) { time.Sleep(time.Second) }},
		{"a head by drops", 1, func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nX-A: "+strings.Repeat("a", 10_000)) }},
		{"interim answers by drops", 1, func(c net.Conn) { drip(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := serveRaw(t, func(_ int, c net.Conn) { tt.answer(c) })
			tr := newTransport(t, upstream.Config{Head: 100 * time.Millisecond})
			within(t, patience, "an upstream without a head", func() {
				_, err := tr.RoundTrip(request(t, "POST", srv.url, strings.Repeat("x", tt.size)))
				var timeout net.Error
				if !errors.As(err, &timeout) || !timeout.Timeout() {
					t.Errorf("got %v, want a timeout", err)
				}
			})
		})
	}
	t.Run("a body may be slow", func(t *testing.T) {
		srv := serveRaw(t, func(_ int, c net.Conn) {
			_ = readRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh")
			time.Sleep(600 * time.Millisecond) // longer than the head may take
			_, _ = io.WriteString(c, "i")
		})
		if got := get(t, newTransport(t, upstream.Config{Head: 300 * time.Millisecond}), "GET", srv.url, ""); got != "hi" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("an upstream may take a long body slowly", func(t *testing.T) {
		srv := serveRaw(t, func(_ int, c net.Conn) {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetReadBuffer(64 << 10)
			}
			r := bufio.NewReaderSize(c, 256<<10)
			req, err := http.ReadRequest(r)
			for n := int64(0); err == nil; {
				time.Sleep(20 * time.Millisecond)
				n, err = io.CopyN(io.Discard, req.Body, 512<<10)
				if n == 0 {
					break
				}
			}
			_, _ = io.WriteString(c, small)
		})
		tr := newTransport(t, upstream.Config{Head: 500 * time.Millisecond})
		if got := get(t, tr, "POST", srv.url, strings.Repeat("x", 24<<20)); got != "hi" {
			t.Errorf("got %q", got)
		}
	})
}

func TestDialErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := l.Addr().String()
	_ = l.Close()
	plain := serveAnswers(t, small)
	silent := serveRaw(t, func(int, net.Conn) {})
	secure, _ := secureServer(t, http.NotFoundHandler(), nil)
	tests := []struct {
		name, url, want string
		dial            func(context.Context, string, string) (net.Conn, error)
	}{
		{"refused", "http://" + refused, "refused", nil},
		{"refused, TLS", "https://" + refused, "refused", nil},
		{"no TLS there", "https://" + plain.address, "TLS handshake with 127.0.0.1", nil},
		{"closed in the handshake", "https://" + silent.address, "TLS handshake with 127.0.0.1", nil},
		{"nobody's certificate", secure.URL, "certificate", nil},
		{"an error of the dialer's own", "http://a.test", "not allowed", func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("not allowed")
		}},
		{"no such name", "http://a.test", "no such host", func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "lookup", Net: "tcp", Err: errors.New("no such host")}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newTransport(t, upstream.Config{Dial: tt.dial}).RoundTrip(request(t, "GET", tt.url, ""))
			if !isDial(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %#v (%v), want a *net.OpError of dial that says %q", err, err, tt.want)
			}
		})
	}
}

// TestClose holds that closing an answer does not wait for the upstream, whatever it does.
func TestClose(t *testing.T) {
	end := make(chan struct{})
	srv := serveRaw(t, func(_ int, c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhi")
		<-end
	})
	defer close(end)
	tr := newTransport(t, upstream.Config{})
	for _, size := range []int{1, 16 << 20} {
		resp, err := tr.RoundTrip(request(t, "POST", srv.url, strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		within(t, patience, "Close", func() { _ = resp.Body.Close() })
	}
	t.Run("while a read waits", func(t *testing.T) {
		for range 20 {
			resp, err := tr.RoundTrip(request(t, "POST", srv.url, "x"))
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error, 1)
			go func() {
				_, err := io.ReadAll(resp.Body)
				read <- err
			}()
			_ = resp.Body.Close()
			within(t, patience, "the read", func() {
				if err := <-read; err == nil {
					t.Error("a read that was ended by Close gives a good end")
				}
			})
		}
	})
}
