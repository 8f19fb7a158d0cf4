package dialect

import (
	"fmt"

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
	// Flush is called right before Judge with all that this Write has appended to dst so far, since Judge may take minutes;
	// those bytes are not returned again. An error ends the stream. Nil: not called.
	Flush func(pending []byte) error
	// Text masks the text that the model wrote. Nil: none.
	Text *mask.Set
	// Opaque ends the answer with an error where it matches in anything that must not be changed: inputs of tools,
	// thinking, signatures, encrypted fields, ids. Nil: nothing ends it.
	Opaque *mask.Set
	// RedactAll is for the record's copy: in place of ending the answer, matches are masked wherever they are. Text masks
	// all but ids, Opaque ids; where one of them is nil, nothing is looked for in what it masks, but for Text, in whose
	// place Opaque serves.
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

// defaultMaxHeld is enough for the input of any tool that writes a file.
const defaultMaxHeld = 8 << 20

// maxOpen is how many blocks may be open at once. The provider has one open at a time.
const maxOpen = 64

// keptBuffer is how much memory a filter keeps for the rest of a chunk while its stream is idle.
const keptBuffer = 4 << 10

// Filter judges and masks one server-sent event stream of the Messages API. It is fed with chunks of any size, and is
// used by one goroutine. How the stream is cut into chunks does not change what comes out of it, but for how much of it
// comes before an error.
//
// One event, and so one line, may have 32 MiB.
type Filter struct {
	cfg     FilterConfig
	policy  policy
	judging bool
	scan    scanner
	ev      event
	split   splitter
	buf     []byte // an event that has not ended yet
	begun   bool   // the first event is behind
	simple  bool   // the event to be taken has three lines, and no CR
	tail    place  // of an LF that belongs to the last event
	usage   Usage
	emitted bool
	err     error

	started  bool // message_start is behind
	failed   bool // an error event is behind: nothing follows
	open     []*block
	last     int  // the highest index that started, -1 before the first
	inserted int  // blocks that were put in
	stopped  bool // a tool use was denied so that the turn ends

	holding  *block    // the block that waits for its verdict
	deferred [][]byte  // events that wait behind it
	room     *waitRoom // whose memory pending and items have, nil for their own
	pending  []byte    // raw bytes of items
	items    []item
	waiting  event  // memory for an item that leaves
	decoded  []byte // memory for a text that had escapes

	frame      frame
	batched    *flowStream // it has pieces that its masker has not seen, all of one block
	batchIndex int         // of that block
	size       int         // bytes in deferred
}

// place says where the bytes of an event went.
type place uint8

const (
	dropped place = iota
	passed
	pended
	postponed
)

// NewFilter returns a filter for one answer.
func NewFilter(cfg FilterConfig) *Filter {
	if cfg.MaxHeld <= 0 {
		cfg.MaxHeld = defaultMaxHeld
	}
	return &Filter{cfg: cfg, policy: newPolicy(cfg), judging: cfg.MayJudge != nil, last: -1, scan: *newScanner(nil)}
}

// Write takes the next bytes of the upstream and appends to dst what may go out now. An error, an *access.Error, ends
// the stream; what was appended before it may still go out, and every later Write returns it again.
func (f *Filter) Write(dst, chunk []byte) ([]byte, error) {
	if f.err == nil {
		dst, f.err = f.write(dst, chunk)
	}
	return dst, f.err
}

func (f *Filter) write(dst, chunk []byte) ([]byte, error) {
	dst, err := f.events(dst, chunk)
	dst = f.drain(dst)
	f.moveOut()
	return dst, err
}

// events takes the events that a chunk completes.
func (f *Filter) events(dst, chunk []byte) ([]byte, error) {
	if len(chunk) > 0 && f.split.cr && len(f.buf) == 0 {
		if f.split.cr = false; chunk[0] == '\n' {
			dst = f.lineFeed(dst)
			chunk = chunk[1:]
		}
		var err error
		if dst, err = f.replay(dst); err != nil {
			return dst, err
		}
	}
	for len(chunk) > 0 {
		if f.frame.stream != nil && len(f.buf) == 0 {
			if chunk = chunk[f.takeRun(chunk):]; len(chunk) == 0 {
				break
			}
		}
		n := f.split.next(chunk)
		if n < 0 {
			n = len(chunk)
		}
		if len(f.buf)+n > maxEvent {
			return dst, tooLarge("an event of the answer has more than %d bytes", maxEvent)
		}
		raw := chunk[:n]
		chunk = chunk[n:]
		if !f.split.ended {
			f.buf = append(f.buf, raw...)
			break
		}
		if len(f.buf) > 0 {
			f.buf = append(f.buf, raw...)
			raw = f.buf
		}
		f.simple = f.split.lines == 3 && !f.split.anyCR
		var err error
		if dst, err = f.take(dst, raw); err != nil {
			return dst, err
		}
		if f.buf = f.buf[:0]; cap(f.buf) > keptBuffer {
			f.buf = nil
		}
	}
	return dst, nil
}

// lineFeed puts an LF behind the event whose CR it belongs to, wherever that went.
func (f *Filter) lineFeed(dst []byte) []byte {
	switch f.tail {
	case passed:
		return append(dst, '\n')
	case pended:
		if f.items[len(f.items)-1].fresh {
			return dst
		}
		f.pending = append(f.pending, '\n')
		f.items[len(f.items)-1].end++
	case postponed:
		last := &f.deferred[len(f.deferred)-1]
		*last = append(*last, '\n')
	}
	return dst
}

// Close takes the upstream's end and appends the rest. clean says that the body ended as its framing said; otherwise an
// event that was begun is dropped. A tool use that was begun is dropped in any case, and is an error after a clean end.
// After Write returned an error, Close does nothing.
func (f *Filter) Close(dst []byte, clean bool) ([]byte, error) {
	if f.err != nil {
		return dst, nil
	}
	dst, f.err = f.close(dst, clean)
	if f.err == nil {
		f.err = access.Refuse(access.CodeInternal, "Jobgate: the answer has ended already")
		return dst, nil
	}
	return dst, f.err
}

func (f *Filter) close(dst []byte, clean bool) ([]byte, error) {
	var err error
	if rest := f.buf; len(rest) > 0 {
		f.buf = nil
		if f.passive() {
			dst = append(dst, rest...)
		} else if clean && f.readable(rest) {
			if dst, err = f.take(dst, rest); err != nil {
				return dst, err
			}
		}
	}
	for f.holding == nil {
		if dst, err = f.settle(dst); err != nil {
			return dst, err
		}
		if len(f.deferred) == 0 {
			return dst, nil
		}
		f.split.cr = false
		if dst, err = f.replay(dst); err != nil {
			return dst, err
		}
	}
	if !clean {
		return dst, nil
	}
	return dst, access.Refuse(access.CodeUpstream, "Jobgate: the model's answer ended in the middle of a tool use")
}

// readable reports whether an event without its end is one: a client may take it for one at the end of the stream.
func (f *Filter) readable(raw []byte) bool {
	f.ev.split(raw, !f.begun)
	f.scan.reset(f.ev.data)
	f.scan.skip()
	return f.ev.lines == 0 || f.scan.finish() == nil
}

// passive reports whether nothing is judged and nothing is looked for.
func (f *Filter) passive() bool { return !f.judging && f.policy.idle() }

// Usage returns what the answer told so far.
func (f *Filter) Usage() Usage { return f.usage }

// Emitted reports whether any part of a content block was passed on. Where none was, a client that reads an error event
// sends the same request again.
func (f *Filter) Emitted() bool { return f.emitted }

func tooLarge(format string, args ...any) error {
	return access.Refuse(access.CodeTooLarge, "Jobgate: "+fmt.Sprintf(format, args...))
}
