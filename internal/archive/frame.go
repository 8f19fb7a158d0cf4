package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const segmentMagic = "JGSPOOL1"

const (
	frameHead = 8         // length and checksum
	maxFrame  = 256 << 20 // a snapshot of some fifty thousand sessions
)

// The kinds of frames; doc.go says what each holds.
const (
	kindEvent byte = 1 + iota
	kindSnapshot
	kindPart
	kindOpening
	kindDone
	kindClose
)

// errTorn is returned for bytes that are no whole frame: a write that was cut short, or a damaged disk.
var errTorn = errors.New("no whole frame")

// A frame is one unit of the spool.
type frame struct {
	kind    byte
	session string
	body    []byte
	size    int64 // with its head
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// beginFrame appends a frame's head and the start of its payload; the body follows, then endFrame.
func beginFrame(b []byte, kind byte, session string) []byte {
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, kind, byte(len(session)))
	return append(b, session...)
}

// endFrame fills in the head of the frame that began at start and ends with b.
func endFrame(b []byte, start int) error {
	payload := b[start+frameHead:]
	if len(payload) > maxFrame {
		return fmt.Errorf("spool frame of %d bytes: at most %d fit", len(payload), maxFrame)
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(payload, castagnoli))
	return nil
}

func appendFrame(b []byte, kind byte, session string, body []byte) ([]byte, error) {
	start := len(b)
	b = append(beginFrame(b, kind, session), body...)
	return b, endFrame(b, start)
}

// frameReader reads the frames of a stretch of a file, many of them with one read(2). Its zero value is ready for a reset.
type frameReader struct {
	r    io.ReaderAt
	off  int64  // of the next frame in the file
	end  int64  // of the stretch
	have []byte // what is read already, from off on; in room
	room []byte
	id   string // of the last frame; frames of one session follow each other
}

const (
	// readAhead is how much is read at once, unless a frame is longer.
	readAhead = 256 << 10
	// keepRoom is the largest room that a reader keeps for its next stretch.
	keepRoom = 1 << 20
)

// reset begins with the stretch from off to end. It keeps the reader's memory.
func (fr *frameReader) reset(r io.ReaderAt, off, end int64) {
	fr.r, fr.off, fr.end, fr.have = r, off, end, nil
	if len(fr.room) > keepRoom {
		fr.room = nil
	}
}

// next returns the next frame, whose body is good until the reader is used again. It returns io.EOF at the end and errTorn where no whole
// frame is; after an error it stands where it stood.
func (fr *frameReader) next() (frame, error) {
	if fr.off == fr.end {
		return frame{}, io.EOF
	}
	if err := fr.fill(frameHead); err != nil {
		return frame{}, err
	}
	n := int64(binary.LittleEndian.Uint32(fr.have))
	if n < 2 || n > maxFrame {
		return frame{}, errTorn
	}
	if err := fr.fill(frameHead + n); err != nil {
		return frame{}, err
	}
	payload := fr.have[frameHead : frameHead+n]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(fr.have[4:]) {
		return frame{}, errTorn
	}
	id := 2 + int(payload[1])
	if id > len(payload) || payload[0] < kindEvent || payload[0] > kindClose {
		return frame{}, errTorn
	}
	if string(payload[2:id]) != fr.id {
		fr.id = string(payload[2:id])
	}
	fr.off, fr.have = fr.off+frameHead+n, fr.have[frameHead+n:]
	return frame{kind: payload[0], session: fr.id, body: payload[id:], size: frameHead + n}, nil
}

// fill sees to it that n bytes are there, and reads as many more as are at hand.
func (fr *frameReader) fill(n int64) error {
	if n > fr.end-fr.off {
		return errTorn
	}
	if n <= int64(len(fr.have)) {
		return nil
	}
	most := min(max(n, readAhead), fr.end-fr.off)
	if most > int64(len(fr.room)) {
		fr.room = make([]byte, most)
	}
	got, err := fr.r.ReadAt(fr.room[:most], fr.off)
	if int64(got) < n {
		fr.have = nil
		return fmt.Errorf("read spool at %d: %w", fr.off, err)
	}
	fr.have = fr.room[:got]
	return nil
}
