package dialect

import (
	"bytes"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
)

func (f *Filter) block(index int) *block {
	for _, b := range f.open {
		if b.index == index {
			return b
		}
	}
	return nil
}

// startBlock takes the start of a block: it passes, or begins to be held.
func (f *Filter) startBlock(dst []byte, ev *event) ([]byte, error) {
	facts := &ev.block
	switch {
	case len(f.open) >= maxOpen:
		return dst, tooLarge("more than %d blocks of the answer are open at once", maxOpen)
	case f.ended(ev.index):
		return dst, ambiguous("a block starts twice, or out of order")
	case !f.judging:
	case ev.index != f.last+1:
		// Some clients find a block by its index, others by its place: @anthropic-ai/sdk appends a block that starts and
		// looks up the one that a delta speaks of by index.
		return dst, ambiguous("a block starts twice, or out of order")
	case facts.kind == "":
		return dst, ambiguous("a block has no type")
	}
	if old := f.block(ev.index); old != nil {
		var err error
		if dst, err = f.finishBlock(dst, old); err != nil {
			return dst, err
		}
	}
	b := &block{index: ev.index, shift: f.inserted, class: opaqueClass,
		tool: facts.isToolUse(), input: strings.Contains(facts.kind, "tool_use")}
	if facts.kind == "text" {
		b.class = wordClass
	}
	if !f.judging || !b.tool {
		return f.passBlock(dst, ev, b)
	}
	b.input = true
	if facts.name == "" {
		return dst, ambiguous("a tool use has no name")
	}
	if !f.cfg.MayJudge(facts.name) {
		return f.passBlock(dst, ev, b)
	}
	return dst, f.hold(ev, b)
}

// passBlock lets the start of a block go.
func (f *Filter) passBlock(dst []byte, ev *event, b *block) ([]byte, error) {
	f.last = max(f.last, ev.index)
	f.open = append(f.open, b)
	return f.looked(dst, ev, b)
}

// ended reports whether a block of this index has been told to its end to a client whose text is masked. Some clients put
// what comes later behind what came before, and a masker would see neither half of a secret as one.
func (f *Filter) ended(index int) bool {
	return f.policy.text != nil && !f.policy.redact && index <= f.last
}

// looked looks at all strings of an event of a block, and lets it go when its text is decided.
func (f *Filter) looked(dst []byte, ev *event, b *block) ([]byte, error) {
	if !ev.plain {
		edits, err := f.policy.singles(&f.scan, ev.data, b.class, ev.text)
		if err != nil {
			return dst, err
		}
		if len(edits) > 0 {
			if err := f.again(ev, ev.render(nil, edits)); err != nil {
				return dst, err
			}
		}
	}
	if ev.flow == noFlow {
		return f.send(dst, ev, b, nil), nil
	}
	return f.piece(dst, ev, b)
}

// hold begins to withhold a block that is judged.
func (f *Filter) hold(ev *event, b *block) error {
	edits, err := f.policy.singles(&f.scan, ev.data, opaqueClass, span{})
	if err == nil && len(edits) > 0 {
		err = f.again(ev, ev.render(nil, edits))
	}
	if err != nil {
		return err
	}
	b.held = true
	b.use = access.ToolUse{ID: ev.block.id, Name: ev.block.name}
	b.start = bytes.ReplaceAll(ev.data, []byte("\n"), []byte(" "))
	b.inputAt, b.indexAt = ev.block.input, ev.indexAt
	if len(b.start) > f.cfg.MaxHeld {
		b.problem = "it is larger than can be held"
	}
	f.last = max(f.last, ev.index)
	f.open = append(f.open, b)
	f.holding, f.tail = b, dropped
	return nil
}

// delta takes a piece of a block.
func (f *Filter) delta(dst []byte, ev *event) ([]byte, error) {
	b := f.block(ev.index)
	switch {
	case b == nil && (f.judging || f.ended(ev.index)):
		return dst, ambiguous("a block goes on that has not started")
	case b == nil && len(f.open) >= maxOpen:
		return dst, tooLarge("more than %d blocks of the answer are open at once", maxOpen)
	case b == nil:
		b = &block{index: ev.index, class: opaqueClass}
		f.open, f.last = append(f.open, b), max(f.last, ev.index)
	case b.gone:
		f.tail = dropped
		return dst, nil
	case b.held:
		return f.gather(dst, ev, b)
	case f.judging && (b.tool && ev.flow != inputFlow || !b.input && ev.delta == "input_json_delta"):
		return dst, ambiguous("a block gets a piece of another type")
	case f.judging && !b.input && ev.flow == inputFlow:
		return dst, ambiguous("a block that is no tool use gets input")
	}
	return f.looked(dst, ev, b)
}

// gather keeps a piece of the input of a held block.
func (f *Filter) gather(dst []byte, ev *event, b *block) ([]byte, error) {
	f.tail = dropped
	if ev.flow != inputFlow {
		b.problem = "it has parts that are no input"
		return dst, nil
	}
	before := len(b.use.Input)
	b.use.Input = appendUnescaped(b.use.Input, ev.data[ev.text.start:ev.text.end])
	b.deltas = b.deltas || len(b.use.Input) > before
	if len(b.start)+len(b.use.Input) <= f.cfg.MaxHeld {
		return dst, nil
	}
	b.gone, f.holding = true, nil
	b.problem, b.use.Input = "it is larger than can be held", nil
	return f.decide(dst, b)
}

// stopBlock takes the end of a block. A held one is judged now.
func (f *Filter) stopBlock(dst []byte, ev *event) ([]byte, error) {
	b := f.block(ev.index)
	switch {
	case b == nil && f.judging:
		return dst, ambiguous("a block stops that has not started")
	case b == nil:
		return f.looked(dst, ev, &block{index: ev.index, class: opaqueClass})
	case b.gone:
		f.forget(b)
		f.tail = dropped
		return dst, nil
	case b.held:
		f.forget(b)
		f.holding, f.tail = nil, dropped
		return f.decide(dst, b)
	}
	dst, err := f.finishBlock(dst, b)
	if err != nil {
		return dst, err
	}
	return f.looked(dst, ev, b)
}

// finishBlock decides about all text of a block and lets it go.
func (f *Filter) finishBlock(dst []byte, b *block) ([]byte, error) {
	f.forget(b)
	if err := b.endFlows(); err != nil {
		return dst, err
	}
	return f.flush(dst), nil
}

func (f *Filter) forget(b *block) {
	f.open = slices.DeleteFunc(f.open, func(other *block) bool { return other == b })
}

// decide gives a held block to the judge and appends what the client gets of it.
func (f *Filter) decide(dst []byte, b *block) ([]byte, error) {
	dst, err := f.flushOut(dst)
	if err != nil {
		return dst, err
	}
	v, err := f.judge(b)
	switch {
	case err != nil:
		return dst, err
	case !v.Allow && v.OnDeny == access.Fail:
		return dst, v.refusal(b.use.Name)
	case len(f.items) > 0:
		f.push(item{fresh: true}, f.outcome(nil, b, &v))
		return dst, nil
	}
	return f.outcome(dst, b, &v), nil
}

// outcome appends what the client gets of a held block.
func (f *Filter) outcome(dst []byte, b *block, v *Verdict) []byte {
	f.emitted = true
	out := b.index + b.shift
	if v.Allow {
		return b.allowed(dst, out)
	}
	dst = appendTextBlock(dst, out, v.words(b.use.Name))
	if v.OnDeny == access.Stop {
		f.stopped = true
		return dst
	}
	f.inserted++
	return appendDeniedUse(dst, out+1, b.use, v.Rule)
}

// allowed appends a held block: its start as it came, its input in one piece.
func (b *block) allowed(dst []byte, out int) []byte {
	dst = append(dst, "event: content_block_start\ndata: "...)
	dst = append(dst, b.start[:b.indexAt.start]...)
	dst = appendInt(dst, out)
	dst = append(dst, b.start[b.indexAt.end:]...)
	dst = append(dst, "\n\n"...)
	dst = appendDelta(dst, out, "input_json_delta", "partial_json", b.use.Input)
	return appendStop(dst, out)
}

// flushOut hands over what may go out before the judge takes its time.
func (f *Filter) flushOut(dst []byte) ([]byte, error) {
	if f.cfg.Flush == nil || len(dst) == 0 {
		return dst, nil
	}
	if err := f.cfg.Flush(dst); err != nil {
		return dst[:0], err
	}
	return dst[:0], nil
}
