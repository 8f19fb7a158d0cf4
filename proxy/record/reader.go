package record

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

var (
	// ErrFormat is wrapped by the error for a line that no Chain wrote.
	ErrFormat = errors.New("not a line of a record")
	// ErrTruncated is wrapped by the error for a record whose last line has no newline.
	ErrTruncated = errors.New("the record breaks off in the middle of a line")
	// ErrChain is wrapped by the error for a line that does not follow from the one before.
	ErrChain = errors.New("the chain is broken")
)

// Line is one line of a record as it was read.
type Line struct {
	Raw     []byte // the whole line without its newline
	Session string // or the audit stream's id
	Seq     uint64
	Time    time.Time
	Prev    [sha256.Size]byte
	Type    string
	Call    string
}

// Hash is what the next line carries as prev.
func (l Line) Hash() [sha256.Size]byte { return sha256.Sum256(l.Raw) }

// Decode reads the line's data into v, a pointer to the struct of its type. Numbers in claims become json.Number: ids do not fit in a
// float64.
func (l Line) Decode(v any) error {
	d := json.NewDecoder(bytes.NewReader(l.Raw))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode %s event %d: %w", l.Type, l.Seq, err)
	}
	return nil
}

// Data returns the line's data as a pointer to the struct of its type, or as a *map[string]any where the type is not known here.
func (l Line) Data() (any, error) {
	v := NewData(l.Type)
	if v == nil {
		v = new(map[string]any)
	}
	return v, l.Decode(v)
}

// Reader reads lines. It trusts nothing: hostile input is an error, never a panic, and never more memory than MaxLine.
type Reader struct {
	r    *bufio.Reader
	line int
}

// NewReader reads a record, or a part of one, from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Next returns the next line, or io.EOF after the last. The line's bytes stay good after further calls. It checks the format only; what
// binds lines together is checked by a Verifier.
func (r *Reader) Next() (Line, error) {
	raw, err := r.raw()
	if err == io.EOF {
		return Line{}, io.EOF
	}
	r.line++
	if err != nil {
		return Line{}, fmt.Errorf("line %d: %w", r.line, err)
	}
	l, err := ParseLine(raw)
	if err != nil {
		return Line{}, fmt.Errorf("line %d: %w", r.line, err)
	}
	return l, nil
}

func (r *Reader) raw() ([]byte, error) {
	var line []byte
	for {
		piece, err := r.r.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case len(line) > MaxLine:
			return nil, fmt.Errorf("%w: longer than %d bytes", ErrFormat, MaxLine)
		case err == nil:
			return line[:len(line)-1], nil
		case err == bufio.ErrBufferFull:
		case err == io.EOF && len(line) == 0:
			return nil, io.EOF
		case err == io.EOF:
			return nil, ErrTruncated
		default:
			return nil, err
		}
	}
}

// ParseLine reads one line, given without its newline. It accepts exactly what a Chain writes. The Line keeps raw.
func ParseLine(raw []byte) (Line, error) {
	if !json.Valid(raw) {
		return Line{}, fmt.Errorf("%w: no JSON object", ErrFormat)
	}
	l := Line{Raw: raw}
	p := envelope{rest: raw}
	p.literal(`{"schema_version":`)
	if v := p.number(); p.err == nil && v != SchemaVersion {
		return Line{}, fmt.Errorf("%w: schema_version %d, this reader knows %d", ErrFormat, v, SchemaVersion)
	}
	key := idKey("")
	if bytes.HasPrefix(p.rest, []byte(idKey(AuditPrefix))) {
		key = idKey(AuditPrefix)
	}
	p.literal(key)
	if l.Session = p.id(); p.err == nil && idKey(l.Session) != key {
		p.fail("the id of a session where that of a stream belongs, or the other way round")
	}
	p.literal(`,"seq":`)
	l.Seq = p.number()
	p.literal(`,"time":"`)
	l.Time = p.time()
	p.literal(`,"prev":"`)
	l.Prev = p.hash()
	p.literal(`,"type":"`)
	l.Type = p.id()
	if bytes.HasPrefix(p.rest, []byte(`,"call":"`)) {
		p.literal(`,"call":"`)
		l.Call = p.id()
	}
	if p.err != nil {
		return Line{}, p.err
	}
	if l.Seq == 0 {
		return Line{}, fmt.Errorf("%w: seq 0, the first is 1", ErrFormat)
	}
	return l, checkKeys(raw)
}

// envelope takes the fixed beginning of a line apart and keeps its first error.
type envelope struct {
	rest []byte
	err  error
}

func (p *envelope) fail(what string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s", ErrFormat, what)
	}
}

func (p *envelope) literal(s string) {
	if p.err != nil {
		return
	}
	rest, ok := bytes.CutPrefix(p.rest, []byte(s))
	if !ok {
		p.fail("no " + s + " where it belongs")
		return
	}
	p.rest = rest
}

func (p *envelope) number() uint64 {
	n := 0
	for n < len(p.rest) && '0' <= p.rest[n] && p.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(string(p.rest[:n]), 10, 64)
	if err != nil {
		p.fail("no number where one belongs")
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

// str takes a string up to its closing quote. No string of the envelope holds an escape.
func (p *envelope) str() string {
	end := bytes.IndexByte(p.rest, '"')
	if p.err != nil || end < 0 {
		p.fail("a string without end")
		return ""
	}
	s := string(p.rest[:end])
	p.rest = p.rest[end+1:]
	return s
}

func (p *envelope) id() string {
	s := p.str()
	if p.err == nil && !validID(s) {
		p.fail("an id with characters other than letters, digits and _-.:")
	}
	return s
}

func (p *envelope) time() time.Time {
	s := p.str()
	t, err := time.Parse(timeLayout, s)
	if p.err == nil && (err != nil || t.Format(timeLayout) != s) {
		p.fail("a time that is not RFC 3339 in UTC with nine digits of a second")
	}
	return t
}

func (p *envelope) hash() (h [sha256.Size]byte) {
	s := p.str()
	if p.err != nil {
		return h
	}
	if n, err := hex.Decode(h[:], []byte(s[:min(len(s), 2*len(h))])); err != nil || n != len(h) || hex.EncodeToString(h[:]) != s {
		p.fail("a prev that is not 64 digits of lower-case hex")
	}
	return h
}

// checkKeys refuses an object, known to be valid JSON, that has a key twice, or one that is not in snake case: two readers, one of them
// careless about case, could read two records in it.
func checkKeys(raw []byte) error {
	seen := make(map[string]bool, 16)
	depth, key := 0, false
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '{', '[':
			depth++
			key = depth == 1
		case '}', ']':
			depth--
		case ',':
			key = depth == 1
		case '"':
			end := stringEnd(raw, i)
			if key {
				key = false
				name := string(raw[i+1 : end])
				if !validKey(name) {
					return fmt.Errorf("%w: the key %q is not in snake case", ErrFormat, name)
				}
				if seen[name] {
					return fmt.Errorf("%w: the key %q stands twice", ErrFormat, name)
				}
				seen[name] = true
			}
			i = end
		}
	}
	return nil
}

func validKey(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// stringEnd returns where the string that begins at i ends: the index of its closing quote.
func stringEnd(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(raw) - 1
}
