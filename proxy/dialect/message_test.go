package dialect_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

func whole(stopReason string, blocks ...string) string {
	return `{"model":"claude-sonnet-4-5","id":"msg_01","type":"message","role":"assistant","content":[` + strings.Join(blocks, ", ") +
		`],"stop_reason":"` + stopReason + `","stop_sequence":null , "usage":{"input_tokens":12,"cache_creation_input_tokens":3,"cache_read_input_tokens":4,"output_tokens":89}}` + "\n"
}

func textBlock(s string) string { return `{"type":"text", "text":` + quote(s) + `}` }

func toolBlock(id, name, input string) string {
	return `{"type":"tool_use","id":` + quote(id) + `,"name":` + quote(name) + `,"input":` + input + `}`
}

const written = `{"type":"text","text":"Jobgate: Bash is denied"}`

func TestFilterMessage(t *testing.T) {
	thinking := `{"type":"thinking","thinking":"hm","signature":"EqQB+\/="}`
	bash, read := toolBlock("t1", "Bash", `{"command": "ls"}`), toolBlock("t2", "Read", `{"p":1.0}`)
	m := masked(t, secret)
	maskedToo := rules(access.Tell, "Bash")
	maskedToo.Text, maskedToo.Opaque = secrets(t), secrets(t)
	for _, c := range []struct {
		name     string
		cfg      dialect.FilterConfig
		in, want string
	}{
		{"passed", dialect.FilterConfig{}, whole("tool_use", textBlock("a"), bash), whole("tool_use", textBlock("a"), bash)},
		{"allowed", rules(access.Tell), whole("tool_use", thinking, bash, read), whole("tool_use", thinking, bash, read)},
		{"tell", rules(access.Tell, "Bash"), whole("tool_use", thinking, bash, read),
			whole("tool_use", thinking, written+","+toolBlock("t1", "Bash__denied__no-bash", "{}"), read)},
		{"stop", rules(access.Stop, "Bash"), whole("tool_use", bash, read), whole("end_turn", written, read)},
		{"no input", rules(access.Stop, "Bash"), whole("tool_use", `{"type":"tool_use","id":"t","name":"Read"}`), whole("tool_use", `{"type":"tool_use","id":"t","name":"Read"}`)},
		{"server tool", rules(access.Tell, "web_search"), whole("end_turn", `{"type":"server_tool_use","id":"s","name":"web_search","input":{}}`), whole("end_turn", `{"type":"server_tool_use","id":"s","name":"web_search","input":{}}`)},
		{"masked", maskedToo, whole("tool_use", textBlock("see "+secret), bash, textBlock("b")),
			whole("tool_use", textBlock("see "+m), written+","+toolBlock("t1", "Bash__denied__no-bash", "{}"), textBlock("b"))},
		{"escaped secret", maskedToo, whole("end_turn", `{"type":"text","text":"`+escapeAll(secret)+`"}`), whole("end_turn", `{"type":"text","text":"`+m+`"}`)},
		{"redacted", dialect.FilterConfig{Text: secrets(t), RedactAll: true}, whole("tool_use", toolBlock("t", "Bash", `{"a":[`+quote(secret)+`]}`)), whole("tool_use", toolBlock("t", "Bash", `{"a":["`+m+`"]}`))},
		{"no message", maskedToo, `{"input_tokens": 7}`, `{"input_tokens": 7}`},
		{"list", maskedToo, `{"data":[{"type":"model","id":"m","display_name":` + quote(secret) + `}]}`, `{"data":[{"type":"model","id":"m","display_name":"` + m + `"}]}`},
		{"no JSON, nothing judged", dialect.FilterConfig{Text: secrets(t)}, `<html>`, `<html>`},
	} {
		got, usage, err := dialect.Anthropic{}.FilterMessage([]byte("#"), []byte(c.in), c.cfg)
		if err != nil || string(got) != "#"+c.want {
			t.Errorf("%s: %v\n got %s\nwant #%s", c.name, err, got, c.want)
		}
		if json.Valid([]byte(c.in)) && !json.Valid(got[1:]) {
			t.Errorf("%s: no JSON: %s", c.name, got)
		}
		if want := int64(12); strings.Contains(c.in, `"usage"`) && usage.InputTokens != want {
			t.Errorf("%s: usage %+v", c.name, usage)
		}
	}
}

func TestFilterMessageUsage(t *testing.T) {
	_, got, err := dialect.Anthropic{}.FilterMessage(nil, []byte(whole("end_turn", textBlock("a"))), dialect.FilterConfig{})
	want := dialect.Usage{InputTokens: 12, OutputTokens: 89, CacheCreationTokens: 3, CacheReadTokens: 4, Model: "claude-sonnet-4-5", MessageID: "msg_01", StopReason: "end_turn"}
	if err != nil || got != want {
		t.Errorf("%v %s", err, cmp.Diff(want, got))
	}
}

func TestFilterMessageRefuses(t *testing.T) {
	cfg := rules(access.Fail, "Bash")
	cfg.Text, cfg.Opaque = secrets(t), secrets(t)
	for name, in := range map[string]string{
		"fail":             whole("tool_use", textBlock("a"), toolBlock("t", "Bash", "{}")),
		"duplicate keys":   whole("tool_use", toolBlock("t", "Read", `{"a":1,"a":2}`)),
		"name twice":       whole("tool_use", `{"type":"tool_use","id":"t","name":"Read","name":"Bash","input":{}}`),
		"content twice":    `{"content":[],"content":[` + toolBlock("t", "Bash", "{}") + `]}`,
		"content no list":  `{"content":` + toolBlock("t", "Bash", "{}") + `}`,
		"no type":          whole("tool_use", `{"id":"t","name":"Bash","input":{}}`),
		"no name":          whole("tool_use", `{"type":"tool_use","id":"t","input":{}}`),
		"no object":        whole("tool_use", `"Bash"`),
		"cut":              `{"content":[`,
		"no JSON":          "<html>",
		"secret in input":  whole("tool_use", toolBlock("t", "Read", `{"a":"`+escapeAll(secret)+`"}`)),
		"secret in id":     whole("tool_use", toolBlock(secret, "Read", `{}`)),
		"secret, thinking": whole("tool_use", `{"type":"thinking","thinking":`+quote(secret)+`}`),
	} {
		got, _, err := dialect.Anthropic{}.FilterMessage(nil, []byte(in), cfg)
		if access.CodeOf(err) != access.CodeDenied || len(got) > 0 {
			t.Errorf("%s: %s, %v, want a refusal", name, got, err)
		}
	}
}

func TestFilterMessageDeniesUnreadable(t *testing.T) {
	got, _, err := dialect.Anthropic{}.FilterMessage(nil, []byte(whole("tool_use", toolBlock("t", "Bash", "[1]"))), rules(access.Tell))
	if err != nil || !strings.Contains(string(got), `"name":"Bash__denied__unreadable","input":{}`) {
		t.Errorf("%s, %v", got, err)
	}
	over := access.Refuse(access.CodeEnded, "Jobgate: over")
	cfg := rules(access.Tell)
	cfg.Judge = func(access.ToolUse) dialect.Verdict { return dialect.Verdict{Err: over} }
	if got, _, err := (dialect.Anthropic{}).FilterMessage(nil, []byte(whole("tool_use", toolBlock("t", "Bash", "{}"))), cfg); access.CodeOf(err) != access.CodeEnded || len(got) > 0 {
		t.Errorf("%s, %v, want the session's end", got, err)
	}
}

func TestFilterError(t *testing.T) {
	m := masked(t, secret)
	for in, want := range map[string]string{
		`{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 > 8"}}`: `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 > 8"}}`,
		`{"error":{"message":"key ` + escapeAll(secret) + ` is bad"},"request_id":"` + secret + `"}`:      `{"error":{"message":"key ` + m + ` is bad"},"request_id":"` + m + `"}`,
		`{"` + secret + `":1}`:    `{"` + m + `":1}`,
		`<h1>` + secret + `</h1>`: `<h1>` + m + `</h1>`,
		`{"a":"` + secret:         `{"a":"` + m,
		``:                        ``,
	} {
		got, n := dialect.Anthropic{}.FilterError(nil, []byte(in), secrets(t))
		if string(got) != want || (n > 0) != (in != want) {
			t.Errorf("FilterError(%s) = %s, %d, want %s", in, got, n, want)
		}
		if got, n := (dialect.Anthropic{}).FilterError(nil, []byte(in), nil); string(got) != in || n != 0 {
			t.Errorf("FilterError without a set = %s, %d", got, n)
		}
	}
}

// FuzzFilterMessage holds that a client runs of an answer what the judge allowed, and that what comes out is JSON.
func FuzzFilterMessage(f *testing.F) {
	f.Add([]byte(whole("tool_use", textBlock("see "+secret), toolBlock("t", "Ok", `{"a":1}`), toolBlock("u", "Evil", `{}`))), uint8(0))
	f.Add([]byte(`{"content":[{"type":"tool_use","name":"Free","n\u0061me":"Evil","id":"x"}]}`), uint8(1))
	f.Add([]byte(`{"stop_reason":"tool_use","content":[{"type":"x_tool_use","id":"`+secret+`","name":"Evil","input":[]}]}`), uint8(1))
	f.Fuzz(func(t *testing.T, body []byte, form uint8) {
		var g gate
		cfg := g.config(access.OnDeny(form % 3))
		cfg.Text, cfg.Opaque = secrets(t), secrets(t)
		out, _, err := dialect.Anthropic{}.FilterMessage(nil, body, cfg)
		if err != nil {
			return
		}
		if err := dialect.Strict(out); err != nil {
			t.Errorf("out is not strict JSON: %v\n%s", err, out)
		}
		g.check(t, string(body), "event: message_start\ndata: {\"type\":\"message_start\",\"message\":"+strings.Join(strings.Fields(string(out)), " ")+"}\n\n")
	})
}
