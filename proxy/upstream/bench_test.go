package upstream_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/proxy/upstream"
)

// BenchmarkAgainstStandard compares one call at a time with net/http's Transport, in turns, so that a busy machine slows
// both: "ratio" is ours to theirs in time, "allocs-ratio" in allocations, the server's own of both included.
func BenchmarkAgainstStandard(b *testing.B) {
	reply := strings.Repeat("x", 1<<10)
	event := "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" word\"}}\n\n"
	handler := http.NewServeMux()
	handler.HandleFunc("/reply", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, reply)
	})
	handler.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for range 200 {
			_, _ = io.WriteString(w, event)
			w.(http.Flusher).Flush()
		}
	})
	plain := httptest.NewServer(handler)
	b.Cleanup(plain.Close)
	secure, trusted := secureServer(b, handler, nil)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	tests := []struct {
		name, url string
		body      int
		cfg       *tls.Config
	}{
		{"reply", plain.URL + "/reply", 0, nil},
		{"reply to 40 KiB", plain.URL + "/reply", 40 << 10, nil},
		{"events", plain.URL + "/events", 1 << 10, nil},
		{"reply, TLS", secure.URL + "/reply", 0, trusted},
		{"reply to 40 KiB, TLS", secure.URL + "/reply", 40 << 10, trusted},
		{"events, TLS", secure.URL + "/events", 1 << 10, trusted},
	}
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			ours, standard := newTransport(b, upstream.Config{TLS: tt.cfg, Head: time.Minute}), newStandard(b, tt.cfg)
			standard.ResponseHeaderTimeout = time.Minute
			body, buf := strings.Repeat("x", tt.body), make([]byte, 32<<10)
			call := func(tr http.RoundTripper) {
				resp, err := tr.RoundTrip(request(b, "POST", tt.url, body))
				for err == nil {
					_, err = resp.Body.Read(buf)
				}
				if err != io.EOF {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
			}
			call(ours)
			call(standard)
			var took [2]time.Duration
			var allocated [2]uint64
			round := func(i int, tr http.RoundTripper, n int) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				for range n {
					call(tr)
				}
				took[i] += time.Since(start)
				runtime.ReadMemStats(&after)
				allocated[i] += after.Mallocs - before.Mallocs
			}
			b.ResetTimer()
			for done := 0; done < b.N; done += 50 {
				n := min(50, b.N-done)
				round(0, ours, n)
				round(1, standard, n)
			}
			b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N), "ns/call")
			b.ReportMetric(float64(took[0])/float64(took[1]), "ratio")
			b.ReportMetric(float64(allocated[0])/float64(b.N), "allocs/call")
			b.ReportMetric(float64(allocated[0])/float64(allocated[1]), "allocs-ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkCall is one call against an upstream that costs next to nothing, so that what is allocated is the client's.
func BenchmarkCall(b *testing.B) {
	srv := serveRaw(b, quickAnswers)
	for _, tr := range []http.RoundTripper{newTransport(b, upstream.Config{Head: time.Minute}), newStandard(b, nil)} {
		name := "ours"
		if _, ok := tr.(*http.Transport); ok {
			name = "standard"
		}
		b.Run(name, func(b *testing.B) {
			req := request(b, "POST", srv.url, strings.Repeat("x", 1000))
			req.Header["X-Api-Key"] = []string{"key"}
			req.Header["Content-Type"] = []string{"application/json"}
			buf := make([]byte, 4<<10)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := tr.RoundTrip(req)
				for err == nil {
					_, err = resp.Body.Read(buf)
				}
				if err != io.EOF {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
				req.Body, _ = req.GetBody()
			}
		})
	}
}

// quickAnswers takes each read for a request, and allocates nothing for it.
func quickAnswers(_ int, c net.Conn) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nRequest-Id: req_1\r\nDate: Mon, 05 Jan 2026 10:00:00 GMT\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("y", 1000))
	buf := make([]byte, 64<<10)
	for seen := 0; ; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		// A request is a head and 1,000 bytes that are x; net/http may write the two apart.
		if seen += bytes.Count(buf[:n], []byte("x")); seen < 1000 {
			continue
		}
		seen = 0
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// BenchmarkIdle tells what an unused connection costs in memory, both ends of it.
func BenchmarkIdle(b *testing.B) {
	secure, trusted := secureServer(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") }), nil)
	const connections = 200
	for name, tr := range map[string]http.RoundTripper{"ours": newTransport(b, upstream.Config{TLS: trusted}), "standard": newStandard(b, trusted)} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				before := heap()
				var open []*http.Response
				for range connections {
					resp, err := tr.RoundTrip(request(b, "GET", secure.URL, ""))
					if err != nil {
						b.Fatal(err)
					}
					open = append(open, resp)
				}
				for i, resp := range open {
					_, _ = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					open[i] = nil
				}
				b.ReportMetric(float64(heap()-before)/connections, "B/connection")
				tr.(interface{ CloseIdleConnections() }).CloseIdleConnections()
			}
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
