package federation

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestDecodeObjectRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"nothing", ``, "no JSON"},
		{"an array", `[]`, "no JSON object"},
		{"null", `null`, "no JSON object"},
		{"half an object", `{"a":1`, "no JSON"},
		{"a comma too many", `{"a":1,}`, "no JSON"},
		{"a name without quotes", `{a:1}`, "no JSON"},
		{"a name twice", `{"a":1,"a":1}`, "member 'a' twice"},
		{"a name twice, once escaped", `{"a":1,"\u0061":2}`, "member 'a' twice"},
		{"a name twice further down", `{"x":[{"a":1,"a":2}]}`, "twice"},
		{"two values", `{} {}`, "follows"},
		{"a letter after it", `{}x`, "follows"},
		{"no UTF-8", "{\"a\":\"\xff\"}", "UTF-8"},
		{"half a surrogate pair", `{"a":"\ud800"}`, "surrogate"},
		{"the other half", `{"a":"\udc00"}`, "surrogate"},
		{"two first halves", `{"a":"\ud800\ud800"}`, "surrogate"},
		{"a half before another escape", `{"a":"\ud800\n0000"}`, "surrogate"},
		{"a half at the end", `{"a":"\ud800`, "surrogate"},
		{"a broken escape", `{"a":"\u00g0"}`, "escape"},
		{"a NUL", `{"a":"\u0000"}`, "NUL"},
		{"a NUL in a name", `{"\u0000":1}`, "NUL"},
		{"deep", `{"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`, "nested"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := decodeObject([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("decodeObject = %v, %v, want an error with %q", got, err, test.want)
			}
		})
	}
}

func TestDecodeObject(t *testing.T) {
	got, err := decodeObject([]byte(` {"a":16055869479,"A":1.5,"l":[null,true,{"x":"\ud83d\ude00 \\u0000 é"}],"e":{},"n":[]} `))
	want := map[string]any{
		"a": json.Number("16055869479"), "A": json.Number("1.5"), "e": map[string]any{}, "n": []any{},
		"l": []any{nil, true, map[string]any{"x": "😀 \\u0000 é"}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decodeObject = %v, %v, want %v", got, err, want)
	}
}

// FuzzDecodeObject holds that what is accepted is what encoding/json reads, and means the same after it was written
// again: no reader downstream sees another object.
func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, `{"a":1,"a":2}`, `{"a":"\ud83d\ude00"}`, `{"a":"\ud800"}`, `{"a":[[[{}]]],"b":null}`, `{"a":1e300}`, `[]`,
		`{"a":"\\u0000"}`, `{"iss":"https://token.actions.githubusercontent.com","exp":1893456000}`, `{} x`, `{"é":"\u00e9"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeObject(data)
		if err != nil {
			return
		}
		var plain map[string]any
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		if err := dec.Decode(&plain); err != nil || !reflect.DeepEqual(got, plain) {
			t.Errorf("encoding/json reads %v, %v from %q, decodeObject %v", plain, err, data, got)
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatalf("marshal what %q was read as: %v", data, err)
		}
		again, err := decodeObject(text)
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Errorf("%q reads again as %v, %v, want %v", text, again, err, got)
		}
	})
}
