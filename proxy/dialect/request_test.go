package dialect_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

func parse(path, body string, betas ...string) (dialect.Facts, error) {
	header := http.Header{}
	for _, b := range betas {
		header.Add("anthropic-beta", b)
	}
	return dialect.Anthropic{}.Parse("POST", path, header, []byte(body))
}

func TestFacts(t *testing.T) {
	got, err := parse("/v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":32000,"stream":true,"unknown":{"x":[1]},
		"tools":[{"name":"Bash","input_schema":{"type":"object"}},{"type":"custom","name":"Read"},{"type":null,"name":"N"},{"type":"web_search_20250305","name":"web_search"},{"type":"bash_20250124","name":"bash"}],
		"messages":[{"role":"user","content":"hi"}]}`)
	want := dialect.Facts{Model: "claude-sonnet-4-5", Stream: true, MaxTokens: 32000, Tools: []string{"Bash", "Read", "N", "web_search", "bash"},
		Features: []string{"web_search"}, StreamSpan: got.StreamSpan}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("Parse: %v\n%s", err, cmp.Diff(want, got))
	}
}

func TestFeatures(t *testing.T) {
	const messages = "/v1/messages"
	block := func(b string) string { return `{"messages":[{"role":"user","content":[` + b + `]}]}` }
	for _, c := range []struct {
		name, path, body, beta string
		want                   []string
	}{
		{name: "none", path: messages, body: block(`{"type":"text","text":"{\"source\":{\"type\":\"url\"}}"}`)},
		{name: "client tools", path: messages, body: `{"tools":[{"type":"bash_20250124","name":"bash"},{"type":"text_editor_20250728","name":"e"},{"type":"computer_20250124","name":"c"},{"type":"memory_20250818","name":"m"},{"type":"custom","name":"x"}]}`},
		{name: "bash at the provider", path: messages, body: `{"tools":[{"type":"bash_code_execution_20250825"}]}`, want: []string{"bash_code_execution"}},
		{name: "web fetch", path: messages, body: `{"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]}`, want: []string{"web_fetch"}},
		{name: "code execution", path: messages, body: `{"tools":[{"type":"code_execution_20250825","name":"x"},{"type":"code_execution_20250522","name":"y"}]}`, want: []string{"code_execution"}},
		{name: "escaped type", path: messages, body: `{"tools":[{"\u0074ype":"web\u005fsearch_20250305"}]}`, want: []string{"web_search"}},
		{name: "tool search", path: messages, body: `{"tools":[{"type":"tool_search_tool_regex_20251119","name":"t"}]}`, want: []string{"tool_search_tool_regex"}},
		{name: "unknown tool", path: messages, body: `{"tools":[{"type":"teleport"}]}`, want: []string{"teleport"}},
		{name: "mcp toolset", path: messages, body: `{"tools":[{"type":"mcp_toolset","mcp_server_name":"x"}]}`, want: []string{"mcp_servers"}},
		{name: "mcp servers", path: messages, body: `{"mcp_servers":[{"type":"url","url":"https://x","name":"x"}]}`, want: []string{"mcp_servers"}},
		{name: "no mcp servers", path: messages, body: `{"mcp_servers":[ ],"container":null,"context_management":{"edits":[]}}`},
		{name: "container id", path: messages, body: `{"container":"container_01"}`, want: []string{"container"}},
		{name: "skills", path: messages, body: `{"container":{"skills":[{"type":"anthropic","skill_id":"pptx"}]}}`, want: []string{"container", "skills"}},
		{name: "no skills", path: messages, body: `{"container":{"id":"c","skills":[]}}`, want: []string{"container"}},
		{name: "url source", path: messages, body: block(`{"type":"image","source":{"type":"url","url":"https://x"}}`), want: []string{"url_sources"}},
		{name: "url source in a tool result", path: messages, body: block(`{"type":"tool_result","content":[{"type":"document","source":{"url":"https://x"}}]}`), want: []string{"url_sources"}},
		{name: "url source in a document", path: messages, body: block(`{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"url"}}]}}`), want: []string{"url_sources"}},
		{name: "url source in system", path: messages, body: `{"system":[{"type":"image","source":{"type":"url"}}]}`, want: []string{"url_sources"}},
		{name: "base64 source", path: messages, body: block(`{"type":"image","source":{"type":"base64","data":"AAAA"}}`)},
		{name: "file source", path: messages, body: block(`{"type":"document","source":{"type":"file","file_id":"file_1"}}`), want: []string{"file_id"}},
		{name: "container upload", path: messages, body: block(`{"type":"container_upload","file_id":"file_1"}`), want: []string{"file_id"}},
		{name: "input of a tool use", path: messages, body: block(`{"type":"tool_use","id":"t","name":"n","input":{"source":{"type":"url"},"file_id":"f"}}`)},
		{name: "count tokens", path: "/v1/messages/count_tokens", body: `{"tools":[{"type":"web_search_20250305"}]}`, want: []string{"web_search"}},
		{name: "batches", path: "/v1/messages/batches", body: `{"requests":[{"custom_id":"a","params":{"model":"m","tools":[{"type":"web_search_20250305"}]}}]}`, want: []string{"batches", "web_search"}},
		{name: "batch results", path: "/v1/messages/batches/b1/results", want: []string{"batches"}},
		{name: "files", path: "/v1/files", body: "--boundary", want: []string{"files"}},
		{name: "skills path", path: "/v1/skills/s1", want: []string{"skills"}},
		{name: "agents", path: "/v1/agents", body: `{}`, want: []string{"managed_agents"}},
		{name: "sessions", path: "/v1/sessions/s/events", want: []string{"managed_agents"}},
		{name: "environments", path: "/v1/environments", want: []string{"managed_agents"}},
		{name: "models", path: "/v1/models"},
		{name: "betas", path: messages, body: `{}`, beta: "claude-code-20250219, files-api-2025-04-14,MCP-client-2025-11-20,code-execution-2025-08-25,skills-2025-10-02,managed-agents-2026-04-01",
			want: []string{"code_execution", "files", "managed_agents", "mcp_servers", "skills"}},
		{name: "unknown betas", path: messages, body: `{}`, beta: "brand-new-2026-11-01,interleaved-thinking-2025-05-14"},
	} {
		got, err := parse(c.path, c.body, c.beta)
		if err != nil || !cmp.Equal(got.Features, c.want) {
			t.Errorf("%s: features %q, %v, want %q", c.name, got.Features, err, c.want)
		}
	}
}

func TestBatchIsCounted(t *testing.T) {
	got, err := parse("/v1/messages/batches", `{"requests":[{"params":{"model":"m","max_tokens":5}},{"params":{"model":"m","max_tokens":7}}]}`)
	if err != nil || got.Model != "m" || got.MaxTokens != 12 {
		t.Errorf("Parse = %+v, %v, want model m and 12 tokens", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, body := range []string{
		`{"model":"a","model":"b"}`, `{"model":"a","\u006dodel":"b"}`, `{"tools":[{"type":"custom","type":"web_search_20250305"}]}`,
		`{"model":"a"`, `{"model":"a"} x`, `{"model":7}`, `{"stream":"true"}`, `{"stream":1}`, `{"max_tokens":"7"}`, `{"max_tokens":1e3}`, `{"max_tokens":-1}`,
		`{"max_tokens":99999999999999999999}`, `{"tools":[{"type":7}]}`, `{"tools":["x"]}`, "\xef\xbb\xbf{}", "[]", "plain",
	} {
		if _, err := parse("/v1/messages", body); access.CodeOf(err) != access.CodeInvalid {
			t.Errorf("Parse(%q) = %v, want %s", body, err, access.CodeInvalid)
		}
	}
	if _, err := parse("/v1/messages/batches", `{"requests":[{"params":{"model":"a"}},{"params":{"model":"b"}}]}`); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("a batch of two models: %v, want %s", err, access.CodeInvalid)
	}
	most := `{"params":{"model":"a","max_tokens":1099511627776}}` // the sum is reserved, and must not overflow a counter
	if _, err := parse("/v1/messages/batches", `{"requests":[`+most+","+most+`]}`); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("a batch of 2^41 tokens: %v, want %s", err, access.CodeInvalid)
	}
}

func TestStreamSpan(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"m","stream":true}`:                  `{"model":"m"}`,
		`{"stream":true,"model":"m"}`:                  `{"model":"m"}`,
		`{"model":"m" , "stream" : false , "x":1}`:     `{"model":"m"  , "x":1}`,
		`{ "stream" : true }`:                          `{  }`,
		`{ "stream":true , "x":[1,2]}`:                 `{  "x":[1,2]}`,
		`{"a":{"stream":true},"\u0073tream":true}`:     `{"a":{"stream":true}}`,
		`{"a":{"stream":true}}`:                        `{"a":{"stream":true}}`,
		`{"a":[1,2],"stream":null,"stream_options":1}`: `{"a":[1,2],"stream_options":1}`,
	} {
		facts, err := parse("/v1/messages", body)
		got := body[:facts.StreamSpan[0]] + body[facts.StreamSpan[1]:]
		if err != nil || got != want || !json.Valid([]byte(got)) {
			t.Errorf("%s without stream: %s, %v, want %s", body, got, err, want)
		}
	}
}

// FuzzParse holds that a request which parses is strict JSON, also without its "stream".
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"model":"m","stream":true,"max_tokens":1,"tools":[{"type":"web_search_20250305"}]}`))
	f.Add([]byte(`{ "stream" : true , "messages":[{"content":[{"source":{"type":"url"}}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		facts, err := dialect.Anthropic{}.Parse("POST", "/v1/messages", nil, body)
		if err != nil || len(body) == 0 {
			return
		}
		if err := dialect.Strict(body); err != nil {
			t.Fatalf("Parse took what Strict refuses: %v", err)
		}
		rest := append(append([]byte(nil), body[:facts.StreamSpan[0]]...), body[facts.StreamSpan[1]:]...)
		if err := dialect.Strict(rest); err != nil {
			t.Fatalf("without stream: %v\n%s", err, rest)
		}
	})
}

func TestCutLoginBetas(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{[]string{"claude-code-20250219,oauth-2025-04-20,interleaved-thinking-2025-05-14"}, []string{"claude-code-20250219,interleaved-thinking-2025-05-14"}},
		{[]string{"oauth-2025-04-20, oidc-federation-2026-04-01"}, nil},
		{[]string{"oauth-2025-04-20", " x-1 , oidc-federation-2027-01-01"}, []string{"x-1"}},
		{[]string{"a , b", "c"}, []string{"a , b", "c"}},
	} {
		h := http.Header{"Anthropic-Beta": c.in, "X": {"y"}}
		dialect.CutLoginBetas(h)
		if got := h["Anthropic-Beta"]; !cmp.Equal(got, c.want) {
			t.Errorf("CutLoginBetas(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestDropResponseHeaders(t *testing.T) {
	h := http.Header{}
	for _, name := range []string{"Request-Id", "Anthropic-Organization-Id", "Anthropic-Ratelimit-Requests-Limit", "Anthropic-Ratelimit-Unified-Status", "Cf-Ray", "Via", "Set-Cookie"} {
		h.Set(name, "x")
	}
	h.Set("Content-Type", "text/event-stream")
	h.Set("Retry-After", "3")
	dialect.DropResponseHeaders(h)
	if want := (http.Header{"Content-Type": {"text/event-stream"}, "Retry-After": {"3"}}); !cmp.Equal(h, want) {
		t.Errorf("left: %v, want %v", h, want)
	}
}
