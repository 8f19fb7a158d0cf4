package dialect_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

// client is a lax reader of a stream, as there may be one somewhere: it skips what it cannot read, takes the last of
// duplicate keys, and differs from others in the line ends that it knows, in what tells it the type of an event, and in
// what it does with an event that has no end.
type client struct {
	lineFeedOnly bool
	byName       bool
	atEnd        bool
	lax          bool // about names of fields, and it keeps the first name of an event
	sdk          bool // as @anthropic-ai/sdk for TypeScript reads
}

// ran is a tool use that the client would run.
type ran struct{ name, input string }

func (c client) lines(stream string) []string {
	const mark = "\xef\xbb\xbf"
	stream = strings.TrimPrefix(stream, mark)
	if !c.lineFeedOnly {
		stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	}
	lines := strings.Split(stream, "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
		if c.sdk {
			lines[i] = strings.TrimPrefix(lines[i], mark)
		}
	}
	return lines
}

func (c client) read(stream string) (all []ran) {
	type open struct {
		name, given, deltas string
	}
	blocks := map[int]*open{}
	started := 0
	find := func(index any) int {
		n, _ := index.(float64)
		if text, ok := index.(string); ok {
			n, _ = strconv.ParseFloat(text, 64)
		}
		if n < 0 && c.sdk {
			return started + int(n)
		}
		return int(n)
	}
	event := func(name string, data []string) {
		var m map[string]any
		if len(data) == 0 || c.sdk && name == "" || json.Unmarshal([]byte(strings.Join(data, "\n")), &m) != nil {
			return
		}
		kind, _ := m["type"].(string)
		if c.byName {
			kind = name
		}
		index := find(m["index"])
		switch kind {
		case "message_start":
			message, _ := m["message"].(map[string]any)
			content, _ := message["content"].([]any)
			for _, b := range content {
				if name, given, ok := toolOf(b); ok {
					all = append(all, ran{name, given})
				}
			}
		case "content_block_start":
			if c.sdk {
				index = started
			}
			started++
			if name, given, ok := toolOf(m["content_block"]); ok {
				blocks[index] = &open{name: name, given: given}
			}
		case "content_block_delta":
			d, _ := m["delta"].(map[string]any)
			part, _ := d["partial_json"].(string)
			if b := blocks[index]; b != nil {
				b.deltas += part
			}
		case "content_block_stop":
			b := blocks[index]
			if b == nil {
				return
			}
			delete(blocks, index)
			var input any
			if b.deltas == "" {
				all = append(all, ran{b.name, b.given})
			} else if json.Unmarshal([]byte(b.deltas), &input) == nil {
				all = append(all, ran{b.name, canonical(input)})
			}
		}
	}
	var name string
	var data []string
	for _, line := range c.lines(stream) {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			event(name, data)
			name, data = "", nil
		case c.lax && strings.EqualFold(strings.TrimSpace(field), "event") && name == "":
			name = strings.TrimSpace(value)
		case c.lax && strings.EqualFold(strings.TrimSpace(field), "data"):
			data = append(data, value)
		case field == "event" && !c.lax:
			name = value
		case field == "data":
			data = append(data, value)
		}
	}
	if c.atEnd {
		event(name, data)
	}
	return all
}

func toolOf(b any) (name, input string, ok bool) {
	m, _ := b.(map[string]any)
	kind, _ := m["type"].(string)
	name, _ = m["name"].(string)
	if !strings.Contains(kind, "tool_use") || kind == "server_tool_use" || kind == "mcp_tool_use" {
		return "", "", false
	}
	return name, canonical(m["input"]), true
}

func canonical(v any) string {
	if v == nil || v == "" {
		v = map[string]any{}
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// clients are all kinds of it.
func clients() (all []client) {
	for i := range 16 {
		all = append(all, client{lineFeedOnly: i&1 > 0, byName: i&2 > 0, atEnd: i&4 > 0, lax: i&8 > 0})
	}
	return append(all, client{sdk: true}, client{sdk: true, atEnd: true})
}

// gate is a judge that allows the tool Ok and remembers what it allowed; the tool Free is not judged.
type gate struct{ allowed map[ran]bool }

func (g *gate) config(form access.OnDeny) dialect.FilterConfig {
	g.allowed = map[ran]bool{}
	return dialect.FilterConfig{
		MayJudge: func(name string) bool { return name != "Free" },
		MaxHeld:  4096,
		Judge: func(use access.ToolUse) dialect.Verdict {
			if use.Name != "Ok" {
				return dialect.Verdict{OnDeny: form, Rule: "r"}
			}
			var input any
			_ = json.Unmarshal(use.Input, &input)
			g.allowed[ran{use.Name, canonical(input)}] = true
			return dialect.Verdict{Allow: true}
		},
	}
}

func (g *gate) check(t *testing.T, stream, out string) {
	t.Helper()
	for _, c := range clients() {
		for _, use := range c.read(out) {
			switch {
			case use.name == "Free", g.allowed[use], strings.HasSuffix(use.name, "__denied__r") && use.input == "{}",
				strings.HasSuffix(use.name, "__denied__unreadable") && use.input == "{}":
			default:
				t.Errorf("%+v would run %+v, which nobody allowed\n in %q\nout %q", c, use, stream, out)
			}
		}
	}
}

const evil = `{"type":"tool_use","id":"t","name":"Evil","input":{}}`

// hostile are streams that clients and judges could read differently, or that hide a tool use.
var hostile = map[string]string{
	"plain":                      message(tool(0, "t", "Evil", `{"a":1}`)),
	"allowed":                    message(tool(0, "t", "Ok", `{"a":`, `1}`), tool(1, "u", "Evil", `{}`), tool(2, "v", "Ok", `{}`)),
	"duplicate input keys":       message(tool(0, "t", "Ok", `{"a":1,"a":2}`)),
	"escaped duplicate":          message(tool(0, "t", "Ok", `{"a":1,"\u0061":2}`)),
	"truncated input":            message(tool(0, "t", "Ok", `{"a":1`)),
	"two inputs in one":          message(tool(0, "t", "Ok", `{"a":1}`, `{"a":2}`)),
	"input is no object":         message(tool(0, "t", "Ok", `[1]`)),
	"input in start":             message(start(0, `{"type":"tool_use","id":"t","name":"Ok","input":{"a":1}}`), stop(0)),
	"input in start and deltas":  message(start(0, `{"type":"tool_use","id":"t","name":"Ok","input":{"a":1}}`), inputDelta(0, `{"a":2}`), stop(0)),
	"name twice":                 message(start(0, `{"type":"tool_use","id":"t","name":"Free","name":"Evil","input":{}}`), stop(0)),
	"name twice, escaped":        message(start(0, `{"type":"tool_use","id":"t","name":"Free","n\u0061me":"Evil","input":{}}`), stop(0)),
	"type twice":                 message(start(0, `{"type":"text","type":"tool_use","id":"t","name":"Evil","input":{}}`), stop(0)),
	"type twice in the event":    message(ev("content_block_start", `{"type":"ping","type":"content_block_start","index":0,"content_block":`+evil+`}`), stop(0)),
	"block twice":                message(ev("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text"},"content_block":`+evil+`}`), stop(0)),
	"started twice":              message(start(0, `{"type":"tool_use","id":"t","name":"Free","input":{}}`), start(0, evil), stop(0)),
	"index used again":           message(text(0, "x"), start(0, evil), stop(0)),
	"text gets input":            message(start(0, `{"type":"text","text":""}`), inputDelta(0, `{"a":1}`), stop(0)),
	"names differ":               message(ev("ping", `{"type":"content_block_start","index":0,"content_block":`+evil+`}`), stop(0)),
	"names differ the other way": message(ev("content_block_start", `{"type":"ping","index":0,"content_block":`+evil+`}`), stop(0)),
	"no names":                   strings.ReplaceAll(message(tool(0, "t", "Evil", `{"a":1}`)), "event: content_block", "id: content_block"),
	"no type in data":            message(ev("content_block_start", `{"index":0,"content_block":`+evil+`}`), stop(0)),
	"name with spaces":           message("event:  content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":"+evil+"}\n\n", stop(0)),
	"two names":                  message("event: content_block_start\nevent: ping\ndata: {\"type\":\"ping\",\"index\":0,\"content_block\":"+evil+"}\n\n", stop(0)),
	"lone CR hides data":         message("event: content_block_start\ndata: \r{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"+evil+"}\n\n", stop(0)),
	"lone CR in a comment":       message(": x\revent: content_block_start\rdata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":"+evil+"}\r\r", stop(0)),
	"data over lines":            message("event: content_block_start\ndata: {\"type\":\ndata: \"content_block_start\",\"index\":0,\ndata: \"content_block\":"+evil+"}\n\n", inputDelta(0, "{}"), stop(0)),
	"content in message_start":   ev("message_start", `{"type":"message_start","message":{"content":[`+evil+`]}}`),
	"second message_start":       message() + ev("message_start", `{"type":"message_start","message":{"content":[`+evil+`]}}`),
	"half a surrogate":           message(start(0, `{"type":"tool_use","id":"\ud800","name":"Evil","input":{}}`), stop(0)),
	"broken utf-8":               message(start(0, "{\"type\":\"tool_use\",\"id\":\"\xff\",\"name\":\"Evil\",\"input\":{}}"), stop(0)),
	"unknown kind of tool use":   message(start(0, `{"type":"remote_tool_use_v2","id":"t","name":"Evil","input":{}}`), stop(0)),
	"interleaved":                message(start(0, evil), start(1, `{"type":"tool_use","id":"u","name":"Ok","input":{}}`), inputDelta(1, `{"b":`), inputDelta(0, `{}`), inputDelta(1, `2}`), stop(1), stop(0)),
	"interleaved with text":      message(start(0, evil), text(1, "x"), stop(0), text(2, "y")),
	"never stopped":              message(start(0, evil), inputDelta(0, `{}`)),
	"stopped twice":              message(tool(0, "t", "Evil", "{}"), stop(0)),
	"stop before start":          message(stop(0), start(0, evil), stop(0)),
	"other parts":                message(start(0, evil), delta(0, `{"type":"name_delta","name":"Free"}`), stop(0)),
	"ends in the last event":     strings.TrimSuffix(start(0, evil)+stop(0), "\n\n"),
	"ends before the blank line": strings.TrimSuffix(start(0, evil)+stop(0), "\n"),
	"large":                      message(tool(0, "t", "Ok", `{"a":"`, strings.Repeat("x", 5000), `"}`), tool(1, "u", "Ok", `{}`)),
	"both names differ":          message(ev("content_block_start", `{"type":"ping","index":0,"content_block":`+evil+`}`), ev("content_block_stop", `{"type":"ping","index":0}`)),
	"spaces around names":        message(ev(" content_block_start", `{"type":"ping","index":0,"content_block":`+evil+`}`), ev(" content_block_stop", `{"type":"ping","index":0}`)),
	"two names each":             message("event: content_block_start\n"+ev("ping", `{"type":"ping","index":0,"content_block":`+evil+`}`), "event: content_block_stop\n"+ev("ping", `{"type":"ping","index":0}`)),
	"lone CR in an object":       message("data: {\"type\":\"ping\"\r,\"type\":\"content_block_start\",\"index\":0,\"content_block\":"+evil+"\ndata: }\n\n", "data: {\"type\":\"ping\"\r,\"type\":\"content_block_stop\",\"index\":0\ndata: }\n\n"),
	"data in capitals":           message("data: {\"type\":\"ping\"\nDATA: ,\"type\":\"content_block_start\",\"index\":0,\"content_block\":"+evil+"\ndata: }\n\n", "data: {\"type\":\"ping\"\nDATA: ,\"type\":\"content_block_stop\",\"index\":0\ndata: }\n\n"),
	"name in capitals":           message("EVENT: content_block_start\n"+ev("ping", `{"type":"ping","index":0,"content_block":`+evil+`}`), "EVENT: content_block_stop\n"+ev("ping", `{"type":"ping","index":0}`)),
	"a gap":                      message(start(1, `{"type":"tool_use","id":"f","name":"Free","input":{}}`), tool(2, "t", "Ok", `{"a":1}`), inputDelta(1, `{"a":2}`), stop(1)),
	"deltas for the one before":  message(start(1, `{"type":"tool_use","id":"t","name":"Ok","input":{}}`), inputDelta(1, `{"a":1}`), stop(1), start(2, `{"type":"tool_use","id":"f","name":"Free","input":{}}`), inputDelta(2, `{"a":2}`), stop(2)),
	"index as text":              message(ev("content_block_start", `{"type":"content_block_start","index":"0","content_block":`+evil+`}`), ev("content_block_stop", `{"type":"content_block_stop","index":"0"}`)),
	"index below zero":           message(ev("content_block_start", `{"type":"content_block_start","index":-1,"content_block":`+evil+`}`), ev("content_block_stop", `{"type":"content_block_stop","index":-1}`)),
	"mark before a line":         message("\xef\xbb\xbfevent: content_block_start\nevent: ping\n\xef\xbb\xbfdata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":"+evil+"}\n\n", "\xef\xbb\xbfevent: content_block_stop\n\xef\xbb\xbfdata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"),
	"mark as a blank line":       message("event: content_block_start\n\xef\xbb\xbfdata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":"+evil+"}\n\xef\xbb\xbf\n\n", stop(0)),
	"mixed case fields":          message("Event: content_block_start\nData: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":"+evil+"}\n\n", stop(0)),
	"byte order mark":            "\xef\xbb\xbf" + message(tool(0, "t", "Evil", `{}`)),
	"whitespace in data":         message("event: content_block_start\ndata:\t{ \"type\" : \"content_block_start\" , \"index\" : 0 , \"content_block\" : "+evil+" }\n\n", stop(0)),
	"error, then more":           ev("error", `{"type":"error","error":{"type":"overloaded_error","message":"x"}}`) + message(tool(0, "t", "Evil", `{}`)),
}

func TestNoClientRunsWhatIsNotAllowed(t *testing.T) {
	for name, stream := range hostile {
		for _, form := range []access.OnDeny{access.Tell, access.Stop, access.Fail} {
			for _, end := range []string{"\n", "\r", "\r\n"} {
				in := stream
				if !strings.Contains(in, "\r") {
					in = strings.ReplaceAll(in, "\n", end)
				}
				var g gate
				whole, wholeErr := run(g.config(form), in, 0)
				t.Run(name, func(t *testing.T) { g.check(t, in, whole) })
				for _, size := range []int{1, 2, 3, 17} {
					got, err := run(g.config(form), in, size)
					if got != whole || access.CodeOf(err) != access.CodeOf(wholeErr) {
						t.Errorf("%s, %s, chunks of %d: %v\n got %q\nwant %q", name, form, size, err, got, whole)
					}
				}
			}
		}
	}
}

func FuzzJudge(f *testing.F) {
	for _, stream := range hostile {
		f.Add([]byte(stream), uint8(0), uint8(7))
	}
	f.Fuzz(func(t *testing.T, stream []byte, form, size uint8) {
		var g gate
		on := access.OnDeny(form % 3)
		out, err := run(g.config(on), string(stream), 0)
		g.check(t, string(stream), out)
		split, splitErr := run(g.config(on), string(stream), int(size)+1)
		if split != out || access.CodeOf(err) != access.CodeOf(splitErr) {
			t.Errorf("chunks of %d: %v\n got %q\nwant %q, %v", int(size)+1, splitErr, split, out, err)
		}
	})
}
