package testkit

import (
	"slices"
	"strings"
	"time"
)

// Script answers one request to POST /v1/messages. It must be safe for
// concurrent calls; the scripts here keep no state, they read the history.
type Script func(Request) Response

// Response is what a script wants the model to answer.
type Response struct {
	Blocks []Block
	// StopReason is tool_use or end_turn by the blocks when empty.
	StopReason string
	// Usage is estimated from the sizes where it is zero.
	Usage Usage
	// Pacing replaces the model's own. Nil: ModelConfig.Pacing.
	Pacing *Pacing
	// Header is added to the answer's header.
	Header map[string]string
	// Gzip compresses the body, whatever the client accepts.
	Gzip bool
	// Fault spoils the answer. The zero value does not.
	Fault Fault
}

// Usage counts tokens.
type Usage struct {
	InputTokens, OutputTokens, CacheCreationTokens, CacheReadTokens int
}

// Block is one block of an answer: Text, Thinking, ToolUse or RawBlock.
type Block interface{ block() }

// Text is a text block.
type Text struct {
	Text string
	// Cuts are the byte offsets at which the text is cut into text_delta
	// events (moved to the next character). Nil: Pacing.TextSize rules.
	Cuts []int
}

// Thinking is a thinking block. An empty Signature is made up; either way the
// model knows the block again in the history.
type Thinking struct {
	Text, Signature string
}

// ToolUse is a tool_use block. Input is JSON text that is sent as it stands,
// also where it is no JSON; an empty ID is made up.
type ToolUse struct {
	ID, Name, Input string
}

// RawBlock is a block of any type: the content_block of its start, and the
// delta of each of its deltas, as JSON text. Without a stream, Whole is sent.
type RawBlock struct {
	Start, Whole string
	Deltas       []string
}

func (Text) block()     {}
func (Thinking) block() {}
func (ToolUse) block()  {}
func (RawBlock) block() {}

// Pacing is how an answer is cut into events and writes. The zero value
// writes one event at a time, without waiting, as Anthropic frames them.
type Pacing struct {
	// Delay passes before each event (without a stream: before each chunk).
	Delay time.Duration
	// ChunkBytes is the size of a write. 0: one event each.
	ChunkBytes int
	// TextSize is the characters of a text_delta or thinking_delta, and the
	// bytes of an input_json_delta. 0: 24.
	TextSize int
	// LineEnd is "\n" (also when empty), "\r" or "\r\n".
	LineEnd string
	// SplitData spreads the data of an event over several `data:` lines.
	SplitData bool
	// EscapeText writes every character of a text_delta as \uXXXX.
	EscapeText bool
	// Gate, where set, is called before each event, and the stream goes on
	// when it returns: tests wait in it in place of sleeping. It must return
	// when Event.Done is closed.
	Gate func(Event)
}

// Event tells a gate what is about to be sent.
type Event struct {
	// N counts the events of this answer from 0.
	N int
	// Name is the event's name (content_block_stop), Index its block or -1.
	Name  string
	Index int
	// Done is closed when the client left or the model closes.
	Done <-chan struct{}
}

// FaultKind is a way in which an answer goes wrong.
type FaultKind int

const (
	// NoFault is an answer that goes well.
	NoFault FaultKind = iota
	// FaultStatus answers with Fault.Status in the error envelope.
	FaultStatus
	// FaultReset resets the connection after Fault.After events.
	FaultReset
	// FaultCut ends the body properly, but after Fault.After events.
	FaultCut
	// FaultStall sends nothing after Fault.After events, and waits until the
	// client leaves.
	FaultStall
	// FaultErrorEvent ends the stream with an `error` event after
	// Fault.After events.
	FaultErrorEvent
	// FaultEndless repeats the last text delta until the client leaves.
	FaultEndless
	// FaultBadGzip says Content-Encoding: gzip and sends garbage.
	FaultBadGzip
	// FaultBigHeader adds a header line of Fault.After bytes.
	FaultBigHeader
)

// Fault is how an answer goes wrong.
type Fault struct {
	Kind FaultKind
	// After is a number of events; for FaultBigHeader one of bytes. 0 events is
	// before the status line for FaultReset and FaultStall. Without a stream
	// the answer's body counts as two events, its halves.
	After int
	// Status, Type and Message are of the error that FaultStatus and
	// FaultErrorEvent send. Empty: 529 overloaded_error.
	Status        int
	Type, Message string
}

// ScriptSay answers everything with text.
func ScriptSay(text string) Script {
	return func(Request) Response { return Response{Blocks: []Block{Text{Text: text}}} }
}

// Step is one turn of ScriptTools.
type Step struct {
	// Think is a thinking block before the rest.
	Think string
	// Say is a text block. {result} in it is replaced by the text of the tool
	// results that the request ended with.
	Say string
	// Use are the turn's tool uses.
	Use []ToolUse
	// Blocks follow after those.
	Blocks []Block
	// Pacing and Fault are the answer's.
	Pacing *Pacing
	Fault  Fault
}

// ScriptTools plays an agent's model: it answers with the step whose number
// is the count of answers in the history, and after the last step with the
// last tool results. A request repeated is answered alike.
//
// Requests that a client makes beside its agent loop (IsSide: a title, a quota
// probe, the summary of a fetched page) get a short text and use up no step.
// Sub-agents have a history of their own, so they play the steps from the
// first; a script that starts some must tell them apart by itself.
func ScriptTools(steps ...Step) Script {
	return func(req Request) Response {
		if IsSide(req) {
			return Response{Blocks: []Block{Text{Text: `{"title": "Run the job"}`}}}
		}
		turn := req.Turn()
		if turn >= len(steps) {
			return Response{Blocks: []Block{Text{Text: "Done. " + resultText(req)}}}
		}
		return steps[turn].response(req)
	}
}

func (s Step) response(req Request) Response {
	resp := Response{Pacing: s.Pacing, Fault: s.Fault}
	if s.Think != "" {
		resp.Blocks = append(resp.Blocks, Thinking{Text: s.Think})
	}
	if s.Say != "" {
		resp.Blocks = append(resp.Blocks, Text{Text: strings.ReplaceAll(s.Say, "{result}", resultText(req))})
	}
	for _, use := range s.Use {
		resp.Blocks = append(resp.Blocks, use)
	}
	resp.Blocks = append(resp.Blocks, s.Blocks...)
	return resp
}

// IsSide reports whether a request is one that a client makes beside its
// agent loop: it offers no tool that the client itself would run, or wants a
// single token.
func IsSide(req Request) bool {
	own := func(t Tool) bool { return t.Type == "" || t.Type == "custom" }
	return req.Body.MaxTokens == 1 || !slices.ContainsFunc(req.Body.Tools, own)
}

func resultText(req Request) string {
	var texts []string
	for _, result := range req.Results() {
		texts = append(texts, strings.TrimSpace(result.Content.Text()))
	}
	return strings.Join(texts, "\n")
}

// complete fills in what a script left out.
func (r *Response) complete(req Request) {
	uses := false
	blocks := make([]Block, len(r.Blocks)) // a script may share its blocks among calls
	size := 0
	for n, block := range r.Blocks {
		switch b := block.(type) {
		case ToolUse:
			if b.ID == "" {
				b.ID = "toolu_01" + random(22)
			}
			uses, size, block = true, size+len(b.Input), b
		case Thinking:
			if b.Signature == "" {
				b.Signature = newSignature()
			}
			size, block = size+len(b.Text), b
		case Text:
			size += len(b.Text)
		}
		blocks[n] = block
	}
	r.Blocks = blocks
	if r.StopReason == "" {
		r.StopReason = "end_turn"
		if uses {
			r.StopReason = "tool_use"
		}
	}
	if r.Usage == (Usage{}) {
		r.Usage = Usage{InputTokens: len(req.Raw)/4 + 1, OutputTokens: size/4 + 1}
	}
}
