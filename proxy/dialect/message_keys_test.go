package dialect_test

import (
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/mask"
)

// A key cannot be masked for the job: it ends the answer, as deep as it may stand and however it is written.
func TestFilterMessageKeys(t *testing.T) {
	const secret = "sk-ant-held-0123456789abcdef"
	set, err := mask.Compile(mask.Config{Secrets: []mask.Secret{{Name: "anthropic", Value: []byte(secret)}}})
	if err != nil {
		t.Fatal(err)
	}
	escaped := `\u0073` + secret[1:]
	for name, body := range map[string]string{
		"of the message":          `{"type":"message","` + secret + `":1,"content":[]}`,
		"of the message, escaped": `{"type":"message","` + escaped + `":1,"content":[]}`,
		"of the usage":            `{"type":"message","usage":{"` + secret + `":1},"content":[]}`,
		"of a block":              `{"type":"message","content":[{"type":"text","` + secret + `":"x","text":"y"}]}`,
		"of a block, escaped":     `{"type":"message","content":[{"type":"text","` + escaped + `":"x","text":"y"}]}`,
		"of no message":           `{"` + secret + `":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := dialect.Anthropic{}.FilterMessage(nil, []byte(body), dialect.FilterConfig{Text: set, Opaque: set})
			if err == nil || strings.Contains(string(out), secret) {
				t.Errorf("the job got %q, %v; want an error", out, err)
			}
			out, _, err = dialect.Anthropic{}.FilterMessage(nil, []byte(body), dialect.FilterConfig{Text: set, Opaque: set, RedactAll: true})
			if err != nil || set.Contains(out) || strings.Contains(string(out), escaped) {
				t.Errorf("the record got %q, %v; want it masked", out, err)
			}
		})
	}
}
