package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/upstream"
)

// FuzzAnswer holds what a caller sees of any bytes against what net/http's Transport shows.
func FuzzAnswer(f *testing.F) {
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		f.Add([]byte(answers[name]), byte(0), byte(0))
		f.Add([]byte(answers[name]), byte(1), byte(3))
	}
	f.Fuzz(func(t *testing.T, answer []byte, method, pieces byte) {
		if len(answer) > 8<<10 {
			return // longer answers find nothing else
		}
		compare(t, string(answer), []string{"GET", "HEAD", "POST"}[method%3], int(pieces))
	})
}

// FuzzRequest holds that whatever a caller puts into a request, one request leaves, and it is that one.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/", "", "a.test", "X-A", "1", []byte(nil))
	f.Add("POST", "/a", "q=1", "a.test:80", "content-length", "0", []byte("GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add("PUT", "/a", "", "a.test", "Transfer-encoding", "chunked", []byte("0\r\n\r\nGET / HTTP/1.1\r\n\r\n"))
	f.Add("POST", "//b.test/", "", "a.test", "hOST", "b.test", []byte("x"))
	f.Add("G\r\nT", "/ HTTP/1.1\r\nX: y", "a b", "a\r\nX: y", "X: y\r\nZ", "a\r\nY: z", []byte("x"))
	f.Add("GET", "*", "", "[::1]:80", "TE", " a\t", []byte(nil))
	f.Add("", "http://b.test/", "?", "grün.test", "X_A", "\x80", []byte(nil))
	f.Fuzz(func(t *testing.T, method, target, query, host, name, value string, body []byte) {
		made := func() *http.Request {
			req := request(t, "GET", "http://upstream.test/", string(body))
			req.Method, req.Host = method, host
			req.URL = &url.URL{Scheme: "http", Host: "upstream.test", Opaque: target, RawQuery: query}
			if strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//") {
				req.URL.Opaque, req.URL.Path = "", target
			}
			req.Header = http.Header{"User-Agent": nil, name: {value, "second"}}
			return req
		}
		sent := func(tr func(dial upstream.Config) http.RoundTripper) ([]byte, error) {
			wrote := make(chan []byte, 1)
			dialled := false
			dial := dialPipe(func(c net.Conn) {
				var got bytes.Buffer
				err := readRequest(bufio.NewReader(io.TeeReader(c, &got)))
				if err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
				}
				_ = c.Close()
				wrote <- got.Bytes()
			})
			made := made()
			resp, err := tr(upstream.Config{Dial: func(ctx context.Context, n, a string) (net.Conn, error) { dialled = true; return dial(ctx, n, a) }}).RoundTrip(made)
			if err == nil {
				_ = resp.Body.Close()
			}
			if !dialled {
				return nil, err
			}
			return <-wrote, err
		}
		got, err := sent(func(c upstream.Config) http.RoundTripper { return newTransport(t, c) })
		if len(got) == 0 {
			return // refused
		}
		all := bufio.NewReader(bytes.NewReader(got))
		req, perr := http.ReadRequest(all)
		if perr != nil {
			t.Fatalf("%q left, which is no request: %v", got, perr)
		}
		content, _ := io.ReadAll(req.Body)
		if rest, _ := io.ReadAll(all); len(rest) > 0 || !bytes.Equal(content, body) {
			t.Fatalf("%q left: a body of %q, and %q behind it", got, content, rest)
		}
		want := made()
		wantMethod, wantHost := want.Method, want.Host
		if wantMethod == "" {
			wantMethod = "GET"
		}
		if wantHost == "" {
			wantHost = "upstream.test"
		}
		ascii := strings.IndexFunc(wantHost, func(r rune) bool { return r >= 0x80 }) < 0
		if req.Method != wantMethod || req.RequestURI != want.URL.RequestURI() || ascii && req.Host != wantHost {
			t.Fatalf("%q left: %s %s for %s, want %s %s for %s", got, req.Method, req.RequestURI, req.Host, wantMethod, want.URL.RequestURI(), wantHost)
		}
		expected := http.Header{}
		if !own(name) && (name != "User-Agent" || value != "") {
			canonical := textproto.CanonicalMIMEHeaderKey(name)
			expected[canonical] = []string{strings.Trim(value, " \t"), "second"}
		}
		delete(req.Header, "Content-Length")
		if !sameHeader(req.Header, expected) {
			t.Fatalf("%q left: headers %q, want %q", got, req.Header, expected)
		}
		if err != nil {
			t.Fatalf("%q left, and the call ended with %v", got, err)
		}
		standard := newStandard(t, nil)
		if _, err := sent(func(c upstream.Config) http.RoundTripper { standard.DialContext = c.Dial; return standard }); err != nil && !own(name) {
			t.Fatalf("%q left, which net/http refuses: %v", got, err)
		}
	})
}

// own are headers that a transport writes by itself.
func own(name string) bool {
	switch strings.ToLower(name) {
	case "host", "connection", "content-length", "transfer-encoding", "trailer":
		return true
	}
	return false
}

func sameHeader(a, b http.Header) bool {
	return maps.EqualFunc(a, b, func(x, y []string) bool { return slices.Equal(x, y) })
}
