package cond_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/cond"
)

func compile(t testing.TB, source string, scope cond.Scope) *cond.Condition {
	t.Helper()
	c, err := cond.Compile(source, scope)
	if err != nil {
		t.Fatalf("Compile(%q): %v", source, err)
	}
	return c
}

func TestCompileRefuses(t *testing.T) {
	for _, test := range []struct {
		name, source, want string
		scope              cond.Scope
	}{
		{"empty", " ", "empty", cond.Rule},
		{"unknown variable", `claim.ref == "x"`, "line 1, column 1: undeclared reference to 'claim'", cond.Mapping},
		{"unknown field", `tool.nmae == "Bash"`, "line 1, column 5: undefined field 'nmae'", cond.Rule},
		{"unknown field on a later line", "true &&\n call.pth == \"\"", "line 2, column 6: undefined field 'pth'", cond.Rule},
		{"tool in a mapping", `tool.name == "Bash"`, "undeclared reference to 'tool'", cond.Mapping},
		{"not a bool", `call.path`, "not bool", cond.Rule},
		{"dyn is not a bool", `claims.flag`, "not bool", cond.Mapping},
		{"types that never meet", `call.bytes == "1"`, "no matching overload", cond.Rule},
		{"bad regular expression", `call.path.matches("(")`, "line 1", cond.Rule},
		{"syntax", `claims.ref ==`, "line 1, column", cond.Mapping},
		{"too long", `claims.ref == "` + strings.Repeat("x", 17<<10) + `"`, "size", cond.Mapping},
		{"no scope", `true`, "scope 0", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := cond.Compile(test.source, test.scope)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Compile(%q) = %v, want an error with %q", test.source, err, test.want)
			}
		})
	}
}

func input() cond.Input {
	return cond.Input{
		Provider: "github-actions", Issuer: "github",
		Claims: access.Claims{
			"ref": "refs/heads/main", "runner_id": json.Number("12"), "ratio": json.Number("0.5"),
			"huge": json.Number("16055869479"), "groups": []any{"a", "b"}, "nested": map[string]any{"n": json.Number("3")},
			"none": nil, "flag": true,
		},
		Call: &access.Call{Connection: "anthropic", Kind: "anthropic", Method: "POST", Path: "/v1/messages", Query: "beta=true",
			Bytes: 42000, Model: "claude-x", Stream: true, MaxTokens: 100, Tools: []string{"Bash", "Read"}, Features: []string{"web_search"}},
		Session: cond.Session{ID: "s_1", Mapping: "agents", Age: 90 * time.Second},
		Tool:    &cond.Tool{ID: "toolu_1", Name: "Bash", JSON: []byte(`{"command":"rm -rf /","timeout":3000,"big":9007199254740993,"f":1.5,"list":[1,{"a":null}]}`)},
		MCP:     map[string]any{"method": "tools/call", "params": map[string]any{"name": "x"}},
		Usage:   access.Counts{Requests: 3, InputTokens: 10, OutputTokens: 20},
	}
}

func TestEval(t *testing.T) {
	for _, test := range []struct {
		source string
		want   bool
		fails  string
	}{
		{source: `claims.ref == "refs/heads/main"`, want: true},
		{source: `claims.ref.startsWith("refs/heads/")`, want: true},
		{source: `claims.ref.matches("^refs/(heads|tags)/main$")`, want: true},
		{source: `claims.ref.split("/")[2] == "main"`, want: true},
		{source: `claims.runner_id == 12 && claims.ratio == 0.5 && claims.huge == 16055869479`, want: true},
		{source: `claims.runner_id == "12"`, want: false},
		{source: `claims.nested.n + 1 == 4`, want: true},
		{source: `"a" in claims.groups && claims.groups.size() == 2`, want: true},
		{source: `sets.contains(claims.groups, ["b"])`, want: true},
		{source: `claims.none == null && claims.flag == true`, want: true},
		{source: `has(claims.absent)`, want: false},
		{source: `claims.absent == "x"`, fails: "no such key"},
		{source: `has(claims.absent) && claims.absent == "x"`, want: false},
		{source: `issuer == "github" && provider == "github-actions"`, want: true},
		{source: `call.method == "POST" && call.path == "/v1/messages" && call.query == "beta=true" && call.bytes > 41999`, want: true},
		{source: `call.kind == call.connection && call.stream && call.max_tokens == 100 && "web_search" in call.features`, want: true},
		{source: `model.startsWith("claude-") && "Bash" in tools && tools.size() == 2`, want: true},
		{source: `tool.name in ["WebFetch", "Bash"] && tool.id == "toolu_1"`, want: true},
		{source: `tool.input.command.contains("rm -rf") && tool.input.timeout == 3000`, want: true},
		{source: `tool.input.big == 9007199254740993 && tool.input.f == 1.5 && tool.input.f > 1`, want: true},
		{source: `tool.input.list[1].a == null`, want: true},
		{source: `tool.name == "Bash" && !(tool.input.command in ["make test", "npm ci"])`, want: true},
		{source: `tool.input.file_path.startsWith("/etc")`, fails: "no such key"},
		{source: `has(tool.input.file_path) || tool.name == "Read"`, want: false},
		{source: `mcp.method == "tools/call" && mcp.params.name == "x"`, want: true},
		{source: `session.id == "s_1" && session.mapping == "agents" && session.age_seconds == 90`, want: true},
		{source: `usage.requests + usage.input_tokens + usage.output_tokens == 33`, want: true},
		{source: `tools.exists(tool, tool == "Read")`, want: true},
		{source: `tool == tool`, fails: "object"},
		{source: `jobgate.Tool{name: "x"}.name == "x"`, fails: "unknown type"},
		{source: `tools.all(a, tools.all(b, [1,2,3,4,5,6,7,8,9].all(c, true)))`, want: true},
	} {
		t.Run(test.source, func(t *testing.T) {
			got, err := compile(t, test.source, cond.Rule).Eval(t.Context(), input())
			switch {
			case test.fails == "" && err != nil:
				t.Errorf("Eval: %v", err)
			case test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)):
				t.Errorf("Eval = %v, %v, want an error with %q", got, err, test.fails)
			case got != test.want:
				t.Errorf("Eval = %v, want %v", got, test.want)
			}
		})
	}
}

func TestEvalWithoutSubject(t *testing.T) {
	for _, source := range []string{`tool.name == "Bash"`, `call.path == "/"`, `tool.input == null`} {
		if got, err := compile(t, source, cond.Rule).Eval(t.Context(), cond.Input{}); err == nil {
			t.Errorf("Eval(%q) without tool and call = %v, want an error", source, got)
		}
	}
	in := cond.Input{Tool: cond.NewTool(access.ToolUse{Name: "Bash", Input: []byte(`{"a":1} {}`)})}
	if _, err := compile(t, `tool.input.a == 1`, cond.Rule).Eval(t.Context(), in); err == nil {
		t.Error("two JSON values as input: want an error")
	}
}

func TestEvalIsBounded(t *testing.T) {
	list := make([]any, 3000)
	for i := range list {
		list[i] = json.Number("1")
	}
	in := cond.Input{Claims: access.Claims{"l": list}}
	c := compile(t, `claims.l.all(a, claims.l.all(b, claims.l.all(c, a + b + c == 3)))`, cond.Mapping)
	if _, err := c.Eval(t.Context(), in); err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("a loop over 27e9 steps: %v, want the cost limit", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Eval(ctx, in); err == nil {
		t.Error("a loop after its context's end: want an error")
	}
}

func TestReferences(t *testing.T) {
	for _, test := range []struct {
		source, name string
		mentions     bool
		fields       []string
	}{
		{`tool.name == "Bash"`, "tool", true, []string{"name"}},
		{`has(tool.input.x)`, "tool", true, []string{"input"}},
		{`tools.exists(tool, tool == "Bash")`, "tool", false, nil},
		{`tools.exists(tool, tool == "Bash")`, "tools", true, nil},
		{`tools.exists(t, t == tool.name)`, "tool", true, []string{"name"}},
		{`tools.map(tool, tool).size() == 1 && tool.id == ""`, "tool", true, []string{"id"}},
		{`call.path == "tool"`, "tool", false, nil},
		{`claims.a == claims["b"] && "c" in claims && has(claims.d)`, "claims", true, []string{"a", "b", "c", "d"}},
		{`{"k": [model]}["k"][0] == "x" ? true : session.id == ""`, "model", true, nil},
	} {
		c := compile(t, test.source, cond.Rule)
		if got := c.Mentions(test.name); got != test.mentions {
			t.Errorf("%q mentions %q = %v, want %v", test.source, test.name, got, test.mentions)
		}
		if got := c.Fields(test.name); !slices.Equal(got, test.fields) {
			t.Errorf("fields of %q in %q = %q, want %q", test.name, test.source, got, test.fields)
		}
	}
}

func TestMayMatchTool(t *testing.T) {
	for _, test := range []struct {
		source string
		tool   string
		want   bool
	}{
		{`tool.name == "Bash"`, "Bash", true},
		{`tool.name == "Bash"`, "Read", false},
		{`tool.name in ["WebFetch", "WebSearch"]`, "Read", false},
		{`tool.name in ["WebFetch", "WebSearch"]`, "WebSearch", true},
		{`tool.name == "Bash" && !(tool.input.command in ["make test"])`, "Read", false},
		{`!(tool.input.command in ["make test"]) && tool.name == "Bash"`, "Read", false},
		{`tool.name == "Bash" && !(tool.input.command in ["make test"])`, "Bash", true},
		{`tool.name.startsWith("mcp__") || claims.ref == "x"`, "Read", true},
		{`tool.name.startsWith("mcp__") && usage.requests > 5`, "Read", false},
		{`tool.input.command == "x"`, "Read", true},
		{`tool.name.matches("^Web") && has(tool.input.url)`, "WebFetch", true},
		{`tool.name.matches("^Web") && has(tool.input.url)`, "Read", false},
		{`tool.name.substring(5) == "x"`, "Read", true},                    // fails, which counts as a match
		{`tool.name == "Read" ? false : tool.input.x == 1`, "Read", false}, // settled by the name
		{`tool.name == "Read" ? false : tool.input.x == 1`, "Write", true}, //
		{`["a", "b"].exists(x, x == tool.name)`, "Read", false},            //
		{`tools.exists(x, x == tool.name)`, "Read", true},                  // what is offered is not known
		{`tool.id == "x" && tool.name == "Bash"`, "Read", false},           //
		{`call.bytes > 5 && session.age_seconds > 1 && tool.name != "Read"`, "Read", false},
		{`mcp.x == 1 && model == "y" && issuer == "z" && provider == "p" && tool.name == "Q"`, "Read", false},
	} {
		if got := compile(t, test.source, cond.Rule).MayMatchTool(test.tool); got != test.want {
			t.Errorf("MayMatchTool(%q) of %q = %v, want %v", test.tool, test.source, got, test.want)
		}
	}
}

func TestConcurrentEval(t *testing.T) {
	c := compile(t, `tool.name == "Bash" && tool.input.command.contains("rm")`, cond.Rule)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got, err := c.Eval(t.Context(), input()); !got || err != nil {
					t.Errorf("Eval = %v, %v", got, err)
				}
				if c.MayMatchTool("Read") {
					t.Error("MayMatchTool(Read) = true")
				}
			}
		})
	}
	wg.Wait()
}

// FuzzMayMatchTool holds that no condition is true of a tool of which its name alone was said to settle that it is not.
func FuzzMayMatchTool(f *testing.F) {
	for _, seed := range []string{
		`tool.name == "Bash" && tool.input.command == "x"`, `!(tool.name in ["a", "Bash"]) || has(tool.input.x)`,
		`tool.name.startsWith("B") ? tool.input.timeout > 5 : model == ""`, `["a", tool.name].exists(x, x == tool.id)`,
		`tools.all(t, t != tool.name) && claims.ref.matches("^r")`, `tool.input.list.map(x, x).size() == 2 && tool.name != "Read"`,
		`{"Bash": true}[tool.name]`, `tool.name.charAt(9) == "" || usage.requests == 3`, `size(tool.name) > 3 == (call.bytes > 3)`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		c, err := cond.Compile(source, cond.Rule)
		if err != nil {
			return
		}
		for _, name := range []string{"Bash", "Read", ""} {
			in := input()
			in.Tool.Name = name
			got, err := c.Eval(t.Context(), in)
			if got && err == nil && !c.MayMatchTool(name) {
				t.Errorf("%q is true of tool %q, and MayMatchTool says that it cannot be", source, name)
			}
		}
	})
}

func BenchmarkEvalToolName(b *testing.B) {
	benchmark(b, `tool.name in ["WebFetch", "WebSearch"]`)
}

func BenchmarkEvalToolInput(b *testing.B) {
	benchmark(b, `tool.name == "Bash" && !(tool.input.command in ["make test", "npm ci"])`)
}

func BenchmarkEvalClaims(b *testing.B) {
	benchmark(b, `claims.ref == "refs/heads/main" && call.method == "POST"`)
}

func benchmark(b *testing.B, source string) {
	c, in := compile(b, source, cond.Rule), input()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Eval(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMayMatchTool(b *testing.B) {
	c := compile(b, `tool.name == "Bash" && !(tool.input.command in ["make test", "npm ci"])`, cond.Rule)
	b.ReportAllocs()
	for b.Loop() {
		c.MayMatchTool("Read")
	}
}
