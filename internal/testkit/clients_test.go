package testkit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/testkit"
)

// clientLine is one line that a client script prints.
type clientLine struct {
	Type    string
	Subtype string
	IsError bool `json:"is_error"`
	Result  string
	Stream  bool
	Text    string
	Error   json.RawMessage
}

// runClient runs a script of clients/ and returns the lines it printed. The
// environment holds nothing of Anthropic's but what is given.
func runClient(t *testing.T, env []string, script string, args ...string) ([]clientLine, error) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("Node.js 20 or later is missing: run `apt-get install nodejs npm`, then `make test`")
	}
	if _, err := os.Stat("clients/node_modules"); err != nil {
		t.Skip("the real clients are missing: run `npm ci --prefix internal/testkit/clients`")
	}
	path, err := filepath.Abs(filepath.Join("clients", script))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, append([]string{path}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(slices.DeleteFunc(os.Environ(), ofTheClient), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var lines []clientLine
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var line clientLine
		if readErr := dec.Decode(&line); errors.Is(readErr, io.EOF) {
			break
		} else if readErr != nil {
			t.Fatalf("%s printed a line that is no JSON: %v\nstderr: %.2000s", script, readErr, stderr.String())
		}
		lines = append(lines, line)
	}
	return lines, err
}

func ofTheClient(variable string) bool {
	for _, prefix := range []string{"ANTHROPIC_", "CLAUDE", "AGENT_OPTIONS="} {
		if strings.HasPrefix(variable, prefix) {
			return true
		}
	}
	return false
}

// runSDK runs one query of the Claude Agent SDK and returns the result that
// its user reads.
func runSDK(t *testing.T, env ...string) (result string, failed bool) {
	t.Helper()
	lines, exit := runClient(t, env, "agent.mjs", `{"prompt":"Go.","model":"claude-sonnet-4-5"}`)
	for _, line := range lines {
		if line.Type == "result" {
			return line.Result, line.IsError || exit != nil
		}
	}
	t.Fatalf("the SDK printed no result: %+v, %v", lines, exit)
	return "", true
}

func keyEnv(model *testkit.Model) []string {
	return []string{"ANTHROPIC_BASE_URL=" + model.URL(), "ANTHROPIC_API_KEY=" + model.Key()}
}

// federation is what opens a session without any step of ours.
type federation struct{ base, rule, organization, tokenFile, cache string }

// newFederation keeps the client's exchanged tokens out of HOME, where it
// puts them otherwise: a test that gets the port of an earlier one would meet
// that one's token there.
func newFederation(t *testing.T, d *door) federation {
	t.Helper()
	dir := t.TempDir()
	f := federation{d.url, "release-agents", "org", filepath.Join(dir, "token"), filepath.Join(dir, "exchanged")}
	f.writeToken(t, "the.job.token")
	return f
}

func (f federation) writeToken(t *testing.T, token string) {
	t.Helper()
	if err := os.WriteFile(f.tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f federation) env() []string {
	return []string{
		"ANTHROPIC_BASE_URL=" + f.base,
		"ANTHROPIC_FEDERATION_RULE_ID=" + f.rule,
		"ANTHROPIC_ORGANIZATION_ID=" + f.organization,
		"ANTHROPIC_IDENTITY_TOKEN_FILE=" + f.tokenFile,
		"CLAUDE_CODE_FEDERATION_CACHE_DIR=" + f.cache,
	}
}

// TestClaudeAgentSDK runs an agent loop of the real client over every framing
// that the model knows.
func TestClaudeAgentSDK(t *testing.T) {
	framings := map[string]testkit.Pacing{
		"as Anthropic":           {},
		"one byte, CR":           {ChunkBytes: 1, LineEnd: "\r"},
		"CRLF, data split":       {LineEnd: "\r\n", SplitData: true, TextSize: 3},
		"escaped, odd chunks":    {EscapeText: true, ChunkBytes: 11},
		"one character an event": {TextSize: 1},
	}
	for name, pace := range framings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "made")
			model := newModel(t, testkit.ModelConfig{Pacing: pace, Script: testkit.ScriptTools(
				testkit.Step{Think: "I make a file, and then I read it.", Say: "I make it.", Use: []testkit.ToolUse{bash("echo Straße > " + file)}},
				testkit.Step{Say: "Two at once.", Use: []testkit.ToolUse{bash("cat " + file), {Name: "Bash__denied__no-network", Input: "{}"}}},
				testkit.Step{Say: "Read: {result}"},
			)})
			result, failed := runSDK(t, keyEnv(model)...)
			if failed || !strings.Contains(result, "Straße") || !strings.Contains(result, "No such tool available: Bash__denied__no-network") {
				t.Errorf("result %q, failed %v", result, failed)
			}
			if made, err := os.ReadFile(file); err != nil || string(made) != "Straße\n" {
				t.Errorf("the file holds %q, %v", made, err)
			}
			requests := model.Requests()
			if len(requests) != 3 {
				t.Fatalf("%d requests, want 3", len(requests))
			}
			for n, req := range requests {
				if testkit.IsSide(req) || req.Turn() != n || !req.Body.Stream || !req.Offers("Bash") {
					t.Errorf("request %d: side %v, turn %d, stream %v", n, testkit.IsSide(req), req.Turn(), req.Body.Stream)
				}
			}
		})
	}
}

// TestPlainSDK runs @anthropic-ai/sdk with its own exchange.
func TestPlainSDK(t *testing.T) {
	model := newModel(t, testkit.ModelConfig{})
	d := newDoor(t, model)
	lines, err := runClient(t, newFederation(t, d).env(), "sdk.mjs", "federation")
	if err != nil || len(lines) != 2 {
		t.Fatalf("printed %+v, %v", lines, err)
	}
	for _, line := range lines {
		if line.Text != "Hello." {
			t.Errorf("stream %v: text %q, error %s", line.Stream, line.Text, line.Error)
		}
	}
	if e, c := d.counts(); e != 1 || c != 2 {
		t.Errorf("%d exchanges and %d calls, want 1 and 2", e, c)
	}
}

// TestAgentIsLikeTheRealClient sends both the same answers, and wants the
// same requests and the same message to the user.
func TestAgentIsLikeTheRealClient(t *testing.T) {
	refuse := func(w http.ResponseWriter, code int, kind string) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Should-Retry", "false")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"type":"error","request_id":"call_1","error":{"type":"`+kind+`","message":"Jobgate: no"}}`)
	}
	stream := func(w http.ResponseWriter, events ...string) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, event := range events {
			_, _ = io.WriteString(w, event+"\n\n")
		}
	}
	event := func(data string) string {
		var head struct{ Type string }
		if err := json.Unmarshal([]byte(data), &head); err != nil {
			t.Fatal(err)
		}
		return "event: " + head.Type + "\ndata: " + data
	}
	start := event(`{"type":"message_start","message":{"model":"claude-sonnet-4-5","id":"msg_1","type":"message",` +
		`"role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}`)
	block := event(`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
	delta := event(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Let "}}`)
	stop := event(`{"type":"content_block_stop","index":0}`)
	second := event(`{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}`)
	use := event(`{"type":"content_block_start","index":0,"content_block":` +
		`{"type":"tool_use","id":"toolu_01","name":"Bash","input":{}}}`)
	input := event(`{"type":"content_block_delta","index":0,"delta":` +
		`{"type":"input_json_delta","partial_json":"{\"command\":\"pwd\"}"}}`)
	ping := event(`{"type": "ping"}`)
	no := event(`{"type":"error","error":{"type":"policy_blocked","message":"Jobgate: no"}}`)
	type interceptor = func(w http.ResponseWriter, n int) bool
	always := func(code int, kind string) interceptor {
		return func(w http.ResponseWriter, _ int) bool {
			refuse(w, code, kind)
			return true
		}
	}
	first := func(events ...string) interceptor {
		return func(w http.ResponseWriter, n int) bool {
			if n == 0 {
				stream(w, events...)
			}
			return n == 0
		}
	}
	tests := []struct {
		name             string
		intercept        interceptor
		exchanges, calls int
		want             string
	}{
		{"it passes", nil, 1, 1, "Hello."},
		{"400 policy_blocked", always(400, "policy_blocked"), 1, 1, "API Error: 400 Jobgate: no"},
		{"403 permission_error", always(403, "permission_error"), 1, 1, "Failed to authenticate. API Error: 403 Jobgate: no"},
		{"one 401", func(w http.ResponseWriter, n int) bool {
			if n == 0 {
				refuse(w, 401, "authentication_error")
			}
			return n == 0
		}, 2, 2, "Hello."},
		{"an error event after pings, then a refusal", func(w http.ResponseWriter, n int) bool {
			if n == 0 {
				stream(w, ping, ping, no)
			} else {
				refuse(w, 400, "policy_blocked")
			}
			return true
		}, 1, 2, "API Error: 400 Jobgate: no"},
		{"an error event within the first block", first(start, block, delta, no), 1, 2, "Hello."},
		{"an error event after a block", first(start, block, delta, stop, no), 1, 1, "API Error: Jobgate: no"},
		{"an error event within the second block", first(start, block, delta, stop, second, no), 1, 1, "API Error: Jobgate: no"},
		{"an error event after a tool use", first(start, use, input, stop, no), 1, 2, "Hello."},
		{"a cut after pings", first(ping, ping), 1, 2, "Hello."},
		{"a cut within the first block", first(start, block, delta), 1, 2, "Hello."},
		{"a cut after a block", first(start, block, delta, stop), 1, 2, "Hello."},
		{"a cut after a tool use", first(start, use, input, stop), 1, 2, "Hello."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run := map[string]func(*door) string{
				"testkit": func(d *door) string {
					text, _, _, err := runAgent(t, d, nil)
					if err != nil {
						return err.Error()
					}
					return text
				},
				"real": func(d *door) string {
					result, _ := runSDK(t, newFederation(t, d).env()...)
					return result
				},
			}
			for _, who := range []string{"testkit", "real"} {
				d := newDoor(t, newModel(t, testkit.ModelConfig{}))
				d.intercept = tt.intercept
				if got := run[who](d); got != tt.want {
					t.Errorf("%s: the user reads %q, want %q", who, got, tt.want)
				}
				if e, c := d.counts(); e != tt.exchanges || c != tt.calls {
					t.Errorf("%s: %d exchanges and %d calls, want %d and %d", who, e, c, tt.exchanges, tt.calls)
				}
			}
		})
	}
}

// TestClaudeAgentSDKKeepsTokensOnDisk holds that the client writes the token
// that it was given to disk, readable for whatever runs as its user, and that
// another process takes it from there for as long as the assertion is the
// same. A fresh token of the job is always exchanged.
func TestClaudeAgentSDKKeepsTokensOnDisk(t *testing.T) {
	tests := []struct {
		name      string
		change    func(*testing.T, *federation)
		exchanges int
	}{
		{"the same again", func(*testing.T, *federation) {}, 1},
		{"the same token in another file", func(t *testing.T, f *federation) {
			f.tokenFile += "2"
			f.writeToken(t, "the.job.token")
		}, 1},
		{"another token", func(t *testing.T, f *federation) { f.writeToken(t, "another.job.token") }, 2},
		{"another rule", func(_ *testing.T, f *federation) { f.rule += "x" }, 2},
		{"another folder", func(_ *testing.T, f *federation) { f.cache += "2" }, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, newModel(t, testkit.ModelConfig{}))
			f := newFederation(t, d)
			runSDK(t, f.env()...)
			checkKeptToken(t, f.cache)
			tt.change(t, &f)
			runSDK(t, f.env()...)
			if e, c := d.counts(); e != tt.exchanges || c != 2 {
				t.Errorf("%d exchanges and %d calls, want %d and 2", e, c, tt.exchanges)
			}
		})
	}
}

func checkKeptToken(t *testing.T, folder string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the folder holds %q, %v; want one file", files, err)
	}
	var kept struct {
		Token string `json:"access_token"`
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &kept); err != nil || kept.Token != "jg_1" {
		t.Errorf("the file holds %s, %v; want the access token", raw, err)
	}
}
