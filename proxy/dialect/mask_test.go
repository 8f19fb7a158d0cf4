package dialect_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

// escapeAll writes every byte of ASCII text as \uXXXX.
func escapeAll(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, `\u%04x`, c)
	}
	return b.String()
}

// texts returns what a client reads in a stream: the text, thinking and input of each block by its index, one after the
// other.
func texts(t testing.TB, stream string) (text, thinking, input string) {
	t.Helper()
	for _, block := range strings.Split(stream, "\n\n") {
		_, data, ok := strings.Cut(block, "data: ")
		if !ok {
			continue
		}
		var e struct {
			Block struct{ Text, Thinking string } `json:"content_block"`
			Delta struct {
				Text, Thinking string
				Input          string `json:"partial_json"`
			}
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Errorf("the client reads %q: %v", data, err)
		}
		text += e.Block.Text + e.Delta.Text
		thinking += e.Block.Thinking + e.Delta.Thinking
		input += e.Delta.Input
	}
	return text, thinking, input
}

func masked(t testing.TB, text string) string {
	out, _ := secrets(t).Mask(nil, []byte(text))
	return string(out)
}

func TestSecretCutBetweenDeltas(t *testing.T) {
	for i := range len(secret) + 1 {
		for j := i; j <= len(secret); j++ {
			raw := func(s string) string { return textDelta(0, s) }
			escaped := func(s string) string { return delta(0, `{"type":"text_delta","text":"`+escapeAll(s)+`"}`) }
			spaced := func(s string) string { return delta(0, `{ "text":`+quote(s)+`, "type":"text_delta" } `) }
			lines := func(s string) string {
				return "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\ndata: \"delta\":{\"type\":\"text_delta\",\"text\":" + quote(s) + "}}\n\n"
			}
			for form, write := range map[string]func(string) string{"raw": raw, "escaped": escaped, "spaced": spaced, "lines": lines} {
				in := message(start(0, `{"type":"text","text":""}`), write("see "+secret[:i]), ping, write(secret[i:j]), write(secret[j:]+" there"), stop(0))
				got, err := run(dialect.FilterConfig{Text: secrets(t), Opaque: secrets(t)}, in, 0)
				if err != nil {
					t.Fatal(err)
				}
				if form == "lines" {
					got = strings.ReplaceAll(got, "\ndata: \"delta", " \"delta")
				}
				if text, _, _ := texts(t, got); text != masked(t, "see "+secret+" there") {
					t.Errorf("%s, cut at %d and %d: the client reads %q\n%s", form, i, j, text, got)
				}
			}
		}
	}
}

func TestOnlyWhatCouldBeASecretWaits(t *testing.T) {
	f := dialect.NewFilter(dialect.FilterConfig{Text: secrets(t)})
	for _, step := range []struct{ in, want string }{
		{start(0, `{"type":"text","text":""}`), start(0, `{"type":"text","text":""}`)},
		{textDelta(0, "all clear. "), textDelta(0, "all clear. ")},
		{textDelta(0, "now "+secret[:9]), ""},
		{ping, ""},
		{delta(0, `{"type":"text_delta","text":"no\u006e "}  `), textDelta(0, "now "+secret[:9]) + ping + delta(0, `{"type":"text_delta","text":"no\u006e "}  `)},
		{textDelta(0, secret[:9]), ""},
		{stop(0), textDelta(0, secret[:9]) + stop(0)},
	} {
		got, err := f.Write(nil, []byte(step.in))
		if err != nil || string(got) != step.want {
			t.Errorf("Write(%q) = %q, %v, want %q", step.in, got, err, step.want)
		}
	}
}

func TestSecretInTheStartOfABlock(t *testing.T) {
	got, err := run(dialect.FilterConfig{Text: secrets(t)}, message(start(0, `{"type":"text","text":`+quote("x "+secret[:5])+`}`), textDelta(0, secret[5:]), stop(0)), 0)
	if text, _, _ := texts(t, got); err != nil || text != masked(t, "x "+secret) {
		t.Errorf("%v, the client reads %q", err, text)
	}
}

func TestSecretBehindADeniedBlock(t *testing.T) {
	cfg := rules(access.Tell, "Bash")
	cfg.Text, cfg.Opaque = secrets(t), secrets(t)
	in := message(tool(0, "t", "Bash", "{}"), text(1, "see "+secret[:4], secret[4:], " ok"))
	got, err := run(cfg, in, 0)
	if text, _, _ := texts(t, got); err != nil || !strings.HasSuffix(text, masked(t, "see "+secret+" ok")) || strings.Count(got, `"index":2`) != 5-1 {
		t.Errorf("%v, the client reads %q\n%s", err, text, got)
	}
}

// What must reach the client as it is ends the stream when a secret is in it.
func TestSecretInWhatMustNotChange(t *testing.T) {
	a, b := secret[:8], secret[8:]
	thinking := start(0, `{"type":"thinking","thinking":"","signature":""}`)
	for name, in := range map[string]string{
		"input, not judged":  tool(0, "t", "Free", `{"a":"`+a, b+`"}`),
		"input, judged":      tool(0, "t", "Bash", `{"a":"`+a, b+`"}`),
		"input, escaped":     tool(0, "t", "Free", `{"a":"`+escapeAll(secret)+`"}`),
		"input in start":     start(0, `{"type":"tool_use","id":"t","name":"Free","input":{"a":`+quote(secret)+`}}`),
		"thinking":           thinking + delta(0, `{"type":"thinking_delta","thinking":`+quote(a)+`}`) + delta(0, `{"type":"thinking_delta","thinking":`+quote(b)+`}`),
		"thinking in start":  start(0, `{"type":"thinking","thinking":`+quote(secret)+`}`),
		"signature":          thinking + delta(0, `{"type":"signature_delta","signature":`+quote(secret)+`}`),
		"redacted thinking":  start(0, `{"type":"redacted_thinking","data":`+quote(secret)+`}`),
		"id":                 tool(0, secret, "Free", `{}`),
		"name":               tool(0, "t", secret, `{}`),
		"key":                tool(0, "t", "Free", `{`+quote(secret)+`:1}`),
		"message id":         ev("message_start", `{"type":"message_start","message":{"id":`+quote(secret)+`}}`),
		"stop sequence":      ev("message_delta", `{"type":"message_delta","delta":{"stop_sequence":`+quote(secret)+`}}`),
		"encrypted index":    start(0, `{"type":"text","text":""}`) + delta(0, `{"type":"citations_delta","citation":{"encrypted_index":`+quote(secret)+`}}`),
		"result of a server": start(0, `{"type":"web_search_tool_result","tool_use_id":"s","content":[{"title":`+quote(secret)+`}]}`),
		"unknown event":      ev("brand_new", `{"type":"brand_new","x":[`+quote(secret)+`]}`),
		"no JSON":            "data: " + secret + "\n\n",
	} {
		for _, judged := range []bool{false, true} {
			cfg := dialect.FilterConfig{Text: secrets(t), Opaque: secrets(t)}
			if judged {
				cfg.MayJudge = func(name string) bool { return name == "Bash" }
				cfg.Judge = func(access.ToolUse) dialect.Verdict { return dialect.Verdict{Allow: true} }
			}
			got, err := run(cfg, in, 0)
			if access.CodeOf(err) != access.CodeDenied || strings.Contains(got, b) {
				t.Errorf("%s, judged %v: %v\n%s", name, judged, err, got)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error tells the secret: %v", name, err)
			}
		}
		cfg := dialect.FilterConfig{Text: secrets(t), Opaque: secrets(t), RedactAll: true}
		got, err := run(cfg, in, 0)
		text, thinking, input := texts(t, strings.ReplaceAll(got, "data: [", "x: ["))
		if err != nil || strings.Contains(text+thinking+input+got, secret) || !strings.Contains(got, "[masked:key:") {
			t.Errorf("%s, redacted: %v\n%s", name, err, got)
		}
	}
}

func TestRedactedInputIsJSON(t *testing.T) {
	in := message(tool(0, "t", "Bash", `{"command":"echo `+secret[:3], secret[3:]+`","n":1}`))
	got, err := run(dialect.FilterConfig{Text: secrets(t), RedactAll: true}, in, 0)
	if _, _, input := texts(t, got); err != nil || input != masked(t, `{"command":"echo `+secret+`","n":1}`) || !json.Valid([]byte(input)) {
		t.Errorf("%v, input %s", err, input)
	}
}

func TestSecretElsewhere(t *testing.T) {
	m := masked(t, secret)
	cfg := dialect.FilterConfig{Text: secrets(t), Opaque: secrets(t)}
	for name, c := range map[string]struct{ in, want string }{
		"error":        {ev("error", `{"type":"error","error":{"message":"bad key `+secret+`"}}`), ev("error", `{"type":"error","error":{"message":"bad key `+m+`"}}`)},
		"citation":     {start(0, `{"type":"text","text":""}`) + delta(0, `{"type":"citations_delta","citation":{"cited_text":"`+escapeAll(secret)+`"}}`), start(0, `{"type":"text","text":""}`) + delta(0, `{"type":"citations_delta","citation":{"cited_text":"`+m+`"}}`)},
		"comment":      {": " + secret + "\n\n" + ping, ping},
		"id line":      {"id: " + secret + "\n" + ping, ping},
		"unknown name": {"event: " + secret + "\ndata: {\"type\":\"x\"}\n\n", "data: {\"type\":\"x\"}\n\n"},
	} {
		got, err := run(cfg, c.in, 0)
		if err != nil || got != c.want {
			t.Errorf("%s: %v\n got %q\nwant %q", name, err, got, c.want)
		}
	}
}

// FuzzMask holds that a client reads the masked text however it was cut into deltas and chunks.
func FuzzMask(f *testing.F) {
	f.Add("see "+secret+" there", "see "+secret+" and "+secret[:5], uint64(0x0102030405), uint8(3), uint8(0))
	f.Add("c2VjcmV0 s3cret-Value%2F0815%2Bx s3cret", "\\u0073"+secret[1:], uint64(0xfffefdfc01), uint8(0), uint8(1))
	f.Add("s3cret-Value\n/0815+x", "x"+secret+secret+"\u00e9", uint64(7), uint8(200), uint8(2))
	f.Fuzz(func(t *testing.T, first, second string, cuts uint64, size, form uint8) {
		if !utf8.ValidString(first) || !utf8.ValidString(second) {
			return
		}
		pieces := func(index int, whole string) (parts []string) {
			for n := cuts | 1<<(8*index); len(whole) > 0; n = n>>5 | n<<59 {
				at := min(int(n&31)+1, len(whole))
				for at < len(whole) && whole[at]&0xc0 == 0x80 {
					at++
				}
				parts = append(parts, whole[:at])
				whole = whole[at:]
			}
			return parts
		}
		var in string
		for i, whole := range []string{first, second} {
			in += start(i, `{"type":"text","text":""}`)
			for n, p := range pieces(i, whole) {
				if form&1 > 0 && n%3 == 1 {
					in += ping
				}
				in += delta(i, `{"type":"text_delta","text":`+quoteAll(p)+`}`)
			}
			in += stop(i)
		}
		cfg := dialect.FilterConfig{Text: secrets(t), Opaque: secrets(t), RedactAll: form&2 > 0}
		whole, err := run(cfg, in, 0)
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := texts(t, whole)
		if want := masked(t, first) + masked(t, second); text != want {
			t.Errorf("the client reads %q, want %q", text, want)
		}
		if masked(t, first) == first && masked(t, second) == second && whole != in {
			t.Errorf("nothing was masked, and the stream changed:\n got %q\nwant %q", whole, in)
		}
		if split, err := run(cfg, in, int(size)+1); err != nil || split != whole {
			t.Errorf("chunks of %d: %v\n got %q\nwant %q", int(size)+1, err, split, whole)
		}
	})
}

func quoteAll(text string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text)
	return strings.TrimSuffix(b.String(), "\n")
}

// FuzzFilter holds for any bytes that the cut into chunks does not matter, and that what is not masked passes as it is.
func FuzzFilter(f *testing.F) {
	for _, stream := range hostile {
		f.Add([]byte(stream), uint8(0), uint8(0))
	}
	a, b := secret[:8], secret[8:]
	for _, stream := range []string{
		message(text(0, "see "+a, b, " there"), tool(1, "t", "Free", `{"x":"s3cret`, `"}`)),
		strings.ReplaceAll(message(text(0, "see "+a, "no"), text(1, a, b)), "\n", "\r\n"),
		message(start(0, `{"type":"text","text":""}`), start(1, `{"type":"text","text":""}`), textDelta(0, a), textDelta(1, "x"+a), ping, textDelta(0, b), stop(1), stop(0)),
		message(start(0, `{"type":"text","text":""}`), textDelta(0, a), tool(1, "t", "Ok", `{"a":1}`), textDelta(0, "x"), stop(0)),
		": " + secret + "\n\nid: " + secret + "\ndata: {\ndata: }\n\n",
		"\xef\xbb\xbfdata: {\"type\":\"error\",\"message\":\"" + secret + "\"}\r\rdata: x",
	} {
		for mode := range uint8(3) {
			f.Add([]byte(stream), mode, uint8(1))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, mode, size uint8) {
		var g gate
		cfg := dialect.FilterConfig{}
		if mode%3 == 2 {
			cfg = g.config(access.Tell)
		}
		cfg.Text, cfg.Opaque, cfg.RedactAll = secrets(t), secrets(t), mode%3 == 1
		in := string(stream)
		whole, err := run(cfg, in, 0)
		split, splitErr := run(cfg, in, int(size)+1)
		if split != whole || access.CodeOf(err) != access.CodeOf(splitErr) {
			t.Errorf("chunks of %d: %v\n got %q\nwant %q, %v", int(size)+1, splitErr, split, whole, err)
		}
		if strings.Contains(whole, secret) {
			t.Errorf("the secret is in %q", whole)
		}
		if mode%3 == 2 {
			g.check(t, in, whole)
			return
		}
		ended := strings.HasSuffix(in, "\n\n") || strings.HasSuffix(in, "\r\r")
		if err == nil && ended && !strings.Contains(in, "s3cret") && !strings.ContainsAny(in, `\%`) && !secrets(t).Contains(stream) && whole != in && !strings.Contains(in, "error") && !strings.Contains(whole, "[masked:") {
			t.Errorf("nothing was masked, and the stream changed:\n got %q\nwant %q", whole, in)
		}
	})
}
