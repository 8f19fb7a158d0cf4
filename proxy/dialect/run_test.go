package dialect_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

// TestRuns holds that events which are read by the form of the one before come out as those that are read for themselves:
// in chunks of one byte each of them is.
func TestRuns(t *testing.T) {
	words := []string{" word", "a", "", `\n`, `\"x\"`, `\\`, `\/`, `\u0041`, `\ud83d\ude00`, "grün", "日本", "\xff", `\x`, "\t", secret[:8], secret[8:], secret[:1], secret,
		`s3cret`, `"`, `"},"x":{"y":"`, strings.Repeat("z", 300)}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func() string { return words[random.IntN(len(words))] }
	plain := func(index int) string {
		return ev("content_block_delta", `{"type":"content_block_delta","index":`+string(rune('0'+index))+`,"delta":{"type":"text_delta","text":"`+pick()+`"}}`)
	}
	for round := range 250 {
		var in strings.Builder
		next := 0
		in.WriteString(ev("message_start", `{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}`))
		for range 1 + random.IntN(3) {
			if random.IntN(3) == 0 {
				in.WriteString(tool(next, "t", []string{"Ok", "Evil", "Free"}[random.IntN(3)], `{"a":1}`))
				next++
			}
			in.WriteString(start(next, `{"type":"text","text":""}`))
			for range random.IntN(20) {
				switch random.IntN(24) {
				case 0:
					in.WriteString(ping)
				case 1:
					in.WriteString(plain(random.IntN(4)))
				case 2:
					in.WriteString(": comment\n\n")
				case 3:
					in.WriteString("event: content_block_delta\ndata: \n\n")
				case 4:
					in.WriteString(strings.ReplaceAll(plain(next), "\n", "\r\n"))
				case 5:
					in.WriteString(delta(next, `{"type":"thinking_delta","thinking":"x"}`))
				default:
					for range 1 + random.IntN(4) {
						in.WriteString(plain(next))
					}
				}
			}
			in.WriteString(stop(next))
			next++
		}
		in.WriteString(ev("message_stop", `{"type":"message_stop"}`))
		for mode := range 3 {
			config := func() dialect.FilterConfig {
				cfg := dialect.FilterConfig{}
				if mode == 2 {
					cfg = new(gate).config(access.Tell)
				}
				cfg.Text, cfg.Opaque, cfg.RedactAll = secrets(t), secrets(t), mode == 1
				return cfg
			}
			want, wantErr := run(config(), in.String(), 1)
			for _, size := range []int{0, 97, 400, 1000} {
				got, err := run(config(), in.String(), size)
				same := got == want || err != nil && (strings.HasPrefix(got, want) || strings.HasPrefix(want, got))
				if !same || access.CodeOf(err) != access.CodeOf(wantErr) {
					t.Fatalf("round %d, mode %d, chunks of %d: %v\n got %q\nwant %q, %v\n  in %q", round, mode, size, err, got, want, wantErr, in.String())
				}
			}
			if strings.Contains(want, secret) {
				t.Fatalf("round %d: the secret is in %q", round, want)
			}
		}
	}
}
