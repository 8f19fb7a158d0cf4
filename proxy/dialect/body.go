package dialect

import (
	"bytes"
	"strconv"
)

// kind is the type of an event of the Messages API.
type kind uint8

const (
	otherEvent kind = iota
	messageStart
	blockStart
	blockDelta
	blockStop
	messageDelta
	messageStop
	pingEvent
	errorEvent
)

func kindOf(name []byte) kind {
	switch string(name) {
	case "message_start":
		return messageStart
	case "content_block_start":
		return blockStart
	case "content_block_delta":
		return blockDelta
	case "content_block_stop":
		return blockStop
	case "message_delta":
		return messageDelta
	case "message_stop":
		return messageStop
	case "ping":
		return pingEvent
	case "error":
		return errorEvent
	}
	return otherEvent
}

// flow is a text that a block gets in pieces: what a masker has to read as one.
type flow uint8

const (
	noFlow flow = iota
	textFlow
	inputFlow
	thinkingFlow
	signatureFlow
)

// span is a stretch of an event's data.
type span struct{ start, end int }

func (s span) empty() bool { return s.start == s.end }

// body is what the data of an event says. Spans of strings are their content, without quotes.
type body struct {
	kind    kind
	typed   bool // there is a type
	index   int
	indexAt span
	flow    flow // of the piece of text in a block's delta or start
	text    span
	escaped bool // that piece has escapes
	plain   bool // the event holds no other string that anybody chose
	delta   string
	block   blockFacts
	content bool // the message that starts has content already
	stop    span // stop_reason
}

// blockFacts are what content_block says.
type blockFacts struct {
	kind, id, name string
	isObject       bool
	input          span
}

// deltaBegin is how a delta begins in the provider's own words, the index behind it.
const deltaBegin = `{"type":"content_block_delta","index":`

var deltaMiddles = [...]struct {
	text string
	flow flow
}{
	{`,"delta":{"type":"text_delta","text":"`, textFlow},
	{`,"delta":{"type":"input_json_delta","partial_json":"`, inputFlow},
	{`,"delta":{"type":"thinking_delta","thinking":"`, thinkingFlow},
}

// readDelta reads the data of a delta that is written as the provider writes it: nearly all of a stream. It reports
// false for any other, which read has to read.
func (e *event) readDelta(s *scanner) bool {
	d := e.data
	if len(d) < len(deltaBegin) || string(d[:len(deltaBegin)]) != deltaBegin {
		return false
	}
	i := len(deltaBegin)
	index, digits := 0, i
	for i < len(d) && '0' <= d[i] && d[i] <= '9' && i-digits < 6 {
		index = index*10 + int(d[i]-'0')
		i++
	}
	if i == digits || i-digits > 1 && d[digits] == '0' {
		return false
	}
	for k := range deltaMiddles {
		m := &deltaMiddles[k]
		if len(d)-i < len(m.text) || string(d[i:i+len(m.text)]) != m.text {
			continue
		}
		s.reset(d)
		s.pos = i + len(m.text) - 1
		start, end, escaped := s.str()
		for range 2 {
			if s.peek() != '}' {
				return false
			}
			s.pos++
		}
		if s.finish() != nil {
			return false
		}
		e.body = body{kind: blockDelta, typed: true, index: index, indexAt: span{digits, i}, flow: m.flow,
			text: span{start, end}, escaped: escaped, plain: true}
		return true
	}
	return false
}

// read reads the data of any event, strictly, and notes what it says of usage.
func (e *event) read(s *scanner, usage *Usage) error {
	s.reset(e.data)
	e.body = body{index: -1}
	if s.peek() != '{' {
		s.skip()
		return s.finish()
	}
	s.object(func(key []byte) {
		switch string(key) {
		case "type":
			if s.peek() == '"' {
				e.kind, e.typed = kindOf(s.string()), true
				return
			}
			s.skip()
		case "index":
			e.index, e.indexAt = s.integer()
		case "content_block":
			e.readBlock(s)
		case "delta":
			e.readMembers(s)
		case "message":
			e.readMessage(s, usage)
		case "usage":
			usage.read(s)
		default:
			s.skip()
		}
	})
	if err := s.finish(); err != nil {
		return err
	}
	if e.kind == messageDelta && !e.stop.empty() {
		usage.StopReason = string(appendUnescaped(nil, e.data[e.stop.start:e.stop.end]))
	}
	return nil
}

// integer consumes a value and returns it where it is a small whole number that is not negative, else -1.
func (s *scanner) integer() (int, span) {
	start, end := s.span()
	if s.err != nil {
		return -1, span{}
	}
	n, err := strconv.Atoi(string(s.data[start:end]))
	if err != nil || n < 0 || n > 1<<20 {
		return -1, span{}
	}
	return n, span{start, end}
}

// textSpan consumes a value and returns the span of its content where it is a string.
func (s *scanner) textSpan() (at span, escaped, ok bool) {
	if s.peek() != '"' {
		s.skip()
		return span{}, false, false
	}
	start, end, escaped := s.str()
	return span{start, end}, escaped, s.err == nil
}

func (e *event) readBlock(s *scanner) {
	if s.peek() != '{' {
		s.skip()
		return
	}
	b := &e.block
	b.isObject = true
	var text, thinking span
	var textEscaped, thinkingEscaped bool
	s.object(func(key []byte) {
		switch string(key) {
		case "type":
			b.kind = s.textOr()
		case "id":
			b.id = s.textOr()
		case "name":
			b.name = s.textOr()
		case "input":
			b.input.start, b.input.end = s.span()
		case "text":
			text, textEscaped, _ = s.textSpan()
		case "thinking":
			thinking, thinkingEscaped, _ = s.textSpan()
		default:
			s.skip()
		}
	})
	switch {
	case b.kind == "text" && !text.empty():
		e.flow, e.text, e.escaped = textFlow, text, textEscaped
	case b.kind == "thinking" && !thinking.empty():
		e.flow, e.text, e.escaped = thinkingFlow, thinking, thinkingEscaped
	}
}

// textOr consumes a value and returns it where it is a string, else "".
func (s *scanner) textOr() string {
	if s.peek() != '"' {
		s.skip()
		return ""
	}
	return string(s.string())
}

// readMembers reads a delta: of a block or of the message.
func (e *event) readMembers(s *scanner) {
	if s.peek() != '{' {
		s.skip()
		return
	}
	var found [signatureFlow + 1]struct {
		at      span
		escaped bool
		ok      bool
	}
	s.object(func(key []byte) {
		f := noFlow
		switch string(key) {
		case "type":
			e.delta = s.textOr()
			return
		case "stop_reason":
			e.stop, _, _ = s.textSpan()
			return
		case "text":
			f = textFlow
		case "partial_json":
			f = inputFlow
		case "thinking":
			f = thinkingFlow
		case "signature":
			f = signatureFlow
		default:
			s.skip()
			return
		}
		found[f].at, found[f].escaped, found[f].ok = s.textSpan()
	})
	if f := flowOf(e.delta); f != noFlow && found[f].ok {
		e.flow, e.text, e.escaped = f, found[f].at, found[f].escaped
	}
}

func flowOf(delta string) flow {
	switch delta {
	case "text_delta":
		return textFlow
	case "input_json_delta":
		return inputFlow
	case "thinking_delta":
		return thinkingFlow
	case "signature_delta":
		return signatureFlow
	}
	return noFlow
}

func (e *event) readMessage(s *scanner, usage *Usage) {
	if s.peek() != '{' {
		s.skip()
		return
	}
	s.object(func(key []byte) {
		switch string(key) {
		case "id":
			usage.MessageID = s.textOr()
		case "model":
			usage.Model = s.textOr()
		case "usage":
			usage.read(s)
		case "content":
			start, end := s.span()
			text := bytes.TrimSpace(s.data[start:end])
			e.content = string(text) != "null" && (len(text) < 2 || text[0] != '[' || len(bytes.TrimSpace(text[1:len(text)-1])) > 0)
		default:
			s.skip()
		}
	})
}

// read takes a usage object. Its counts are cumulative: a later one replaces an earlier one.
func (u *Usage) read(s *scanner) {
	if s.peek() != '{' {
		s.skip()
		return
	}
	s.object(func(key []byte) {
		to := u.field(string(key))
		start, end := s.span()
		if to == nil || s.err != nil {
			return
		}
		if n, err := strconv.ParseInt(string(s.data[start:end]), 10, 64); err == nil && n >= 0 {
			*to = n
		}
	})
}

func (u *Usage) field(key string) *int64 {
	switch key {
	case "input_tokens":
		return &u.InputTokens
	case "output_tokens":
		return &u.OutputTokens
	case "cache_creation_input_tokens":
		return &u.CacheCreationTokens
	case "cache_read_input_tokens":
		return &u.CacheReadTokens
	}
	return nil
}
