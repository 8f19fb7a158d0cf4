package proxy_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// event is one event of a stream as a client reads it.
type event struct {
	name, data string
	kind       string // the type in its data
	index      int
	text       string // of a text_delta
	input      string // of an input_json_delta
	block      struct{ Type, Name, ID, Text string }
	message    string // of an error
}

// events reads a stream as a client does.
func events(t testing.TB, body string) []event {
	t.Helper()
	var list []event
	body = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(body)
	for _, chunk := range strings.Split(body, "\n\n") {
		var e event
		for _, line := range strings.Split(chunk, "\n") {
			if name, ok := strings.CutPrefix(line, "event: "); ok {
				e.name = name
			}
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				e.data += data
			}
		}
		if e.data == "" {
			continue
		}
		var data struct {
			Type         string
			Index        int
			Delta        struct{ Text, Partial_json string }
			ContentBlock struct{ Type, Name, ID, Text string } `json:"content_block"`
			Error        struct{ Type, Message string }
		}
		if err := json.Unmarshal([]byte(e.data), &data); err != nil {
			t.Errorf("the event %q holds no JSON: %v: %s", e.name, err, e.data)
		}
		e.kind, e.index, e.text, e.input, e.block, e.message = data.Type, data.Index, data.Delta.Text, data.Delta.Partial_json, data.ContentBlock, data.Error.Message
		list = append(list, e)
	}
	return list
}
