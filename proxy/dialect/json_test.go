package dialect_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jobgate/jobgate/proxy/dialect"
)

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// keys returns an object of n different keys, of which the last is then repeated in escapes.
func keys(n int, repeat bool) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"k` + strconv.Itoa(i) + `":0,`)
	}
	if repeat {
		return "{" + b.String() + `"\u006b` + strconv.Itoa(n-1) + `":1}`
	}
	return "{" + b.String() + `"z":1}`
}

var strictCases = []struct {
	json string
	ok   bool
}{
	{`{}`, true}, {` [ ] `, true}, {`"x"`, true}, {`-0.5e+7`, true}, {`null`, true}, {`true`, true}, {`false`, true},
	{`{"a":{"a":1},"b":[{"a":1},{"a":2}]}`, true},
	{`"\ud83d\ude00 \u00e9 \/ \b\f\n\r\t\"\\"`, true},
	{"\"\u2028\u00e9\U0001f600\x7f\"", true},
	{nested(dialect.MaxDepth), true},
	{keys(7, false), true}, {keys(40, false), true},
	{`{"a":1,"A":2}`, true},

	{``, false}, {` `, false}, {`{`, false}, {`[1,]`, false}, {`{"a":1,}`, false}, {`{"a"}`, false}, {`{a:1}`, false}, {`[1 2]`, false},
	{`{} {}`, false}, {`1x`, false}, {"1\x00", false}, {"\xef\xbb\xbf{}", false}, {`tru`, false}, {`nulL`, false},
	{`01`, false}, {`-`, false}, {`1.`, false}, {`1e`, false}, {`.5`, false}, {`+1`, false}, {`NaN`, false},
	{`"a`, false}, {`"\x"`, false}, {`"\u12"`, false}, {`"\u12g4"`, false}, {"\"\n\"", false}, {"\"\x00\"", false}, {`"\`, false},
	{`"\ud83d"`, false}, {`"\ude00"`, false}, {`"\ud83d\u0041"`, false}, {`"\ud83d\ud83d\ude00"`, false},
	{"\"\xff\"", false}, {"\"\xc3\"", false}, {"\"\xed\xa0\x80\"", false}, {"\"\xc0\xaf\"", false},
	{nested(dialect.MaxDepth + 1), false},
	{`{"a":1,"a":2}`, false}, {`{"a":1,"\u0061":2}`, false}, {`{"\u0061":1,"b":{"c":0},"a":2}`, false}, {`{"x":{"a":1,"a":1}}`, false},
	{`{"":1,"":2}`, false}, {`{"\/":1,"/":2}`, false}, {"{\"\u00e9\":1,\"\\u00e9\":2}", false}, {"{\"\U0001f600\":1,\"\\ud83d\\ude00\":2}", false},
	{keys(7, true), false}, {keys(16, true), false}, {keys(17, true), false}, {keys(400, true), false},
}

func TestStrict(t *testing.T) {
	for _, c := range strictCases {
		if err := dialect.Strict([]byte(c.json)); (err == nil) != c.ok {
			t.Errorf("Strict(%.80q) = %v, want ok %v", c.json, err, c.ok)
		}
	}
}

func TestStrictErrorQuotesNothing(t *testing.T) {
	if err := dialect.Strict([]byte(`{"hunter2":1,"hunter2":2}`)); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Strict = %v, want an error without the key", err)
	}
}

// FuzzStrict holds the scanner against encoding/json and slow checks of what that one lets pass.
func FuzzStrict(f *testing.F) {
	for _, c := range strictCases {
		f.Add([]byte(c.json))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		want := json.Valid(data) && utf8.Valid(data) && !halfPair(data) && plainTree(data)
		if err := dialect.Strict(data); (err == nil) != want {
			t.Errorf("Strict(%q) = %v, want ok %v", data, err, want)
		}
	})
}

// halfPair reports whether valid JSON has an escape that is half of a surrogate pair.
func halfPair(data []byte) bool {
	unit := func(i int) (uint64, bool) {
		if i+6 > len(data) || data[i] != '\\' || data[i+1] != 'u' {
			return 0, false
		}
		v, err := strconv.ParseUint(string(data[i+2:i+6]), 16, 16)
		return v, err == nil
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		v, ok := unit(i)
		switch {
		case !ok:
			i++
		case v>>10 == 0xd800>>10:
			if low, ok := unit(i + 6); !ok || low>>10 != 0xdc00>>10 {
				return true
			}
			i += 11
		case v>>10 == 0xdc00>>10:
			return true
		}
	}
	return false
}

// plainTree reports whether valid JSON nests no deeper than allowed and has no key twice.
func plainTree(data []byte) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	type level struct {
		keys  map[string]bool
		value bool // a value is due
	}
	var open []level
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return true
		}
		if err != nil {
			return true // json.Valid judges it
		}
		if top := len(open) - 1; top >= 0 && open[top].keys != nil && tok != json.Delim('}') {
			if key, isKey := tok.(string); isKey && !open[top].value {
				if open[top].keys[key] {
					return false
				}
				open[top].keys[key], open[top].value = true, true
				continue
			}
			open[top].value = false
		}
		switch tok {
		case json.Delim('{'):
			open = append(open, level{keys: map[string]bool{}})
		case json.Delim('['):
			open = append(open, level{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
		if len(open) > dialect.MaxDepth {
			return false
		}
	}
}
