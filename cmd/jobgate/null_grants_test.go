package main

import (
	"encoding/json"
	"testing"

	"github.com/jobgate/jobgate/internal/api"
)

// TestMappingIsReadAsItIsSent: what the command sends of a file is what the server takes, keys that the file leaves out
// among them.
func TestMappingIsReadAsItIsSent(t *testing.T) {
	found := &problems{file: "m.yaml"}
	list := parseMappings("m.yaml", []byte("name: m\nissuer: i\nmatch: {a: b}\ngrants: [{connection: a}]\noverrides: [{match: {a: c}, mode: observe}]\n"), found)
	if err := found.or(); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(list[0].spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.DecodeMapping(text); err != nil {
		t.Errorf("%s: %v", text, err)
	}
}
