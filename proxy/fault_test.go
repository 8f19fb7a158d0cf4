package proxy_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"
)

func TestModelFaults(t *testing.T) {
	say := []testkit.Block{testkit.Text{Text: "Some words that are cut somewhere."}}
	for _, c := range []struct {
		name   string
		fault  testkit.Fault
		stream bool
		status int
		says   string
		reason string
	}{
		{"reset before", testkit.Fault{Kind: testkit.FaultReset}, true, 502, "api_error", "upstream_error"},
		{"reset before, whole", testkit.Fault{Kind: testkit.FaultReset}, false, 502, "api_error", "upstream_error"},
		{"reset within", testkit.Fault{Kind: testkit.FaultReset, After: 4}, true, 200, "event: error", "upstream_error"},
		{"reset within, whole", testkit.Fault{Kind: testkit.FaultReset, After: 1}, false, 502, "broke off", "upstream_error"},
		{"stall within", testkit.Fault{Kind: testkit.FaultStall, After: 4}, true, 200, "silent for", "upstream_error"},
		{"stall within, whole", testkit.Fault{Kind: testkit.FaultStall, After: 1}, false, 502, "silent for", "upstream_error"},
		{"400", testkit.Fault{Kind: testkit.FaultStatus, Status: 400, Type: "invalid_request_error", Message: "too long"}, true, 400, "too long", "done"},
		{"413", testkit.Fault{Kind: testkit.FaultStatus, Status: 413, Type: "request_too_large", Message: "too large"}, false, 413, "too large", "done"},
		{"429", testkit.Fault{Kind: testkit.FaultStatus, Status: 429, Type: "rate_limit_error", Message: "slow down"}, true, 429, "slow down", "done"},
		{"529", testkit.Fault{Kind: testkit.FaultStatus}, true, 529, "overloaded_error", "done"},
		{"error event", testkit.Fault{Kind: testkit.FaultErrorEvent, After: 4}, true, 200, "overloaded_error", "done"},
		{"bad gzip", testkit.Fault{Kind: testkit.FaultBadGzip}, false, 502, "broke off", "upstream_error"},
		{"bad gzip, stream", testkit.Fault{Kind: testkit.FaultBadGzip}, true, 200, "event: error", "upstream_error"},
		{"big header", testkit.Fault{Kind: testkit.FaultBigHeader, After: 1 << 20}, true, 502, "api_error", "upstream_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{limits: proxy.Bounds{Idle: 400 * time.Millisecond}})
			w.model.SetScript(func(testkit.Request) testkit.Response { return testkit.Response{Blocks: say, Fault: c.fault} })
			resp := w.call("POST", "/anthropic/v1/messages", message(c.stream, ""))
			body := read(t, resp)
			if resp.StatusCode != c.status || !strings.Contains(body, c.says) {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, c.status, body)
			}
			w.settled(1)
			if end := w.record.await(t, record.TypeCallEnded, 1)[0].Data.(record.CallEnded); end.Reason != c.reason {
				t.Errorf("call.ended = %+v", end)
			}
		})
	}
}

// An answer in another form than was asked for would be judged nowhere.
func TestAnswersInAnotherForm(t *testing.T) {
	stream := "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n"
	for name, c := range map[string]struct {
		stream bool
		send   func(http.ResponseWriter)
	}{
		"stream in place of JSON": {false, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, stream)
		}},
		"JSON in place of a stream": {true, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"content":[]}`)
		}},
		"page": {false, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>")
		}},
		"no type":  {true, func(w http.ResponseWriter) { w.Header()["Content-Type"] = nil; _, _ = io.WriteString(w, stream) }},
		"redirect": {true, func(w http.ResponseWriter) { w.Header().Set("Location", "https://evil.example/"); w.WriteHeader(307) }},
		"brotli": {false, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "x")
		}},
		"two encodings": {false, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.Header()["Content-Encoding"] = []string{"identity", "gzip"}
			_, _ = io.WriteString(w, "x")
		}},
		"no content": {false, func(w http.ResponseWriter) { w.WriteHeader(204) }},
		"switched": {true, func(w http.ResponseWriter) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello")
			_ = c.Close()
		}},
		"status of none": {true, func(w http.ResponseWriter) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 044 Odd\r\nContent-Length: 0\r\n\r\n")
			_ = c.Close()
		}},
		"no HTTP": {true, func(w http.ResponseWriter) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
			_ = c.Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldWith(t, options{}, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); c.send(w) })
			resp := w.call("POST", "/anthropic/v1/messages", message(c.stream, ""))
			if body := read(t, resp); resp.StatusCode != 502 || !strings.Contains(body, "api_error") || strings.Contains(body, "evil") {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
			w.settled(1)
			w.record.await(t, record.TypeCallEnded, 1)
		})
	}
}

func TestGzipIsUndone(t *testing.T) {
	secretText := func(r testkit.Request) testkit.Response {
		return testkit.Response{Gzip: true, Blocks: []testkit.Block{testkit.Text{Text: "key " + r.Credential() + " end"}}}
	}
	w := newWorld(t, options{model: testkit.ModelConfig{Script: secretText}, secret: plainSecret, upstream: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		if r.Method == "HEAD" {
			return
		}
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, "key "+plainSecret+" end")
		_ = z.Close()
	})})
	for _, c := range []struct{ method, path string }{{"POST", "/anthropic/v1/messages"}, {"GET", "/plain/a"}, {"HEAD", "/plain/a"}} {
		resp := w.call(c.method, c.path, message(true, ""))
		body := read(t, resp)
		if resp.StatusCode != 200 || len(leaks(said(t, c.method == "POST", body)+body, plainSecret)) > 0 || strings.Contains(body, w.model.Key()) {
			t.Errorf("%s %s: status %d: %s", c.method, c.path, resp.StatusCode, body)
		}
		if c.method == "GET" && !strings.HasPrefix(body, "key [masked:plain:") {
			t.Errorf("body = %q", body)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var asked atomic.Int32
	other := &world{t: t}
	elsewhere := other.upstream(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	w := newWorld(t, options{secret: plainSecret, upstream: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere+"/x", http.StatusFound)
	})})
	resp := w.call("GET", "/plain/a", "")
	if resp.StatusCode != http.StatusFound || asked.Load() != 0 {
		t.Errorf("status %d, the other place was asked %d times", resp.StatusCode, asked.Load())
	}
}

func TestPlainFaults(t *testing.T) {
	for name, c := range map[string]struct {
		send   func(http.ResponseWriter)
		status int
		cut    bool
	}{
		"reset before": {func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }, 502, false},
		"reset within": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000000")
			_, _ = w.Write(make([]byte, 300<<10))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, 200, true},
		"short": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(make([]byte, 10))
		}, 502, false},
		"cut chunks": {func(w http.ResponseWriter) {
			_, _ = w.Write(make([]byte, 10))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, 200, true},
		"stall within": {func(w http.ResponseWriter) {
			_, _ = w.Write(make([]byte, 10))
			_ = http.NewResponseController(w).Flush()
			select {}
		}, 200, true},
		"1 MB header":   {func(w http.ResponseWriter) { w.Header().Set("X-Big", strings.Repeat("x", 1<<20)) }, 502, false},
		"not modified":  {func(w http.ResponseWriter) { w.Header().Set("Etag", `"x"`); w.WriteHeader(304) }, 304, false},
		"empty success": {func(w http.ResponseWriter) {}, 200, false},
	} {
		if name == "stall within" {
			continue // TestModelFaults has it; an upstream that never returns would stay behind
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{upstream: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { c.send(w) })})
			resp := w.call("GET", "/plain/a", "")
			_, err := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || (err != nil) != c.cut {
				t.Errorf("status %d, want %d; reading ends with %v", resp.StatusCode, c.status, err)
			}
			w.settled(1)
			w.record.await(t, record.TypeCallEnded, 1)
		})
	}
}

func TestUnreachableUpstream(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	w := newWorld(t, options{base: "http://" + l.Addr().String()})
	resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
	body := read(t, resp)
	if resp.StatusCode != 502 || strings.Contains(body, l.Addr().String()) {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	w.settled(1)
	if n := w.session.CountsOf("anthropic"); n != (access.Counts{Requests: 1}) {
		t.Errorf("counts = %+v", n)
	}
}

// 32 MB reach a slow reader whole, the upstream is held back meanwhile, and an endless answer fills no memory.
func TestSlowReaders(t *testing.T) {
	const size = 32 << 20
	var written atomic.Int64
	w := newWorld(t, options{upstream: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
		for written.Load() < size {
			n, err := w.Write(chunk)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	})})
	resp := w.call("GET", "/plain/a", "")
	var got, most int64
	buf := make([]byte, 256<<10)
	for {
		n, err := io.ReadFull(resp.Body, buf)
		got += int64(n)
		most = max(most, written.Load()-got)
		if err != nil {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if got != size {
		t.Errorf("%d of %d bytes arrived", got, size)
	}
	if most > size*3/4 {
		t.Errorf("the upstream was %d bytes ahead", most)
	}
}

// An upstream may answer before it has read everything.
func TestEarlyAnswer(t *testing.T) {
	w := newWorld(t, options{upstream: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too much")
	})})
	for range 20 {
		chunk := strings.Repeat("x", 64<<10)
		got := w.raw(fmt.Sprintf("POST /plain/a HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s", w.token, 100*len(chunk), chunk+chunk+chunk))
		if !strings.HasPrefix(got, "HTTP/1.1 413 ") || !strings.HasSuffix(got, "too much") {
			t.Fatalf("the client gets %.300q", got)
		}
	}
}

// What cannot be recorded is not sent; an answer that cannot be recorded is cut.
func TestRecorderFails(t *testing.T) {
	for _, kind := range []string{record.TypeCallStarted, record.TypeDecision, record.TypeCallSent} {
		for _, path := range []string{"/anthropic/v1/messages", "/plain/a"} {
			var asked atomic.Int32
			w := newWorld(t, options{upstream: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })})
			w.record.failOn(kind)
			resp := w.call("POST", path, message(true, ""))
			if body := read(t, resp); resp.StatusCode != 503 || !strings.Contains(body, "cannot be recorded") || strings.Contains(body, "space left") {
				t.Errorf("%s, %s: status %d: %s", kind, path, resp.StatusCode, body)
			}
			if n := len(w.model.Requests()) + int(asked.Load()); n != 0 {
				t.Errorf("%s, %s: %d requests reached an upstream", kind, path, n)
			}
			w.settled(1)
			if n := w.session.CountsOf("anthropic"); n != (access.Counts{}) {
				t.Errorf("what was not sent is counted: %+v", n)
			}
		}
	}
	w := newWorld(t, options{model: held(6)})
	w.record.failOn(record.TypeResponse)
	body := read(t, w.call("POST", "/anthropic/v1/messages", message(true, "")))
	list := events(t, body)
	if last := list[len(list)-1]; last.name != "error" || !strings.Contains(last.message, "cannot be recorded") {
		t.Errorf("the stream ends with %+v", last)
	}
	if e := w.settled(1)[0]; e.Reason != "unrecordable" {
		t.Errorf("ended as %+v", e)
	}
	if !strings.Contains(w.log.String(), "no space left on device") {
		t.Error("the operator does not learn the cause")
	}
}

// A client that stalls within its request is given up.
func TestClientStalls(t *testing.T) {
	w := newWorld(t, options{upstream: http.HandlerFunc(echo), limits: proxy.Bounds{Client: 50 * time.Millisecond}})
	for _, path := range []string{"/anthropic/v1/messages", "/plain/a"} {
		for _, length := range []int{1000, 300 << 10} {
			got := w.raw(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s", path, w.token, length, strings.Repeat("x", min(length/2, 100<<10))))
			whole := strings.HasPrefix(got, "HTTP/1.1 200 ") && (!strings.Contains(got, "chunked") || strings.HasSuffix(got, "\r\n0\r\n\r\n"))
			if whole || got != "" && !strings.HasPrefix(got, "HTTP/1.1 503 ") && !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Errorf("%s, %d bytes: %.200s", path, length, got)
			}
			if e := w.settled(1)[0]; e.Reason != "client_gone" {
				t.Errorf("%s, %d bytes: ended as %+v", path, length, e)
			}
		}
	}
	if n := len(w.model.Requests()); n != 0 {
		t.Errorf("%d requests reached the model", n)
	}
}
