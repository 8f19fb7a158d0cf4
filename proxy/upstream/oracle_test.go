package upstream_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/upstream"
)

// seen is what a caller sees of an answer.
type seen struct {
	Failed   bool // there is no answer
	Status   int
	Proto    string
	Header   http.Header
	Length   int64
	Encoding []string
	Body     string
	Broke    bool // within the body
	Trailer  http.Header
}

// look takes an answer in pieces of size bytes, 0 for all at once.
func look(resp *http.Response, err error, size int) seen {
	if err != nil {
		return seen{Failed: true}
	}
	s := seen{Status: resp.StatusCode, Proto: resp.Proto, Header: resp.Header, Length: resp.ContentLength, Encoding: resp.TransferEncoding}
	var body bytes.Buffer
	if size == 0 {
		_, err = io.Copy(&body, resp.Body)
	} else {
		_, err = io.CopyBuffer(struct{ io.Writer }{&body}, struct{ io.Reader }{resp.Body}, make([]byte, size))
	}
	s.Body, s.Broke, s.Trailer = body.String(), err != nil, resp.Trailer
	_ = resp.Body.Close()
	return s
}

// TestRequests holds what leaves against what net/http's Transport sends of the same request.
func TestRequests(t *testing.T) {
	header := func(h http.Header) func(*http.Request) { return func(r *http.Request) { r.Header = h } }
	tests := []struct {
		name, method, target, body string
		change                     func(*http.Request)
	}{
		{"GET", "GET", "/", "", nil},
		{"no method", "", "/", "", func(r *http.Request) { r.Method = "" }},
		{"POST without body", "POST", "/a", "", nil},
		{"PUT without body", "PUT", "/a", "", nil},
		{"PATCH without body", "PATCH", "/a", "", nil},
		{"DELETE without body", "DELETE", "/a", "", nil},
		{"OPTIONS", "OPTIONS", "/a", "", nil},
		{"an own method", "PURGE", "/a", "", nil},
		{"POST with NoBody", "POST", "/a", "", func(r *http.Request) { r.Body = http.NoBody }},
		{"POST with NoBody of unknown length", "POST", "/a", "", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, -1 }},
		{"GET with NoBody that claims a length", "GET", "/a", "", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 5 }},
		{"DELETE with a body", "DELETE", "/a", "x", nil},
		{"GET with a body", "GET", "/a", "x", nil},
		{"a query", "GET", "/a?b=c&d=%20", "", nil},
		{"an escaped path", "GET", "/a%2Fb/%7e", "", nil},
		{"a bare query", "GET", "?", "", nil},
		{"multi-valued headers", "GET", "/", "", header(http.Header{"X-A": {"1", "2", "", "3"}, "User-Agent": nil})},
		{"a user agent", "GET", "/", "", header(http.Header{"User-Agent": {"a/1"}})},
		{"an empty user agent", "GET", "/", "", header(http.Header{"User-Agent": {""}})},
		{"nil values", "GET", "/", "", header(http.Header{"X-A": nil, "X-B": {}, "User-Agent": nil})},
		{"framing in headers", "POST", "/", "abc", header(http.Header{"Content-Length": {"7"}, "Transfer-Encoding": {"chunked"}, "Host": {"other"}, "Trailer": {"X"}, "User-Agent": nil})},
		{"another host", "GET", "/", "", func(r *http.Request) { r.Host = "other.example:99" }},
		{"an international host", "GET", "/", "", func(r *http.Request) { r.Host = "grün.example" }},
		{"close", "GET", "/", "", func(r *http.Request) { r.Close = true }},
		{"identity", "GET", "/", "", header(http.Header{"Accept-Encoding": {"identity"}, "User-Agent": nil})},
	}
	for _, size := range []int{1, 1000, 40 << 10, 64 << 10, 64<<10 + 1, 1 << 20, 33 << 20} {
		tests = append(tests, struct {
			name, method, target, body string
			change                     func(*http.Request)
		}{fmt.Sprintf("a body of %d bytes", size), "POST", "/", strings.Repeat("b", size), nil})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			send := func(tr http.RoundTripper) string {
				got := make(chan string, 1)
				srv := serveRaw(t, func(_ int, c net.Conn) { got <- record(c) })
				req := request(t, tt.method, srv.url+tt.target, tt.body)
				if tt.change != nil {
					tt.change(req)
				}
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatalf("%T: %v", tr, err)
				}
				_ = resp.Body.Close()
				return strings.ReplaceAll(<-got, srv.address, "ADDRESS")
			}
			want, got := send(newStandard(t, nil)), send(newTransport(t, upstream.Config{}))
			if got != want {
				t.Errorf("sent\n%s\nnet/http sends\n%s", got, want)
			}
		})
	}
}

// record writes a request down so that two can be compared, and answers it.
func record(c net.Conn) string {
	r := bufio.NewReader(c)
	var head []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		if line == "\r\n" {
			break
		}
		head = append(head, line)
	}
	slices.Sort(head[1:])
	length := 0
	for _, line := range head {
		_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
	}
	sum := sha256.New()
	n, _ := io.CopyN(sum, r, int64(length))
	_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	rest, _ := io.ReadAll(r)
	return fmt.Sprintf("%sbody %d %x, then %q", strings.Join(head, ""), n, sum.Sum(nil), rest)
}

// answers are of all kinds, good and bad.
var answers = map[string]string{
	"length":                     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n\r\nhello",
	"length 0":                   "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"short":                      "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
	"surplus":                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
	"chunked":                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
	"tiny chunks":                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n1\r\n!\r\n0\r\n\r\n",
	"trailers":                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n",
	"chunk extensions":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b;c=\"d\"\r\nhi\r\n0;x\r\n\r\n",
	"chunked, cut":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
	"chunked, no last":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	"chunked, trailer cut":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n",
	"chunked, bad size":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
	"chunked, long size":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
	"chunked, no CRLF":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhixx0\r\n\r\n",
	"chunked, bare LF":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\n0\n\n",
	"chunked and length":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	"chunked twice":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"chunked, chunked":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
	"gzip, chunked":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"Chunked":                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	"xchunked":                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"identity":                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nhi",
	"blank before colon":         "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nhi",
	"folded":                     "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nhi",
	"equal lengths":              "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
	"different lengths":          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
	"a list of lengths":          "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi",
	"a length with a sign":       "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
	"a negative length":          "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi",
	"an endless length":          "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhi",
	"until close":                "HTTP/1.1 200 OK\r\n\r\nhello, world",
	"until close, said":          "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello, world",
	"close with a length":        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.0":                   "HTTP/1.0 200 OK\r\n\r\nold",
	"HTTP/1.0, keep-alive":       "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold",
	"HTTP/1.0, chunked":          "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	"HTTP/2.0":                   "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
	"204":                        "HTTP/1.1 204 No Content\r\n\r\n",
	"204 with a length":          "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n",
	"304":                        "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\nContent-Length: 10\r\n\r\n",
	"304, chunked":               "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
	"100 before":                 "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
	"103 before":                 "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
	"five before":                strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 5) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
	"many before":                strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 99) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
	"endless before":             strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 9999) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
	"nothing behind 100":         "HTTP/1.1 100 Continue\r\n\r\n",
	"redirect":                   "HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n",
	"no reason":                  "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
	"a strange status":           "HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\nhi",
	"a status of four digits":    "HTTP/1.1 2000 OK\r\n\r\n",
	"a status of letters":        "HTTP/1.1 abc OK\r\n\r\n",
	"a negative status":          "HTTP/1.1 -20 OK\r\n\r\n",
	"no version":                 "200 OK\r\n\r\nhi",
	"another protocol":           "SSH-2.0-OpenSSH_9.2\r\n",
	"HTTP/1.1 without status":    "HTTP/1.1\r\n\r\n",
	"HTTP/11.1":                  "HTTP/11.1 200 OK\r\n\r\n",
	"nothing":                    "",
	"a broken head":              "HTTP/1.1 200 OK\r\nContent-Le",
	"a header without colon":     "HTTP/1.1 200 OK\r\nhello\r\nContent-Length: 2\r\n\r\nhi",
	"an empty name":              "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 2\r\n\r\nhi",
	"a NUL":                      "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nhi",
	"a name with a blank":        "HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 2\r\n\r\nhi",
	"a first header that folds":  "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n\r\nhi",
	"bare LF":                    "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
	"bare CR":                    "HTTP/1.1 200 OK\r\nX: a\rContent-Length: 9\r\nContent-Length: 2\r\n\r\nhi",
	"trailer names the framing":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n",
	"an Upgrade nobody asked of": "HTTP/1.1 200 OK\r\nUpgrade: h2\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nhi",
}

// TestAnswers holds what a caller sees of an answer against what net/http's Transport shows.
func TestAnswers(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"GET", "HEAD", "POST"} {
				for _, pieces := range []int{0, 1} {
					if len(answers[name]) > 10_000 && pieces == 1 {
						continue
					}
					compare(t, answers[name], method, pieces)
				}
			}
		})
	}
}

// compare sends an answer, whole or in pieces of some bytes, to both.
func compare(t testing.TB, answer, method string, pieces int) {
	t.Helper()
	dial := dialPipe(func(c net.Conn) {
		if readRequest(bufio.NewReader(c)) != nil {
			return
		}
		for rest := []byte(answer); len(rest) > 0; {
			n := len(rest)
			if pieces > 0 {
				n = min(n, pieces)
			}
			if _, err := c.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
	})
	standard := newStandard(t, nil)
	standard.DialContext = dial
	ours := newTransport(t, upstream.Config{Dial: dial})
	body := ""
	if method == "POST" {
		body = "x"
	}
	ask := func(tr http.RoundTripper) (seen, error) {
		resp, err := tr.RoundTrip(request(t, method, "http://upstream.test/", body))
		if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
			_ = resp.Body.Close()
			return seen{Status: resp.StatusCode, Header: resp.Header}, nil // what follows is no HTTP
		}
		return look(resp, err, pieces), err
	}
	want, wantErr := ask(standard)
	got, err := ask(ours)
	standard.CloseIdleConnections()
	ours.CloseIdleConnections()
	if !want.Failed && want.Status < 100 {
		want = seen{Failed: true} // net/http passes on what no server can answer with
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s, pieces of %d:\n got %+v (%v)\nwant %+v (%v)\n for %.2000q", method, pieces, got, err, want, wantErr, answer)
	}
}

// TestRealServer holds the two against a real server, bodies of all sizes both ways.
func TestRealServer(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read the request: %v", err)
		}
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sha256.Sum256(b)))
		w.Header().Set("Date", "now")
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	ours, standard := newTransport(t, upstream.Config{}), newStandard(t, nil)
	for _, path := range []string{"/", "/chunked"} {
		for _, size := range []int{0, 1, 40 << 10, 64 << 10, 64<<10 + 1, 1 << 20, 33 << 20} {
			if size > 1<<20 && path == "/chunked" {
				continue // long enough above
			}
			body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			ask := func(tr http.RoundTripper) seen {
				resp, err := tr.RoundTrip(request(t, "POST", srv.URL+path, body))
				return look(resp, err, 0)
			}
			want, got := ask(standard), ask(ours)
			if got.Failed || got.Broke || got.Body != body {
				t.Errorf("%s: %d bytes do not come back", path, size)
			}
			if !reflect.DeepEqual(got, want) {
				got.Body, want.Body = "", ""
				t.Errorf("%s, %d bytes: got %+v, want %+v", path, size, got, want)
			}
		}
	}
}
