package archive

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// What is written as a frame is read as that frame, and hostile bytes are an error: never a panic, never more memory than there are bytes.
func FuzzFrame(f *testing.F) {
	good, err := appendFrame(nil, kindEvent, "ses_1", []byte("{}\n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(good, good...))
	f.Add(good[:len(good)-1])
	f.Add([]byte{0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var r frameReader
		r.reset(bytes.NewReader(data), 0, int64(len(data)))
		for off := int64(0); ; {
			fr, err := r.next()
			if err != nil {
				if !errors.Is(err, errTorn) && err != io.EOF {
					t.Fatalf("error %v, want torn or the end", err)
				}
				return
			}
			again, err := appendFrame(nil, fr.kind, fr.session, fr.body)
			if err != nil || !bytes.Equal(again, data[off:off+fr.size]) {
				t.Fatalf("frame %x was read from %x", again, data[off:off+fr.size])
			}
			off += fr.size
		}
	})
}
