package mask

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// parts gives the values within a value that are secret by themselves: its longer lines, and the strings of a JSON
// object whose keys say so.
func parts(value []byte) [][]byte {
	all := lines(nil, value)
	var object map[string]any
	if value[0] == '{' && json.Unmarshal(value, &object) == nil {
		all = members(all, object)
	}
	return all
}

// lines appends the longer lines of a value that has several. The armor of PEM is no secret.
func lines(dst [][]byte, value []byte) [][]byte {
	if bytes.IndexByte(value, '\n') < 0 {
		return dst
	}
	for line := range bytes.Lines(value) {
		line = bytes.TrimSpace(line)
		if len(line) >= MinLine && !bytes.HasPrefix(line, []byte("-----")) {
			dst = append(dst, line)
		}
	}
	return dst
}

func members(dst [][]byte, object map[string]any) [][]byte {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		switch v := object[name].(type) {
		case map[string]any:
			dst = members(dst, v)
		case string:
			if v = strings.TrimSpace(v); secretName(name) && len(v) >= MinLine {
				dst = lines(append(dst, []byte(v)), []byte(v))
			}
		}
	}
	return dst
}

func secretName(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"key", "secret", "token", "password"} {
		if strings.Contains(name, part) && !strings.HasSuffix(name, "_uri") && !strings.HasSuffix(name, "_url") {
			return true
		}
	}
	return false
}
