package main

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"
)

// FuzzParseConfig holds that whatever is in a configuration file is either refused, each problem with a line that the
// file has, or means the same after it was written again.
func FuzzParseConfig(f *testing.F) {
	for _, file := range []string{"../../jobgate.example.yaml", "demo.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, seed := range []string{
		"", "a: 1", "- a", "public_url: https://a.example\npublic_url: b", "public_url: &a https://a.example\nlisten: *a",
		"mappings: [{name: a, match: {x: [1, true, null, \"1\"]}, max_age: 1h}]", "mappings: [{name: a, match: {x: 1.5}}]",
		"issuers: {name: a}", "a: &a [*a]", "listen: x\n---\nlisten: y", "archive: {part_age: soon}", "<<: {listen: a}", "? [a]\n: b",
		"listen: \"\\u0000\"", "approvals: {groups: {sre: {emails: [a]}}}", "connections: [{credential: {value: 5}}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig("jobgate.yaml", text)
		if err != nil {
			var found *problems
			if !errors.As(err, &found) || len(found.list) == 0 || err.Error() == "" {
				t.Fatalf("an error without a problem: %v", err)
			}
			for _, p := range found.list {
				if p.line < 0 || p.line > bytes.Count(text, []byte("\n"))+bytes.Count(text, []byte("\r"))+bytes.Count(text, []byte("\u2028"))+bytes.Count(text, []byte("\u2029"))+bytes.Count(text, []byte("\u0085"))+1 {
					t.Errorf("line %d of a file that is shorter", p.line)
				}
			}
			return
		}
		again, err := yaml.Marshal(c)
		if err != nil {
			t.Fatalf("it cannot be written: %v", err)
		}
		second, err := parseConfig("jobgate.yaml", again)
		if err != nil {
			t.Fatalf("written again it is refused: %v\n%s", err, again)
		}
		if d := cmp.Diff(c, second, cmpopts.IgnoreUnexported(config{}), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("it means something else when it is written again (-first +second):\n%s", d)
		}
	})
}
