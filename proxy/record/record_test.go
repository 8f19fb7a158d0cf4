package record_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/proxy/record"
)

var at = time.Date(2026, 11, 24, 9, 30, 0, 1, time.UTC)

// samples has one event of every type, all fields set that a format could get wrong.
func samples() []record.Event {
	return []record.Event{
		{Type: record.TypeSessionOpened, Data: record.SessionOpened{Mapping: "m", Revision: 3, Subject: "repo:o/r", Claims: map[string]any{"run_id": json.Number("12345678901234567")}, Connections: []string{"anthropic"}, Opens: at, Closes: at.Add(time.Hour), Lease: "15m0s", Mode: "enforce"}},
		{Type: record.TypeSessionJoined, Data: &record.SessionJoined{Door: "oauth", Renewed: true}},
		{Type: record.TypeCallStarted, Call: "call_1", Data: record.CallStarted{Connection: "anthropic", Method: "POST", Path: "/v1/messages", Body: record.NewBody("", nil, []byte(`{"a":"<&>"}`)), BodyBytes: 11}},
		{Type: record.TypeDecision, Call: "call_1", Data: record.Decision{Subject: "call", Effect: "allow", Observed: []record.Observed{{Rule: "r", Effect: "deny"}}}},
		{Type: record.TypeApprovalAsked, Call: "call_1", Data: record.ApprovalAsked{Approval: "apr_1", Rule: "r", Digest: "00", Expires: at, Text: "zwei\nZeilen"}},
		{Type: record.TypeApprovalDecided, Call: "call_1", Data: record.ApprovalDecided{Approval: "apr_1", State: "approved", By: "ana", Via: "slack"}},
		{Type: record.TypeCallSent, Call: "call_1", Data: record.CallSent{Upstream: "https://api", Counts: record.Counts{Requests: 1}}},
		{Type: record.TypeResponse, Call: "call_1", Data: record.Response{Status: 200, Text: "äöü \x00 \u2028", Chunks: []record.Chunk{{Offset: 0, At: 12}}}},
		{Type: record.TypeToolUse, Call: "call_1", Data: record.ToolUse{ID: "toolu_1", Name: "Bash", Input: `{"command":"ls"}`, Action: "passed"}},
		{Type: record.TypeCallEnded, Call: "call_1", Data: record.CallEnded{Status: 200, Reason: "done", OutputTokens: 7, Counts: record.Counts{Requests: 1, OutputTokens: 7}}},
		{Type: record.TypeGap, Data: record.Gap{Reason: "full", Missing: 2}},
		{Type: record.TypeSessionEnded, Data: record.SessionEnded{Reason: "closed", Counts: map[string]record.Counts{"anthropic": {Requests: 1}}}},
	}
}

func write(t testing.TB, events ...record.Event) (text []byte, head [32]byte) {
	t.Helper()
	c := record.NewChain("ses_1")
	for i, e := range events {
		e.Time = at.Add(time.Duration(i))
		var err error
		if text, err = c.Append(text, e); err != nil {
			t.Fatal(err)
		}
	}
	_, head = c.Head()
	return text, head
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	events := samples()
	text, want := write(t, events...)
	r := record.NewReader(bytes.NewReader(text))
	for i, e := range events {
		l, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if l.Session != "ses_1" || l.Seq != uint64(i+1) || l.Type != e.Type || l.Call != e.Call || !l.Time.Equal(at.Add(time.Duration(i))) {
			t.Errorf("event %d = %+v, want type %s, call %q", i+1, l, e.Type, e.Call)
		}
		data, err := l.Data()
		if err != nil {
			t.Fatal(err)
		}
		wantData := reflect.Indirect(reflect.ValueOf(e.Data)).Interface()
		if diff := cmp.Diff(wantData, reflect.ValueOf(data).Elem().Interface()); diff != "" {
			t.Errorf("%s changed on its way (-written +read):\n%s", e.Type, diff)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the last line: %v, want EOF", err)
	}
	seq, head, err := record.Verify(bytes.NewReader(text), "ses_1")
	if err != nil || seq != uint64(len(events)) || head != want {
		t.Errorf("Verify = %d, %x, %v, want %d, %x", seq, head, err, len(events), want)
	}
}

func TestFormat(t *testing.T) {
	text, _ := write(t, record.Event{Type: record.TypeGap, Call: "c", Data: record.Gap{Reason: "a<b", Missing: 1}}, record.Event{Type: "note"})
	lines := strings.Split(string(text), "\n")
	want := `{"schema_version":1,"session":"ses_1","seq":1,"time":"2026-11-24T09:30:00.000000001Z","prev":"` + strings.Repeat("0", 64) +
		`","type":"gap","call":"c","reason":"a<b","missing":1}`
	if lines[0] != want {
		t.Errorf("line 1 is\n%s, want\n%s", lines[0], want)
	}
	if !strings.HasSuffix(lines[1], `,"type":"note"}`) || lines[2] != "" {
		t.Errorf("lines 2 and 3 are %q", lines[1:])
	}
}

// No struct of data may have a key of the envelope: the line would have it twice.
func TestDataKeepsOffTheEnvelope(t *testing.T) {
	envelope := []string{"schema_version", "session", "seq", "time", "prev", "type", "call"}
	for _, e := range samples() {
		typ := reflect.TypeOf(record.NewData(e.Type)).Elem()
		for i := range typ.NumField() {
			key, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if slices.Contains(envelope, key) || key == "" || key != strings.ToLower(key) {
				t.Errorf("%s.%s has the key %q", typ.Name(), typ.Field(i).Name, key)
			}
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	for name, e := range map[string]record.Event{
		"no type":        {Time: at},
		"type to escape": {Type: `a"b`, Time: at},
		"call to escape": {Type: "gap", Call: "a b", Time: at},
		"no time":        {Type: "gap"},
		"year 10000":     {Type: "gap", Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"no object":      {Type: "gap", Time: at, Data: 7},
		"no JSON":        {Type: "gap", Time: at, Data: map[string]any{"f": func() {}}},
		"too long":       {Type: "response", Time: at, Data: record.Response{Text: strings.Repeat("x", record.MaxLine)}},
	} {
		t.Run(name, func(t *testing.T) {
			c := record.NewChain("ses_1")
			got, err := c.Append([]byte("before"), e)
			if err == nil || string(got) != "before" {
				t.Errorf("Append = %.60q, %v, want an error and nothing appended", got, err)
			}
			if seq, _ := c.Head(); seq != 0 {
				t.Errorf("the chain went on to %d", seq)
			}
			if _, err := c.Append(nil, record.Event{Type: "gap", Time: at, Data: record.Gap{}}); err != nil {
				t.Errorf("the next event: %v", err)
			}
		})
	}
}

func TestResume(t *testing.T) {
	events := samples()
	want, _ := write(t, events...)
	c := record.NewChain("ses_1")
	var got []byte
	for i, e := range events {
		e.Time = at.Add(time.Duration(i))
		seq, head := c.Head()
		c = record.ResumeChain("ses_1", seq, head)
		var err error
		if got, err = c.Append(got, e); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("a chain that was resumed at each event wrote something else")
	}
}

func TestTampering(t *testing.T) {
	text, head := write(t, samples()...)
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines = lines[:len(lines)-1]
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }
	other := bytes.ReplaceAll(slices.Clone(text), []byte("ses_1"), []byte("ses_2"))
	for name, c := range map[string]struct {
		text []byte
		want error
	}{
		"a line is gone":          {join(join(lines[:3]...), join(lines[4:]...)), record.ErrChain},
		"the first line is gone":  {join(lines[1:]...), record.ErrChain},
		"two lines changed place": {join(lines[0], lines[2], lines[1], join(lines[3:]...)), record.ErrChain},
		"a line stands twice":     {join(lines[0], lines[0], join(lines[1:]...)), record.ErrChain},
		"a word was changed":      {bytes.Replace(text, []byte("ana"), []byte("eva"), 1), record.ErrChain},
		"another session":         {other, record.ErrChain},
		"cut within a line":       {text[:len(text)-9], record.ErrTruncated},
		"a blank line":            {join(lines[0], []byte("\n"), join(lines[1:]...)), record.ErrFormat},
		"white space":             {bytes.Replace(text, []byte(`,"seq":2`), []byte(`, "seq":2`), 1), record.ErrFormat},
		"a key twice":             {bytes.Replace(text, []byte(`,"missing":2`), []byte(`,"missing":2,"missing":3`), 1), record.ErrFormat},
		"a key of the envelope":   {bytes.Replace(text, []byte(`,"missing":2`), []byte(`,"missing":2,"seq":3`), 1), record.ErrFormat},
		"a key in capitals":       {bytes.Replace(text, []byte(`,"missing":2`), []byte(`,"missing":2,"Missing":3`), 1), record.ErrFormat},
		"a later version":         {bytes.Replace(text, []byte(`"schema_version":1`), []byte(`"schema_version":2`), 1), record.ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := record.Verify(bytes.NewReader(c.text), "ses_1"); !errors.Is(err, c.want) {
				t.Errorf("Verify: %v, want %v", err, c.want)
			}
		})
	}
	t.Run("the last line is gone", func(t *testing.T) {
		if _, got, err := record.Verify(bytes.NewReader(join(lines[:len(lines)-1]...)), "ses_1"); err != nil || got == head {
			t.Errorf("Verify = %x, %v, want another head than that of the whole", got, err)
		}
	})
}

func TestEveryChangedBitIsSeen(t *testing.T) {
	text, head := write(t, samples()[9:]...)
	for i := range len(text) * 8 {
		text[i/8] ^= 1 << (i % 8)
		if _, got, err := record.Verify(bytes.NewReader(text), "ses_1"); err == nil && got == head {
			t.Fatalf("bit %d of byte %d changed and nobody saw", i%8, i/8)
		}
		text[i/8] ^= 1 << (i % 8)
	}
}

func TestBody(t *testing.T) {
	for _, c := range []struct{ name, base, body string }{
		{"same", "abc", "abc"},
		{"longer", "[1,2]", "[1,2,3]"},
		{"shorter", "[1,2,3]", "[1,3]"},
		{"nothing in common", "abc", "xyz"},
		{"empty", "abc", ""},
		{"empty base", "", "abc"},
		{"repeats", "aaa", "aaaaa"},
		{"within a character", "ä", "ö"},
		{"characters that end alike", "xäy", "xĤy"},
		{"no text", "a\xffb", "a\xfe\xfdb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := record.NewBody("call_1", []byte(c.base), []byte(c.body))
			data, err := json.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			var read record.Body
			if err := json.Unmarshal(data, &read); err != nil {
				t.Fatal(err)
			}
			if got, err := read.Bytes([]byte(c.base)); err != nil || string(got) != c.body {
				t.Errorf("%s gives %q, %v, want %q", data, got, err, c.body)
			}
		})
	}
	for _, b := range []record.Body{{Prefix: 4}, {Suffix: 4}, {Prefix: 2, Suffix: 2}, {Prefix: -1}, {Suffix: -1}, {Text: "!", Base64: true}} {
		if got, err := b.Bytes([]byte("abc")); err == nil {
			t.Errorf("%+v gives %q, want an error", b, got)
		}
	}
}

func TestBodiesFollowEachOther(t *testing.T) {
	var write, read record.Bodies
	var last string
	base := []byte(nil)
	for i := range 200 {
		call, text := fmt.Sprintf("call_%d", i), fmt.Appendf(nil, `{"messages":[%s]}`, strings.Repeat(`{"role":"user"},`, i))
		b := record.NewBody(last, base, text)
		if i > 0 && (b.Base != last || len(b.Text) > 100) {
			t.Fatalf("body %d is %+v, want a difference from %s", i, b, last)
		}
		got, err := read.Rebuild(call, b)
		if err != nil || !bytes.Equal(got, text) {
			t.Fatalf("Rebuild(%s) = %q, %v, want %q", call, got, err, text)
		}
		last, base = call, text
	}
	if got, err := write.Rebuild("call_1", nil); got != nil || err != nil {
		t.Errorf("Rebuild of no body = %q, %v", got, err)
	}
	if _, err := write.Rebuild("call_1", &record.Body{Base: "call_0"}); err == nil {
		t.Error("a body that refers to nothing was rebuilt")
	}
}

func Example() {
	c := record.NewChain("ses_1")
	text, err := c.Append(nil, record.Event{Type: record.TypeGap, Time: at, Data: record.Gap{Reason: "spool full", Missing: 3}})
	if err != nil {
		fmt.Println(err)
	}
	seq, _, err := record.Verify(bytes.NewReader(text), "ses_1")
	fmt.Println(seq, err)
	_, _, err = record.Verify(bytes.NewReader(text), "ses_2")
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// the chain is broken: event 1 belongs to session ses_1, not ses_2
}

// What the reader accepts is a line that a chain could have written: hashing it again and writing it again give the same.
func FuzzReader(f *testing.F) {
	text, _ := write(f, samples()...)
	f.Add(text)
	for _, line := range bytes.SplitAfter(text, []byte("\n")) {
		f.Add(line)
	}
	f.Add([]byte(`{"schema_version":1,"session":"s","seq":1,"time":"","prev":"","type":"x"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := record.NewReader(bytes.NewReader(data))
		rest := data
		for {
			l, err := r.Next()
			if err != nil {
				break
			}
			if !bytes.HasPrefix(rest, append(slices.Clone(l.Raw), '\n')) {
				t.Fatalf("line %q is not what was read from %q", l.Raw, rest)
			}
			rest = rest[len(l.Raw)+1:]
			again, err := record.ResumeChain(l.Session, l.Seq-1, l.Prev).Append(nil, record.Event{Type: l.Type, Call: l.Call, Time: l.Time})
			if err != nil || !bytes.HasPrefix(l.Raw, again[:len(again)-2]) {
				t.Fatalf("line %q has the envelope of %q, %v", l.Raw, again, err)
			}
			if _, err := l.Data(); err == nil && l.Type == "" {
				t.Fatal("a line without a type")
			}
		}
		if _, _, err := record.Verify(bytes.NewReader(data), "ses_1"); err == nil && len(data) > 0 && data[len(data)-1] != '\n' {
			t.Fatal("a record without its last newline passed")
		}
	})
}

func FuzzBody(f *testing.F) {
	f.Add([]byte("[1,2]"), []byte("[1,2,3]"))
	f.Add([]byte("ä"), []byte("ö\xff"))
	f.Fuzz(func(t *testing.T, base, body []byte) {
		b := record.NewBody("c", base, body)
		if got, err := b.Bytes(base); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%+v over %q gives %q, %v, want %q", b, base, got, err, body)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, e := range []record.Event{samples()[3], samples()[6], {Type: record.TypeResponse, Call: "call_1", Data: &record.Response{Text: strings.Repeat("data: x\n", 8<<10)}}} {
		b.Run(e.Type, func(b *testing.B) {
			c := record.NewChain("ses_1")
			e.Time = at
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if buf, err = c.Append(buf[:0], e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
