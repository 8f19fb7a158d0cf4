package main

import (
	"strings"
	"testing"
)

// TestEmptyKeysOfMappings: who comments out all that stands below a key leaves the key, and must not get more by it than
// with anything that could stand there.
func TestEmptyKeysOfMappings(t *testing.T) {
	const good = `name: m
issuer: i
match: {repository_owner_id: "1"}
forbid: [x]
window: {max: 1h}
grants:
  - connection: a
    allow: ["GET /a"]
    limits: {requests: 5}
    rules:
      - {name: r, when: "true", effect: deny}
overrides:
  - match: {repository_id: "7"}
    mode: enforce
    grants: [{connection: a}]
`
	for name, c := range map[string]struct{ was, is, key string }{
		"nothing":              {"", "", ""},
		"a claim that is null": {`match: {repository_owner_id: "1"}`, "match: {environment: null}", ""},
		"forbid":               {"forbid: [x]", "forbid:\n  # - x", "forbid"},
		"a rule list":          {`- {name: r, when: "true", effect: deny}`, "", "grants[0].rules"},
		"limits":               {"limits: {requests: 5}", "limits: ~", "grants[0].limits"},
		"a limit":              {"{requests: 5}", "{requests: }", "grants[0].limits.requests"},
		"allow":                {`allow: ["GET /a"]`, "allow:", "grants[0].allow"},
		"window":               {"{max: 1h}", "null", "window"},
		"an override's grants": {"grants: [{connection: a}]", "grants:", "overrides[0].grants"},
		"an override's mode":   {"mode: enforce", "mode:", "overrides[0].mode"},
		"an alias of nothing":  {"forbid: [x]", "require: &nothing\nforbid: *nothing", "forbid"},
	} {
		t.Run(name, func(t *testing.T) {
			found := &problems{file: "m.yaml"}
			text := strings.Replace(good, c.was, c.is, 1)
			list := parseMappings("m.yaml", []byte(text), found)
			err := found.or()
			switch {
			case c.key == "" && (err != nil || len(list) != 1):
				t.Fatalf("%d mappings, %v", len(list), err)
			case c.key != "" && (err == nil || !strings.Contains(err.Error(), c.key+": it is empty")):
				t.Fatalf("%d mappings, %v; wanted %s named", len(list), err, c.key)
			}
			t.Log(err)
		})
	}
}

// TestEmptyList: a file of which no more than the list's key was written is not one that deletes all of its mappings.
func TestEmptyList(t *testing.T) {
	for text, good := range map[string]bool{"mappings:\n": false, "mappings: ~\n": false, "mappings: []\n": true} {
		found := &problems{file: "m.yaml"}
		if list := parseMappings("m.yaml", []byte(text), found); len(list) != 0 || (found.or() == nil) != good {
			t.Errorf("%q = %d mappings, %v", text, len(list), found.or())
		}
	}
}
