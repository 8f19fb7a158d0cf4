package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jobgate/jobgate/proxy/upstream"
)

const small = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

func TestReuse(t *testing.T) {
	srv := serveAnswers(t, small)
	tr := newTransport(t, upstream.Config{})
	for range 20 {
		get(t, tr, "GET", srv.url, "")
		get(t, tr, "POST", srv.url, strings.Repeat("x", 100<<10))
		get(t, tr, "HEAD", srv.url, "")
	}
	// The answer to HEAD says hi, which nobody asked for: that connection is lost each time.
	if n := srv.accepts.Load(); n != 20 {
		t.Errorf("%d connections for 60 calls, want 20", n)
	}
	srv = serveAnswers(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n")
	for range 60 {
		get(t, tr, "POST", srv.url, strings.Repeat("x", 1<<20))
	}
	if n := srv.accepts.Load(); n != 1 {
		t.Errorf("%d connections for 60 calls with long bodies, want 1", n)
	}
}

func TestNoReuse(t *testing.T) {
	readAll := func(resp *http.Response) { _, _ = io.ReadAll(resp.Body); _ = resp.Body.Close() }
	tests := []struct {
		name, answer string
		change       func(*http.Request)
		read         func(*http.Response)
	}{
		{name: "the upstream says close", answer: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"},
		{name: "the request says close", answer: small, change: func(r *http.Request) { r.Close = true }},
		{name: "HTTP/1.0", answer: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"},
		{name: "surplus behind a length", answer: small + small},
		{name: "surplus behind nothing", answer: "HTTP/1.1 204 No Content\r\n\r\n" + small},
		{name: "surplus behind chunks", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + small},
		{name: "bad chunks", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi??"},
		{name: "half read", answer: small, read: func(resp *http.Response) { _, _ = resp.Body.Read(make([]byte, 1)); _ = resp.Body.Close() }},
		{name: "not read", answer: small, read: func(resp *http.Response) { _ = resp.Body.Close() }},
		{name: "another protocol", answer: "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
		{name: "a status that does not exist", answer: "HTTP/1.1 099 Eh\r\nContent-Length: 0\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := serveAnswers(t, tt.answer)
			tr := newTransport(t, upstream.Config{})
			for range 3 {
				req := request(t, "POST", srv.url, "x")
				if tt.change != nil {
					tt.change(req)
				}
				resp, err := tr.RoundTrip(req)
				switch {
				case err != nil:
				case tt.read != nil:
					tt.read(resp)
				default:
					readAll(resp)
				}
			}
			if n := srv.accepts.Load(); n != 3 {
				t.Errorf("%d connections for 3 calls, want 3", n)
			}
		})
	}
}

// TestReadsAfterTheEnd holds that a body that is over stays over, and never reads another call's answer.
func TestReadsAfterTheEnd(t *testing.T) {
	srv := serveAnswers(t, small)
	tr := newTransport(t, upstream.Config{})
	first, err := tr.RoundTrip(request(t, "GET", srv.url, ""))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(first.Body); string(b) != "hi" || err != nil {
		t.Fatalf("read %q, %v", b, err)
	}
	second, err := tr.RoundTrip(request(t, "GET", srv.url, ""))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := first.Body.Read(make([]byte, 9)); n != 0 || err != io.EOF {
		t.Errorf("a read behind the end gives %d bytes, %v", n, err)
	}
	_ = first.Body.Close()
	if b, err := io.ReadAll(second.Body); string(b) != "hi" || err != nil {
		t.Errorf("the second answer is %q, %v, after the first was closed", b, err)
	}
	third, err := tr.RoundTrip(request(t, "GET", srv.url, ""))
	if err != nil {
		t.Fatal(err)
	}
	_ = third.Body.Close()
	if n, err := third.Body.Read(make([]byte, 9)); n != 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("a read behind Close gives %d bytes, %v", n, err)
	}

	cut := serveRaw(t, func(_ int, c net.Conn) {
		_ = readRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
	})
	broken, err := tr.RoundTrip(request(t, "GET", cut.url, ""))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := io.ReadAll(broken.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a body that was cut ends with %v, want %v, each time", err, io.ErrUnexpectedEOF)
		}
	}
	_ = broken.Body.Close()
}

// TestStale holds that a connection which the upstream closed while it lay idle costs no call, and that each request is
// sent once.
func TestStale(t *testing.T) {
	const rounds = 200
	var served atomic.Int32
	closed := make(chan struct{}, rounds)
	srv := serveRaw(t, func(_ int, c net.Conn) {
		if readRequest(bufio.NewReader(c)) != nil {
			return
		}
		served.Add(1)
		_, _ = io.WriteString(c, small)
		_ = c.Close()
		closed <- struct{}{}
	})
	tr := newTransport(t, upstream.Config{})
	for range rounds {
		if got := get(t, tr, "POST", srv.url, "x"); got != "hi" {
			t.Fatalf("the answer is %q", got)
		}
		<-closed
	}
	if n := served.Load(); n != rounds {
		t.Errorf("%d requests came, want %d", n, rounds)
	}
}

// TestStaleRaced closes the idle connection at the moment at which it is used. A POST of which a byte may have been taken
// is not sent again; what may be repeated is.
func TestStaleRaced(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			var mu sync.Mutex
			came := map[string]int{}
			release := make(chan struct{})
			srv := serveRaw(t, func(_ int, c net.Conn) {
				r := bufio.NewReader(c)
				for i := 0; ; i++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					mu.Lock()
					came[req.URL.Path]++
					mu.Unlock()
					_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
					if req.URL.Path == "/" {
						<-release
						return
					}
				}
			})
			tr := newTransport(t, upstream.Config{})
			failed := 0
			for i := range 200 {
				path := fmt.Sprintf("/%d", i)
				get(t, tr, "GET", srv.url+"/", "")
				release <- struct{}{}
				body := ""
				if method == "POST" {
					body = "x"
				}
				resp, err := tr.RoundTrip(request(t, method, srv.url+path, body))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
				}
				if err != nil {
					failed++
				}
				mu.Lock()
				if n := came[path]; n > 1 || n == 0 && err == nil || method == "GET" && err != nil {
					t.Errorf("%s %s came %d times, and ended with %v", method, path, n, err)
				}
				mu.Unlock()
			}
			t.Logf("%d of 200 calls met the end", failed)
		})
	}
}

// TestRepeated has an upstream that takes a request on a used connection and closes it without a word.
func TestRepeated(t *testing.T) {
	tests := []struct {
		method, body string
		want         int // requests that come
	}{{"GET", "", 2}, {"HEAD", "", 2}, {"OPTIONS", "", 2}, {"POST", "x", 1}, {"POST", "", 1}, {"DELETE", "", 1}, {"PUT", "x", 1}, {"GET", "x", 1}}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.body, func(t *testing.T) {
			var came atomic.Int32
			srv := serveRaw(t, func(n int, c net.Conn) {
				r := bufio.NewReader(c)
				for i := 0; ; i++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					if req.URL.Path == "/it" {
						came.Add(1)
						if n == 1 {
							return
						}
					}
					_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				}
			})
			tr := newTransport(t, upstream.Config{})
			get(t, tr, "GET", srv.url+"/", "")
			resp, err := tr.RoundTrip(request(t, tt.method, srv.url+"/it", tt.body))
			if err == nil {
				_ = resp.Body.Close()
			}
			if n := int(came.Load()); n != tt.want || (err == nil) != (tt.want == 2) {
				t.Errorf("it came %d times, want %d; %v", n, tt.want, err)
			}
		})
	}
	t.Run("never on a new connection", func(t *testing.T) {
		srv := serveRaw(t, func(_ int, c net.Conn) { _ = readRequest(bufio.NewReader(c)) })
		if _, err := newTransport(t, upstream.Config{}).RoundTrip(request(t, "GET", srv.url, "")); err == nil {
			t.Error("an upstream that never answers has answered")
		}
		if n := srv.accepts.Load(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
}

func TestIdle(t *testing.T) {
	gone := make(chan struct{}, 10)
	srv := serveRaw(t, func(_ int, c net.Conn) {
		r := bufio.NewReader(c)
		for readRequest(r) == nil {
			_, _ = io.WriteString(c, small)
		}
		gone <- struct{}{}
	})
	parallel := func(tr *upstream.Transport, n int) {
		t.Helper()
		var open []*http.Response
		for range n {
			resp, err := tr.RoundTrip(request(t, "GET", srv.url, ""))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, resp)
		}
		for _, resp := range open {
			_, _ = io.ReadAll(resp.Body)
		}
	}
	leave := func(n int, why string) {
		t.Helper()
		for range n {
			select {
			case <-gone:
			case <-time.After(patience):
				t.Fatalf("%s: a connection stays open", why)
			}
		}
	}
	parallel(newTransport(t, upstream.Config{Idle: 20 * time.Millisecond}), 3)
	leave(3, "idle for longer than it may be")

	tr := newTransport(t, upstream.Config{MaxIdle: 2})
	parallel(tr, 5)
	leave(3, "more idle ones than there may be")
	tr.CloseIdleConnections()
	leave(2, "closed when idle")
	before := srv.accepts.Load()
	parallel(tr, 1)
	if srv.accepts.Load() != before+1 {
		t.Error("a closed connection was used")
	}
	select {
	case <-gone:
		t.Error("a connection that may be kept was closed")
	default:
	}
}

func TestMany(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %d %s", r.URL.Path, len(b), b[:min(len(b), 20)])
	}))
	t.Cleanup(srv.Close)
	tr := newTransport(t, upstream.Config{MaxIdle: 16, Idle: 5 * time.Millisecond})
	var all sync.WaitGroup
	for g := range 64 {
		all.Go(func() {
			for i := range 20 {
				path := fmt.Sprintf("/%d/%d", g, i)
				body := strings.Repeat(fmt.Sprintf("%d-%d.", g, i), 1+(g*i)%30_000)
				want := fmt.Sprintf("%s %d %s", path, len(body), body[:min(len(body), 20)])
				ctx, cancel := context.WithCancel(context.Background())
				resp, err := tr.RoundTrip(request(t, "POST", srv.URL+path, body).WithContext(ctx))
				if err != nil {
					t.Errorf("%s: %v", path, err)
					cancel()
					return
				}
				if i%5 == 4 {
					cancel()
					_ = resp.Body.Close()
					continue
				}
				if b, err := io.ReadAll(resp.Body); string(b) != want || err != nil {
					t.Errorf("%s: got %q, %v", path, b, err)
				}
				cancel()
			}
		})
	}
	all.Wait()
}
