package dialect

import (
	"bytes"
	"slices"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/mask"
)

// FilterMessage judges and masks an answer that is no stream. What it appends to dst is body where nothing had to be
// changed; with a nil dst it is not copied then. An error, an *access.Error, refuses the whole answer.
func (Anthropic) FilterMessage(dst, body []byte, cfg FilterConfig) (out []byte, usage Usage, err error) {
	f := NewFilter(cfg)
	m := message{f: f, body: body}
	if err := m.read(); err != nil {
		out, err := m.unread(dst, err)
		return out, Usage{}, err
	}
	if err := m.judge(); err != nil {
		return dst, f.usage, err
	}
	if err := m.mask(); err != nil {
		return dst, f.usage, err
	}
	if len(m.edits) == 0 && dst == nil {
		return body, f.usage, nil
	}
	slices.SortFunc(m.edits, func(a, b edit) int { return a.start - b.start })
	e := event{data: body}
	return e.edited(dst, m.edits), f.usage, nil
}

// message is an answer that is no stream, while it is filtered.
type message struct {
	f       *Filter
	body    []byte
	members []part // of the message, but for its content
	blocks  []part
	odd     string // why its content cannot be judged
	stop    span   // the content of stop_reason
	edits   []edit
}

// part is a piece of the message that is looked at by itself.
type part struct {
	key   string
	keyAt span // of a member
	at    span
	facts blockFacts // of a block
	gone  bool       // it was replaced
}

// read finds the parts of the message. The error says that it is not strict JSON.
func (m *message) read() error {
	s := &m.f.scan
	s.reset(m.body)
	if s.peek() != '{' {
		m.addMember(s, "")
		return s.finish()
	}
	s.object(func(key []byte) {
		switch string(key) {
		case "content":
			m.content(s)
		case "usage":
			m.again(s, "usage", func() { m.f.usage.read(s) })
		case "model":
			m.again(s, "model", func() { m.f.usage.Model = s.textOr() })
		case "id":
			m.again(s, "id", func() { m.f.usage.MessageID = s.textOr() })
		case "stop_reason":
			m.again(s, "stop_reason", func() { m.stop, _, _ = s.textSpan() })
		default:
			m.addMember(s, string(key))
		}
	})
	if err := s.finish(); err != nil {
		return err
	}
	m.f.usage.StopReason = string(appendUnescaped(nil, m.body[m.stop.start:m.stop.end]))
	return nil
}

// again notes a member that is read as well.
func (m *message) again(s *scanner, key string, read func()) {
	keyAt := lastKey(s)
	s.peek()
	start := s.pos
	read()
	m.members = append(m.members, part{key: key, keyAt: keyAt, at: span{start, s.pos}})
}

func (m *message) addMember(s *scanner, key string) {
	keyAt := lastKey(s)
	start, end := s.span()
	m.members = append(m.members, part{key: key, keyAt: keyAt, at: span{start, end}})
}

// lastKey is where the key stands whose value comes next.
func lastKey(s *scanner) span {
	if len(s.keys) == 0 {
		return span{}
	}
	ref := s.keys[len(s.keys)-1]
	return span{ref.start, ref.end}
}

func (m *message) content(s *scanner) {
	if c := s.peek(); c != '[' {
		if c != 'n' && c != '"' {
			m.odd = "the content of the message is no list"
		}
		m.addMember(s, "content")
		return
	}
	s.array(func() {
		e := event{}
		start := s.pos
		e.readBlock(s)
		switch {
		case !e.block.isObject || e.block.kind == "":
			m.odd = "a block has no type"
		case e.block.isToolUse() && e.block.name == "":
			m.odd = "a tool use has no name"
		}
		m.blocks = append(m.blocks, part{at: span{start, s.pos}, facts: e.block})
	})
}

// unread handles an answer that is not strict JSON.
func (m *message) unread(dst []byte, cause error) ([]byte, error) {
	p := &m.f.policy
	switch {
	case m.f.judging:
		return dst, ambiguous("the answer is not JSON that every parser reads alike: " + cause.Error())
	case !p.hits(m.body):
		return append(dst, m.body...), nil
	case p.redact:
		masked, _ := p.text.Mask(nil, m.body)
		return append(dst, masked...), nil
	}
	return dst, secretError()
}

// judge decides on each tool use.
func (m *message) judge() error {
	if !m.f.judging {
		return nil
	}
	if m.odd != "" {
		return ambiguous(m.odd)
	}
	stopped := false
	for i := range m.blocks {
		b := &m.blocks[i]
		if !b.facts.isToolUse() || !m.f.cfg.MayJudge(b.facts.name) {
			continue
		}
		v, err := m.f.judge(&block{
			use:     access.ToolUse{ID: b.facts.id, Name: b.facts.name},
			start:   m.body,
			inputAt: b.facts.input,
		})
		switch {
		case err != nil:
			return err
		case v.Allow:
			continue
		case v.OnDeny == access.Fail:
			return v.refusal(b.facts.name)
		}
		b.gone = true
		stopped = stopped || v.OnDeny == access.Stop
		m.edits = append(m.edits, edit{b.at.start, b.at.end, b.denied(&v)})
	}
	if stopped && string(m.body[m.stop.start:m.stop.end]) == "tool_use" {
		m.edits = append(m.edits, edit{m.stop.start, m.stop.end, []byte("end_turn")})
		m.members = slices.DeleteFunc(m.members, func(p part) bool { return p.key == "stop_reason" })
	}
	return nil
}

// denied returns what stands in place of a tool use.
func (b *part) denied(v *Verdict) []byte {
	out := append([]byte(nil), `{"type":"text","text":`...)
	out = append(appendString(out, v.words(b.facts.name)), '}')
	if v.OnDeny == access.Stop {
		return out
	}
	return appendDeniedBlock(append(out, ','), access.ToolUse{ID: b.facts.id, Name: b.facts.name}, v.Rule)
}

// mask looks at the strings of all that is left. What is no message has text only.
func (m *message) mask() error {
	if bytes.IndexByte(m.body, '\\') < 0 && !m.f.policy.hits(m.body) {
		return nil
	}
	rest := opaqueClass
	if len(m.blocks) == 0 {
		rest = wordClass
	}
	for _, member := range m.members {
		if err := m.lookAtKey(member.keyAt); err != nil {
			return err
		}
		if err := m.look(member, classOf(member.key, m.body[member.at.start], rest)); err != nil {
			return err
		}
	}
	for _, b := range m.blocks {
		c := opaqueClass
		if b.facts.kind == "text" {
			c = wordClass
		}
		if b.gone {
			if m.f.policy.hits([]byte(b.facts.id)) || m.f.policy.hits([]byte(b.facts.name)) {
				return secretError()
			}
			continue
		}
		if err := m.look(b, c); err != nil {
			return err
		}
	}
	return nil
}

// lookAtKey looks at the key of a member, which must not be changed for the job.
func (m *message) lookAtKey(at span) error {
	w := walker{policy: &m.f.policy, s: &m.f.scan}
	w.s.reset(m.body)
	w.look(opaqueClass, at.start, at.end, true)
	if w.ended {
		return secretError()
	}
	m.edits = append(m.edits, w.edits...)
	return nil
}

func (m *message) look(p part, c class) error {
	edits, err := m.f.policy.singles(&m.f.scan, m.body[p.at.start:p.at.end], c, span{})
	for _, e := range edits {
		m.edits = append(m.edits, edit{e.start + p.at.start, e.end + p.at.start, e.text})
	}
	return err
}

// FilterError masks the body of an answer with a status of 400 and above, by its strings; n is how many places were
// masked. What the upstream says is kept otherwise: clients recover by its wording.
func (Anthropic) FilterError(dst, body []byte, set *mask.Set) (out []byte, n int) {
	if set == nil || set.Empty() {
		return append(dst, body...), 0
	}
	w := walker{policy: &policy{text: set, opaque: set, redact: true}, s: newScanner(body)}
	w.value(wordClass)
	if w.s.finish() != nil {
		masked, n := set.Mask(nil, body)
		return append(dst, masked...), n
	}
	e := event{data: body}
	return e.edited(dst, w.edits), w.places
}
