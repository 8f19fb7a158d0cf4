package record

import (
	"encoding/binary"
	"strings"
)

// Most of what is recorded are model's answers that came as streams: hundreds of events that differ in a few letters.
//
//	event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" one"}}\n\n
//	event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" more"}}\n\n
//	└─────────────── escaped once, then copied ────────────────────────────────────────────────────────────────┘
//
// Only the time that escaping takes depends on this, never what is written.

// eventStart is how a stream of events begins as the record has it.
const eventStart = "event: "

// blankLine ends an event.
const blankLine = "\n\n"

// sharedWords bounds how much of an event's beginning is looked at: this many words of eight bytes.
const sharedWords = 32

// beginning is the beginning of an event that was escaped: where it stands in the text and in what was written.
type beginning struct {
	text    string
	written int
	words   int                 // of text, whose escaped form is known
	ends    [sharedWords]uint16 // by word, where its escaped form ends, from written on
}

// appendEvents appends a stream's events as the inside of a JSON string: what appendText appends, but faster.
func appendEvents(b []byte, s string) []byte {
	var last beginning
	for len(s) > 0 {
		end := len(s)
		if i := strings.Index(s, blankLine); i >= 0 {
			end = i + len(blankLine)
		}
		b = last.next(grow(b, 8*sharedWords), s[:end])
		b = appendText(b, s[8*last.words:end])
		s = s[end:]
	}
	return b
}

// next appends the first words of an event, and copies of them what the event before had, too. The caller made room.
func (g *beginning) next(b []byte, event string) []byte {
	same := 0
	for same < g.words && 8*same+8 <= len(event) && word(event[8*same:]) == word(g.text[8*same:]) {
		same++
	}
	start := len(b)
	if same > 0 {
		b = append(b, b[g.written:g.written+int(g.ends[same-1])]...)
	}
	g.text, g.written, g.words = event, start, same
	out, at := b[:cap(b)], len(b)
	for g.words < sharedWords && 8*g.words+8 <= len(event) {
		w := word(event[8*g.words:])
		switch {
		case w&highs != 0:
			return out[:at]
		case plain(w):
			binary.LittleEndian.PutUint64(out[at:], w)
			at += 8
		default:
			at += escapeWord((*[roomOfWord]byte)(out[at:]), w)
		}
		g.ends[g.words] = uint16(at - start)
		g.words++
	}
	return out[:at]
}
