package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/jobgate/jobgate/internal/api"
)

// FuzzParseMappings holds that whatever is in a file of mappings is either refused, each problem with a line that the
// file has, or means the same after it was written again.
func FuzzParseMappings(f *testing.F) {
	for _, seed := range []string{
		"", "#", "---", "mappings:", "mappings: []", "mappings: null", "- name: a", team("one", "1"), "mappings:\n" + indented(team("one", "1")) + indented(team("two", "2")),
		"mappings: {name: a}", "mappings: [{name: a, nme: b}]", "name: a\nmappings: []", "name: a\n---\nname: b", "a: &a [*a]", "mappings: &a [*a]",
		"<<: {name: a}", "name: [a]", "match: {x: [1, true, null, \"1\"]}", "name: a\nname: b", bomb,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		found := &problems{file: "jobgate.yaml"}
		list := parseMappings("m.yaml", text, found)
		if found.or() != nil && list != nil {
			t.Fatalf("refused, and taken: %v", found)
		}
		for _, p := range found.list {
			if p.file != "m.yaml" || p.line < 0 || p.line > bytes.Count(text, []byte("\n"))+bytes.Count(text, []byte("\r"))+bytes.Count(text, []byte("\u2028"))+bytes.Count(text, []byte("\u2029"))+bytes.Count(text, []byte("\u0085"))+1 {
				t.Errorf("%s:%d of a file that is shorter: %s", p.file, p.line, p.text)
			}
		}
		for _, d := range list {
			again, err := api.EncodeYAML(d.spec)
			if err != nil {
				t.Fatalf("it cannot be written: %v", err)
			}
			second := parseMappings("m.yaml", []byte(again), found)
			if len(second) != 1 {
				t.Fatalf("written again it is refused: %v\n%s", found.or(), again)
			}
			if diff := cmp.Diff(d.spec, second[0].spec, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("it means something else when it is written again (-first +second):\n%s", diff)
			}
		}
	})
}
