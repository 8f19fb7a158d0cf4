package testkit_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/jobgate/jobgate/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newModel(t *testing.T, cfg testkit.ModelConfig) *testkit.Model {
	t.Helper()
	model, err := testkit.NewModel(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Error(err)
		}
	})
	return model
}

const plainBody = `{"model":"claude-sonnet-4-5","max_tokens":64,"messages":[{"role":"user","content":"hi"}]}`

const streamBody = `{"model":"claude-sonnet-4-5","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"hi"}]}`

func messagesRequest(t *testing.T, model *testkit.Model, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, model.URL()+"/v1/messages", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", model.Key())
	req.Header.Set("Anthropic-Version", "2023-06-01")
	req.Header.Set("Content-Type", "application/json")
	return req
}

func TestStreamIsFramedAsAnthropicDoes(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{Script: func(testkit.Request) testkit.Response {
		return testkit.Response{
			Blocks: []testkit.Block{
				testkit.Thinking{Text: "hm", Signature: "c2ln"},
				testkit.Text{Text: "Hällo <you> & all", Cuts: []int{2}},
				testkit.ToolUse{ID: "toolu_1", Name: "Bash", Input: `{"command":  "ls", "a":1, "a":2}`},
			},
			Usage: testkit.Usage{InputTokens: 5, OutputTokens: 7, CacheReadTokens: 3},
		}
	}})
	got := do(t, messagesRequest(t, model, streamBody))
	id := idOf(t, got.body)
	want := strings.ReplaceAll(`event: message_start
data: {"type":"message_start","message":{"model":"claude-sonnet-4-5","id":"MSG","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":3,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":1,"service_tier":"standard"}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hä"}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"llo <you> & all"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"Bash","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"command\":  \"ls\", \"a\":1"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":", \"a\":2}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":3,"output_tokens":7}}

event: message_stop
data: {"type":"message_stop"}

`, "MSG", id)
	if diff := cmp.Diff(want, string(got.body)); diff != "" {
		t.Errorf("stream differs (-want +got):\n%s", diff)
	}
	if ct := got.header.Get("Content-Type"); ct != "text/event-stream; charset=utf-8" {
		t.Errorf("Content-Type %q", ct)
	}
	if !bytes.Equal(model.Sent(0), got.body) {
		t.Error("Sent(0) is not what the client received")
	}
}

func idOf(t *testing.T, stream []byte) string {
	t.Helper()
	_, rest, ok := strings.Cut(string(stream), `"id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	if !ok || !strings.HasPrefix(id, "msg_01") {
		t.Fatalf("no message id in %.300s", stream)
	}
	return id
}

func TestWholeMessage(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{Script: func(testkit.Request) testkit.Response {
		return testkit.Response{Blocks: []testkit.Block{
			testkit.Text{Text: "<a>"},
			testkit.RawBlock{Start: `{"type":"x"}`, Whole: `{"type":"x","y":1}`},
			testkit.ToolUse{ID: "toolu_1", Name: "Bash", Input: `{"b":1, "b":2}`},
		}}
	}})
	got := do(t, messagesRequest(t, model, plainBody))
	want := `"content":[{"type":"text","text":"<a>"},{"type":"x","y":1},` +
		`{"type":"tool_use","id":"toolu_1","name":"Bash","input":{"b":1, "b":2}}],"stop_reason":"tool_use"`
	if !strings.Contains(string(got.body), want) || !json.Valid(got.body) {
		t.Errorf("body %s, want valid JSON with %s", got.body, want)
	}
	if ct := got.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
}

func TestEdgeHeaders(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{})
	got := do(t, messagesRequest(t, model, plainBody))
	for _, name := range []string{"Request-Id", "Anthropic-Organization-Id", "Anthropic-Ratelimit-Requests-Remaining",
		"Anthropic-Ratelimit-Tokens-Reset", "Set-Cookie", "Cf-Ray", "Via"} {
		if got.header.Get(name) == "" {
			t.Errorf("header %s is missing", name)
		}
	}
	if id := model.Requests()[0].ID; got.header.Get("Request-Id") != id {
		t.Errorf("Request-Id %q, want %q", got.header.Get("Request-Id"), id)
	}
}

func TestRefusals(t *testing.T) {
	const history = `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"},%s]}`
	with := func(messages string) string { return strings.Replace(history, "%s", messages, 1) }
	use := func(name string) string {
		return `{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"` + name + `","input":{}}]}`
	}
	result := `{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"ok"}]}`
	tests := []struct {
		name   string
		change func(*http.Request)
		body   string
		status int
		kind   string
	}{
		{"no key", func(r *http.Request) { r.Header.Del("X-Api-Key") }, plainBody, 401, "authentication_error"},
		{"wrong key", func(r *http.Request) { r.Header.Set("X-Api-Key", "sk-ant-other") }, plainBody, 401, "authentication_error"},
		{"the key as a bearer token", func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+r.Header.Get("X-Api-Key"))
			r.Header.Del("X-Api-Key")
		}, plainBody, 401, "authentication_error"},
		{"no version", func(r *http.Request) { r.Header.Del("Anthropic-Version") }, plainBody, 400, "invalid_request_error"},
		{"no JSON", nil, `{"model":`, 400, "invalid_request_error"},
		{"no model", nil, `{"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`, 400, "invalid_request_error"},
		{"no max_tokens", nil, `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, 400, "invalid_request_error"},
		{"no messages", nil, `{"model":"m","max_tokens":9}`, 400, "invalid_request_error"},
		{"assistant first", nil, `{"model":"m","max_tokens":9,"messages":[` + use("Bash") + `]}`, 400, "invalid_request_error"},
		{"content of a wrong type", nil, with(`{"role":"user","content":7}`), 400, "invalid_request_error"},
		{"tool use without result", nil, with(use("Bash") + `,{"role":"user","content":"and?"}`), 400, "invalid_request_error"},
		{"result without tool use", nil, with(result), 400, "invalid_request_error"},
		{"tool name out of range", nil, with(use("Ba sh") + "," + result), 400, "invalid_request_error"},
		{"tool use and result", nil, with(use("Bash__denied__x") + "," + result), 200, ""},
		{"a system message between", nil, with(use("Bash") + `,{"role":"system","content":"x"},` + result), 200, ""},
		{"thinking that was never sent", nil,
			with(`{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"AAAA"}]}`), 400, "invalid_request_error"},
		{"another path", func(r *http.Request) { r.URL.Path = "/v1/messages/batches" }, plainBody, 404, "not_found_error"},
		{"another method", func(r *http.Request) { r.Method = http.MethodPut }, plainBody, 404, "not_found_error"},
	}
	model := newModel(t, testkit.ModelConfig{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := messagesRequest(t, model, tt.body)
			if tt.change != nil {
				tt.change(req)
			}
			got := do(t, req)
			if got.status != tt.status {
				t.Fatalf("status %d, want %d: %s", got.status, tt.status, got.body)
			}
			if tt.kind != "" {
				checkError(t, got, tt.kind)
			}
		})
	}
}

func checkError(t *testing.T, got answer, kind string) {
	t.Helper()
	var envelope struct {
		Type  string
		Error struct{ Type, Message string }
		ID    string `json:"request_id"`
	}
	if err := json.Unmarshal(got.body, &envelope); err != nil {
		t.Fatal(err)
	}
	if envelope.Type != "error" || envelope.Error.Type != kind || envelope.Error.Message == "" ||
		envelope.ID != got.header.Get("Request-Id") {
		t.Errorf("error envelope %s, want type %s", got.body, kind)
	}
}

func TestBearer(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{Bearer: true})
	req := messagesRequest(t, model, plainBody)
	if got := do(t, req.Clone(t.Context())).status; got != http.StatusUnauthorized {
		t.Errorf("x-api-key: status %d, want 401", got)
	}
	req = messagesRequest(t, model, plainBody)
	req.Header.Del("X-Api-Key")
	req.Header.Set("Authorization", "Bearer "+model.Key())
	if got := do(t, req).status; got != http.StatusOK {
		t.Errorf("bearer: status %d, want 200", got)
	}
}

func TestOtherEndpoints(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{})
	req := messagesRequest(t, model, plainBody)
	req.URL.Path = "/v1/messages/count_tokens"
	if got := do(t, req); got.status != 200 || !strings.Contains(string(got.body), `"input_tokens":`) {
		t.Errorf("count_tokens: %d %s", got.status, got.body)
	}
	req = messagesRequest(t, model, "")
	req.Method, req.URL.Path = http.MethodGet, "/v1/models"
	if got := do(t, req); got.status != 200 || !strings.Contains(string(got.body), `"id":"claude-`) {
		t.Errorf("models: %d %s", got.status, got.body)
	}
	if got := model.Requests(); len(got) != 2 || got[0].Target != "/v1/messages/count_tokens" || got[0].Body.Model == "" {
		t.Errorf("Requests() = %+v", got)
	}
	model.Reset()
	if got := model.Requests(); len(got) != 0 {
		t.Errorf("after Reset there are %d requests", len(got))
	}
}

func TestThinkingOfAnEarlierAnswerIsAccepted(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{Script: func(testkit.Request) testkit.Response {
		return testkit.Response{Blocks: []testkit.Block{testkit.Thinking{Text: "hm"}, testkit.Text{Text: "x"}}}
	}})
	var message struct{ Content json.RawMessage }
	if err := json.Unmarshal(do(t, messagesRequest(t, model, plainBody)).body, &message); err != nil {
		t.Fatal(err)
	}
	next := func(content string) int {
		body := `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":` +
			content + `},{"role":"user","content":"go on"}]}`
		return do(t, messagesRequest(t, model, body)).status
	}
	if got := next(string(message.Content)); got != 200 {
		t.Errorf("unchanged thinking: status %d, want 200", got)
	}
	if got := next(strings.Replace(string(message.Content), "hm", "Hm", 1)); got != 400 {
		t.Errorf("changed thinking: status %d, want 400", got)
	}
}

// TestPacing reads the stream with a reader of its own and finds the same
// events whatever the framing.
func TestPacing(t *testing.T) {
	text := "one two, drei vier fünf — \"six\" \U0001F600 seven"
	tests := map[string]testkit.Pacing{
		"plain":           {},
		"one byte":        {ChunkBytes: 1},
		"CR":              {LineEnd: "\r"},
		"CRLF":            {LineEnd: "\r\n", ChunkBytes: 7},
		"split data":      {SplitData: true},
		"split data CRLF": {SplitData: true, LineEnd: "\r\n", TextSize: 1},
		"escaped":         {EscapeText: true, TextSize: 3},
	}
	for name, pace := range tests {
		t.Run(name, func(t *testing.T) {
			model := newModel(t, testkit.ModelConfig{Script: testkit.ScriptSay(text), Pacing: pace})
			body := string(do(t, messagesRequest(t, model, streamBody)).body)
			if end := pace.LineEnd; end == "\r" && strings.Contains(body, "\n") || end == "\r\n" && strings.Count(body, "\n") != strings.Count(body, "\r") {
				t.Errorf("line ends are mixed: %q", body)
			}
			if pace.SplitData != strings.Contains(strings.ReplaceAll(body, "\r", ""), "data: {\ndata: ") {
				t.Errorf("split data = %v is not what was sent: %.200q", pace.SplitData, body)
			}
			if pace.EscapeText && strings.Contains(body, "drei") {
				t.Error("the text was not escaped")
			}
			if got := textOf(t, body); got != text {
				t.Errorf("text %q, want %q", got, text)
			}
		})
	}
}

// textOf joins the text deltas of a stream.
func textOf(t *testing.T, stream string) string {
	t.Helper()
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	var text strings.Builder
	for event := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		var data strings.Builder
		for line := range strings.SplitSeq(event, "\n") {
			if rest, ok := strings.CutPrefix(line, "data: "); ok {
				data.WriteString(rest + "\n")
			}
		}
		var parsed struct {
			Type  string
			Delta struct{ Text string }
		}
		if err := json.Unmarshal([]byte(data.String()), &parsed); err != nil {
			t.Fatalf("event %q: %v", event, err)
		}
		if want := "event: " + parsed.Type + "\n"; !strings.HasPrefix(event, want) {
			t.Errorf("event %q does not begin with %q", event, want)
		}
		text.WriteString(parsed.Delta.Text)
	}
	return text.String()
}

func TestGateHoldsTheStream(t *testing.T) {
	events := make(chan testkit.Event)
	release := make(chan struct{})
	pace := testkit.Pacing{Gate: func(e testkit.Event) {
		select {
		case events <- e:
			<-release
		case <-e.Done:
		}
	}}
	model := newModel(t, testkit.ModelConfig{Pacing: pace})
	ctx, leave := context.WithCancel(t.Context())
	transport := &http.Transport{DisableKeepAlives: true}
	answers := make(chan *http.Response, 1)
	go func() {
		resp, err := transport.RoundTrip(messagesRequest(t, model, streamBody).WithContext(ctx))
		if err != nil {
			t.Error(err)
		}
		answers <- resp
	}()
	if e := <-events; e.Name != "message_start" || e.N != 0 || e.Index != -1 {
		t.Errorf("first gate at %+v, want message_start", e)
	}
	if sent := model.Sent(0); len(sent) != 0 {
		t.Errorf("before the gate opened, %q was sent", sent)
	}
	release <- struct{}{}
	if e := <-events; e.Name != "content_block_start" || e.Index != 0 {
		t.Errorf("second gate at %+v, want content_block_start", e)
	}
	resp := <-answers
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || line != "event: message_start\n" {
		t.Errorf("client read %q, %v", line, err)
	}
	leave()
	resp.Body.Close()
	release <- struct{}{}
}

func TestFaults(t *testing.T) {
	respond := func(fault testkit.Fault) testkit.Script {
		return func(testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "a b c", Cuts: []int{1, 3}}}, Fault: fault}
		}
	}
	ask := func(t *testing.T, fault testkit.Fault, body string) (answer, error) {
		t.Helper()
		model := newModel(t, testkit.ModelConfig{Script: respond(fault)})
		transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 4 << 20}
		resp, err := transport.RoundTrip(messagesRequest(t, model, body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		read, err := io.ReadAll(resp.Body)
		return answer{resp.StatusCode, resp.Header, read}, err
	}
	t.Run("status", func(t *testing.T) {
		got, _ := ask(t, testkit.Fault{Kind: testkit.FaultStatus}, streamBody)
		if got.status != 529 {
			t.Errorf("status %d, want 529", got.status)
		}
		checkError(t, got, "overloaded_error")
	})
	for name, body := range map[string]string{"stream": streamBody, "whole": plainBody} {
		t.Run("reset "+name, func(t *testing.T) {
			got, err := ask(t, testkit.Fault{Kind: testkit.FaultReset, After: 1}, body)
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error %v after %q, want a reset", err, got.body)
			}
		})
		t.Run("cut "+name, func(t *testing.T) {
			got, err := ask(t, testkit.Fault{Kind: testkit.FaultCut, After: 1}, body)
			if err != nil || len(got.body) == 0 || bytes.Contains(got.body, []byte("message_stop")) || json.Valid(got.body) {
				t.Errorf("%q, %v, want a clean end in the middle", got.body, err)
			}
		})
		t.Run("bad gzip "+name, func(t *testing.T) {
			got, _ := ask(t, testkit.Fault{Kind: testkit.FaultBadGzip}, body)
			if _, err := gunzip(got.body); err == nil || got.header.Get("Content-Encoding") != "gzip" {
				t.Errorf("%q under %v is readable", got.body, got.header)
			}
		})
	}
	t.Run("before the head", func(t *testing.T) {
		for _, kind := range []testkit.FaultKind{testkit.FaultReset, testkit.FaultStall} {
			arrived := make(chan struct{}, 1)
			model := newModel(t, testkit.ModelConfig{Script: func(testkit.Request) testkit.Response {
				arrived <- struct{}{}
				return testkit.Response{Fault: testkit.Fault{Kind: kind}}
			}})
			ctx, leave := context.WithCancel(t.Context())
			go func() {
				if <-arrived; kind == testkit.FaultStall {
					leave()
				}
			}()
			transport := &http.Transport{DisableKeepAlives: true}
			resp, err := transport.RoundTrip(messagesRequest(t, model, streamBody).WithContext(ctx))
			leave()
			if err == nil {
				resp.Body.Close()
				t.Errorf("fault %d: got status %d, want no answer", kind, resp.StatusCode)
			}
		}
	})
	t.Run("error event", func(t *testing.T) {
		got, err := ask(t, testkit.Fault{Kind: testkit.FaultErrorEvent, After: 2, Type: "api_error"}, streamBody)
		if err != nil || !strings.Contains(string(got.body), "\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"") {
			t.Errorf("%q, %v, want an error event at the end", got.body, err)
		}
	})
	t.Run("big header", func(t *testing.T) {
		got, err := ask(t, testkit.Fault{Kind: testkit.FaultBigHeader, After: 1 << 20}, plainBody)
		if err != nil || len(got.header.Get("X-Padding")) != 1<<20 {
			t.Errorf("header of %d bytes, %v", len(got.header.Get("X-Padding")), err)
		}
	})
}

// TestStreamsThatDoNotEnd leaves a stalled and an endless stream, and lets
// the model close under another: no handler stays behind (goleak looks).
func TestStreamsThatDoNotEnd(t *testing.T) {
	for _, kind := range []testkit.FaultKind{testkit.FaultStall, testkit.FaultEndless} {
		for _, leave := range []bool{true, false} {
			model, err := testkit.NewModel(testkit.ModelConfig{Script: func(testkit.Request) testkit.Response {
				return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "x"}}, Fault: testkit.Fault{Kind: kind, After: 4}}
			}})
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{DisableKeepAlives: true}
			resp, err := transport.RoundTrip(messagesRequest(t, model, streamBody))
			if err != nil {
				t.Fatal(err)
			}
			read := bufio.NewReader(resp.Body)
			for deltas := 0; deltas < 1; {
				line, err := read.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(line, "text_delta") {
					deltas++
				}
			}
			if leave {
				resp.Body.Close()
			}
			if err := model.Close(); err != nil {
				t.Error(err)
			}
			resp.Body.Close()
		}
	}
}

func TestGzip(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{Script: func(testkit.Request) testkit.Response {
		return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "packed"}}, Gzip: true}
	}})
	got := do(t, messagesRequest(t, model, streamBody))
	plain, err := gunzip(got.body)
	if err != nil || textOf(t, string(plain)) != "packed" || !bytes.Equal(plain, model.Sent(0)) {
		t.Errorf("unpacked %q, %v", plain, err)
	}
}

func gunzip(b []byte) ([]byte, error) {
	zip, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(zip)
}

func TestEcho(t *testing.T) {
	seen := map[string]testkit.Encoding{}
	for _, encoding := range testkit.Encodings() {
		model := newModel(t, testkit.ModelConfig{Key: "sk-ant-~~~>>>???-secret", Script: testkit.ScriptEcho(encoding, 5)})
		body := string(do(t, messagesRequest(t, model, streamBody)).body)
		want := "The key is " + encoding.Encode("sk-ant-~~~>>>???-secret") + " as you see."
		if got := textOf(t, body); got != want {
			t.Errorf("%s: text %q, want %q", encoding, got, want)
		}
		if n := strings.Count(body, `"text_delta"`); n != 2 {
			t.Errorf("%s: %d text deltas, want 2", encoding, n)
		}
		if other, ok := seen[want]; ok {
			t.Errorf("%s and %s are the same", encoding, other)
		}
		seen[want] = encoding
	}
}

func TestScriptToolsFollowsTheHistory(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{Script: testkit.ScriptTools(
		testkit.Step{Say: "first", Use: []testkit.ToolUse{{ID: "t1", Name: "Bash", Input: `{"command":"ls"}`}}},
		testkit.Step{Say: "It printed {result}!"},
	)})
	const tools = `,"tools":[{"name":"Bash"}]`
	turn := `{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"Bash","input":{}}]},` +
		`{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"a.txt\n"}]}]}`
	tests := []struct{ name, messages, more, want string }{
		{"first turn", ``, tools, `"text":"first"`},
		{"the same again", ``, tools, `"text":"first"`},
		{"a title", ``, ``, `title`},
		{"a quota probe", ``, tools + `,"max_tokens":1`, `title`},
		{"a search at the provider", ``, `,"tools":[{"type":"web_search_20250305","name":"web_search"}]`, `title`},
		{"second turn", `,` + turn, tools, `"text":"It printed a.txt!"`},
		{"after the last", `,` + turn + `,{"role":"assistant","content":"x"},{"role":"user","content":"more"}`, tools, `"text":"Done. "`},
	}
	for _, tt := range tests {
		body := `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}` + tt.messages + `]` + tt.more + `}`
		if got := do(t, messagesRequest(t, model, body)); !strings.Contains(string(got.body), tt.want) {
			t.Errorf("%s: %d %s, want %s", tt.name, got.status, got.body, tt.want)
		}
	}
}
