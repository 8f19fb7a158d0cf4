package dialect_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/mask"
)

// agentBody is about what Claude Code sends: prose with escapes, two dozen tools with schemas, a history.
func agentBody() []byte {
	prose := strings.Repeat(`Use the tool with care.\n\nWhen the \"user\" asks, answer in one line; paths are absolute.\n`, 6)
	schema := `{"type":"object","properties":{"path":{"type":"string","description":"The file's absolute path"},"limit":{"type":"number"},"mode":{"enum":["a","b"]}},"required":["path"],"additionalProperties":false,"$schema":"http://json-schema.org/draft-07/schema#"}`
	var b strings.Builder
	b.WriteString(`{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":[{"type":"text","text":"` + prose + `"}]},{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"Read","input":{"path":"/a"}}]}],"system":[{"type":"text","text":"` + strings.Repeat(prose, 38) + `","cache_control":{"type":"ephemeral"}}],"tools":[`)
	for i := range 24 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"name":"Tool` + string(rune('A'+i)) + `","description":"` + prose + `","input_schema":` + schema + `}`)
	}
	b.WriteString(`],"metadata":{"user_id":"u"},"max_tokens":32000,"stream":true}`)
	return []byte(b.String())
}

func BenchmarkStrict(b *testing.B) {
	body := agentBody()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := dialect.Strict(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	body := agentBody()
	header := http.Header{"Anthropic-Beta": {"claude-code-20250219,interleaved-thinking-2025-05-14"}}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (dialect.Anthropic{}).Parse("POST", "/v1/messages", header, body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFilter feeds a stream of 200 text events in eight reads; ns/event is the cost of one.
func BenchmarkFilter(b *testing.B) {
	parts := make([]string, 200)
	for i := range parts {
		parts[i] = "some words of the answer" + []string{", ", ""}[i%2]
	}
	stream := []byte(messageWith("end_turn", text(0, parts...)))
	held := make([]mask.Secret, 0, 4)
	for _, s := range []string{"sk-ant-api03-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "jg_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG", "hunter2-hunter2", "ghp_0123456789abcdefghij0123456789abcdef"} {
		held = append(held, mask.Secret{Name: "held", Value: []byte(s)})
	}
	set, err := mask.Compile(mask.Config{Secrets: held, Key: []byte("k")})
	if err != nil {
		b.Fatal(err)
	}
	for name, cfg := range map[string]dialect.FilterConfig{
		"passed":            {},
		"judged":            rules(0),
		"masked":            {Text: set, Opaque: set},
		"judged and masked": {MayJudge: func(string) bool { return true }, Text: set, Opaque: set},
	} {
		b.Run(name, func(b *testing.B) {
			var out []byte
			b.ReportAllocs()
			for b.Loop() {
				f := dialect.NewFilter(cfg)
				step := len(stream)/8 + 1
				for i := 0; i < len(stream); i += step {
					if out, err = f.Write(out[:0], stream[i:min(i+step, len(stream))]); err != nil {
						b.Fatal(err)
					}
				}
				if out, err = f.Close(out[:0], true); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/200, "ns/event")
		})
	}
}
