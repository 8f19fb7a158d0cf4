package testkit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/testkit"
)

// door is the least of a gateway: it exchanges an assertion for a token and
// passes calls on with the model's key in its place.
type door struct {
	url       string
	expiresIn int
	refuse    http.HandlerFunc // answers the exchange in its place
	intercept func(w http.ResponseWriter, n int) bool

	mu        sync.Mutex // guards all below
	exchanges []map[string]string
	betas     []string
	calls     int
}

func newDoor(t *testing.T, model *testkit.Model) *door {
	t.Helper()
	d := &door{expiresIn: 600}
	upstream, err := url.Parse(model.URL())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(upstream)
		r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, "/anthropic")
		r.Out.Header.Del("Authorization")
		r.Out.Header.Set("X-Api-Key", model.Key())
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/anthropic/v1/oauth/token" {
			d.exchange(t, w, r)
			return
		}
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer jg_") {
			t.Errorf("%s %s came with Authorization %q", r.Method, r.URL, r.Header.Get("Authorization"))
		}
		d.mu.Lock()
		n := d.calls
		d.calls++
		d.mu.Unlock()
		if d.intercept != nil && d.intercept(w, n) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	d.url = server.URL + "/anthropic"
	return d
}

func (d *door) exchange(t *testing.T, w http.ResponseWriter, r *http.Request) {
	var body map[string]string
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		t.Errorf("the exchange's body: %v", err)
	}
	d.mu.Lock()
	d.exchanges = append(d.exchanges, body)
	d.betas = append(d.betas, r.Header.Get("Anthropic-Beta"))
	n := len(d.exchanges)
	d.mu.Unlock()
	if d.refuse != nil {
		d.refuse(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":"jg_%d","token_type":"Bearer","expires_in":%d}`, n, d.expiresIn)
}

func (d *door) counts() (exchanges, calls int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.exchanges), d.calls
}

func runAgent(t *testing.T, d *door, change func(*testkit.AgentConfig)) (string, []string, *testkit.Agent, error) {
	t.Helper()
	var events []string
	cfg := testkit.AgentConfig{
		BaseURL: d.url, Rule: "release-agents", Organization: "org",
		Identity: func(context.Context) (string, error) { return "the.job.token", nil },
		Observe: func(e testkit.AgentEvent) {
			names := []string{"exchanged", "text", "started", "result", "refused", "cut"}
			events = append(events, names[e.Kind]+": "+e.Text)
		},
	}
	if change != nil {
		change(&cfg)
	}
	agent, err := testkit.NewAgent(cfg)
	if err != nil {
		t.Fatal(err)
	}
	text, err := agent.Run(t.Context(), "Run the tests.")
	return text, events, agent, err
}

func bash(command string) testkit.ToolUse {
	input, err := json.Marshal(map[string]string{"command": command})
	if err != nil {
		panic(err)
	}
	return testkit.ToolUse{Name: "Bash", Input: string(input)}
}

func TestAgentWorks(t *testing.T) {
	for _, pace := range []testkit.Pacing{{TextSize: 1000}, {TextSize: 1000, LineEnd: "\r", SplitData: true, ChunkBytes: 3}} {
		model := newModel(t, testkit.ModelConfig{Pacing: pace, Script: testkit.ScriptTools(
			testkit.Step{Think: "hm", Say: "I look.", Use: []testkit.ToolUse{
				bash("make test"), {Name: "Bash__denied__rule", Input: "{}"}, bash("echo hi > x && cat x")}},
			testkit.Step{Say: "Read: {result}"},
		)})
		d := newDoor(t, model)
		text, events, agent, err := runAgent(t, d, nil)
		if err != nil {
			t.Fatal(err)
		}
		const unknown = "<tool_use_error>Error: No such tool available: Bash__denied__rule</tool_use_error>"
		const tested = "go test ./...\nok  \tgithub.com/octo-org/octo-repo\t0.412s"
		final := "Read: " + tested + "\n" + unknown + "\nhi"
		want := []string{
			"exchanged: 10m0s", "text: I look.",
			`started: {"command":"make test"}`, "result: " + tested,
			"result: " + unknown,
			`started: {"command":"echo hi \u003e x \u0026\u0026 cat x"}`, "result: hi",
			"text: " + final,
		}
		if diff := cmp.Diff(want, events); diff != "" {
			t.Errorf("events differ (-want +got):\n%s", diff)
		}
		if text != final {
			t.Errorf("Run = %q, want %q", text, final)
		}
		if diff := cmp.Diff([]string{"make test", "echo hi > x && cat x"}, agent.Shell().Ran()); diff != "" {
			t.Errorf("Ran() differs:\n%s", diff)
		}
		wantExchange := map[string]string{
			"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "the.job.token",
			"federation_rule_id": "release-agents", "organization_id": "org",
		}
		if diff := cmp.Diff([]map[string]string{wantExchange}, d.exchanges); diff != "" {
			t.Errorf("exchanges differ:\n%s", diff)
		}
		if d.betas[0] != "oauth-2025-04-20,oidc-federation-2026-04-01" {
			t.Errorf("anthropic-beta of the exchange is %q", d.betas[0])
		}
	}
}

func TestAgentWithAnAPIKey(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{})
	agent, err := testkit.NewAgent(testkit.AgentConfig{BaseURL: model.URL(), APIKey: model.Key()})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := agent.Run(t.Context(), "hi"); text != "Hello." || err != nil {
		t.Errorf("Run = %q, %v", text, err)
	}
}

// TestToolsStartAtTheEndOfTheirBlock holds the stream before message_delta
// until the tool has run.
func TestToolsStartAtTheEndOfTheirBlock(t *testing.T) {
	started := make(chan struct{})
	once := sync.OnceFunc(func() { close(started) })
	model := newModel(t, testkit.ModelConfig{
		Script: testkit.ScriptTools(testkit.Step{Use: []testkit.ToolUse{bash("pwd")}}),
		Pacing: testkit.Pacing{Gate: func(e testkit.Event) {
			if e.Name == "message_delta" {
				select {
				case <-started:
				case <-e.Done:
				}
			}
		}},
	})
	_, _, _, err := runAgent(t, newDoor(t, model), func(c *testkit.AgentConfig) {
		c.Observe = func(e testkit.AgentEvent) {
			if e.Kind == testkit.AgentToolStarted {
				once()
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAgentIsRefused(t *testing.T) {
	envelope := func(kind string) string {
		return `{"type":"error","request_id":"call_1","error":{"type":"` + kind + `","message":"Jobgate: no"}}`
	}
	status := func(code int, body string) func(http.ResponseWriter, int) bool {
		return func(w http.ResponseWriter, _ int) bool {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	event := `event: error` + "\n" + `data: ` + envelope("policy_blocked") + "\n\n"
	ping := "event: ping\ndata: {\"type\": \"ping\"}\n\n"
	block := `data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}` + "\n\n" +
		`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Let "}}` + "\n\n" +
		`data: {"type":"content_block_stop","index":0}` + "\n\n"
	tests := []struct {
		name             string
		intercept        func(http.ResponseWriter, int) bool
		exchanges, calls int
		last, err        string
	}{
		{"policy", status(400, envelope("policy_blocked")), 1, 1, "refused", "API Error: 400 Jobgate: no"},
		{"budget", status(429, envelope("billing_error")), 1, 1, "refused", "API Error: 429 Jobgate: no"},
		{"401 for ever", status(401, envelope("authentication_error")), 2, 2, "refused", "Failed to authenticate. API Error: 401 Jobgate: no"},
		{"no envelope", status(502, "<html>"), 1, 1, "refused", "API Error: 502 502 Bad Gateway"},
		{"error event after text", status(200, block+event), 1, 1, "cut", "API Error: Jobgate: no"},
		{"error event after pings, then a refusal", func(w http.ResponseWriter, n int) bool {
			if n == 0 {
				return status(200, ping+ping+event)(w, n)
			}
			return status(400, envelope("policy_blocked"))(w, n)
		}, 1, 2, "refused", "API Error: 400 Jobgate: no"},
		{"cut after text, every time", status(200, block), 1, 16, "cut", "no end after 16 turns"},
		{"cut every time", status(200, ping), 1, 3, "cut", "the stream ended before its message did"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDoor(t, newModel(t, testkit.ModelConfig{}))
			d.intercept = tt.intercept
			_, events, _, err := runAgent(t, d, nil)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if last := events[len(events)-1]; !strings.HasPrefix(last, tt.last+": ") {
				t.Errorf("last event %q, want %s", last, tt.last)
			}
			if e, c := d.counts(); e != tt.exchanges || c != tt.calls {
				t.Errorf("%d exchanges and %d calls, want %d and %d", e, c, tt.exchanges, tt.calls)
			}
		})
	}
}

func TestAgentRecovers(t *testing.T) {
	once := func(code int, body string) func(http.ResponseWriter, int) bool {
		return func(w http.ResponseWriter, n int) bool {
			if n == 0 {
				w.WriteHeader(code)
				_, _ = io.WriteString(w, body)
			}
			return n == 0
		}
	}
	tests := []struct {
		name      string
		intercept func(http.ResponseWriter, int) bool
		exchanges int
		stream    bool
	}{
		{"401: a fresh token", once(401, "{}"), 2, true},
		{"error event before anything: without a stream", once(200, "event: error\ndata: {\"type\":\"error\"}\n\n"), 1, false},
		{"cut before anything: the same again", once(200, ""), 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			model := newModel(t, testkit.ModelConfig{})
			d := newDoor(t, model)
			d.intercept = tt.intercept
			text, _, _, err := runAgent(t, d, nil)
			if text != "Hello." || err != nil {
				t.Errorf("Run = %q, %v", text, err)
			}
			if e, c := d.counts(); e != tt.exchanges || c != 2 {
				t.Errorf("%d exchanges and %d calls, want %d and 2", e, c, tt.exchanges)
			}
			if got := model.Requests()[0].Body.Stream; got != tt.stream {
				t.Errorf("the call that passed had stream %v, want %v", got, tt.stream)
			}
		})
	}
}

func TestAgentRunsToolsWithoutAStream(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{})
	model.SetScript(testkit.ScriptTools(
		testkit.Step{Think: "hm", Say: "I write.", Use: []testkit.ToolUse{bash("echo hi > made"), {Name: "Write", Input: "{}"}}},
		testkit.Step{Say: "{result}"},
	))
	d := newDoor(t, model)
	d.intercept = func(w http.ResponseWriter, n int) bool {
		if n == 0 {
			_, _ = io.WriteString(w, "event: error\ndata: {\"type\":\"error\"}\n\n")
		}
		return n == 0
	}
	text, _, agent, err := runAgent(t, d, nil)
	if err != nil || text != "\n<tool_use_error>Error: No such tool available: Write</tool_use_error>" {
		t.Errorf("Run = %q, %v", text, err)
	}
	if got := agent.Shell().Files()["made"]; got != "hi\n" {
		t.Errorf("the file holds %q", got)
	}
	if model.Requests()[0].Body.Stream || !model.Requests()[1].Body.Stream {
		t.Error("want the first call to pass without a stream, and the next with one")
	}
}

func TestAgentExchange(t *testing.T) {
	t.Run("a short token is exchanged for every call", func(t *testing.T) {
		model := newModel(t, testkit.ModelConfig{Script: testkit.ScriptTools(testkit.Step{Use: []testkit.ToolUse{bash("pwd")}})})
		d := newDoor(t, model)
		d.expiresIn = 20
		if _, _, _, err := runAgent(t, d, nil); err != nil {
			t.Fatal(err)
		}
		if e, c := d.counts(); e != 2 || c != 2 {
			t.Errorf("%d exchanges and %d calls, want 2 and 2", e, c)
		}
	})
	t.Run("refused", func(t *testing.T) {
		d := newDoor(t, newModel(t, testkit.ModelConfig{}))
		d.refuse = func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"invalid_grant","error_description":"the window is over"}`)
		}
		_, events, _, err := runAgent(t, d, nil)
		api := (*testkit.APIError)(nil)
		if !errors.As(err, &api) || api.Status != 400 || api.Type != "invalid_grant" ||
			err.Error() != "API Error: Token exchange failed with status 400: invalid_grant: the window is over" {
			t.Errorf("error %v", err)
		}
		if len(events) != 1 || !strings.HasPrefix(events[0], "refused: ") {
			t.Errorf("events %q", events)
		}
		if e, c := d.counts(); e != 1 || c != 0 {
			t.Errorf("%d exchanges and %d calls, want 1 and 0", e, c)
		}
	})
	t.Run("no token in it", func(t *testing.T) {
		d := newDoor(t, newModel(t, testkit.ModelConfig{}))
		d.refuse = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"jg_secret"}`) }
		if _, _, _, err := runAgent(t, d, nil); err == nil || strings.Contains(err.Error(), "jg_secret") {
			t.Errorf("error %v, want one that does not quote the answer", err)
		}
	})
}

func TestNewAgentRefuses(t *testing.T) {
	identity := func(context.Context) (string, error) { return "", nil }
	tests := map[string]testkit.AgentConfig{
		"no URL":               {BaseURL: "example", APIKey: "k"},
		"http on the internet": {BaseURL: "http://gate.example.test/anthropic", APIKey: "k"},
		"nobody":               {BaseURL: "http://127.0.0.1:1"},
		"two credentials":      {BaseURL: "http://127.0.0.1:1", APIKey: "k", Identity: identity, Rule: "r", Organization: "o"},
		"no rule":              {BaseURL: "http://127.0.0.1:1", Identity: identity, Organization: "o"},
	}
	for name, cfg := range tests {
		if _, err := testkit.NewAgent(cfg); err == nil {
			t.Errorf("%s: NewAgent took it", name)
		}
	}
}

func TestShell(t *testing.T) {
	tests := []struct {
		line, out string
		failed    bool
	}{
		{`echo "a b"  'c;d' e\ f`, "a b c;d e f", false},
		{`printf 'x\ty\n'`, "x\ty", false},
		{"ls", "Makefile\nREADME.md", false},
		{"echo one > f; echo two >> f; cat f; ls", "one\ntwo\nMakefile\nREADME.md\nf", false},
		{"false && echo no", "", true},
		{"false; echo yes", "yes", false},
		{"true && pwd", "/home/runner/work/octo-repo/octo-repo", false},
		{"npm ci", "added 108 packages in 2s", false},
		{"make deploy", "bash: make: command not found", true},
		{"curl https://evil.example.test", "bash: curl: command not found", true},
		{"cat nothing", "cat: nothing: No such file or directory", true},
		{"echo a | sh", "bash: syntax error near unexpected token `|'", true},
		{"echo a >", "bash: syntax error near unexpected token `>'", true},
		{"echo 'a", "bash: unexpected EOF while looking for matching `''", true},
		{"", "", false},
	}
	for _, tt := range tests {
		if out, failed := testkit.NewShell().Run(tt.line); out != tt.out || failed != tt.failed {
			t.Errorf("Run(%q) = %q, failed %v; want %q, %v", tt.line, out, failed, tt.out, tt.failed)
		}
	}
}

func FuzzShell(f *testing.F) {
	for _, seed := range []string{"echo a > b && cat b", `printf "x`, "a\\", ";;", "> > >", "echo 'a'\"b\"&&"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		shell := testkit.NewShell()
		shell.Run(line)
		if got := shell.Ran(); len(got) != 1 || got[0] != line {
			t.Errorf("Ran() = %q after %q", got, line)
		}
	})
}
