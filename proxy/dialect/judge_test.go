package dialect_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s", what, cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
	}
}

func TestForms(t *testing.T) {
	bash := tool(1, "toolu_1", "Bash", "", `{"command":`, ` "rm \"x\"" }`)
	read := tool(2, "toolu_2", "Read", `{"p":1}`)
	shiftedRead := tool(3, "toolu_2", "Read", `{"p":1}`)
	last := start(3, `{"type":"thinking","thinking":"","signature":""}`) + delta(3, `{"type":"thinking_delta","thinking":"h\u006dm"}`) +
		delta(3, `{"type":"signature_delta","signature":"EqQB+/="}`) + stop(3)
	shiftedLast := strings.ReplaceAll(last, `"index":3`, `"index":4`)
	reason := "Jobgate: Bash is denied"
	for _, c := range []struct {
		name     string
		cfg      dialect.FilterConfig
		in, want string
	}{
		{"allowed", rules(access.Tell), message(text(0, "a"), bash, read, last),
			message(text(0, "a"), tool(1, "toolu_1", "Bash", `{"command": "rm \"x\"" }`), read, last)},
		{"allowed without input", rules(access.Tell), message(tool(0, "t", "Bash")), message(tool(0, "t", "Bash", "{}"))},
		{"allowed with input in its start", rules(access.Tell), message(start(0, `{"type":"tool_use","id":"t","name":"B","input":{"a": 1}}`), stop(0)),
			message(start(0, `{"type":"tool_use","id":"t","name":"B","input":{"a": 1}}`), inputDelta(0, `{"a": 1}`), stop(0))},
		{"tell", rules(access.Tell, "Bash"), message(text(0, "a"), bash, read, last),
			message(text(0, "a"), text(1, reason), tool(2, "toolu_1", "Bash__denied__no-bash", "{}"), shiftedRead, shiftedLast)},
		{"tell both", rules(access.Tell, "Bash", "Read"), message(text(0, "a"), bash, read),
			message(text(0, "a"), text(1, reason), tool(2, "toolu_1", "Bash__denied__no-bash", "{}"),
				text(3, "Jobgate: Read is denied"), tool(4, "toolu_2", "Read__denied__no-read", "{}"))},
		{"stop", rules(access.Stop, "Bash"), message(text(0, "a"), bash, read, last), messageWith("end_turn", text(0, "a"), text(1, reason), read, last)},
		{"stop, other reason", rules(access.Stop, "Bash"), messageWith("max_tokens", text(0, "a"), bash), messageWith("max_tokens", text(0, "a"), text(1, reason))},
		{"server tools are not held", rules(access.Tell, "web_search"), message(start(0, `{"type":"server_tool_use","id":"s","name":"web_search","input":{}}`), inputDelta(0, `{"q`), inputDelta(0, `":1}`), stop(0)),
			message(start(0, `{"type":"server_tool_use","id":"s","name":"web_search","input":{}}`), inputDelta(0, `{"q`), inputDelta(0, `":1}`), stop(0))},
		{"unknown kinds are held", rules(access.Tell, "Bash"), message(start(0, `{"type":"x_tool_use","id":"t","name":"Bash","input":{}}`), stop(0)),
			message(text(0, reason), tool(1, "t", "Bash__denied__no-bash", "{}"))},
		{"behind an interleaved one", rules(access.Tell, "Bash"),
			message(start(0, `{"type":"tool_use","id":"t","name":"Bash","input":{}}`), text(1, "x"), ping, stop(0), text(2, "y")),
			message(ping, text(0, reason), tool(1, "t", "Bash__denied__no-bash", "{}"), text(2, "x"), text(3, "y"))},
	} {
		for _, size := range []int{0, 1, 13} {
			got, err := run(c.cfg, c.in, size)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			same(t, c.name, got, c.want)
		}
	}
}

func TestFailEndsTheStream(t *testing.T) {
	got, err := run(rules(access.Fail, "Bash"), message(text(0, "a"), tool(1, "t", "Bash", `{}`)), 0)
	if access.CodeOf(err) != access.CodeDenied || access.PublicText(err) != "Jobgate: Bash is denied" {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(got, `"text":"a"`) || strings.Contains(got, "Bash") {
		t.Errorf("got %s", got)
	}
}

func TestVerdictErrorEndsTheStream(t *testing.T) {
	over := access.Refuse(access.CodeEnded, "Jobgate: over")
	cfg := rules(access.Tell)
	cfg.Judge = func(access.ToolUse) dialect.Verdict { return dialect.Verdict{Allow: true, Err: over} }
	f := dialect.NewFilter(cfg)
	out, err := f.Write(nil, []byte(message(tool(0, "t", "Bash", "{}"))))
	if !errors.Is(err, over) || strings.Contains(string(out), "Bash") {
		t.Errorf("Write = %q, %v", out, err)
	}
	if out, err := f.Write(nil, []byte(text(1, "more"))); !errors.Is(err, over) || len(out) > 0 {
		t.Errorf("the next Write = %q, %v", out, err)
	}
	if out, err := f.Close(nil, true); err != nil || len(out) > 0 {
		t.Errorf("Close = %q, %v", out, err)
	}
}

func TestJudgeGetsWhatIsSent(t *testing.T) {
	var got []access.ToolUse
	cfg := dialect.FilterConfig{
		MayJudge: func(name string) bool { return name == "Bash" },
		Judge: func(use access.ToolUse) dialect.Verdict {
			use.Input = append([]byte(nil), use.Input...)
			got = append(got, use)
			return dialect.Verdict{Allow: true}
		},
	}
	other := tool(0, "t0", "Read", `{"a"`, `:1, "a":2}`) // nobody judges it: it passes as it is
	in := message(other, tool(1, "t1", "Bash", `{"c": "\u0041\n`, `"}`))
	out, err := run(cfg, in, 0)
	want := []access.ToolUse{{ID: "t1", Name: "Bash", Input: []byte(`{"c": "\u0041\n"}`)}}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("judged %v\n%s", err, cmp.Diff(want, got))
	}
	same(t, "stream", out, message(other, tool(1, "t1", "Bash", `{"c": "\u0041\n"}`)))
}

// A tool runs when its block stops: nothing of it goes out before the verdict, and nothing before it waits.
func TestHolds(t *testing.T) {
	var flushed, expected string
	cfg := rules(access.Tell)
	judge := cfg.Judge
	judged := false
	cfg.Flush = func(b []byte) error { flushed += string(b); return nil }
	cfg.Judge = func(use access.ToolUse) dialect.Verdict {
		judged = true
		if want := expected; flushed != want {
			t.Errorf("when judged, this was flushed: %q, want %q", flushed, want)
		}
		return judge(use)
	}
	f := dialect.NewFilter(cfg)
	write := func(s, want string) {
		t.Helper()
		out, err := f.Write(nil, []byte(s))
		if err != nil || string(out) != want {
			t.Errorf("Write(%q) = %q, %v, want %q", s, out, err, want)
		}
	}
	begin := start(1, `{"type":"tool_use","id":"t","name":"Bash","input":{}}`)
	write(text(0, "x"), text(0, "x"))
	write(begin[:30], "")
	write(begin[30:], "")
	write(inputDelta(1, `{"a":`), "")
	write(ping, ping)
	write(": comment\n\n", ": comment\n\n")
	write(inputDelta(1, `1}`), "")
	write(stop(1), tool(1, "t", "Bash", `{"a":1}`))
	if !judged {
		t.Error("nobody judged")
	}

	expected = text(0, "before")
	f = dialect.NewFilter(cfg)
	write(text(0, "before")+tool(1, "t", "Bash", `{"a":1}`)+text(2, "after"), tool(1, "t", "Bash", `{"a":1}`)+text(2, "after"))
	cfg.Flush = func([]byte) error { return access.Refuse(access.CodeCanceled, "left") }
	cfg.Judge = func(access.ToolUse) dialect.Verdict { t.Error("judged after a failed flush"); return dialect.Verdict{} }
	if out, err := dialect.NewFilter(cfg).Write(nil, []byte(text(0, "before")+tool(1, "t", "Bash", "{}"))); access.CodeOf(err) != access.CodeCanceled || len(out) > 0 {
		t.Errorf("Write = %q, %v", out, err)
	}
}

func TestUnreadableIsDenied(t *testing.T) {
	for name, parts := range map[string][]string{
		"duplicate": {`{"a":1,"a":2}`}, "cut": {`{"a":`}, "list": {`[]`}, "string": {`"x"`}, "more": {`{}`, `{}`}, "half a pair": {`{"a":"\ud800"}`},
		"large": {`{"a":"`, strings.Repeat("x", 300), `"}`},
	} {
		cfg := rules(access.Tell)
		cfg.MaxHeld = 200
		cfg.Judge = func(use access.ToolUse) dialect.Verdict {
			t.Errorf("%s: judged %s", name, use.Input)
			return dialect.Verdict{Allow: true}
		}
		got, err := run(cfg, message(tool(0, "t", "Bash", parts...), text(1, "x")), 0)
		if err != nil || !strings.Contains(got, `"name":"Bash__denied__unreadable"`) || !strings.Contains(got, "cannot be judged") {
			t.Errorf("%s: %v %s", name, err, got)
		}
		if !strings.Contains(got, text(2, "x")) {
			t.Errorf("%s: the next block has not the next index:\n%s", name, got)
		}

		var problem string
		cfg.Unreadable = func(use access.ToolUse, p string) dialect.Verdict {
			problem = p
			return dialect.Verdict{Allow: true, OnDeny: access.Stop, Rule: "strict-json", Reason: "no"}
		}
		got, err = run(cfg, message(tool(0, "t", "Bash", parts...)), 0)
		same(t, name, got, messageWith("end_turn", text(0, "no")))
		if err != nil || problem == "" {
			t.Errorf("%s: %v, problem %q", name, err, problem)
		}
	}
}

func TestLargeIsDeniedAtOnce(t *testing.T) {
	cfg := rules(access.Tell)
	cfg.MaxHeld = 200
	f := dialect.NewFilter(cfg)
	out, err := f.Write(nil, []byte(start(0, `{"type":"tool_use","id":"t","name":"Bash","input":{}}`)+inputDelta(0, strings.Repeat("x", 300))))
	if err != nil || !strings.Contains(string(out), "Bash__denied__") {
		t.Errorf("Write = %s, %v", out, err)
	}
	if out, err := f.Write(nil, []byte(inputDelta(0, "x"))); err != nil || len(out) > 0 {
		t.Errorf("what follows: %s, %v", out, err)
	}
}

func TestDeniedNames(t *testing.T) {
	long := strings.Repeat("n", 128)
	for _, c := range []struct{ tool, rule, want string }{
		{"Bash", "no-network-tools", "Bash__denied__no-network-tools"},
		{"mcp__a__b", "", "mcp__a__b__denied__"},
		{long, "r", long[:128-11] + "__denied__r"},
		{"a b/é\n", "x y", "a_b_____denied__x_y"},
		{"T", strings.Repeat("r", 200), "T__denied__" + strings.Repeat("r", 117)},
	} {
		cfg := rules(access.Tell)
		cfg.Judge = func(access.ToolUse) dialect.Verdict { return dialect.Verdict{Rule: c.rule} }
		got, err := run(cfg, message(tool(0, "t", c.tool, `{"secret":1}`)), 0)
		if err != nil || !strings.Contains(got, `"name":"`+c.want+`"`) || strings.Contains(got, "secret") {
			t.Errorf("%q, rule %q: %v, want name %s in\n%s", c.tool, c.rule, err, c.want, got)
		}
	}
}

func TestJudgeWithoutJudgeDenies(t *testing.T) {
	got, err := run(dialect.FilterConfig{MayJudge: func(string) bool { return true }}, message(tool(0, "t", "Bash", `{}`)), 0)
	if err != nil || !strings.Contains(got, "Bash__denied__") || strings.Contains(got, `"Bash"`) {
		t.Errorf("%v\n%s", err, got)
	}
}

func TestEndInAToolUse(t *testing.T) {
	f := dialect.NewFilter(rules(access.Tell))
	out, err := f.Write(nil, []byte(text(0, "a")+start(1, `{"type":"tool_use","id":"t","name":"Bash","input":{}}`)+inputDelta(1, "{}")))
	if err != nil {
		t.Fatal(err)
	}
	out, err = f.Close(out, true)
	if access.CodeOf(err) != access.CodeUpstream || string(out) != text(0, "a") {
		t.Errorf("Close = %q, %v", out, err)
	}
}

func TestUsageAndEmitted(t *testing.T) {
	want := dialect.Usage{InputTokens: 12, OutputTokens: 89, CacheCreationTokens: 3, CacheReadTokens: 4, Model: "claude-sonnet-4-5", MessageID: "msg_01", StopReason: "tool_use"}
	for name, cfg := range map[string]dialect.FilterConfig{"passed": {}, "judged": rules(access.Tell, "Bash"), "masked": {Text: secrets(t)}} {
		f := dialect.NewFilter(cfg)
		in := message(tool(0, "t", "Bash", "{}"))
		head, rest, _ := strings.Cut(in, "event: content_block_start")
		if _, err := f.Write(nil, []byte(head+ping)); err != nil || f.Emitted() {
			t.Errorf("%s: %v, emitted %v before a block", name, err, f.Emitted())
		}
		if _, err := f.Write(nil, []byte("event: content_block_start"+rest)); err != nil || !f.Emitted() {
			t.Errorf("%s: %v, emitted %v after a block", name, err, f.Emitted())
		}
		if got := f.Usage(); got != want {
			t.Errorf("%s: %s", name, cmp.Diff(want, got))
		}
	}
}

func TestUnclearStreamsEnd(t *testing.T) {
	for _, name := range []string{"started twice", "index used again", "names differ", "both names differ", "lone CR in an object", "data in capitals",
		"half a surrogate", "name twice", "type twice", "content in message_start", "second message_start", "stop before start", "text gets input", "stopped twice"} {
		_, err := run(rules(access.Tell), hostile[name], 0)
		var e *access.Error
		if !errors.As(err, &e) || e.Code != access.CodeDenied || e.Reason != "ambiguous" || !strings.HasPrefix(e.Public, "Jobgate: ") {
			t.Errorf("%s: %v, want an ambiguous answer", name, err)
		}
		if out, err := run(dialect.FilterConfig{}, hostile[name], 0); err != nil || out != hostile[name] {
			t.Errorf("%s, not judged: %v, want it unchanged", name, err)
		}
	}
}

func TestErrorEventPasses(t *testing.T) {
	failed := ev("error", `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`)
	got, err := run(rules(access.Tell), text(0, "a")+start(1, evil)+failed+stop(1), 0)
	if err != nil {
		t.Error(err)
	}
	same(t, "stream", got, text(0, "a")+failed)
}
