package dialect_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/mask"
)

// ev is one event as the provider frames it.
func ev(name, data string) string { return "event: " + name + "\ndata: " + data + "\n\n" }

func start(index int, block string) string {
	return ev("content_block_start", fmt.Sprintf(`{"type":"content_block_start","index":%d,"content_block":%s}`, index, block))
}

func delta(index int, d string) string {
	return ev("content_block_delta", fmt.Sprintf(`{"type":"content_block_delta","index":%d,"delta":%s}`, index, d))
}

func stop(index int) string {
	return ev("content_block_stop", fmt.Sprintf(`{"type":"content_block_stop","index":%d}`, index))
}

func textDelta(index int, text string) string {
	return delta(index, `{"type":"text_delta","text":`+quote(text)+`}`)
}

func inputDelta(index int, part string) string {
	return delta(index, `{"type":"input_json_delta","partial_json":`+quote(part)+`}`)
}

func text(index int, parts ...string) string {
	out := start(index, `{"type":"text","text":""}`)
	for _, p := range parts {
		out += textDelta(index, p)
	}
	return out + stop(index)
}

func tool(index int, id, name string, parts ...string) string {
	out := start(index, fmt.Sprintf(`{"type":"tool_use","id":%s,"name":%s,"input":{}}`, quote(id), quote(name)))
	for _, p := range parts {
		out += inputDelta(index, p)
	}
	return out + stop(index)
}

// quote writes text as JSON as the provider does: nothing is escaped that need not be.
func quote(text string) string {
	r := strings.NewReplacer(`"`, `\"`, `\`, `\\`, "\n", `\n`, "\t", `\t`)
	return `"` + r.Replace(text) + `"`
}

const ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n"

func message(blocks ...string) string { return messageWith("tool_use", blocks...) }

func messageWith(stopReason string, blocks ...string) string {
	return ev("message_start", `{"type":"message_start","message":{"model":"claude-sonnet-4-5","id":"msg_01","type":"message",`+
		`"role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":12,`+
		`"cache_creation_input_tokens":3,"cache_read_input_tokens":4,"output_tokens":1}}}`) +
		strings.Join(blocks, "") +
		ev("message_delta", `{"type":"message_delta","delta":{"stop_reason":`+strconv.Quote(stopReason)+`,"stop_sequence":null},"usage":{"output_tokens":89}}`) +
		ev("message_stop", `{"type":"message_stop"}`)
}

// run feeds a stream in chunks of a size; 0 is all at once.
func run(cfg dialect.FilterConfig, stream string, size int) (string, error) {
	f := dialect.NewFilter(cfg)
	var out []byte
	var err error
	if size == 0 {
		size = max(len(stream), 1)
	}
	for i := 0; i < len(stream) && err == nil; i += size {
		out, err = f.Write(out, []byte(stream[i:min(i+size, len(stream))]))
	}
	if err != nil {
		return string(out), err
	}
	out, err = f.Close(out, true)
	return string(out), err
}

// rules denies the tools that it names and allows all others.
func rules(form access.OnDeny, denied ...string) dialect.FilterConfig {
	return dialect.FilterConfig{
		MayJudge: func(string) bool { return true },
		Judge: func(use access.ToolUse) dialect.Verdict {
			for _, name := range denied {
				if use.Name == name {
					return dialect.Verdict{OnDeny: form, Rule: "no-" + strings.ToLower(name), Reason: "Jobgate: " + name + " is denied"}
				}
			}
			return dialect.Verdict{Allow: true}
		},
	}
}

const secret = "s3cret-Value/0815+x"

func secrets(t testing.TB) *mask.Set {
	t.Helper()
	set, err := mask.Compile(mask.Config{Secrets: []mask.Secret{{Name: "key", Value: []byte(secret)}}, Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestPassesByteForByte(t *testing.T) {
	stream := ": hello\n\n" + message(text(0, "a", "b s3c", "ret", "\n"), ping, tool(1, "toolu_1", "Bash", "", `{"command":`, `"ls"}`)) + "data: [DONE]\n\n"
	for name, cfg := range map[string]dialect.FilterConfig{
		"nothing":   {},
		"no judged": {MayJudge: func(string) bool { return false }},
		"masked":    {Text: secrets(t), Opaque: secrets(t)},
		"redacted":  {Text: secrets(t), RedactAll: true},
	} {
		for _, end := range []string{"\n", "\r", "\r\n"} {
			in := strings.ReplaceAll(stream, "\n", end)
			for _, size := range []int{0, 1, 2, 3, 7, 64} {
				if out, err := run(cfg, in, size); err != nil || out != in {
					t.Errorf("%s, line end %q, chunks of %d: %v\n got %q\nwant %q", name, end, size, err, out, in)
				}
			}
		}
	}
}

func TestTell(t *testing.T) {
	in := message(text(0, "I will."), tool(1, "toolu_1", "Bash", `{"command":`, `"ls"}`), tool(2, "toolu_2", "Read", `{"p":1}`))
	want := message(text(0, "I will."), text(1, "Jobgate: Bash is denied"), tool(2, "toolu_1", "Bash__denied__no-bash", "{}"), tool(3, "toolu_2", "Read", `{"p":1}`))
	for _, size := range []int{0, 1, 5} {
		out, err := run(rules(access.Tell, "Bash"), in, size)
		if err != nil || out != want {
			t.Errorf("chunks of %d: %v\n got %s\nwant %s", size, err, out, want)
		}
	}
}

func TestMaskedAcrossDeltas(t *testing.T) {
	for i := range len(secret) {
		in := message(text(0, "see ", secret[:i], secret[i:], " end"))
		out, err := run(dialect.FilterConfig{Text: secrets(t)}, in, 0)
		if err != nil || strings.Contains(out, secret[:i]+secret[i:]) || !strings.Contains(out, "[masked:key:") {
			t.Errorf("cut at %d: %v\n%s", i, err, out)
		}
	}
}
