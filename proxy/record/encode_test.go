package record_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/proxy/record"
)

// everyCall are the events that are written by hand.
var everyCall = []string{record.TypeCallStarted, record.TypeDecision, record.TypeCallSent, record.TypeResponse, record.TypeToolUse, record.TypeCallEnded}

// standard is the line that encoding/json makes of an event, in a record that begins with it.
func standard(t testing.TB, e record.Event) string {
	t.Helper()
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e.Data); err != nil {
		t.Fatal(err)
	}
	call := ""
	if e.Call != "" {
		call = fmt.Sprintf(`,"call":"%s"`, e.Call)
	}
	line := fmt.Sprintf(`{"schema_version":1,"session":"ses_1","seq":1,"time":"%s","prev":"%s","type":"%s"%s`,
		e.Time.UTC().Format("2006-01-02T15:04:05.000000000Z"), strings.Repeat("0", 64), e.Type, call)
	if members := strings.TrimPrefix(data.String(), "{"); members != "}\n" {
		return line + "," + members
	}
	return line + "}\n"
}

func compare(t testing.TB, e record.Event) {
	t.Helper()
	got, err := record.NewChain("ses_1").Append([]byte("before"), e)
	if err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
	if want := "before" + standard(t, e); string(got) != want {
		t.Fatalf("%+v is written as\n%s, encoding/json writes\n%s", e, got, want)
	}
}

// The lines that are written by hand are those of encoding/json, whatever is in the fields: a field that is new and forgotten fails here.
func TestLinesAreThoseOfEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, typ := range everyCall {
		for range 400 {
			data := reflect.ValueOf(record.NewData(typ))
			fill(r, data.Elem())
			e := record.Event{Type: typ, Call: []string{"", "call_1"}[r.IntN(2)], Time: time.Unix(r.Int64N(1<<37)-1<<35, r.Int64N(1e9)), Data: data.Interface()}
			compare(t, e)
			e.Data = data.Elem().Interface()
			compare(t, e)
		}
	}
	for _, e := range samples() {
		e.Time = at
		compare(t, e)
	}
}

// fill sets a value to anything that its type allows, and leaves much of it out.
func fill(r *rand.Rand, v reflect.Value) {
	if v.Kind() != reflect.Struct && r.IntN(3) == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(4), 4))
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(30) {
			v.SetMapIndex(reflect.ValueOf(anyText(r)), reflect.ValueOf(anyText(r)))
		}
	case reflect.String:
		v.SetString(anyText(r))
	case reflect.Int, reflect.Int64:
		v.SetInt(r.Int64() >> r.IntN(64) * (1 - 2*r.Int64N(2)))
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("fill does not know " + v.Type().String())
	}
}

// anyText is mostly short, and has everything that needs an escape, or looks as if.
func anyText(r *rand.Rand) string {
	pieces := []string{"a", "word", "<&>", `"`, `\`, "\n", "\r\n", "\t", "\b\f", "\x00", "\x1f", "\x7f", "ä", "\u2027", "\u2028", "\u2029", "世界", "😀", "\uffff", "\ufffd",
		"\xff", "\xc3", "\xe2\x80", "\xe2\x80\xa8"[1:], "\xed\xa0\x80", "\xf0\x9f\x98", "\xc0\x80", "\xf5\x80\x80\x80", "eight by", `data: {"type":"text_delta"}`}
	n := r.IntN(6)
	if r.IntN(20) == 0 {
		n = r.IntN(1500)
	}
	var b strings.Builder
	for range n {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// Every character, and every one cut short, at every place of a word and at the seam where a long text is taken up again.
func TestEveryCharacterIsEscapedAlike(t *testing.T) {
	var chars []string
	for c := range 256 {
		chars = append(chars, string([]byte{byte(c)}))
	}
	for _, c := range []rune{0x80, 0x7ff, 0x800, 0x2027, 0x2028, 0x2029, 0x202a, 0xd7ff, 0xe000, 0xfffd, 0x10000, 0x10ffff} {
		for cut := range len(string(c)) {
			chars = append(chars, string(c)[:cut+1], string(c)[cut:])
		}
	}
	for _, c := range chars {
		var text strings.Builder
		for before := range 17 {
			text.WriteString(strings.Repeat("x", before) + c)
		}
		for _, pad := range []int{0, 1010, 1016, 1020, 1021, 1022, 1023, 1024, 2046} {
			compare(t, record.Event{Type: record.TypeToolUse, Time: at, Data: &record.ToolUse{Input: strings.Repeat("y", pad) + text.String()}})
		}
	}
}

// Events that begin alike are written as if each stood alone, wherever and however they begin to differ.
func TestStreamsAreEscapedAlike(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		begins, text := "event: content_block_delta\ndata: "+anyText(r), "event: "
		for range r.IntN(6) {
			if r.IntN(4) == 0 {
				begins = anyText(r)
			}
			text += begins[:len(begins)-r.IntN(min(len(begins)+1, 12))] + anyText(r) + []string{"\n\n", "\n", ""}[min(r.IntN(8), 2)]
		}
		compare(t, record.Event{Type: record.TypeResponse, Time: at, Data: record.Response{Text: text}})
	}
}

func FuzzText(f *testing.F) {
	f.Add("data: {\"delta\":\"\u2028\"}\n\n", 3)
	f.Add("\xe2\x80\xa8\xff", 1020)
	f.Fuzz(func(t *testing.T, s string, pad int) {
		compare(t, record.Event{Type: record.TypeResponse, Time: at, Data: record.Response{Text: strings.Repeat("y", pad&2047) + s, Headers: map[string]string{s: s, "b": ""}}})
		cut := pad & 255 % (len(s) + 1)
		compare(t, record.Event{Type: record.TypeResponse, Time: at, Data: record.Response{Text: "event: " + s + "\n\nevent: " + s[:cut] + "x" + s[cut:] + "\n\n" + s}})
	})
}

// What a call writes costs no memory beyond the line.
func TestAppendTakesNoMemory(t *testing.T) {
	c := record.NewChain("ses_1")
	for _, e := range samples() {
		if e.Call == "" || e.Type == record.TypeApprovalAsked || e.Type == record.TypeApprovalDecided {
			continue
		}
		e.Time = at
		buf := make([]byte, 0, 8<<10)
		n := testing.AllocsPerRun(100, func() {
			if _, err := c.Append(buf, e); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations, want none", e.Type, n)
		}
	}
}

// BenchmarkCall measures what the events of one call cost, with encoding/json for comparison.
func BenchmarkCall(b *testing.B) {
	headers := map[string]string{"accept": "application/json", "anthropic-version": "2023-06-01", "content-type": "application/json",
		"user-agent": "claude-cli/2.1.331 (external, sdk-ts)", "x-app": "cli"}
	started := record.Event{Type: record.TypeCallStarted, Call: "call_AbCdEfGhIjKlMnOpQrSt", Time: at, Data: record.CallStarted{Connection: "anthropic", Method: "POST", Path: "/v1/messages",
		Headers: headers, Model: "claude-sonnet-4-5", Stream: true, Body: record.NewBody("call_0", []byte(`{"a":[1]}`), []byte(`{"a":[1,2]}`)), BodyBytes: 40 << 10, Client: "127.0.0.1:40000"}}
	decision := record.Event{Type: record.TypeDecision, Call: started.Call, Time: at, Data: record.Decision{Subject: "call", Effect: "allow"}}
	sent := record.Event{Type: record.TypeCallSent, Call: started.Call, Time: at, Data: record.CallSent{Upstream: "https://api.anthropic.com", Credential: "anthropic", Counts: record.Counts{Requests: 7, OutputTokens: 900}}}
	ended := record.Event{Type: record.TypeCallEnded, Call: started.Call, Time: at, Data: record.CallEnded{Connection: "anthropic", Status: 200, Reason: "done", InputTokens: 10, OutputTokens: 20,
		RequestBytes: 40 << 10, ResponseBytes: 1200, Credential: "anthropic", Counts: record.Counts{Requests: 7, OutputTokens: 900}, DurationMS: 12}}
	answer := func(text string, chunks int) []record.Event {
		r := record.Response{Status: 200, Headers: map[string]string{"content-type": "text/event-stream"}, Text: text}
		for i := range chunks {
			r.Chunks = append(r.Chunks, record.Chunk{Offset: i * len(text) / chunks, At: int64(i)})
		}
		return []record.Event{started, decision, sent, {Type: record.TypeResponse, Call: started.Call, Time: at, Data: r}, ended}
	}
	var stream strings.Builder
	for i := range 200 {
		fmt.Fprintf(&stream, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" word %d of it\"}}\n\n", i)
	}
	for name, events := range map[string][]record.Event{"JSON": answer(`{"content":[{"type":"text","text":"`+strings.Repeat("all tests pass. ", 52)+`"}]}`, 1), "SSE": answer(stream.String(), 10),
		"Chinese": answer(strings.Repeat("世界和平", 2000), 10), "plain": answer(strings.Repeat("eight by", 3000), 10)} {
		b.Run(name, func(b *testing.B) {
			c := record.NewChain("ses_1")
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				buf = buf[:0]
				for _, e := range events {
					var err error
					if buf, err = c.Append(buf, e); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.SetBytes(int64(len(buf)))
		})
		b.Run(name+"/encoding-json", func(b *testing.B) {
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			b.ReportAllocs()
			for b.Loop() {
				buf.Reset()
				for _, e := range events {
					if err := enc.Encode(e.Data); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
