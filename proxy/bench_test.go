package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"
)

// BenchmarkProxy compares three ways to one upstream, interleaved in rounds: direct, by a bare ReverseProxy with pooled
// buffers, and by Jobgate with everything on (session, rules about calls and tools, twenty held secrets, detectors for
// the record, a chained record on disk). It reports medians over the rounds, relative to the bare proxy:
// calls/s-ratio above 1 is faster, cpu-ratio below 1 is cheaper.
func BenchmarkProxy(b *testing.B) {
	const (
		connections = 32
		rounds      = 5
	)
	for _, load := range []struct {
		name   string
		body   string
		stream bool
		calls  int // a round
	}{
		{"json-1KiB", message(false, ""), false, 4000},
		{"request-40KiB", strings.Replace(message(false, ""), `"go"`, `"`+strings.Repeat("words of a long history ", 1700)+`"`, 1), false, 3000},
		{"sse-200", message(true, ""), true, 400},
	} {
		b.Run(load.name, func(b *testing.B) {
			ways := benchWays(b)
			type result struct{ rate, cpu float64 }
			results := map[string][]result{}
			for range b.N * rounds {
				for _, way := range ways {
					began, cpu := time.Now(), cpuTime()
					drive(b, way, load.body, connections, load.calls)
					took, used := time.Since(began), cpuTime()-cpu
					results[way.name] = append(results[way.name], result{float64(load.calls) / took.Seconds(), used.Seconds() * 10000 / float64(load.calls)})
				}
			}
			median := func(way string, of func(result, result) float64) float64 {
				var all []float64
				for n, r := range results[way] {
					all = append(all, of(r, results["bare"][n]))
				}
				slices.Sort(all)
				return all[len(all)/2]
			}
			for _, way := range ways {
				b.ReportMetric(median(way.name, func(r, _ result) float64 { return r.rate }), way.name+"-calls/s")
				b.ReportMetric(median(way.name, func(r, _ result) float64 { return r.cpu }), way.name+"-cpu-s/10k")
			}
			b.ReportMetric(median("jobgate", func(r, bare result) float64 { return r.rate / bare.rate }), "calls/s-ratio")
			b.ReportMetric(median("jobgate", func(r, bare result) float64 { return r.cpu / bare.cpu }), "cpu-ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

type benchWay struct {
	name, url, token string
	client           *http.Client
}

func benchWays(b *testing.B) []benchWay {
	up := httptest.NewServer(http.HandlerFunc(benchUpstream))
	b.Cleanup(up.Close)
	target, err := url.Parse(up.URL)
	if err != nil {
		b.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport, BufferPool: &bufferPool{}, FlushInterval: -1,
	}
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // else it cuts streams whose upstream answers at once
		reverse.ServeHTTP(w, r)
	}))
	b.Cleanup(bare.Close)
	gate := benchGate(b, up.URL)
	client := func() *http.Client {
		t := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
		b.Cleanup(t.CloseIdleConnections)
		return &http.Client{Transport: t}
	}
	return []benchWay{
		{"direct", up.URL, "x", client()}, {"bare", bare.URL, "x", client()}, {"jobgate", gate.url + "/anthropic", gate.token, client()},
	}
}

func benchGate(b *testing.B, upstream string) *world { return benchWorld(b, upstream, newDisk(b), nil) }

func benchWorld(b *testing.B, upstream string, recorder proxy.Recorder, carrier http.RoundTripper) *world {
	var held []proxy.Held
	for n := range 20 {
		held = append(held, proxy.Held{Name: fmt.Sprintf("secret-%d", n), Secret: access.NewSecret(fmt.Sprintf("sk-held-%02d-0123456789abcdefghij%d", n, n*n))})
	}
	maskers, err := proxy.NewMaskers(access.NewSecret("key"), held)
	if err != nil {
		b.Fatal(err)
	}
	w := newWorld(b, options{maskers: maskers, base: upstream, log: slog.LevelWarn, recorder: recorder, carries: carrier, policy: func(p *access.Policy) {
		p.Grants[0].Limits = access.Limits{Requests: 1 << 40, OutputTokens: 1 << 50, Models: []string{"claude-*"}}
		p.Grants[0].Rules = []access.Rule{
			{Name: "big", Effect: access.Deny, When: `call.bytes > 10000000`, Reason: "too big"},
			{Name: "net", Effect: access.Deny, When: `tool.name in ["WebFetch", "WebSearch"]`, Reason: "no network"},
			{Name: "sh", Effect: access.Deny, When: `tool.name == "Bash" && tool.input.command != "make test"`, Reason: "no"},
		}
	}})
	return w
}

var benchStream, benchWhole = func() ([]string, string) {
	list := []string{
		"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n",
		"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
	}
	for range 195 {
		list = append(list, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"some words of text\"}}\n\n")
	}
	list = append(list, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
		"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":50}}\n\n",
		"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
	return list, `{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"` + strings.Repeat("some words ", 75) + `"}],"stop_reason":"end_turn","usage":{"input_tokens":10,"output_tokens":50}}`
}()

func benchUpstream(w http.ResponseWriter, r *http.Request) {
	head := make([]byte, 120)
	n, _ := io.ReadFull(r.Body, head)
	_, _ = io.Copy(io.Discard, r.Body)
	if !strings.Contains(string(head[:n]), `"stream":true`) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, benchWhole)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	for _, e := range benchStream {
		_, _ = io.WriteString(w, e)
		_ = rc.Flush()
	}
}

func drive(b *testing.B, way benchWay, body string, connections, calls int) {
	var wait sync.WaitGroup
	for range connections {
		wait.Go(func() {
			for range calls / connections {
				r, _ := http.NewRequest("POST", way.url+"/v1/messages", strings.NewReader(body))
				r.Header = http.Header{"X-Api-Key": {way.token}, "Content-Type": {"application/json"}, "Anthropic-Version": {"2023-06-01"}, "User-Agent": {"claude-cli/2.1.331"}}
				resp, err := way.client.Do(r)
				if err != nil {
					b.Error(err)
					return
				}
				n, err := io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || n < 900 {
					b.Errorf("%s: status %d, %d bytes, %v", way.name, resp.StatusCode, n, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 32<<10)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put(&b) }

// disk chains events and appends them to a file, as a spool does.
type disk struct {
	mu    sync.Mutex
	file  *os.File
	out   *bufio.Writer
	chain *record.Chain
	buf   []byte
}

func newDisk(b *testing.B) *disk {
	f, err := os.Create(filepath.Join(b.TempDir(), "spool"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	return &disk{file: f, out: bufio.NewWriterSize(f, 256<<10), chain: record.NewChain("s_1")}
}

func (d *disk) Append(_ context.Context, _ string, wait bool, list ...record.Event) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.buf = d.buf[:0]
	for _, e := range list {
		if d.buf, err = d.chain.Append(d.buf, e); err != nil {
			return err
		}
	}
	if _, err := d.out.Write(d.buf); err != nil || !wait {
		return err
	}
	return d.out.Flush()
}

// BenchmarkCall is what the package does of a call itself: no network, and a record that is thrown away.
func BenchmarkCall(b *testing.B) {
	history := strings.Replace(message(false, ""), `"go"`, `"`+strings.Repeat("words of a long history ", 1700)+`"`, 1)
	for _, load := range []struct{ name, body, media, answer string }{
		{"json-1KiB", message(false, ""), "application/json", benchWhole},
		{"request-40KiB", history, "application/json", benchWhole},
		{"sse-200", message(true, ""), "text/event-stream", strings.Join(benchStream, "")},
	} {
		b.Run(load.name, func(b *testing.B) {
			w := benchWorld(b, "http://127.0.0.1:1", forgetful{}, carrier(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {load.media}}, ContentLength: int64(len(load.answer)),
					Body: io.NopCloser(strings.NewReader(load.answer))}, nil
			}))
			url, _ := url.Parse("/anthropic/v1/messages")
			b.ReportAllocs()
			for b.Loop() {
				r := &http.Request{Method: "POST", URL: url, RequestURI: url.Path, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "jobgate",
					Body: io.NopCloser(strings.NewReader(load.body)), ContentLength: int64(len(load.body)), RemoteAddr: "192.0.2.1:1",
					Header: http.Header{"X-Api-Key": {w.token}, "Content-Type": {"application/json"}, "Anthropic-Version": {"2023-06-01"},
						"User-Agent": {"claude-cli/2.1.331 (external, sdk-ts)"}, "X-App": {"cli"}, "Accept": {"application/json"}}}
				out := &sink{header: http.Header{}}
				if w.proxy.ServeHTTP(out, r); out.status != 200 || out.n < 900 {
					b.Fatalf("status %d with %d bytes", out.status, out.n)
				}
			}
		})
	}
}

type carrier func(*http.Request) (*http.Response, error)

func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) { return c(r) }

// forgetful is a record that nobody keeps.
type forgetful struct{}

func (forgetful) Append(context.Context, string, bool, ...record.Event) error { return nil }

// sink is a client that reads everything at once.
type sink struct {
	header    http.Header
	status, n int
}

func (s *sink) Header() http.Header              { return s.header }
func (s *sink) WriteHeader(status int)           { s.status = status }
func (s *sink) Write(b []byte) (int, error)      { s.n += len(b); return len(b), nil }
func (s *sink) Flush()                           {}
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) EnableFullDuplex() error          { return nil }
