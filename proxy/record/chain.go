package record

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// timeLayout is what appendTime writes.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// Chain writes the lines of one session: it numbers them and binds each to the one before. It is not safe for concurrent use.
type Chain struct {
	session string
	seq     uint64
	head    [sha256.Size]byte
}

// lineBuffer lets an encoder append to whatever slice the caller brought.
type lineBuffer struct{ b []byte }

func (w *lineBuffer) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

// NewChain starts an empty record.
func NewChain(session string) *Chain { return ResumeChain(session, 0, [sha256.Size]byte{}) }

// ResumeChain goes on after the line numbered seq, whose hash is head.
func ResumeChain(session string, seq uint64, head [sha256.Size]byte) *Chain {
	return &Chain{session: session, seq: seq, head: head}
}

// Session is the id that the chain writes into its lines.
func (c *Chain) Session() string { return c.session }

// Head returns the number of the last line and its hash; 0 and zeros before the first.
func (c *Chain) Head() (seq uint64, head [sha256.Size]byte) { return c.seq, c.head }

// Append appends the event's line, newline included, to dst. After an error nothing was appended and the chain stands where it stood.
// Text that is not UTF-8 is written with U+FFFD in place of each bad byte, so callers encode such bodies in base64 first.
func (c *Chain) Append(dst []byte, e Event) ([]byte, error) {
	if err := c.check(e); err != nil {
		return dst, err
	}
	start := len(dst)
	line, err := c.line(dst, e)
	if err != nil {
		return dst[:start], err
	}
	if n := len(line) - start; n > MaxLine {
		return dst[:start], fmt.Errorf("record %s event of %d bytes: at most %d fit in a line; truncate the body", e.Type, n, MaxLine)
	}
	c.head = sha256.Sum256(line[start : len(line)-1])
	c.seq++
	return line, nil
}

func (c *Chain) check(e Event) error {
	switch {
	case !validID(c.session):
		return fmt.Errorf("record session id %q: use letters, digits and _-.: only", c.session)
	case !validID(e.Type):
		return fmt.Errorf("record event type %q: use letters, digits and _-.: only", e.Type)
	case e.Call != "" && !validID(e.Call):
		return fmt.Errorf("record call id %q: use letters, digits and _-.: only", e.Call)
	case e.Time.IsZero():
		return fmt.Errorf("record %s event without a time", e.Type)
	}
	if y := e.Time.UTC().Year(); y < 0 || y > 9999 {
		return fmt.Errorf("record %s event of the year %d: RFC 3339 has four digits", e.Type, y)
	}
	return nil
}

// line writes the envelope and then the data, by hand for the events of every call, which is faster and has the same bytes.
func (c *Chain) line(dst []byte, e Event) ([]byte, error) {
	b := c.appendEnvelope(dst, e)
	if e.Data == nil {
		return append(b, '}', '\n'), nil
	}
	if b, ok := appendData(b, e.Data); ok {
		return append(b, '}', '\n'), nil
	}
	return encodeData(b, e)
}

// encodeData has the data written by encoding/json, whose opening brace becomes a comma.
func encodeData(b []byte, e Event) ([]byte, error) {
	out, brace := lineBuffer{b}, len(b)
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e.Data); err != nil {
		return nil, fmt.Errorf("record %s event: %w", e.Type, err)
	}
	data := out.b[brace:]
	if data[0] != '{' {
		return nil, errors.New("record " + e.Type + " event: its data is no JSON object; use the struct of its type")
	}
	if data[1] == '}' {
		return append(out.b[:brace], '}', '\n'), nil
	}
	data[0] = ','
	return out.b, nil
}

func (c *Chain) appendEnvelope(b []byte, e Event) []byte {
	b = append(b, `{"schema_version":1`...)
	b = append(b, idKey(c.session)...)
	b = append(b, c.session...)
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, c.seq+1, 10)
	b = append(b, `,"time":"`...)
	b = appendTime(b, e.Time)
	b = append(b, `","prev":"`...)
	b = hex.AppendEncode(b, c.head[:])
	b = append(b, `","type":"`...)
	b = append(b, e.Type...)
	b = append(b, '"')
	if e.Call != "" {
		b = append(b, `,"call":"`...)
		b = append(b, e.Call...)
		b = append(b, '"')
	}
	return b
}

// idKey is the key under which a record's id stands. An audit stream is no session, and its events speak of sessions.
func idKey(id string) string {
	if IsAudit(id) {
		return `,"stream":"`
	}
	return `,"session":"`
}

// idLetters has what an id may hold.
var idLetters = func() (table [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:" {
		table[c] = true
	}
	return table
}()

// validID reports whether s can stand in the envelope without an escape.
func validID(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	for i := range len(s) {
		if !idLetters[s[i]] {
			return false
		}
	}
	return true
}
