package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jobgate/jobgate/proxy/upstream"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http's Transport logs what comes unasked
	if code := m.Run(); code != 0 {
		os.Exit(code)
	}
	if err := goleak.Find(); err != nil {
		_, _ = io.WriteString(os.Stderr, err.Error())
		os.Exit(1)
	}
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// newTransport is ours, with a plain dialer where none is given.
func newTransport(t testing.TB, c upstream.Config) *upstream.Transport {
	t.Helper()
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	tr := upstream.New(c)
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// newStandard is net/http's, set as ours is.
func newStandard(t testing.TB, c *tls.Config) *http.Transport {
	t.Helper()
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256, MaxResponseHeaderBytes: 64 << 10, TLSClientConfig: c, ReadBufferSize: 32 << 10}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// rawServer gives each connection to a function, as bytes.
type rawServer struct {
	url     string
	address string
	accepts atomic.Int32
}

// serveRaw calls handle for each connection, with its number from 1, and closes it afterwards.
func serveRaw(t testing.TB, handle func(n int, c net.Conn)) *rawServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{url: "http://" + l.Addr().String(), address: l.Addr().String()}
	var mu sync.Mutex
	var all sync.WaitGroup
	open := map[net.Conn]bool{}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := int(s.accepts.Add(1))
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() {
				handle(n, c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return s
}

// serveAnswers reads requests whole and gives each the same answer, until one fails.
func serveAnswers(t testing.TB, answer string) *rawServer {
	t.Helper()
	return serveRaw(t, func(_ int, c net.Conn) {
		r := bufio.NewReader(c)
		for readRequest(r) == nil {
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	})
}

func readRequest(r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err
}

// request is one with a held body.
func request(t testing.TB, method, url, body string) *http.Request {
	t.Helper()
	var src io.Reader
	if body != "" {
		src = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, src)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["User-Agent"] = nil
	return req
}

// get fails the test where there is no answer, and returns its body.
func get(t testing.TB, tr http.RoundTripper, method, url, body string) string {
	t.Helper()
	resp, err := tr.RoundTrip(request(t, method, url, body))
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: body: %v", method, url, err)
	}
	_ = resp.Body.Close()
	return string(b)
}

// within fails the test where f takes too long.
func within(t testing.TB, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("%s takes more than %s", what, d)
	}
}

// secureServer is a real one with TLS, and the configuration of a client that trusts it.
func secureServer(t testing.TB, h http.Handler, change func(*httptest.Server)) (*httptest.Server, *tls.Config) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if change != nil {
		change(srv)
	}
	srv.StartTLS()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv, trusting(srv)
}

func trusting(srv *httptest.Server) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return &tls.Config{RootCAs: roots}
}

// dialPipe returns a dialer whose connections are given to a function.
func dialPipe(handle func(net.Conn)) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			handle(theirs)
			_ = theirs.Close()
		}()
		return ours, nil
	}
}

// lockedBuffer is written by one goroutine and read by another.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
