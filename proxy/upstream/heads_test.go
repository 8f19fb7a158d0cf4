package upstream_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jobgate/jobgate/proxy/upstream"
)

// TestLongHeads holds that a head is read no further than it may be.
func TestLongHeads(t *testing.T) {
	endless := func(piece string) func(net.Conn, *atomic.Int64) {
		return func(c net.Conn, sent *atomic.Int64) {
			for {
				n, err := io.WriteString(c, piece)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}
	}
	once := func(answer string) func(net.Conn, *atomic.Int64) {
		return func(c net.Conn, _ *atomic.Int64) { _, _ = io.WriteString(c, answer) }
	}
	header := func(n int) string {
		return "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", n) + "\r\nContent-Length: 2\r\n\r\nhi"
	}
	tests := []struct {
		name   string
		limit  int64
		answer func(net.Conn, *atomic.Int64)
		ok     bool
	}{
		{"60 KiB", 0, once(header(60 << 10)), true},
		{"100 KiB", 0, once(header(100 << 10)), false},
		{"100 KiB where 128 may be", 128 << 10, once(header(100 << 10)), true},
		{"interim answers of 150 KiB together", 0, once(strings.Repeat("HTTP/1.1 103 E\r\nX-A: "+strings.Repeat("a", 15<<10)+"\r\n\r\n", 10) + small), false},
		{"a body may be longer", 0, once("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("a", 200_000)), true},
		{"an endless line", 0, endless("HTTP/1.1 200 OK "), false},
		{"endless headers", 0, endless("HTTP/1.1 200 OK\r\nX-A: a\r\n"), false},
		{"endless interim answers", 0, endless("HTTP/1.1 102 Processing\r\n\r\n"), false},
		{"endless blank lines", 0, endless("\r\n"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var sent atomic.Int64
			tr := newTransport(t, upstream.Config{HeadBytes: tt.limit, Dial: dialPipe(func(c net.Conn) {
				if readRequest(bufio.NewReader(c)) == nil {
					tt.answer(c, &sent)
				}
			})})
			within(t, patience, "a long head", func() {
				resp, err := tr.RoundTrip(request(t, "GET", "http://a.test/", ""))
				if err == nil {
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						t.Errorf("the body: %v", err)
					}
				}
				if (err == nil) != tt.ok {
					t.Errorf("got %v", err)
				}
			})
			if n := sent.Load(); n > 128<<10 {
				t.Errorf("%d bytes of a head were taken", n)
			}
		})
	}
}

// TestRefused are requests that cannot be sent. Nothing is dialled, or nothing is written.
func TestRefused(t *testing.T) {
	tests := map[string]func(*http.Request){
		"a method with a blank":      func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX: y\r\n\r\nGET" },
		"CONNECT":                    func(r *http.Request) { r.Method = "CONNECT" },
		"no URL":                     func(r *http.Request) { r.URL = nil },
		"another scheme":             func(r *http.Request) { r.URL.Scheme = "ftp" },
		"no host":                    func(r *http.Request) { r.URL.Host = "" },
		"a host with a line":         func(r *http.Request) { r.Host = "a\r\nX: y" },
		"a URL's host with a line":   func(r *http.Request) { r.Host, r.URL.Host = "", "a\r\nX: y" },
		"a target with a line":       func(r *http.Request) { r.URL.Opaque = "/a HTTP/1.1\r\nX: y\r\n\r\n" },
		"a target that names a host": func(r *http.Request) { r.URL.Opaque = "//b.test/" },
		"a query with a blank":       func(r *http.Request) { r.URL.RawQuery = "a b" },
		"a name with a colon":        func(r *http.Request) { r.Header["X: y\r\nZ"] = []string{"1"} },
		"an empty name":              func(r *http.Request) { r.Header[""] = []string{"1"} },
		"a value with a line":        func(r *http.Request) { r.Header["X"] = []string{"1\r\nY: 2"} },
		"a value with a NUL":         func(r *http.Request) { r.Header["X"] = []string{"1\x00"} },
		"a length without body":      func(r *http.Request) { r.Body, r.GetBody, r.ContentLength = nil, nil, 5 },
		"an unknown length, no body": func(r *http.Request) { r.Body, r.GetBody, r.ContentLength = nil, nil, -1 },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			for _, body := range []string{"", "x", strings.Repeat("x", 100<<10)} {
				var wrote lockedBuffer
				tr := newTransport(t, upstream.Config{Dial: dialPipe(func(c net.Conn) { _, _ = io.Copy(&wrote, c) })})
				req := request(t, "POST", "http://a.test/", body)
				change(req)
				if _, err := tr.RoundTrip(req); err == nil {
					t.Error("it was sent")
				}
				if wrote.String() != "" {
					t.Errorf("%.100q was written", wrote.String())
				}
			}
		})
	}
}

// TestStreamed are requests whose body is not held: they go by net/http, and look the same.
func TestStreamed(t *testing.T) {
	got := make(chan *http.Request, 1)
	srv := serveRaw(t, func(_ int, c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(c, small)
		got <- req
	})
	tr := newTransport(t, upstream.Config{})
	req, err := http.NewRequest("POST", srv.url, io.MultiReader(strings.NewReader("hello")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"X-A": {"1"}, "Connection": {"x-a"}, "content-length": {"3"}}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "hi" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	want := http.Header{"X-A": {"1"}}
	if sent := <-got; !sameHeader(sent.Header, want) || sent.ContentLength != -1 {
		t.Errorf("sent %v with length %d, want %v, chunked", sent.Header, sent.ContentLength, want)
	}
	if len(req.Header) != 3 {
		t.Errorf("the caller's headers were changed: %v", req.Header)
	}
}
