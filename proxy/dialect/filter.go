package dialect

import (
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/mask"
)

// Verdict is what became of a judged tool use. The zero value denies.
type Verdict struct {
	Allow bool
	// OnDeny says what the client gets in place of a tool use that is denied.
	OnDeny access.OnDeny
	// Rule is the name of the rule that denied; it becomes part of the name that no tool has.
	Rule string
	// Reason is the text for the agent, as it will stand there: "Jobgate: Bash was denied by rule ...".
	Reason string
	// Err, where set, ends the whole answer: the session is over, nothing can be recorded.
	Err error
}

// FilterConfig says what a filter does to an answer. The zero value passes everything.
type FilterConfig struct {
	// MayJudge reports whether any rule could have a say about a tool; false lets the block pass untouched. Nil: no
	// tool use is judged, and answers that cannot be read pass.
	MayJudge func(tool string) bool
	// Judge decides on one complete tool use. It is called synchronously and may take minutes. It is required where
	// MayJudge is set; nil denies.
	Judge func(access.ToolUse) Verdict
	// Unreadable is told of a tool use that is denied because it cannot be judged: its input is no strict JSON, or too
	// large. Its verdict chooses form and words, it cannot allow. Nil: the agent is told. Input is nil.
	Unreadable func(use access.ToolUse, problem string) Verdict
	// Text masks the text that the model wrote. Nil: none.
	Text *mask.Set
	// Opaque ends the answer with an error where it matches in anything that must not be changed: inputs of tools,
	// thinking, signatures, encrypted fields, ids. Nil: nothing ends it.
	Opaque *mask.Set
	// RedactAll is for the record's copy: in place of ending the answer, matches are masked wherever they are, by Opaque
	// or, where that is nil, by Text.
	RedactAll bool
	// MaxHeld is how many bytes may be held back at once. A tool use beyond is denied. Zero: 8 MiB.
	MaxHeld int
}

// Usage is what an answer told about itself.
type Usage struct {
	InputTokens         int64 // without what came from the cache
	OutputTokens        int64
	CacheCreationTokens int64
	CacheReadTokens     int64
	Model               string
	MessageID           string
	StopReason          string
}

// Filter judges and masks one server-sent event stream of the Messages API. It is fed with chunks of any size, and is
// used by one goroutine.
type Filter struct {
	cfg     FilterConfig
	usage   Usage
	emitted bool
}

// NewFilter returns a filter for one answer.
func NewFilter(cfg FilterConfig) *Filter { return &Filter{cfg: cfg} }

// Write takes the next bytes of the upstream and appends to dst what may go out now. An error, an *access.Error, ends
// the stream; what was appended before it may still go out.
func (f *Filter) Write(dst, chunk []byte) ([]byte, error) { return append(dst, chunk...), nil }

// Close takes the upstream's end and appends the rest. clean says that the body ended as its framing said. After Write
// returned an error, it appends nothing.
func (f *Filter) Close(dst []byte, clean bool) ([]byte, error) { return dst, nil }

// Usage returns what the answer told so far.
func (f *Filter) Usage() Usage { return f.usage }

// Emitted reports whether any part of a content block was passed on. Where none was, a client that reads an error event
// sends the same request again.
func (f *Filter) Emitted() bool { return f.emitted }
