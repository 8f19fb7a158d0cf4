package proxy_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"
)

// rebuilt reads a record and returns the request bodies, by call, as a reader rebuilds them.
func rebuilt(t *testing.T, lines string) (bodies [][]byte, differences int) {
	t.Helper()
	byCall := map[string][]byte{}
	r := record.NewReader(strings.NewReader(lines))
	for {
		line, err := r.Next()
		if err == io.EOF {
			return bodies, differences
		}
		if err != nil {
			t.Fatal(err)
		}
		if line.Type != record.TypeCallStarted {
			continue
		}
		var started record.CallStarted
		if err := line.Decode(&started); err != nil {
			t.Fatal(err)
		}
		var body []byte
		if started.Body != nil {
			base, known := byCall[started.Body.Base]
			if started.Body.Base != "" {
				differences++
				if !known {
					t.Fatalf("the base %s does not stand before", started.Body.Base)
				}
			}
			if body, err = started.Body.Bytes(base); err != nil {
				t.Fatal(err)
			}
		}
		byCall[line.Call] = body
		bodies = append(bodies, body)
	}
}

func TestBodiesAreRebuiltFromTheRecord(t *testing.T) {
	maskers, err := proxy.NewMaskers(access.NewSecret("key"), []proxy.Held{{Name: "held", Secret: access.NewSecret(plainSecret)}})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, options{maskers: maskers, upstream: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })})
	masks, err := maskers.For("s_1")
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"ä", "🎈", "\u2028", "a", "aaaa", `{"x":`, "\\u00e4", "\n", plainSecret, "ghp_16C7e42F292c6912E7710c838347Ae178B4a ", strings.Repeat("long ", 100), "\xc3", "\xff\xfe", "é"}
	valid := pieces[:11]
	var want [][]byte
	body := ""
	for n := range 400 {
		from := valid
		if n%7 == 0 {
			from = pieces
		}
		add := ""
		for range random.IntN(6) {
			add += from[random.IntN(len(from))]
		}
		switch random.IntN(5) {
		case 0: // another conversation
			body = add
		case 1, 2: // one more turn before the end
			at := len(body) - min(len(body), 10)
			body = body[:at] + add + body[at:]
		case 3: // anything, anywhere, also within a character
			at, to := random.IntN(len(body)+1), random.IntN(len(body)+1)
			body = body[:min(at, to)] + add + body[max(at, to):]
		case 4: // the same again
		}
		if len(body) > 20<<10 {
			body = body[:100]
		}
		method, path := "POST", "/plain/a"
		if n%11 == 0 {
			path = "/plain/refused" // its body is recorded, and no base
		}
		_ = read(t, w.call(method, path, body))
		w.settled(1)
		masked, _ := masks.Full.Mask(nil, []byte(body))
		want = append(want, bytes.Clone(masked))
	}
	got, differences := rebuilt(t, w.record.text())
	if len(got) != len(want) {
		t.Fatalf("%d bodies, want %d", len(got), len(want))
	}
	for n := range want {
		if !bytes.Equal(got[n], want[n]) {
			t.Fatalf("body %d is rebuilt as %q, want %q", n, got[n], want[n])
		}
	}
	if differences < len(want)/4 {
		t.Errorf("only %d of %d bodies are recorded as differences", differences, len(want))
	}
	w.proxy.Forget("s_1")
	before := differences
	_ = read(t, w.call("POST", "/plain/a", body))
	w.settled(1)
	if _, differences := rebuilt(t, w.record.text()); differences != before {
		t.Error("what was forgotten is still a base")
	}
}

// A body of an agent grows by one turn; the record must not grow by the conversation.
func TestRecordGrowsByTheTurn(t *testing.T) {
	w := newWorld(t, options{})
	history := strings.Repeat(`{"role":"user","content":"`+strings.Repeat("words ", 200)+`"},`, 30)
	for n := range 10 {
		history += `{"role":"user","content":"turn ` + string(rune('a'+n)) + `"},`
		body := strings.Replace(message(false, ""), `[{"role"`, `[`+history+`{"role"`, 1)
		if resp := w.call("POST", "/anthropic/v1/messages", body); resp.StatusCode != 200 {
			t.Fatal(read(t, resp))
		}
		w.settled(1)
	}
	if size := len(w.record.text()); size > len(history)*2 {
		t.Errorf("ten calls of %d bytes are recorded in %d bytes", len(history), size)
	}
}
