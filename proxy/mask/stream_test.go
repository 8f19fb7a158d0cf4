package mask_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/jobgate/jobgate/proxy/mask"
)

// TestHeld: text that cannot be the beginning of a match goes on at once, and what may be one is held from there.
func TestHeld(t *testing.T) {
	set := compile(t, mask.Config{
		Secrets:   []mask.Secret{{Name: "a", Value: []byte("~secret-value~")}},
		Detectors: mask.Detectors(),
	})
	for _, c := range []struct {
		src  string
		held int
	}{
		{"all that is said here. ", 0},
		{"and this ~sec", 4},
		{"and this ~secret-value", 13},
		{"and this ~secret-valuE ", 0},
		{`a quote \`, 1},
		{`a quote \"!`, 0},
		{`an escape \u00`, 4},
		{`an escape \u0021!`, 0},
		{`an escape \u007esec`, 9},
		{"fnN" + strings.Repeat("\n", 2), 5}, // base64 of the value, and CR LF may part it
		{"fnN" + strings.Repeat("\n", 3), 0},
		{"the x5", 0}, // base64 of the value, at another alignment, but x does not end with its first bits
		{"the n5", 1},
		{"the 5", 1},
		{"the %785", 1},
		{"the m+", 0},
		{"the h+", 1},
		{"50%", 1},
		{"50% of ", 0},
		{"%7e%7", 5},
		{"an AKIA123", 7},
		{"an AKIA-.", 0},
		{"see https://example.com:80/ ", 0},
		{"see https://example.com:80", 17},
	} {
		st := set.NewStream()
		out := st.Write(nil, []byte(c.src))
		if st.Held() != c.held || len(out)+st.Held() != len(c.src) {
			t.Errorf("after %q: %d held, want %d; out %q", c.src, st.Held(), c.held, out)
		}
		if out = st.Close(out); string(out) != c.src || st.Held() != 0 {
			t.Errorf("Close after %q: %q, %d held", c.src, out, st.Held())
		}
	}
}

// TestLongTails: values longer than what is held back are masked to their end, in bounded memory.
func TestLongTails(t *testing.T) {
	set := compile(t, mask.Config{Detectors: mask.Detectors()})
	key := "-----BEGIN PRIVATE KEY-----" + strings.Repeat("\n"+letters(64), 400)
	for name, value := range map[string]string{
		"bearer": "Authorization: Bearer " + letters(20_000), "token": "sk-ant-" + letters(9000), "jwt": "eyJ" + letters(20) + "." + letters(5000) + "." + letters(6000), "key": key,
	} {
		src := "before " + value + "! after"
		out, n := set.Mask(nil, []byte(src))
		if n != 1 || len(out) > 110 || !strings.HasPrefix(string(out), "before ") || !strings.HasSuffix(string(out), "]! after") {
			t.Errorf("%s: %d places, %.200q", name, n, out)
		}
		st, most := set.NewStream(), 0
		var got []byte
		for piece := range bytes.Lines(bytes.ReplaceAll([]byte(src), []byte("a"), []byte("a\x00\n"))) {
			got = st.Write(got, bytes.TrimSuffix(piece, []byte("\x00\n")))
			most = max(most, st.Held())
		}
		if got = st.Close(got); string(got) != string(out) {
			t.Errorf("%s in pieces: %.200q, want %.200q", name, got, out)
		}
		if most > mask.MaxMatch+1000 {
			t.Errorf("%s: %d bytes held back", name, most)
		}
	}
}

// TestScan shows what those do with matches who keep the framing of the text.
func TestScan(t *testing.T) {
	set := compile(t, mask.Config{Secrets: []mask.Secret{{Name: "a", Value: []byte("secret-1")}}})
	st := set.NewStream()
	for _, c := range []struct {
		piece   string
		decided int64
		matches []mask.Match
	}{
		{"x sec", 2, nil},
		{"ret-", 2, nil},
		{"1secret-", 10, []mask.Match{{Start: 2, End: 10, Placeholder: "[masked:a:" + tag("secret-1") + "]"}}},
		{"1.", 19, []mask.Match{{Start: 10, End: 18}}},
		{"", 19, nil},
	} {
		decided, matches := st.Scan([]byte(c.piece))
		if decided != c.decided || fmt.Sprint(matches) != fmt.Sprint(c.matches) {
			t.Errorf("Scan(%q) = %d, %v, want %d, %v", c.piece, decided, matches, c.decided, c.matches)
		}
	}
	if matches := st.ScanClose(); len(matches) != 0 || st.Held() != 0 || st.Count() != 1 {
		t.Errorf("ScanClose() = %v, %d held, %d places", matches, st.Held(), st.Count())
	}
}

// TestIdleStream: a stream that waits for more costs less than 512 bytes, whatever went through it.
func TestIdleStream(t *testing.T) {
	set := compile(t, mask.Config{Secrets: benchSecrets(20), Detectors: mask.Detectors()})
	big := bytes.Repeat([]byte("some text that is clean, "), 400)
	big = append(big, "and more of i"...)
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC() // the second empties pools
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	streams := make([]*mask.Stream, 1000)
	out := make([]byte, 0, 4*len(big))
	before := heap()
	for i := range streams {
		streams[i] = set.NewStream()
		for range 3 {
			out = streams[i].Write(out[:0], big)
		}
		if held := streams[i].Held(); held > 1 {
			t.Fatalf("%d bytes held", held)
		}
	}
	if each := (int64(heap()) - int64(before)) / int64(len(streams)); each >= 512 {
		t.Errorf("an idle stream has %d bytes", each)
	}
	runtime.KeepAlive(streams)
}

// TestKnownBeforeDetected: what is known is called by its name, also where a detector would have found it.
func TestKnownBeforeDetected(t *testing.T) {
	token := "ghp_" + letters(36)
	set := compile(t, mask.Config{
		Secrets: []mask.Secret{{Name: "bot", Value: []byte(token)}}, Detectors: mask.Detectors(),
	})
	for _, src := range []string{token, "Authorization: Bearer " + token, "https://x:" + token + "@github.com/"} {
		want := strings.ReplaceAll(src, token, "[masked:bot:"+tag(token)+"]")
		if out, n := set.Mask(nil, []byte(src)); string(out) != want || n != 1 {
			t.Errorf("Mask(%q) = %q, want %q", src, out, want)
		}
	}
}

// TestTogether: one set, many streams at once.
func TestTogether(t *testing.T) {
	set := compile(t, mask.Config{Secrets: benchSecrets(3), Detectors: mask.Detectors()})
	src := "x " + string(benchSecrets(3)[1].Value) + " " + letters(50) + " ghp_" + letters(36)
	want, _ := set.Mask(nil, []byte(src))
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			if got := stream(set, []byte(src), n+1); got != string(want) {
				t.Errorf("by %d bytes: %q, want %q", n+1, got, want)
			}
		})
	}
	all.Wait()
}
