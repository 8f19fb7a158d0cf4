package testkit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// turn is one answer of the model as it comes in, with the results of the
// tools that it started.
type turn struct {
	agent   *Agent
	blocks  []json.RawMessage // the complete blocks, as they go into the history
	results []any
	text    strings.Builder
	open    openBlock
}

// openBlock is the block between its start and its stop.
type openBlock struct {
	kind, id, name            string
	start                     json.RawMessage
	text, signature, jsonText strings.Builder
}

// streamEvent is the union of the stream's events, as far as they matter.
type streamEvent struct {
	Type  string          `json:"type"`
	Block json.RawMessage `json:"content_block"`
	Delta struct {
		Text      string `json:"text"`
		JSON      string `json:"partial_json"`
		Thinking  string `json:"thinking"`
		Signature string `json:"signature"`
	} `json:"delta"`
}

// readStream follows a stream to its message_stop and starts each tool at its
// content_block_stop.
func (t *turn) readStream(body io.Reader) error {
	reader := newEventReader(body)
	for {
		data, err := reader.next()
		if err != nil {
			return fmt.Errorf("agent: %w: %w", errCut, err)
		}
		var event streamEvent
		if err := json.Unmarshal(data, &event); err != nil {
			return fmt.Errorf("agent: an event of the stream is no JSON: %w", err)
		}
		switch event.Type {
		case "message_stop":
			return nil
		case "error":
			failure := &APIError{Message: "the stream ended with an error"}
			failure.fill(data)
			return failure
		case "content_block_start":
			err = t.startBlock(event.Block)
		case "content_block_delta":
			t.addDelta(event)
		case "content_block_stop":
			err = t.stopBlock()
		}
		if err != nil {
			return err
		}
	}
}

func (t *turn) startBlock(block json.RawMessage) error {
	var head struct{ Type, ID, Name string }
	if err := json.Unmarshal(block, &head); err != nil {
		return fmt.Errorf("agent: a block starts without a type: %w", err)
	}
	t.open = openBlock{kind: head.Type, id: head.ID, name: head.Name, start: block}
	return nil
}

func (t *turn) addDelta(event streamEvent) {
	t.open.text.WriteString(event.Delta.Text + event.Delta.Thinking)
	t.open.signature.WriteString(event.Delta.Signature)
	t.open.jsonText.WriteString(event.Delta.JSON)
	if event.Delta.Text != "" {
		t.text.WriteString(event.Delta.Text)
		t.agent.cfg.Observe(AgentEvent{Kind: AgentText, Text: event.Delta.Text})
	}
}

func (t *turn) stopBlock() error {
	open := &t.open
	switch open.kind {
	case "text":
		t.keep(map[string]any{"type": "text", "text": open.text.String()})
	case "thinking":
		t.keep(map[string]any{"type": "thinking", "thinking": open.text.String(), "signature": open.signature.String()})
	case "tool_use":
		input := open.jsonText.String()
		if input == "" {
			input = "{}"
		}
		return t.use(ToolUse{ID: open.id, Name: open.name, Input: input})
	default:
		t.blocks = append(t.blocks, open.start)
	}
	return nil
}

func (t *turn) keep(block map[string]any) {
	raw, err := json.Marshal(block)
	if err != nil {
		panic(fmt.Sprintf("testkit: a block that does not encode: %v", err))
	}
	t.blocks = append(t.blocks, raw)
}

// use runs one tool use and keeps both the use and its result.
func (t *turn) use(use ToolUse) error {
	if !json.Valid([]byte(use.Input)) {
		return fmt.Errorf("agent: the input of tool use %s (%s) is no JSON", use.ID, use.Name)
	}
	t.keep(map[string]any{"type": "tool_use", "id": use.ID, "name": use.Name, "input": json.RawMessage(use.Input)})
	observe := t.agent.cfg.Observe
	if use.Name == bashName {
		observe(AgentEvent{Kind: AgentToolStarted, Tool: use, Text: use.Input})
	}
	text, failed := t.agent.shell.use(use)
	observe(AgentEvent{Kind: AgentToolResult, Tool: use, Text: text, IsError: failed})
	t.results = append(t.results, map[string]any{
		"type": "tool_result", "tool_use_id": use.ID, "content": text, "is_error": failed,
	})
	return nil
}

// readWhole takes an answer without a stream.
func (t *turn) readWhole(body io.Reader) error {
	var message struct {
		Content []json.RawMessage `json:"content"`
	}
	if err := json.NewDecoder(body).Decode(&message); err != nil {
		return fmt.Errorf("agent: the answer is no JSON: %w", err)
	}
	for _, raw := range message.Content {
		var part Part
		if err := json.Unmarshal(raw, &part); err != nil {
			return fmt.Errorf("agent: a block of the answer: %w", err)
		}
		if part.Type == "tool_use" {
			if err := t.use(ToolUse{ID: part.ID, Name: part.Name, Input: string(part.Input)}); err != nil {
				return err
			}
			continue
		}
		t.blocks = append(t.blocks, raw)
		if part.Type == "text" {
			t.text.WriteString(part.Text)
			t.agent.cfg.Observe(AgentEvent{Kind: AgentText, Text: part.Text})
		}
	}
	return nil
}

// eventReader reads the data of server-sent events; lines end in LF, CRLF or
// CR alone (the WHATWG HTML standard, section 9.2.5).
type eventReader struct {
	in     *bufio.Reader
	skipLF bool
}

func newEventReader(r io.Reader) *eventReader { return &eventReader{in: bufio.NewReader(r)} }

// errTooLong is a line or an event of more than maxAnswer.
var errTooLong = errors.New("an event of the stream is too long")

// next is the data of the next event that has any.
func (e *eventReader) next() ([]byte, error) {
	var data []byte
	for {
		line, err := e.line()
		if err != nil {
			return nil, err
		}
		value, isData := bytes.CutPrefix(line, []byte("data:"))
		switch {
		case len(line) == 0 && len(data) > 0:
			return data[:len(data)-1], nil
		case isData && len(data)+len(value) > maxAnswer:
			return nil, errTooLong
		case isData:
			data = append(append(data, bytes.TrimPrefix(value, []byte(" "))...), '\n')
		}
	}
}

func (e *eventReader) line() ([]byte, error) {
	var line []byte
	for {
		c, err := e.in.ReadByte()
		if err != nil {
			return nil, err
		}
		skip := e.skipLF && c == '\n'
		e.skipLF = c == '\r'
		switch {
		case skip:
		case c == '\n' || c == '\r':
			return line, nil
		case len(line) == maxAnswer:
			return nil, errTooLong
		default:
			line = append(line, c)
		}
	}
}
