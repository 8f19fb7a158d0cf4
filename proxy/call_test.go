package proxy_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"
)

func TestWhatIsSentIsOnRecordBefore(t *testing.T) {
	w := newWorld(t, options{})
	var before []string
	w.model.SetScript(func(testkit.Request) testkit.Response {
		before = w.record.types()
		return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "Hello."}}}
	})
	resp := w.call("POST", "/anthropic/v1/messages?beta=true", message(true, ""), "Anthropic-Beta", "oauth-2025-04-20,context-1m-2025-08-07")
	body := read(t, resp)
	w.settled(1)
	if want := []string{record.TypeCallStarted, record.TypeDecision, record.TypeCallSent}; !slices.Equal(before, want) {
		t.Errorf("when the upstream saw the request, the record had %v, want %v", before, want)
	}
	want := []string{record.TypeCallStarted, record.TypeDecision, record.TypeCallSent, record.TypeResponse, record.TypeCallEnded}
	if got := w.record.types(); !slices.Equal(got, want) {
		t.Errorf("the record has %v, want %v", got, want)
	}
	if got := string(w.model.Sent(0)); got != body {
		t.Errorf("the answer was changed: %s", cmp.Diff(got, body))
	}
	req := w.model.Requests()[0]
	if got := req.Header.Get("Anthropic-Beta"); got != "context-1m-2025-08-07" {
		t.Errorf("anthropic-beta = %q", got)
	}
	if req.Target != "/v1/messages?beta=true" || string(req.Raw) != message(true, "") {
		t.Errorf("the model got %s with %s", req.Target, req.Raw)
	}
	sent := w.record.await(t, record.TypeCallSent, 1)[0].Data.(record.CallSent)
	if sent.Counts != (record.Counts{Requests: 1, OutputTokens: 100}) || sent.Credential != "env:KEY" {
		t.Errorf("call.sent = %+v", sent)
	}
	end := w.record.await(t, record.TypeCallEnded, 1)[0].Data.(record.CallEnded)
	if end.Reason != "done" || end.Status != 200 || end.OutputTokens == 0 || end.Counts.OutputTokens != end.OutputTokens {
		t.Errorf("call.ended = %+v", end)
	}
	if end.UpstreamRequestID != req.ID || resp.Header.Get("Request-Id") == req.ID {
		t.Errorf("the upstream's id %q is recorded as %q, the client gets %q", req.ID, end.UpstreamRequestID, resp.Header.Get("Request-Id"))
	}
	for _, name := range []string{"Anthropic-Organization-Id", "Anthropic-Ratelimit-Requests-Limit", "Cf-Ray", "Via", "Set-Cookie"} {
		if v := resp.Header.Get(name); v != "" {
			t.Errorf("the client got %s: %s", name, v)
		}
	}
	var text strings.Builder
	for _, e := range w.record.await(t, record.TypeResponse, 1) {
		text.WriteString(e.Data.(record.Response).Text)
	}
	if text.String() != body {
		t.Errorf("the record's copy differs: %s", cmp.Diff(body, text.String()))
	}
}

// Where nothing is judged or masked, the client gets the upstream's bytes.
func TestAnswersPassByteForByte(t *testing.T) {
	blocks := []testkit.Block{
		testkit.Thinking{Text: "Let me think about sk-ant, jg_ and [masked:x:0]."}, testkit.Text{Text: "Grüße 🎈 \"quoted\" \\ / \u2028 end"},
		testkit.ToolUse{Name: "Bash", Input: `{"command": "make  test", "n": 1.0e5}`},
		testkit.RawBlock{Start: `{"type":"future_block","data":""}`, Whole: `{"type":"future_block","data":"x"}`, Deltas: []string{`{"type":"future_delta","data":"x"}`}},
	}
	for name, pace := range map[string]testkit.Pacing{
		"plain": {}, "bytes": {ChunkBytes: 1}, "CR": {LineEnd: "\r", ChunkBytes: 7}, "CRLF": {LineEnd: "\r\n", ChunkBytes: 3},
		"split data": {SplitData: true}, "escaped": {EscapeText: true, TextSize: 2}, "odd chunks": {ChunkBytes: 11},
	} {
		for _, stream := range []bool{true, false} {
			for _, judged := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/stream=%t/judged=%t", name, stream, judged), func(t *testing.T) {
					o := options{model: testkit.ModelConfig{Pacing: pace}}
					if judged { // by a rule that cannot match any tool here
						o.policy = func(p *access.Policy) {
							p.Grants[0].Rules = []access.Rule{{Name: "no-net", Effect: access.Deny, When: `tool.name == "WebFetch"`, Reason: "no network"}}
						}
					}
					o.model.Script = func(testkit.Request) testkit.Response { return testkit.Response{Blocks: blocks} }
					w := newWorld(t, o)
					body := read(t, w.call("POST", "/anthropic/v1/messages", message(stream, "")))
					if sent := string(w.model.Sent(0)); body != sent {
						t.Error(cmp.Diff(sent, body))
					}
					if e := w.settled(1)[0]; e.Reason != "done" {
						t.Errorf("ended as %+v", e)
					}
				})
			}
		}
	}
}

func TestGuardDecides(t *testing.T) {
	rule := func(effect access.Effect, when string, mode access.Mode) func(*access.Policy) {
		return func(p *access.Policy) {
			p.Grants[0].Rules = []access.Rule{{Name: "r", Effect: effect, When: when, Reason: "because", Mode: mode}}
		}
	}
	for _, c := range []struct {
		name     string
		policy   func(*access.Policy)
		path     string
		body     string
		rule     string // that refuses, "" for a call that passes
		observed string
	}{
		{name: "allowed", body: message(false, "")},
		{name: "empty allow list", policy: func(p *access.Policy) { p.Grants[0].Allow = nil }, body: message(false, ""), rule: "allow"},
		{name: "other path", path: "/anthropic/v1/files", body: `{}`, rule: "allow"},
		{name: "allow list observed", policy: func(p *access.Policy) { p.Mode = access.Observe; p.Grants[0].Allow = nil }, body: message(false, ""), observed: "allow"},
		{name: "feature", body: message(false, `,"mcp_servers":[{"type":"url","url":"https://x","name":"x"}]`), rule: "features"},
		{name: "server tool", body: strings.Replace(message(false, ""), `"tools":[`, `"tools":[{"type":"web_search_20250305","name":"web_search"},`, 1), rule: "features"},
		{name: "feature granted", policy: func(p *access.Policy) { p.Grants[0].Features = []string{"web_search"} },
			body: strings.Replace(message(false, ""), `"tools":[`, `"tools":[{"type":"web_search_20250305","name":"web_search"},`, 1)},
		{name: "model", policy: func(p *access.Policy) { p.Grants[0].Limits.Models = []string{"claude-haiku-*"} }, body: message(false, ""), rule: "models"},
		{name: "model granted", policy: func(p *access.Policy) { p.Grants[0].Limits.Models = []string{"claude-sonnet-*"} }, body: message(false, "")},
		{name: "deny", policy: rule(access.Deny, `call.path == "/v1/messages"`, access.Enforce), body: message(false, ""), rule: "r"},
		{name: "no match", policy: rule(access.Deny, `call.path == "/v1/other"`, access.Enforce), body: message(false, "")},
		{name: "deny observed", policy: rule(access.Deny, `call.path == "/v1/messages"`, access.Observe), body: message(false, ""), observed: "r"},
		{name: "approve observed", policy: rule(access.Ask, `call.path == "/v1/messages"`, access.Observe), body: message(false, ""), observed: "r"},
		{name: "condition fails", policy: rule(access.Deny, `claims.missing == "x"`, access.Enforce), body: message(false, ""), rule: "r"},
		{name: "condition does not compile", policy: rule(access.Deny, `nonsense(`, access.Enforce), body: message(false, ""), rule: "config"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{policy: c.policy})
			if c.path == "" {
				c.path = "/anthropic/v1/messages"
			}
			resp := w.call("POST", c.path, c.body)
			body := read(t, resp)
			w.settled(1)
			decisions := w.record.await(t, record.TypeDecision, 1)
			d := decisions[0].Data.(record.Decision)
			if c.rule == "" {
				if resp.StatusCode != 200 || d.Effect != "allow" {
					t.Errorf("status %d, decision %+v: %s", resp.StatusCode, d, body)
				}
			} else {
				if resp.StatusCode != 400 || !strings.Contains(body, `"policy_blocked"`) || !strings.Contains(body, `Jobgate:`) || d.Effect != "deny" || d.Rule != c.rule {
					t.Errorf("status %d, decision %+v: %s", resp.StatusCode, d, body)
				}
				if len(w.model.Requests()) != 0 {
					t.Error("the call reached the model")
				}
				if tally, denials := w.session.Tally(); tally.Denials != 1 || len(denials) != 1 || denials[0].Rule != c.rule {
					t.Errorf("tally %+v, denials %+v", tally, denials)
				}
				if n := w.session.CountsOf("anthropic"); n != (access.Counts{}) {
					t.Errorf("a refused call is counted: %+v", n)
				}
			}
			var observed string
			for _, o := range d.Observed {
				observed += o.Rule
			}
			if observed != c.observed {
				t.Errorf("observed %q, want %q", observed, c.observed)
			}
		})
	}
}

// Whatever the session was asked for stands in its record, what could not be read too.
func TestMalformedCallsAreRecorded(t *testing.T) {
	w := newWorld(t, options{limits: proxy.Bounds{Body: 4096}})
	for n, body := range []string{`{"model":"a","model":"b"}`, `{`, message(false, `,"x":"`+strings.Repeat("y", 5000)+`"`), `{"model":"claude-sonnet-4-5","max_tokens":-5,"messages":[]}`} {
		resp := w.call("POST", "/anthropic/v1/messages", body)
		if resp.StatusCode != 400 {
			t.Errorf("body %d: status %d: %s", n, resp.StatusCode, read(t, resp))
		}
		w.settled(1)
		end := w.record.await(t, record.TypeCallEnded, n+1)[n]
		if got := end.Data.(record.CallEnded); got.Reason != "invalid" {
			t.Errorf("body %d: ended as %+v", n, got)
		}
		if started := w.record.await(t, record.TypeCallStarted, n+1)[n]; started.Call != end.Call {
			t.Errorf("call %s started and %s ended", started.Call, end.Call)
		}
	}
	w.call("GET", "/nothing/at-all", "")
	w.settled(1)
	if d := w.record.await(t, record.TypeDecision, 1)[0].Data.(record.Decision); d.Rule != "grant" || d.Effect != "deny" {
		t.Errorf("a connection that is not granted: %+v", d)
	}
	if n := len(w.model.Requests()); n != 0 {
		t.Errorf("%d requests reached the model", n)
	}
}

func TestLimits(t *testing.T) {
	t.Run("requests", func(t *testing.T) {
		w := newWorld(t, options{policy: func(p *access.Policy) { p.Grants[0].Limits.Requests = 2 }})
		for range 2 {
			if resp := w.call("POST", "/anthropic/v1/messages", message(false, "")); resp.StatusCode != 200 {
				t.Fatal(read(t, resp))
			}
		}
		resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
		body := read(t, resp)
		if resp.StatusCode != 429 || !strings.Contains(body, "billing_error") || !strings.Contains(body, "2 requests") {
			t.Errorf("status %d: %s", resp.StatusCode, body)
		}
		var seconds int
		if _, err := fmt.Sscan(resp.Header.Get("Retry-After"), &seconds); err != nil || seconds < 3500 || seconds > 3600 {
			t.Errorf("retry-after = %q, want the seconds to the end of the window", resp.Header.Get("Retry-After"))
		}
		if n := len(w.model.Requests()); n != 2 {
			t.Errorf("the model got %d requests", n)
		}
	})
	t.Run("output tokens", func(t *testing.T) {
		w := newWorld(t, options{policy: func(p *access.Policy) { p.Grants[0].Limits.OutputTokens = 150 }})
		w.model.SetScript(func(testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "x"}}, Usage: testkit.Usage{InputTokens: 7, CacheReadTokens: 3, OutputTokens: 40}}
		})
		for n, want := range []int{200, 200, 429} { // 40 and 80 used, 100 more are asked for
			resp := w.call("POST", "/anthropic/v1/messages", message(n == 0, ""))
			if body := read(t, resp); resp.StatusCode != want {
				t.Fatalf("call %d: status %d: %s", n, resp.StatusCode, body)
			}
			w.settled(1)
		}
		if got := w.session.CountsOf("anthropic"); got != (access.Counts{Requests: 2, InputTokens: 20, OutputTokens: 80}) {
			t.Errorf("counts = %+v", got)
		}
		huge := strings.Replace(message(false, ""), `"max_tokens":100`, `"max_tokens":9223372036854775807`, 1)
		if resp := w.call("POST", "/anthropic/v1/messages", huge); resp.StatusCode == 200 {
			t.Errorf("a reservation beyond all bounds passes: %+v", w.session.CountsOf("anthropic"))
		}
		if got := w.session.CountsOf("anthropic"); got.OutputTokens != 80 {
			t.Errorf("counts = %+v", got)
		}
	})
	t.Run("upstream refuses", func(t *testing.T) {
		w := newWorld(t, options{})
		w.model.SetScript(func(testkit.Request) testkit.Response {
			return testkit.Response{Fault: testkit.Fault{Kind: testkit.FaultStatus, Status: 400, Type: "invalid_request_error", Message: "prompt is too long"}}
		})
		resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
		if body := read(t, resp); resp.StatusCode != 400 || !strings.Contains(body, "prompt is too long") {
			t.Errorf("status %d: %s", resp.StatusCode, body)
		}
		w.settled(1)
		if got := w.session.CountsOf("anthropic"); got != (access.Counts{Requests: 1}) {
			t.Errorf("counts = %+v", got)
		}
	})
	t.Run("broken answers keep their reservation", func(t *testing.T) {
		w := newWorld(t, options{})
		w.model.SetScript(func(testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "some words that are cut"}}, Fault: testkit.Fault{Kind: testkit.FaultReset, After: 3}}
		})
		_ = read(t, w.call("POST", "/anthropic/v1/messages", message(true, "")))
		w.settled(1)
		if got := w.session.CountsOf("anthropic"); got.OutputTokens != 100 {
			t.Errorf("counts = %+v", got)
		}
	})
	t.Run("parallel", func(t *testing.T) {
		w := newWorld(t, options{policy: func(p *access.Policy) { p.Grants[0].Limits = access.Limits{Requests: 20, OutputTokens: 1000} }})
		var wait sync.WaitGroup
		var mu sync.Mutex
		got := map[int]int{}
		release := make(chan struct{})
		w.model.SetScript(func(testkit.Request) testkit.Response {
			<-release
			return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "x"}}, Usage: testkit.Usage{InputTokens: 1, OutputTokens: 100}}
		})
		for range 50 {
			wait.Go(func() {
				resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
				_ = read(t, resp)
				mu.Lock()
				got[resp.StatusCode]++
				mu.Unlock()
			})
		}
		w.settled(40) // refused: ten fit
		close(release)
		wait.Wait()
		if got[200] != 10 || got[429] != 40 || len(w.model.Requests()) != 10 {
			t.Errorf("statuses %v, the model got %d", got, len(w.model.Requests()))
		}
	})
	t.Run("observed", func(t *testing.T) {
		w := newWorld(t, options{policy: func(p *access.Policy) { p.Mode = access.Observe; p.Grants[0].Limits.Requests = 1 }})
		for range 2 {
			if resp := w.call("POST", "/anthropic/v1/messages", message(false, "")); resp.StatusCode != 200 {
				t.Fatal(read(t, resp))
			}
			w.settled(1)
		}
		if tally, _ := w.session.Tally(); tally.Observed != 1 || tally.Denials != 0 {
			t.Errorf("tally = %+v", tally)
		}
		if !strings.Contains(w.record.text(), `"observed":[{"rule":"limits","effect":"deny"`) {
			t.Error("the record does not say what would have been")
		}
	})
}

func TestPlainConnection(t *testing.T) {
	w := newWorld(t, options{secret: plainSecret, upstream: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Upstream", "yes")
		rw.Header().Set("Etag", `"1"`)
		switch r.Method {
		case "HEAD":
			rw.Header().Set("Content-Length", "12345")
		case "PUT":
			rw.WriteHeader(http.StatusNoContent)
		default:
			rw.WriteHeader(http.StatusTeapot)
			_, _ = fmt.Fprintf(rw, "got %s", r.URL.RawQuery)
		}
	})})
	resp := w.call("POST", "/plain/a?q=1&r=%20", strings.Repeat("b", 200<<10))
	if body := read(t, resp); resp.StatusCode != http.StatusTeapot || body != "got q=1&r=%20" || resp.Header.Get("X-Upstream") != "yes" {
		t.Errorf("status %d, %v: %s", resp.StatusCode, resp.Header, body)
	}
	if resp := w.call("HEAD", "/plain/a", ""); resp.ContentLength != 12345 {
		t.Errorf("length of a HEAD = %d", resp.ContentLength)
	}
	if resp := w.call("PUT", "/plain/a", "x"); resp.StatusCode != http.StatusNoContent {
		t.Errorf("status %d", resp.StatusCode)
	}
	for _, e := range w.settled(3) {
		if e.Reason != "done" {
			t.Errorf("ended as %+v", e)
		}
	}
}
