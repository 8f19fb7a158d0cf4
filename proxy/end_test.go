package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"
)

// held is a model that says one word and then waits until the client leaves.
func held(events int) testkit.ModelConfig {
	return testkit.ModelConfig{
		Script: testkit.ScriptSay("A story that has a beginning and goes on for a while."),
		Pacing: testkit.Pacing{Gate: func(e testkit.Event) {
			if e.N >= events {
				<-e.Done
			}
		}},
	}
}

func TestSessionEndCutsAStream(t *testing.T) {
	w := newWorld(t, options{model: held(5)})
	resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
	body := bufio.NewReader(resp.Body)
	for {
		line, err := body.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "text_delta") {
			break
		}
	}
	w.session.End(access.EndDeleted, time.Now())
	rest, err := io.ReadAll(body)
	if err != nil {
		t.Errorf("the stream ends with %v", err)
	}
	list := events(t, string(rest))
	last := list[len(list)-1]
	if last.name != "error" || !strings.Contains(last.data, "policy_blocked") || !strings.Contains(last.message, "its mapping was deleted") {
		t.Errorf("the stream ends with %+v", last)
	}
	w.settled(1)
	<-w.session.Quiet()
	end := w.record.await(t, record.TypeCallEnded, 1)[0].Data.(record.CallEnded)
	if end.Reason != "ended" || end.Counts.OutputTokens != 100 {
		t.Errorf("call.ended = %+v", end)
	}
	if resp := w.call("POST", "/anthropic/v1/messages", message(true, "")); resp.StatusCode != 400 {
		t.Errorf("the next call gets %d", resp.StatusCode)
	}
}

func TestSessionEndCutsWhatIsSilent(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/a/head": // nothing at all
		case "/a/body":
			_, _ = io.WriteString(w, strings.Repeat("x", 300<<10))
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}
	for _, path := range []string{"/anthropic/v1/messages", "/plain/a/head", "/plain/a/body"} {
		for _, stream := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s stream=%t", path, stream), func(t *testing.T) {
				arrived := make(chan struct{}, 2)
				hang := func(w http.ResponseWriter, r *http.Request) { arrived <- struct{}{}; hang(w, r) }
				w := newWorld(t, options{upstream: http.HandlerFunc(hang)})
				w.model.SetScript(func(testkit.Request) testkit.Response {
					arrived <- struct{}{}
					return testkit.Response{Fault: testkit.Fault{Kind: testkit.FaultStall}}
				})
				type result struct {
					status int
					body   string
					err    error
				}
				done := make(chan result, 1)
				go func() {
					resp, err := w.try(t.Context(), "POST", path, strings.NewReader(message(stream, "")))
					if err != nil {
						done <- result{err: err}
						return
					}
					defer func() { _ = resp.Body.Close() }()
					b, err := io.ReadAll(resp.Body)
					done <- result{resp.StatusCode, string(b), err}
				}()
				<-arrived
				began := time.Now()
				w.session.End(access.EndClosed, time.Now())
				r := <-done
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("the cut took %s", took)
				}
				w.settled(1)
				switch path {
				case "/anthropic/v1/messages":
					if r.err != nil || r.status != 400 || !strings.Contains(r.body, "the job closed its session") {
						t.Errorf("the client gets %+v", r)
					}
				case "/plain/a/head":
					if r.err != nil || r.status != 403 {
						t.Errorf("the client gets %+v", r)
					}
				case "/plain/a/body":
					if r.err == nil && r.status == 200 {
						t.Errorf("the client takes %d bytes for the whole", len(r.body))
					}
				}
			})
		}
	}
}

// A client that does not read is cut, too.
func TestSessionEndCutsAClientThatDoesNotRead(t *testing.T) {
	for _, path := range []string{"/anthropic/v1/messages", "/plain/a"} {
		full := make(chan struct{})
		flood := func(w http.ResponseWriter, _ *http.Request) {
			chunk := make([]byte, 64<<10)
			for n := 0; ; n++ {
				if n == 40 {
					close(full)
				}
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}
		w := newWorld(t, options{upstream: http.HandlerFunc(flood), limits: proxy.Bounds{Cut: 50 * time.Millisecond}})
		w.model.SetScript(func(testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: strings.Repeat("x", 4<<10)}}, Fault: testkit.Fault{Kind: testkit.FaultEndless},
				Pacing: &testkit.Pacing{TextSize: 64 << 10, Gate: func(e testkit.Event) {
					if e.N == 500 {
						close(full)
					}
				}}}
		})
		c, err := net.Dial("tcp", w.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		body := message(true, "")
		_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nAnthropic-Version: 2023-06-01\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, w.token, len(body), body)
		<-full
		w.session.End(access.EndOperator, time.Now())
		w.settled(1)
		end := w.record.await(t, record.TypeCallEnded, 1)[0].Data.(record.CallEnded)
		if end.Reason != "ended" {
			t.Errorf("%s: call.ended = %+v", path, end)
		}
		_ = c.Close()
	}
}

func TestChangeOfAMappingCutsWhatItRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*access.Policy)
		says   string // "" goes on
	}{
		{"nothing", nil, ""},
		{"grant", func(p *access.Policy) { p.Grants = p.Grants[1:] }, "grants nothing"},
		{"allow list", func(p *access.Policy) { p.Grants[0].Allow = nil }, "the mapping was changed"},
		{"rule", func(p *access.Policy) {
			p.Grants[0].Rules = []access.Rule{{Name: "no", Effect: access.Deny, When: `model.startsWith("claude")`, Reason: "no models"}}
		}, "no models"},
		{"model", func(p *access.Policy) { p.Grants[0].Limits.Models = []string{"claude-haiku-*"} }, "claude-haiku-*"},
		{"tools", func(p *access.Policy) {
			p.Grants[0].Rules = []access.Rule{{Name: "no-bash", Effect: access.Deny, When: `tool.name == "Bash"`, Reason: "no commands"}}
		}, "rules about tool uses now"},
		{"tools observed", func(p *access.Policy) { p.Grants[1].Limits.Requests = 3 }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			started, release := make(chan struct{}), make(chan struct{})
			w := newWorld(t, options{model: testkit.ModelConfig{
				Script: testkit.ScriptSay("A story that has a beginning and goes on for a while."),
				Pacing: testkit.Pacing{Gate: func(e testkit.Event) {
					if e.N == 4 {
						close(started)
						select {
						case <-release:
						case <-e.Done:
						}
					}
				}},
			}})
			resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
			<-started
			if _, err := io.ReadFull(resp.Body, make([]byte, 8)); err != nil { // its filter is chosen
				t.Fatal(err)
			}
			w.change(2, c.change)
			if c.says == "" {
				close(release)
			}
			body := read(t, resp)
			if c.says == "" && !strings.Contains(body, "message_stop") || !strings.Contains(body, c.says) {
				t.Errorf("the stream is %s", body)
			}
		})
	}
}

// Dormancy lets what runs go on.
func TestDormancyDoesNotCut(t *testing.T) {
	clock := &clock{now: time.Now()}
	started, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, options{now: clock.Now, model: testkit.ModelConfig{Pacing: testkit.Pacing{Gate: func(e testkit.Event) {
		if e.N == 3 {
			close(started)
			<-release
		}
	}}}, policy: func(p *access.Policy) {
		p.Grants[0].Rules = []access.Rule{{Name: "r", Effect: access.Deny, When: `tool.name == "Read"`, Reason: "no"}}
	}})
	resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
	<-started
	clock.add(30 * time.Minute)
	close(release)
	if body := read(t, resp); !strings.Contains(body, "message_stop") {
		t.Errorf("the stream is %s", body)
	}
	if resp := w.call("POST", "/anthropic/v1/messages", message(true, "")); resp.StatusCode != 401 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// A connection is used for call after call; the deadlines of one must not end another.
func TestNextCallOnTheConnection(t *testing.T) {
	w := newWorld(t, options{upstream: http.HandlerFunc(echo), limits: proxy.Bounds{Client: time.Millisecond}})
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for n, token := range []string{w.token, "nonsense", w.token} {
		_, _ = fmt.Fprintf(c, "GET /plain/a HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\n\r\n", token)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("call %d: %v", n, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if want := map[bool]int{true: 200, false: 401}[token == w.token]; resp.StatusCode != want {
			t.Errorf("call %d: status %d", n, resp.StatusCode)
		}
		w.settled(1)
		<-time.After(3 * time.Millisecond) // longer than a write may take
	}
}

// Ends and changes at any moment neither race nor leave a call behind.
func TestEndsAndChangesAtAnyMoment(t *testing.T) {
	for round := range 20 {
		w := newWorld(t, options{upstream: http.HandlerFunc(echo), limits: proxy.Bounds{Cut: 100 * time.Millisecond}})
		var wait sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for n := range 8 {
			wait.Go(func() {
				path := []string{"/anthropic/v1/messages", "/plain/a"}[n%2]
				resp, err := w.try(ctx, "POST", path, strings.NewReader(message(n%4 < 2, "")))
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		}
		wait.Go(func() {
			for n := range 3 {
				<-w.sessions.found
				w.change(int64(n+2), nil)
			}
			if round%2 == 0 {
				w.session.End(access.EndDeleted, time.Now())
			}
		})
		wait.Wait()
		cancel()
		w.session.End(access.EndClosed, time.Now())
		<-w.session.Quiet()
		w.settled(8)
		starts, ends := map[string]bool{}, map[string]bool{}
		w.record.mu.Lock()
		for _, e := range w.record.events {
			switch e.Type {
			case record.TypeCallStarted:
				starts[e.Call] = true
			case record.TypeCallEnded:
				ends[e.Call] = true
			}
		}
		w.record.mu.Unlock()
		for call := range starts {
			if !ends[call] {
				t.Errorf("call %s has no end", call)
			}
		}
	}
}

// The repeat that a client sends after its stream was cut comes on the same connection, and is answered there.
func TestCutStreamLeavesItsConnectionUsable(t *testing.T) {
	started := make(chan struct{}, 1)
	w := newWorld(t, options{limits: proxy.Bounds{Cut: 20 * time.Millisecond}})
	w.model.SetScript(func(testkit.Request) testkit.Response {
		return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "A story that goes on."}}, Pacing: &testkit.Pacing{Gate: func(e testkit.Event) {
			if e.N == 5 {
				started <- struct{}{}
				<-e.Done
			}
		}}}
	})
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	send := func(stream bool) *http.Response {
		body := message(stream, "")
		_, _ = fmt.Fprintf(c, "POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nAnthropic-Version: 2023-06-01\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", w.token, len(body), body)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := send(true)
	<-started
	w.session.End(access.EndDeleted, time.Now())
	if body := read(t, resp); !strings.Contains(body, "its mapping was deleted") {
		t.Errorf("the stream is %s", body)
	}
	_ = resp.Body.Close()
	<-time.After(50 * time.Millisecond) // beyond the deadline of the cut
	resp = send(false)
	if body := read(t, resp); resp.StatusCode != 400 || !strings.Contains(body, "its mapping was deleted") {
		t.Errorf("the repeat gets %d: %s", resp.StatusCode, body)
	}
	_ = resp.Body.Close()
}

// A session that ends while a request is still read ends the reading, and what was read goes nowhere.
func TestSessionEndCutsAnUpload(t *testing.T) {
	for _, c := range []struct {
		path   string
		length int
		status string
	}{{"/anthropic/v1/messages", 1000, "HTTP/1.1 400 "}, {"/anthropic/v1/messages", 2 << 20, "HTTP/1.1 400 "}, {"/plain/a", 1000, "HTTP/1.1 403 "}, {"/plain/a", 2 << 20, "HTTP/1.1 403 "}} {
		reached := make(chan struct{}, 1)
		w := newWorld(t, options{upstream: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			reached <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
		})})
		conn, err := net.Dial("tcp", w.address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nAnthropic-Version: 2023-06-01\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", c.path, w.token, c.length)
		r := bufio.NewReader(conn)
		if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
			t.Fatalf("read %q, %v", line, err)
		}
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(conn, strings.Repeat("x", c.length/2))
		if c.path == "/plain/a" && c.length > 1<<20 {
			<-reached
		}
		w.session.End(access.EndDeleted, time.Now())
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		got, _ := io.ReadAll(r)
		if !strings.HasPrefix(string(got), c.status) || !strings.Contains(string(got), "its mapping was deleted") {
			t.Errorf("%s, %d bytes: the client gets %.200q", c.path, c.length, got)
		}
		_ = conn.Close()
		if e := w.settled(1)[0]; e.Reason != "ended" {
			t.Errorf("%s, %d bytes: ended as %+v", c.path, c.length, e)
		}
		if n := len(w.model.Requests()); n != 0 {
			t.Errorf("%d requests reached the model", n)
		}
	}
}
