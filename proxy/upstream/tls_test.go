package upstream_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/proxy/upstream"
)

var versions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// serveTLS speaks one version, and gives the connection under TLS as well.
func serveTLS(t testing.TB, version uint16, wrap func(net.Conn) net.Conn, handle func(c *tls.Conn, under net.Conn)) (string, *tls.Config) {
	t.Helper()
	certificate, trusted := secureServer(t, http.NotFoundHandler(), nil)
	cfg := &tls.Config{Certificates: certificate.TLS.Certificates, MinVersion: version, MaxVersion: version}
	srv := serveRaw(t, func(_ int, under net.Conn) {
		if wrap != nil {
			under = wrap(under)
		}
		c := tls.Server(under, cfg)
		if c.Handshake() == nil {
			handle(c, under)
		}
	})
	return "https://" + srv.address, trusted
}

// bytewise writes byte by byte.
type bytewise struct{ net.Conn }

func (b bytewise) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := b.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// corked holds back what is written until flush.
type corked struct {
	net.Conn
	on   bool
	held []byte
}

func (c *corked) Write(p []byte) (int, error) {
	if !c.on {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

func (c *corked) flush() { _, _ = c.Conn.Write(c.held) }

func TestTLS(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			t.Run("both ways, whole", func(t *testing.T) {
				srv, trusted := secureServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					_, _ = w.Write(b)
				}), func(s *httptest.Server) {
					s.TLS = &tls.Config{MinVersion: version, MaxVersion: version}
				})
				tr := newTransport(t, upstream.Config{TLS: trusted})
				for _, size := range []int{0, 1, 40 << 10, 64<<10 + 1, 5 << 20} {
					body := strings.Repeat("0123456789", size/10+1)[:size]
					resp, err := tr.RoundTrip(request(t, "POST", srv.URL, body))
					if err != nil {
						t.Fatal(err)
					}
					if resp.TLS == nil || resp.TLS.Version != version {
						t.Errorf("the answer's TLS is %+v", resp.TLS)
					}
					if b, err := io.ReadAll(resp.Body); string(b) != body || err != nil {
						t.Errorf("%d bytes: %d came back, %v", size, len(b), err)
					}
				}
			})
			t.Run("records byte by byte", func(t *testing.T) {
				url, trusted := serveTLS(t, version, func(c net.Conn) net.Conn { return bytewise{c} }, func(c *tls.Conn, _ net.Conn) {
					_ = readRequest(bufio.NewReader(c))
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
					for i := range 50 {
						_, _ = fmt.Fprintf(c, "3\r\n%03d\r\n", i)
					}
					_, _ = io.WriteString(c, "0\r\n\r\n")
					_ = c.Close()
				})
				got := get(t, newTransport(t, upstream.Config{TLS: trusted}), "GET", url, "")
				if len(got) != 150 || !strings.HasPrefix(got, "000001") || !strings.HasSuffix(got, "048049") {
					t.Errorf("got %q", got)
				}
			})
			t.Run("the end of a body until close", func(t *testing.T) {
				for _, told := range []bool{true, false} {
					url, trusted := serveTLS(t, version, nil, func(c *tls.Conn, under net.Conn) {
						_ = readRequest(bufio.NewReader(c))
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello")
						if told {
							_ = c.CloseWrite()
						}
					})
					resp, err := newTransport(t, upstream.Config{TLS: trusted}).RoundTrip(request(t, "GET", url, ""))
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(resp.Body)
					if string(b) != "hello" || told && err != nil || !told && !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("close_notify %t: got %q, %v", told, b, err)
					}
				}
			})
			t.Run("half an alert behind", func(t *testing.T) {
				end := make(chan struct{})
				url, trusted := serveTLS(t, version, func(c net.Conn) net.Conn { return &corked{Conn: c} }, func(c *tls.Conn, under net.Conn) {
					_ = readRequest(bufio.NewReader(c))
					cork := under.(*corked)
					cork.on = true
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhi")
					cork.held = append(cork.held, 21, 3, 3)
					cork.flush()
					<-end
				})
				defer close(end)
				resp, err := newTransport(t, upstream.Config{TLS: trusted}).RoundTrip(request(t, "GET", url, ""))
				if err != nil {
					t.Fatal(err)
				}
				within(t, patience, "what has come", func() {
					if _, err := io.ReadFull(resp.Body, make([]byte, 2)); err != nil {
						t.Error(err)
					}
				})
				_ = resp.Body.Close()
			})
			t.Run("resumption", func(t *testing.T) {
				srv, trusted := secureServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") }), func(s *httptest.Server) {
					s.TLS = &tls.Config{MinVersion: version, MaxVersion: version}
				})
				tr := newTransport(t, upstream.Config{TLS: trusted})
				for i := range 3 {
					req := request(t, "GET", srv.URL, "")
					req.Close = true
					resp, err := tr.RoundTrip(req)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.ReadAll(resp.Body)
					if resp.TLS.DidResume != (i > 0) {
						t.Errorf("connection %d resumed: %t", i+1, resp.TLS.DidResume)
					}
				}
			})
		})
	}
}

func TestServerName(t *testing.T) {
	srv, trusted := secureServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.TLS.ServerName+" "+r.Host) }), nil)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}
	tr := newTransport(t, upstream.Config{TLS: trusted, Dial: dial})
	if got := get(t, tr, "GET", "https://example.com:8443/", ""); got != "example.com example.com:8443" {
		t.Errorf("the upstream saw %q", got)
	}
	_, err := tr.RoundTrip(request(t, "GET", "https://other.test/", ""))
	if name := (x509.HostnameError{}); !errors.As(err, &name) || !isDial(err) {
		t.Errorf("a certificate for another name: got %v", err)
	}
	req := request(t, "GET", "https://other.test/", "")
	req.Host = "example.com" // what is asked for does not change whom it is asked of
	if _, err := tr.RoundTrip(req); !isDial(err) {
		t.Errorf("a certificate for the Host header: got %v", err)
	}
	if _, err := newTransport(t, upstream.Config{Dial: dial}).RoundTrip(request(t, "GET", "https://example.com/", "")); !isDial(err) {
		t.Errorf("a certificate of nobody known: got %v", err)
	}
}

// TestRecords has an upstream whose records are made by hand: whatever TLS itself has to say between them and behind
// them, events that have come are not kept waiting.
func TestRecords(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	chunk := func(s string) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(s), s) }
	tests := []struct {
		name string
		make func(w *recordWriter) []byte // sent at once; nothing comes behind it
		want string
	}{
		{"data alone", func(w *recordWriter) []byte { return w.data(chunk("one")) }, "one"},
		{"data and data", func(w *recordWriter) []byte { return append(w.data(chunk("one")), w.data(chunk("two"))...) }, "onetwo"},
		{"a ticket between", func(w *recordWriter) []byte {
			return append(append(w.data(chunk("one")), w.handshake(ticket)...), w.data(chunk("two"))...)
		}, "onetwo"},
		{"a ticket before", func(w *recordWriter) []byte { return append(w.handshake(ticket), w.data(chunk("one"))...) }, "one"},
		{"a ticket behind", func(w *recordWriter) []byte { return append(w.data(chunk("one")), w.handshake(ticket)...) }, "one"},
		{"half a ticket behind", func(w *recordWriter) []byte { return append(w.data(chunk("one")), w.handshake(ticket[:20])...) }, "one"},
		{"a ticket in two records", func(w *recordWriter) []byte {
			return append(append(append(w.data(chunk("one")), w.handshake(ticket[:9])...), w.handshake(ticket[9:])...), w.data(chunk("two"))...)
		}, "onetwo"},
		{"new keys between", func(w *recordWriter) []byte {
			b := append(w.data(chunk("one")), w.handshake([]byte{24, 0, 0, 1, 0})...)
			w.next()
			return append(b, w.data(chunk("two"))...)
		}, "onetwo"},
		{"new keys asked for between", func(w *recordWriter) []byte {
			b := append(w.data(chunk("one")), w.handshake([]byte{24, 0, 0, 1, 1})...)
			w.next()
			return append(b, w.data(chunk("two"))...)
		}, "onetwo"},
		{"empty records between", func(w *recordWriter) []byte {
			return append(append(append(w.data(chunk("one")), w.data(nil)...), w.data(nil)...), w.data(chunk("two"))...)
		}, "onetwo"},
		{"one byte of a record behind", func(w *recordWriter) []byte { return append(w.data(chunk("one")), w.data(chunk("two"))[:1]...) }, "one"},
		{"a head of a record behind", func(w *recordWriter) []byte { return append(w.data(chunk("one")), w.data(chunk("two"))[:5]...) }, "one"},
		{"half a record behind", func(w *recordWriter) []byte { return append(w.data(chunk("one")), w.data(chunk("two"))[:12]...) }, "one"},
		{"half an alert behind", func(w *recordWriter) []byte { return append(w.data(chunk("one")), w.seal(21, []byte{1, 0})[:7]...) }, "one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			end := make(chan struct{})
			url, trusted := serveRecords(t, func(c *tls.Conn, under net.Conn, w *recordWriter) {
				_ = readRequest(bufio.NewReader(c))
				_, _ = under.Write(w.data([]byte(head)))
				_, _ = under.Write(tt.make(w))
				<-end
			})
			defer close(end)
			resp, err := newTransport(t, upstream.Config{TLS: trusted}).RoundTrip(request(t, "GET", url, ""))
			if err != nil {
				t.Fatal(err)
			}
			within(t, patience, "what has come", func() {
				got := make([]byte, len(tt.want))
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != tt.want {
					t.Errorf("got %q, %v", got, err)
				}
			})
			_ = resp.Body.Close()
		})
	}
	t.Run("many in one read", func(t *testing.T) {
		const events = 200
		url, trusted := serveRecords(t, func(c *tls.Conn, under net.Conn, w *recordWriter) {
			_ = readRequest(bufio.NewReader(c))
			all := w.data([]byte(head))
			for range events {
				all = append(all, w.data(chunk("data: an event\n\n"))...)
			}
			_, _ = under.Write(append(all, w.data([]byte("0\r\n\r\n"))...))
		})
		resp, err := newTransport(t, upstream.Config{TLS: trusted}).RoundTrip(request(t, "GET", url, ""))
		if err != nil {
			t.Fatal(err)
		}
		reads, total := 0, 0
		for buf := make([]byte, 32<<10); err == nil; reads++ {
			var n int
			n, err = resp.Body.Read(buf)
			total += n
		}
		if err != io.EOF || total != events*len("data: an event\n\n") || reads > 4 {
			t.Errorf("%d bytes in %d reads, %v", total, reads, err)
		}
	})
	t.Run("a part of a record behind an answer", func(t *testing.T) {
		for _, n := range []int{1, 5, 20} {
			url, trusted := serveRecords(t, func(c *tls.Conn, under net.Conn, w *recordWriter) {
				r := bufio.NewReader(c)
				for readRequest(r) == nil {
					answer := w.data([]byte(small))
					_, _ = under.Write(append(answer, w.data([]byte(small))[:n]...))
				}
			})
			tr := newTransport(t, upstream.Config{TLS: trusted})
			for range 2 {
				within(t, patience, "a call", func() { get(t, tr, "POST", url, "x") })
			}
		}
	})
	t.Run("surplus in the last record", func(t *testing.T) {
		for size := 20_000; size < 120_000; size += 4_000 {
			written := make(chan struct{}, 2)
			url, trusted := serveRecords(t, func(c *tls.Conn, under net.Conn, w *recordWriter) {
				r := bufio.NewReader(c)
				for readRequest(r) == nil {
					rest := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", size, strings.Repeat("x", size), strings.Repeat(small, 3))
					var out []byte
					for len(rest) > 0 {
						n := min(len(rest), 16<<10)
						out = append(out, w.data(rest[:n])...)
						rest = rest[n:]
					}
					_, _ = under.Write(out)
					written <- struct{}{}
				}
			})
			tr := newTransport(t, upstream.Config{TLS: trusted})
			for range 2 {
				resp, err := tr.RoundTrip(request(t, "POST", url, "x"))
				if err != nil {
					t.Fatal(err)
				}
				<-written
				got := make([]byte, 256<<10) // which is read into without a copy
				n := 0
				for err == nil {
					var m int
					m, err = resp.Body.Read(got[n:])
					n += m
				}
				if err != io.EOF || n != size || strings.Trim(string(got[:n]), "x") != "" {
					t.Fatalf("%d bytes: got %d, %v: what nobody asked for is taken for an answer", size, n, err)
				}
			}
		}
	})
}

func TestSlowHandshake(t *testing.T) {
	srv, there := mute(t, 10)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := newTransport(t, upstream.Config{}).RoundTrip(request(t, "GET", "https://"+srv.address, "").WithContext(ctx))
	if !errors.Is(err, context.DeadlineExceeded) || !isDial(err) {
		t.Errorf("got %v", err)
	}
	<-there
}
