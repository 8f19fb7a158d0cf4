package dialect_test

import (
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

// TestBlocksThatComeAgain cuts a secret over the end of a block: a client that puts both halves together reads it.
func TestBlocksThatComeAgain(t *testing.T) {
	a, b := secret[:8], secret[8:]
	begin := start(0, `{"type":"text","text":""}`)
	for name, stream := range map[string]string{
		"a delta after the stop":                begin + textDelta(0, a) + stop(0) + textDelta(0, b),
		"a second start":                        begin + textDelta(0, a) + begin + textDelta(0, b) + stop(0),
		"a second start after the stop":         begin + textDelta(0, a) + stop(0) + begin + textDelta(0, b) + stop(0),
		"deltas alone, and one after the stop":  textDelta(0, a) + stop(0) + textDelta(0, b),
		"a delta of an earlier block":           begin + textDelta(0, a) + stop(0) + text(1, "x") + textDelta(0, b),
		"deltas alone, and a start of the same": textDelta(0, a) + begin + textDelta(0, b) + stop(0),
	} {
		for _, size := range []int{0, 1, 50} {
			out, err := run(dialect.FilterConfig{Text: secrets(t), Opaque: secrets(t)}, stream, size)
			if access.CodeOf(err) != access.CodeDenied || strings.Contains(out, b) {
				t.Errorf("%s, chunks of %d: %v, %q", name, size, err, out)
			}
		}
	}
}
