package dialect_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/mask"
)

// A secret of digits may come back as a number, which cannot hold a placeholder.
func TestFilterNumbers(t *testing.T) {
	const digits = "8412907356123"
	set, err := mask.Compile(mask.Config{Secrets: []mask.Secret{{Name: "pin", Value: []byte(digits)}}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := dialect.FilterConfig{Text: set, Opaque: set}
	body := []byte(`{"content":[],"error":{"n":[-` + digits + `]}}`)
	if out, _, err := (dialect.Anthropic{}).FilterMessage(nil, body, cfg); err == nil {
		t.Errorf("a whole answer passed as %s", out)
	}
	if out, n := (dialect.Anthropic{}).FilterError(nil, body, set); n != 1 || strings.Contains(string(out), digits) || !json.Valid(out) {
		t.Errorf("an error passed as %s, %d places", out, n)
	}
	event := []byte("event: message_stop\ndata: {\"type\":\"message_stop\",\"n\":" + digits + "}\n\n")
	if out, err := dialect.NewFilter(cfg).Write(nil, event); err == nil {
		t.Errorf("an event passed as %s", out)
	}
	cfg.RedactAll = true
	if out, err := dialect.NewFilter(cfg).Write(nil, event); err != nil || strings.Contains(string(out), digits) || len(out) == 0 {
		t.Errorf("the record got %s, %v", out, err)
	}
}
