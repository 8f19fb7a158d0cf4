package dialect

import (
	"bytes"
	"slices"
	"strconv"
	"sync"

	"github.com/jobgate/jobgate/internal/access"
)

// take handles one event. It may write over f.ev, so that what is read of the event is read before others are handled.
func (f *Filter) take(dst, raw []byte) ([]byte, error) {
	ev := &f.ev
	f.frame.stream = nil
	if !f.simple || !ev.splitDelta(raw) {
		dst = f.drain(dst)
		ev.split(raw, !f.begun)
	}
	f.begun, f.simple = true, false
	switch {
	case f.passive():
		return f.observe(dst, ev), nil
	case f.failed:
		f.tail = dropped
		return dst, nil
	case f.judging && ev.odd:
		return dst, ambiguous("an event has lines that clients read differently")
	case ev.empty():
		return f.bare(f.drain(dst), ev), nil
	}
	if !ev.readDelta(&f.scan) {
		dst = f.drain(dst)
		if err := ev.read(&f.scan, &f.usage); err != nil {
			return f.unread(dst, ev, err)
		}
	}
	if f.batched != nil && (ev.kind != blockDelta || ev.index != f.batchIndex || ev.flow != f.batched.flow) {
		dst = f.drain(dst)
	}
	if f.judging {
		if problem := f.ambiguity(ev); problem != "" {
			return dst, ambiguous(problem)
		}
	}
	if ev.extra || len(ev.name) > 0 && kindOf(ev.name) == otherEvent {
		if err := f.strip(ev); err != nil {
			return dst, err
		}
	}
	if f.mustWait(ev) {
		return dst, f.postpone(ev)
	}
	dst, err := f.handle(dst, ev)
	if err != nil || f.split.cr {
		return dst, err // behind a CR, an LF may still belong to this event
	}
	return f.replay(dst)
}

// observe passes an event and notes what it says of usage.
func (f *Filter) observe(dst []byte, ev *event) []byte {
	k := kindOf(ev.name)
	if k == messageStart || k == messageDelta || len(ev.name) == 0 && ev.lines > 0 {
		if ev.read(&f.scan, &f.usage) == nil && len(ev.name) == 0 {
			k = ev.kind
		}
	}
	return f.pass(dst, ev.raw, k)
}

// pass appends raw bytes of an event.
func (f *Filter) pass(dst, raw []byte, k kind) []byte {
	f.tail = passed
	f.emitted = f.emitted || k == blockStart || k == blockDelta || k == blockStop
	return append(dst, raw...)
}

// bare passes lines without data, unless there is a secret in them.
func (f *Filter) bare(dst []byte, ev *event) []byte {
	if f.policy.hits(ev.raw) {
		f.tail = dropped
		return dst
	}
	if len(f.items) > 0 {
		f.push(item{}, ev.raw)
		return dst
	}
	return f.pass(dst, ev.raw, otherEvent)
}

// unread handles an event whose data is not strict JSON.
func (f *Filter) unread(dst []byte, ev *event, cause error) ([]byte, error) {
	raw := ev.raw
	switch {
	case f.judging:
		return dst, ambiguous("an event is not JSON that every parser reads alike: " + cause.Error())
	case !f.policy.hits(raw):
	case f.policy.redact:
		raw, _ = f.policy.text.Mask(nil, raw)
	default:
		return dst, secretError()
	}
	if len(f.items) > 0 {
		f.push(item{}, raw)
		return dst, nil
	}
	return f.pass(dst, raw, kindOf(ev.name)), nil
}

// ambiguity says why clients could differ in what an event is.
func (f *Filter) ambiguity(ev *event) string {
	named := kindOf(ev.name)
	switch {
	case len(ev.name) == 0 && ev.kind != otherEvent && ev.kind != pingEvent:
		return "an event has no name, so that some clients pass over it"
	case len(ev.name) > 0 && named != ev.kind && (named != pingEvent || ev.typed):
		return "the name of an event and the type in its data differ"
	case ev.kind == otherEvent && ev.block.isObject:
		return "an event of an unknown type holds a block"
	case f.holding != nil && (ev.kind == messageStart || ev.kind == messageDelta || ev.kind == messageStop):
		return "the message goes on while a tool use has not ended"
	case ev.kind == messageStart && (f.started || ev.content):
		return "a message starts twice, or with content"
	}
	return ""
}

func ambiguous(problem string) error {
	return &access.Error{Code: access.CodeDenied, Reason: "ambiguous", Public: "Jobgate: the model's answer was ended, " +
		"because its tool uses cannot be judged: " + problem}
}

// strip removes lines that hold a secret beside the data, and a name that does.
func (f *Filter) strip(ev *event) error {
	if !f.policy.hits(ev.raw) {
		return nil
	}
	if f.policy.hits(ev.name) {
		ev.name = nil
	}
	err := f.again(ev, ev.canonical(nil, nil))
	ev.fresh = true
	return err
}

// again reads an event that was changed. Where two keys became one by masking, it cannot be sent.
func (f *Filter) again(ev *event, raw []byte) error {
	fresh := ev.fresh || ev.dataAt < 0
	ev.split(raw, false)
	ev.fresh = fresh
	if ev.read(&f.scan, new(Usage)) != nil {
		return secretError()
	}
	return nil
}

// mustWait reports whether an event belongs behind the block that is held.
func (f *Filter) mustWait(ev *event) bool {
	if f.holding == nil || ev.kind == pingEvent || ev.kind == errorEvent {
		return false
	}
	own := ev.kind == blockDelta || ev.kind == blockStop
	return !own || ev.index != f.holding.index
}

func (f *Filter) postpone(ev *event) error {
	if f.tail = postponed; ev.fresh {
		f.tail = dropped
	}
	if f.size += len(ev.raw); f.size > f.cfg.MaxHeld {
		return tooLarge("more than %d bytes of the answer wait behind a block that has not ended", f.cfg.MaxHeld)
	}
	f.deferred = append(f.deferred, bytes.Clone(ev.raw))
	return nil
}

// replay handles the events that waited, where nothing is before them any more.
func (f *Filter) replay(dst []byte) ([]byte, error) {
	if f.holding != nil || len(f.deferred) == 0 {
		return dst, nil
	}
	list := f.deferred
	f.deferred, f.size = nil, 0
	var err error
	for _, raw := range list {
		if dst, err = f.take(dst, raw); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func (f *Filter) handle(dst []byte, ev *event) ([]byte, error) {
	switch ev.kind {
	case blockStart:
		return f.startBlock(dst, ev)
	case blockDelta:
		return f.delta(dst, ev)
	case blockStop:
		return f.stopBlock(dst, ev)
	case messageDelta:
		return f.endMessage(dst, ev)
	case errorEvent:
		return f.fail(dst, ev)
	case messageStart:
		f.started = true
	}
	edits, err := f.policy.singles(&f.scan, ev.data, opaqueClass, span{})
	if err != nil {
		return dst, err
	}
	return f.send(dst, ev, nil, edits), nil
}

// endMessage mends the reason for which the message stopped, where the tool use that it speaks of was taken out.
func (f *Filter) endMessage(dst []byte, ev *event) ([]byte, error) {
	if f.stopped && string(ev.data[ev.stop.start:ev.stop.end]) == "tool_use" {
		if err := f.again(ev, ev.render(nil, []edit{{ev.stop.start, ev.stop.end, []byte("end_turn")}})); err != nil {
			return dst, err
		}
	}
	edits, err := f.policy.singles(&f.scan, ev.data, opaqueClass, span{})
	if err != nil {
		return dst, err
	}
	return f.send(dst, ev, nil, edits), nil
}

// fail passes the upstream's error; nothing comes behind it.
func (f *Filter) fail(dst []byte, ev *event) ([]byte, error) {
	edits, err := f.policy.singles(&f.scan, ev.data, wordClass, span{})
	if err != nil {
		return dst, err
	}
	if dst, err = f.settle(dst); err != nil {
		return dst, err
	}
	f.failed, f.holding, f.deferred = true, nil, nil
	return f.send(dst, ev, nil, edits), nil
}

// send lets an event go, behind the pending ones, with edits of its data and the index that its block has for the
// client.
func (f *Filter) send(dst []byte, ev *event, b *block, edits []edit) []byte {
	if b != nil && b.shift > 0 {
		edits = append(edits, b.indexEdit(ev))
		slices.SortFunc(edits, func(a, b edit) int { return a.start - b.start })
	}
	if len(edits) > 0 {
		ev.change(edits)
	}
	if len(f.items) > 0 {
		f.push(item{fresh: ev.fresh}, ev.raw)
		return dst
	}
	return f.passEvent(dst, ev)
}

func (f *Filter) passEvent(dst []byte, ev *event) []byte {
	dst = f.pass(dst, ev.raw, ev.kind)
	if ev.fresh {
		f.tail = dropped
	}
	return dst
}

func (b *block) indexEdit(ev *event) edit {
	return edit{ev.indexAt.start, ev.indexAt.end, strconv.AppendInt(nil, int64(b.index+b.shift), 10)}
}

// waitRoom is memory for the events of one chunk that wait for their masker.
type waitRoom struct {
	pending []byte
	items   []item
	text    []byte // pieces of one flow that its masker has not seen yet

	run     []runEvent // the last of these, still in the chunk
	runRaw  []byte
	runText int // where their text begins in text
}

// waitRooms are lent to filters while a chunk is worked on, so that an idle stream holds none.
var waitRooms = sync.Pool{New: func() any {
	return &waitRoom{pending: make([]byte, 0, 32<<10), items: make([]item, 0, 256), text: make([]byte, 0, 4<<10), run: make([]runEvent, 0, 256)}
}}

// lend gives the memory of the pending events back.
func (f *Filter) lend() {
	if room := f.room; room != nil && cap(f.pending)+cap(room.text) <= maxRoom {
		clear(f.items[:cap(f.items)])
		room.pending, room.items, room.text = f.pending[:0], f.items[:0], room.text[:0]
		waitRooms.Put(room)
	}
	f.room, f.pending, f.items = nil, nil, nil
}

// maxRoom is the largest memory that is kept for the next.
const maxRoom = 128 << 10

// borrow makes sure of memory for events that wait.
func (f *Filter) borrow() {
	if f.room == nil {
		f.room = waitRooms.Get().(*waitRoom)
		f.pending, f.items = append(f.room.pending, f.pending...), append(f.room.items, f.items...)
	}
}

// push puts an event behind the pending ones.
func (f *Filter) push(it item, raw []byte) {
	f.borrow()
	it.start = len(f.pending)
	f.pending = append(f.pending, raw...)
	it.end = len(f.pending)
	f.items = append(f.items, it)
	f.tail = pended
}

// flush lets go of the pending events whose text is decided.
func (f *Filter) flush(dst []byte) []byte {
	n := 0
	for ; n < len(f.items); n++ {
		it := &f.items[n]
		if it.stream != nil && it.stream.decided < it.to {
			break
		}
		if it.stream == nil || it.stream.touched(it.from, it.to) {
			dst = f.release(dst, it)
			continue
		}
		dst = f.pass(dst, f.pending[it.start:it.end], blockDelta)
		if it.fresh {
			f.tail = dropped
		}
		it.stream.forget(it.to)
	}
	if n == 0 {
		return dst
	}
	f.items = append(f.items[:0], f.items[n:]...)
	if len(f.items) == 0 {
		f.pending = f.pending[:0]
		return dst
	}
	f.tail = pended
	f.compact()
	return dst
}

// moveOut puts what little still waits at the end of a chunk into memory of the filter's own.
func (f *Filter) moveOut() {
	switch {
	case f.room == nil:
		return
	case len(f.items) == 0:
		f.lend()
		return
	case f.waits() > keptBuffer:
		return
	}
	base := f.items[0].start
	pending, items := bytes.Clone(f.pending[base:]), slices.Clone(f.items)
	for i := range items {
		items[i].start -= base
		items[i].end -= base
	}
	f.lend()
	f.pending, f.items = pending, items
}

// waits returns how many bytes wait for their masker.
func (f *Filter) waits() int {
	if len(f.items) == 0 {
		return 0
	}
	return len(f.pending) - f.items[0].start
}

// compact moves the pending bytes to the front.
func (f *Filter) compact() {
	base := f.items[0].start
	if base == 0 || base < len(f.pending)/2 {
		return
	}
	f.pending = append(f.pending[:0], f.pending[base:]...)
	for i := range f.items {
		f.items[i].start -= base
		f.items[i].end -= base
	}
}

// release appends one event that has no text, or has matches in it, which are replaced.
func (f *Filter) release(dst []byte, it *item) []byte {
	raw := f.pending[it.start:it.end]
	if it.stream == nil {
		return f.passEvent(dst, &event{raw: raw, fresh: it.fresh})
	}
	ev := &f.waiting
	ev.split(raw, false)
	ev.kind, ev.fresh = blockDelta, it.fresh
	text := appendUnescaped(nil, ev.data[it.text.start:it.text.end])
	masked := it.stream.replaced(nil, text, it.from)
	it.stream.forget(it.to)
	if len(masked) == 0 && !it.keep {
		f.tail = dropped
		return dst
	}
	ev.change([]edit{{it.text.start, it.text.end, appendMasked(nil, masked)}})
	return f.passEvent(dst, ev)
}

// settle decides about all that is pending, as if its blocks had stopped.
func (f *Filter) settle(dst []byte) ([]byte, error) {
	dst = f.drain(dst)
	for _, b := range f.open {
		if err := b.endFlows(); err != nil {
			return dst, err
		}
	}
	return f.flush(dst), nil
}
