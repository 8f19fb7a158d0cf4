package dialect

import "github.com/jobgate/jobgate/proxy/mask"

// flowStream is one text of a block, on its way through a masker. A masker sees the decoded text as one; what it has
// not decided about yet keeps the events that hold it.
type flowStream struct {
	flow    flow
	stream  *mask.Stream
	masks   bool // or a match ends the answer
	fed     int64
	decided int64
	matches []mask.Match // that lie in events which have not left
}

// feed gives the next piece to the masker. It reports whether the piece is decided and free of matches.
func (fs *flowStream) feed(text []byte) (clean bool, err error) {
	from := fs.fed
	fs.fed += int64(len(text))
	decided, matches := fs.stream.Scan(text)
	fs.decided = decided
	if err := fs.take(matches); err != nil {
		return false, err
	}
	return fs.decided >= fs.fed && !fs.touched(from, fs.fed), nil
}

// end decides about all.
func (fs *flowStream) end() error {
	matches := fs.stream.ScanClose()
	fs.decided = fs.fed
	return fs.take(matches)
}

func (fs *flowStream) take(matches []mask.Match) error {
	if len(matches) > 0 && !fs.masks {
		return secretError()
	}
	fs.matches = append(fs.matches, matches...)
	return nil
}

// touched reports whether a match lies in the stretch.
func (fs *flowStream) touched(from, to int64) bool {
	for i := range fs.matches {
		if fs.matches[i].Start < to && from < fs.matches[i].End {
			return true
		}
	}
	return false
}

// replaced appends text, the stretch of the flow that begins at from, with its matches replaced. A placeholder stands
// in the piece in which its match begins.
func (fs *flowStream) replaced(dst, text []byte, from int64) []byte {
	to, at := from+int64(len(text)), from
	for i := range fs.matches {
		m := &fs.matches[i]
		if m.End <= at || m.Start >= to {
			continue
		}
		if m.Start >= from {
			dst = append(dst, text[at-from:m.Start-from]...)
			dst = append(dst, m.Placeholder...)
		}
		at = min(m.End, to)
	}
	return append(dst, text[at-from:]...)
}

// forget drops the matches that end before an offset.
func (fs *flowStream) forget(before int64) {
	n := 0
	for n < len(fs.matches) && fs.matches[n].End <= before {
		n++
	}
	fs.matches = fs.matches[n:]
}

// item is an event that waits for its masker, in Filter.pending.
type item struct {
	start, end int // of its raw bytes
	stream     *flowStream
	from, to   int64 // of its text in the flow
	text       span  // of its text in the data
	fresh      bool  // it was written here, with line ends of its own
	keep       bool  // it stays where its text is masked away whole
}

func (b *block) endFlows() error {
	for _, fs := range b.flows {
		if err := fs.end(); err != nil {
			return err
		}
	}
	b.flows = nil
	return nil
}

// flowStream returns the stream of a block for a flow, nil where nothing is looked for in it.
func (b *block) flowStream(f flow, p *policy) *flowStream {
	for _, fs := range b.flows {
		if fs.flow == f {
			return fs
		}
	}
	c := opaqueClass
	if f == textFlow {
		c = wordClass
	}
	set, masks := p.set(c)
	if set == nil {
		return nil
	}
	fs := &flowStream{flow: f, stream: set.NewStream(), masks: masks}
	b.flows = append(b.flows, fs)
	return fs
}

// piece takes an event that holds a piece of a block's text.
func (f *Filter) piece(dst []byte, ev *event, b *block) ([]byte, error) {
	fs := b.flowStream(ev.flow, &f.policy)
	if fs == nil {
		return f.send(dst, ev, b, nil), nil
	}
	text := ev.data[ev.text.start:ev.text.end]
	if ev.escaped {
		f.decoded = appendUnescaped(f.decoded[:0], text)
		text = f.decoded
	}
	from := fs.fed
	if f.batched == fs {
		from += int64(len(f.room.text))
	}
	it := item{stream: fs, from: from, to: from + int64(len(text)), text: ev.text, fresh: ev.fresh, keep: ev.kind != blockDelta}
	if !fs.masks {
		clean, err := fs.feed(text)
		if err != nil {
			return dst, err
		}
		if clean && len(f.items) == 0 {
			return f.send(dst, ev, b, nil), nil
		}
	}
	if f.waits()+len(ev.raw) > f.cfg.MaxHeld {
		if dst = f.drain(dst); f.waits()+len(ev.raw) > f.cfg.MaxHeld {
			return dst, tooLarge("more than %d bytes of the answer wait for their masker", f.cfg.MaxHeld)
		}
	}
	if f.batched == fs {
		f.standRun(fs)
	}
	raw := ev.raw
	if b.shift > 0 {
		if err := f.again(ev, ev.render(nil, []edit{b.indexEdit(ev)})); err != nil {
			return dst, err
		}
		raw, it.text, it.fresh = ev.raw, ev.text, ev.fresh
	}
	f.push(it, raw)
	if !fs.masks {
		return f.flush(dst), nil
	}
	f.room.text = append(f.room.text, text...)
	f.batched, f.batchIndex = fs, ev.index
	if ev.kind == blockDelta && b.shift == 0 {
		f.learnFrame(ev, fs)
	}
	return dst, nil
}

// drain gives the pieces of a run of events to their masker at once, since it costs the same for one as for many, and
// lets go of what is decided by that.
func (f *Filter) drain(dst []byte) []byte {
	fs := f.batched
	if fs == nil {
		return dst
	}
	f.batched = nil
	base := fs.fed
	_, _ = fs.feed(f.room.text) // a stream that masks has no error
	f.room.text = f.room.text[:0]
	return f.endRun(f.flush(dst), fs, base)
}
