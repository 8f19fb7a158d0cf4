package dialect_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

// Work grows with the input, not with its square: each of these would take minutes otherwise.
func TestWorkIsLinear(t *testing.T) {
	const n = 1 << 20
	var object strings.Builder
	object.WriteByte('{')
	for i := range n / 8 {
		object.WriteString(`"` + strconv.Itoa(i) + `":0,`)
	}
	object.WriteString(`"x":0}`)
	if err := dialect.Strict([]byte(object.String())); err != nil {
		t.Error(err)
	}
	for name, in := range map[string]string{
		"lines of CR":   strings.Repeat(":\r", n/2),
		"blank lines":   strings.Repeat("\n", n/16),
		"one long line": textDelta(0, strings.Repeat("words ", n/6)),
		"data lines":    "data: {\n" + strings.Repeat("data: \n", n/8) + "data: }\n\n",
	} {
		for _, cfg := range []dialect.FilterConfig{{}, {Text: secrets(t), Opaque: secrets(t)}} {
			size := 0
			if name == "one long line" {
				size = 1
			}
			if out, err := run(cfg, in, size); err != nil || out != in {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestEventsAreBounded(t *testing.T) {
	f := dialect.NewFilter(dialect.FilterConfig{})
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	for range 32 {
		if _, err := f.Write(nil, chunk); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Write(nil, chunk); access.CodeOf(err) != access.CodeTooLarge {
		t.Errorf("Write = %v, want %s", err, access.CodeTooLarge)
	}
}

func TestHeldIsBounded(t *testing.T) {
	cfg := rules(access.Tell)
	cfg.MaxHeld = 1000
	if _, err := run(cfg, start(0, evil)+strings.Repeat(text(1, "x"), 20), 0); access.CodeOf(err) != access.CodeTooLarge {
		t.Errorf("behind a held block: %v, want %s", err, access.CodeTooLarge)
	}
	pending := dialect.FilterConfig{Text: secrets(t), MaxHeld: 1000}
	in := start(0, `{"type":"text","text":""}`) + textDelta(0, secret[:4]) + strings.Repeat(ping, 2000)
	if out, err := run(pending, in, 0); err == nil && out != in {
		t.Errorf("behind pending text: %d bytes for %d", len(out), len(in))
	} else if err != nil && access.CodeOf(err) != access.CodeTooLarge {
		t.Errorf("behind pending text: %v", err)
	}
	var many strings.Builder
	for i := range 100 {
		many.WriteString(start(i, `{"type":"text","text":""}`))
	}
	if _, err := run(rules(access.Tell), many.String(), 0); access.CodeOf(err) != access.CodeTooLarge {
		t.Errorf("open blocks: %v, want %s", err, access.CodeTooLarge)
	}
}

func TestMaxHeldOfAStart(t *testing.T) {
	cfg := rules(access.Tell)
	cfg.MaxHeld = 200
	in := start(0, `{"type":"tool_use","id":"t","name":"Bash","input":{"a":"`+strings.Repeat("x", 300)+`"}}`) + stop(0)
	got, err := run(cfg, message(in), 0)
	if err != nil || !strings.Contains(got, "Bash__denied__unreadable") {
		t.Errorf("%v %s", err, got)
	}
}
