package cond_test

import (
	"slices"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/cond"
)

func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		source string
		want   []string
	}{
		{`tool.name == "Bash" && tool.input.command.contains("curl")`, []string{"contains"}},
		{`tool.input.command.matches("^rm ") || tool.input.command.startsWith("rm")`, []string{"matches", "startsWith"}},
		{`matches(tool.input.command, "^rm ")`, []string{"matches"}},
		{`tool.input["command"].endsWith("--force")`, []string{"endsWith"}},
		{`["curl", "wget"].exists(x, tool.input.command.contains(x))`, []string{"contains"}},
		{`string(tool.input.command).lowerAscii().contains("curl")`, []string{"contains"}},
		{`has(tool.input.command) ? tool.input.command.indexOf("curl") >= 0 : false`, []string{"indexOf"}},
		{`tool.name == "Bash" && !(tool.input.command in ["make test", "npm ci"])`, nil},
		{`tool.name.startsWith("mcp__")`, nil},
		{`call.path.startsWith("/v1/")`, nil},
		{`"make test; npm ci".contains(tool.input.command)`, nil}, // the list is the text, not the pattern
	} {
		if got := compile(t, test.source, cond.Rule).Patterns(); !slices.Equal(got, test.want) {
			t.Errorf("%s: Patterns = %q, want %q", test.source, got, test.want)
		}
	}
}

func TestConstant(t *testing.T) {
	for _, test := range []struct {
		source          string
		value, constant bool
	}{
		{`true`, true, true},
		{`false`, false, true},
		{`false && tool.name == "Bash"`, false, true},
		{`call.path == "/" || true`, true, true},
		{`1 > 2`, false, true},
		{`tool.name == "Bash"`, false, false},
		{`claims.ref == "refs/heads/main"`, false, false},
		{`usage.requests > 3`, false, false},
	} {
		if value, constant := compile(t, test.source, cond.Rule).Constant(); value != test.value || constant != test.constant {
			t.Errorf("%s: Constant = %v, %v, want %v, %v", test.source, value, constant, test.value, test.constant)
		}
	}
}

func TestMayMatchCall(t *testing.T) {
	call := access.Call{Connection: "deploys", Kind: "http", Method: "POST", Path: "/v1/deploys"}
	for _, test := range []struct {
		source string
		want   bool
	}{
		{`call.path == "/v1/deploys"`, true},
		{`call.path == "/v1/others"`, false},
		{`call.path == "/v1/others" || call.bytes > 100`, true},
		{`call.path == "/v1/others" && call.bytes > 100`, false},
		{`call.method == "DELETE" && call.path.startsWith("/v1/")`, false},
		{`call.connection == "web"`, false},
		{`claims.ref == "refs/heads/main"`, true},
		{`call.method != "POST"`, false},
	} {
		if got := compile(t, test.source, cond.Rule).MayMatchCall(call); got != test.want {
			t.Errorf("%s: MayMatchCall = %v, want %v", test.source, got, test.want)
		}
	}
}
