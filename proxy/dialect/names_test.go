package dialect_test

import (
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/dialect"
)

// Of several event lines a client takes the last one, but the job reads them all.
func TestFilterNamesTwice(t *testing.T) {
	for _, nl := range []string{"\n", "\r\n", "\r"} {
		in := strings.ReplaceAll("event: "+secret+"\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", "\n", nl)
		f := dialect.NewFilter(dialect.FilterConfig{Text: secrets(t), Opaque: secrets(t)})
		out, err := f.Write(nil, []byte(in))
		if err == nil {
			out, err = f.Close(out, true)
		}
		if err != nil || strings.Contains(string(out), secret) || !strings.Contains(string(out), "message_stop") {
			t.Errorf("%q became %q, %v", in, out, err)
		}
	}
}
