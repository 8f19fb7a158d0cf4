package testkit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// defaultTextSize is about what Anthropic puts into one delta.
const defaultTextSize = 24

// frame is one server-sent event.
type frame struct {
	name  string
	index int // of the block, or -1
	data  string
}

// frames lays out a whole answer in Anthropic's framing: message_start, the
// blocks one after the other with a ping after the first start, message_delta,
// message_stop.
func (r Response) frames(req Request, messageID string) []frame {
	all := []frame{{"message_start", -1, fmt.Sprintf(`{"type":"message_start","message":%s}`, r.head(req, messageID))}}
	for n, block := range r.Blocks {
		all = append(all, blockFrames(block, n, *r.Pacing)...)
	}
	if len(all) > 1 {
		ping := frame{"ping", -1, `{"type": "ping"}`}
		all = append(all[:2:2], append([]frame{ping}, all[2:]...)...)
	}
	return append(all,
		frame{"message_delta", -1, fmt.Sprintf(
			`{"type":"message_delta","delta":{"stop_reason":%s,"stop_sequence":null},"usage":{"input_tokens":%d,`+
				`"cache_creation_input_tokens":%d,"cache_read_input_tokens":%d,"output_tokens":%d}}`,
			quote(r.StopReason), r.Usage.InputTokens, r.Usage.CacheCreationTokens, r.Usage.CacheReadTokens,
			r.Usage.OutputTokens)},
		frame{"message_stop", -1, `{"type":"message_stop"}`})
}

// head is the message as message_start shows it: without content.
func (r Response) head(req Request, messageID string) string {
	return fmt.Sprintf(`{"model":%s,"id":%s,"type":"message","role":"assistant","content":[],"stop_reason":null,`+
		`"stop_sequence":null,"usage":%s}`, quote(req.Body.Model), quote(messageID), r.Usage.json(1))
}

// whole is the message as an answer without a stream.
func (r Response) whole(req Request, messageID string) string {
	blocks := make([]string, len(r.Blocks))
	for n, block := range r.Blocks {
		blocks[n] = wholeBlock(block)
	}
	return fmt.Sprintf(`{"model":%s,"id":%s,"type":"message","role":"assistant","content":[%s],"stop_reason":%s,`+
		`"stop_sequence":null,"usage":%s}`, quote(req.Body.Model), quote(messageID), strings.Join(blocks, ","),
		quote(r.StopReason), r.Usage.json(r.Usage.OutputTokens))
}

func (u Usage) json(output int) string {
	return fmt.Sprintf(`{"input_tokens":%d,"cache_creation_input_tokens":%d,"cache_read_input_tokens":%d,`+
		`"cache_creation":{"ephemeral_5m_input_tokens":%d,"ephemeral_1h_input_tokens":0},"output_tokens":%d,`+
		`"service_tier":"standard"}`,
		u.InputTokens, u.CacheCreationTokens, u.CacheReadTokens, u.CacheCreationTokens, output)
}

func wholeBlock(block Block) string {
	switch b := block.(type) {
	case Text:
		return fmt.Sprintf(`{"type":"text","text":%s}`, quote(b.Text))
	case Thinking:
		return fmt.Sprintf(`{"type":"thinking","thinking":%s,"signature":%s}`, quote(b.Text), quote(b.Signature))
	case ToolUse:
		return fmt.Sprintf(`{"type":"tool_use","id":%s,"name":%s,"input":%s}`, quote(b.ID), quote(b.Name), b.Input)
	case RawBlock:
		if b.Whole != "" {
			return b.Whole
		}
		return b.Start
	}
	panic(fmt.Sprintf("testkit: a block of type %T", block))
}

func blockFrames(block Block, index int, pace Pacing) []frame {
	size := pace.TextSize
	if size <= 0 {
		size = defaultTextSize
	}
	start, deltas := "", []string(nil)
	switch b := block.(type) {
	case Text:
		start = `{"type":"text","text":""}`
		for _, piece := range textPieces(b, size) {
			deltas = append(deltas, `{"type":"text_delta","text":`+quoteAs(piece, pace.EscapeText)+`}`)
		}
	case Thinking:
		start = `{"type":"thinking","thinking":"","signature":""}`
		for _, piece := range textPieces(Text{Text: b.Text}, size) {
			deltas = append(deltas, `{"type":"thinking_delta","thinking":`+quote(piece)+`}`)
		}
		deltas = append(deltas, `{"type":"signature_delta","signature":`+quote(b.Signature)+`}`)
	case ToolUse:
		start = fmt.Sprintf(`{"type":"tool_use","id":%s,"name":%s,"input":{}}`, quote(b.ID), quote(b.Name))
		deltas = append(deltas, `{"type":"input_json_delta","partial_json":""}`)
		for _, piece := range textPieces(Text{Text: b.Input}, size) {
			deltas = append(deltas, `{"type":"input_json_delta","partial_json":`+quote(piece)+`}`)
		}
	case RawBlock:
		start, deltas = b.Start, b.Deltas
	}
	all := []frame{{"content_block_start", index,
		fmt.Sprintf(`{"type":"content_block_start","index":%d,"content_block":%s}`, index, start)}}
	for _, delta := range deltas {
		all = append(all, frame{"content_block_delta", index,
			fmt.Sprintf(`{"type":"content_block_delta","index":%d,"delta":%s}`, index, delta)})
	}
	return append(all, frame{"content_block_stop", index,
		fmt.Sprintf(`{"type":"content_block_stop","index":%d}`, index)})
}

// textPieces cuts a text at its own cuts, or every size characters; never
// within a character, which JSON could not carry.
func textPieces(t Text, size int) []string {
	var pieces []string
	cut := func(from, to int) int {
		for to < len(t.Text) && !utf8.RuneStart(t.Text[to]) {
			to++
		}
		if to = min(to, len(t.Text)); to > from {
			pieces = append(pieces, t.Text[from:to])
		}
		return max(from, to)
	}
	from := 0
	if t.Cuts != nil {
		for _, at := range t.Cuts {
			from = cut(from, at)
		}
		cut(from, len(t.Text))
		return pieces
	}
	count := 0
	for at := range t.Text {
		if count > 0 && count%size == 0 {
			from = cut(from, at)
		}
		count++
	}
	cut(from, len(t.Text))
	return pieces
}

// bytes frames an event as the pacing wants it.
func (f frame) bytes(pace Pacing) []byte {
	end := pace.LineEnd
	if end == "" {
		end = "\n"
	}
	lines := []string{f.data}
	var indented bytes.Buffer
	if pace.SplitData && json.Indent(&indented, []byte(f.data), "", "") == nil {
		// The newlines stand between tokens, and a reader joins data lines
		// with newlines, so the value is the same.
		lines = strings.Split(indented.String(), "\n")
	}
	var b bytes.Buffer
	b.WriteString("event: " + f.name + end)
	for _, line := range lines {
		b.WriteString("data: " + line + end)
	}
	b.WriteString(end)
	return b.Bytes()
}

// quote is s as JSON, without the escapes of <, > and & that Anthropic does
// not make either.
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// A string always encodes, and a buffer always takes it.
	_ = enc.Encode(s)
	return strings.TrimSuffix(b.String(), "\n")
}

func quoteAs(s string, escape bool) string {
	if !escape {
		return quote(s)
	}
	return `"` + escapeAll(s) + `"`
}

// escapeAll writes every character as \uXXXX.
func escapeAll(s string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune(s)) {
		fmt.Fprintf(&b, `\u%04x`, unit)
	}
	return b.String()
}
