package testkit

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzEventReader holds that neither the line ends nor the pieces in which a
// stream arrives change what is read.
func FuzzEventReader(f *testing.F) {
	for _, seed := range []string{
		"event: ping\ndata: {\"type\": \"ping\"}\n\n",
		"data: a\ndata: b\n\ndata:c\n\n",
		": comment\nid: 1\n\n\n\ndata\n\ndata:\n\n",
		"data: unfinished",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		plain := strings.ReplaceAll(strings.ReplaceAll(string(stream), "\r\n", "\n"), "\r", "\n")
		want := readEvents(newEventReader(strings.NewReader(plain)))
		for _, end := range []string{"\n", "\r", "\r\n"} {
			framed := strings.ReplaceAll(plain, "\n", end)
			got := readEvents(newEventReader(iotest.OneByteReader(strings.NewReader(framed))))
			if !bytes.Equal(bytes.Join(got, []byte("|")), bytes.Join(want, []byte("|"))) {
				t.Errorf("with line ends %q: %q, want %q", end, got, want)
			}
		}
	})
}

func readEvents(e *eventReader) [][]byte {
	var all [][]byte
	for {
		data, err := e.next()
		if err != nil {
			return all
		}
		all = append(all, data)
	}
}
