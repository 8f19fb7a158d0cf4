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

// readFrame reads the frame at off of a file that is end bytes long. It returns io.EOF at the end and errTorn where no whole frame is.
func readFrame(r io.ReaderAt, off, end int64) (frame, error) {
	if off == end {
		return frame{}, io.EOF
	}
	var head [frameHead]byte
	if end-off < frameHead {
		return frame{}, errTorn
	}
	if _, err := r.ReadAt(head[:], off); err != nil {
		return frame{}, fmt.Errorf("read spool at %d: %w", off, err)
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n < 2 || n > maxFrame || n > end-off-frameHead {
		return frame{}, errTorn
	}
	payload := make([]byte, n)
	if _, err := r.ReadAt(payload, off+frameHead); err != nil {
		return frame{}, fmt.Errorf("read spool at %d: %w", off, err)
	}
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return frame{}, errTorn
	}
	id := 2 + int(payload[1])
	if id > len(payload) || payload[0] < kindEvent || payload[0] > kindClose {
		return frame{}, errTorn
	}
	return frame{kind: payload[0], session: string(payload[2:id]), body: payload[id:], size: frameHead + n}, nil
}
