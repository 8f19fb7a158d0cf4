package dialect_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

// TestRunFrames is TestRuns with events that are framed in every way that has its data where a delta has it: other line
// ends, further lines before and behind, blanks behind the data; and with little memory.
func TestRunFrames(t *testing.T) {
	const data = `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"TEXT"}}`
	frames := []string{
		"event: content_block_delta\ndata: " + data + "\n\n",
		"event: content_block_delta\rdata: " + data + "\r\r",
		"event:content_block_delta\r\ndata: " + data + "\r\n\r\n",
		"event: content_block_delta\ndata: " + data + "\n\r",
		"event: content_block_delta\ndata: " + data + "\r\r\n",
		"event: content_block_delta\ndata: " + data + "\nid: 7\n\n",
		"event: content_block_delta\ndata: " + data + "\n: " + secret + "\n\n",
		"event: content_block_delta\ndata: " + data + "\n: " + secret[:8] + "\n\n",
		"event: content_block_delta\ndata: " + data + "\nevent: content_block_delta\n\n",
		"event: content_block_delta\ndata: " + data + "\nevent: ping\n\n",
		"event: content_block_delta\ndata: " + data + "\nData: {}\n\n",
		"event: content_block_delta\ndata: " + data + "\ndata:  \n\n",
		"event: content_block_delta\ndata: " + data + " \t \n\n",
		"event: content_block_delta\ndata: " + strings.Replace(data, "}}", "} }", 1) + "\n\n",
		": 34567890123456789012345\ndata: " + data + "\n\n",
		": " + secret + strings.Repeat(".", max(0, 24-len(secret))) + "\ndata: " + data + "\n\n",
		"event: content_block_delta\ndata: " + strings.Replace(data, "text_delta", "thinking_delta", 1) + "\n\n",
		"event: content_block_delta\ndata: " + strings.Replace(data, `"text_delta","text"`, `"input_json_delta","partial_json"`, 1) + "\n\n",
	}
	words := []string{" word", "a", "", `\n`, `\"x\"`, `\u0041`, "grün", "\xff", "\xed\xa0\x80", "\x7f", secret[:8], secret[8:], secret, strings.Repeat("z", 300),
		`"}}`, `\"}}\n\nevent: x`, "\r", "\n", "\u2028"}
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 600 {
		var in strings.Builder
		in.WriteString(ev("message_start", `{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}`))
		in.WriteString(start(0, `{"type":"text","text":""}`))
		for range 1 + random.IntN(8) {
			frame := frames[random.IntN(len(frames))]
			for range 1 + random.IntN(5) {
				in.WriteString(strings.Replace(frame, "TEXT", words[random.IntN(len(words))], 1))
			}
		}
		in.WriteString(stop(0) + ev("message_stop", `{"type":"message_stop"}`))
		for mode := range 3 {
			for _, held := range []int{0, 200, 600} {
				config := func() dialect.FilterConfig {
					cfg := dialect.FilterConfig{}
					if mode == 2 {
						cfg = new(gate).config(access.Tell)
					}
					cfg.Text, cfg.Opaque, cfg.RedactAll, cfg.MaxHeld = secrets(t), secrets(t), mode == 1, held
					return cfg
				}
				want, wantErr := run(config(), in.String(), 1)
				for _, size := range []int{0, 97, 400} {
					got, err := run(config(), in.String(), size)
					same := got == want || err != nil && (strings.HasPrefix(got, want) || strings.HasPrefix(want, got))
					if !same || access.CodeOf(err) != access.CodeOf(wantErr) {
						t.Fatalf("round %d, mode %d, %d held, chunks of %d: %v\n got %q\nwant %q, %v\n  in %q", round, mode, held, size, err, got, want, wantErr, in.String())
					}
				}
				if strings.Contains(want, secret) {
					t.Fatalf("round %d: the secret is in %q", round, want)
				}
			}
		}
	}
}
