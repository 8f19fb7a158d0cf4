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

// repetitive reports whether looking for a value could cost far more than the text is long: where a long piece of its
// beginning repeats a short one, or many of the bytes that begin escapes stand together. No generated value is so.
func repetitive(value []byte) bool {
	const longest, times, leads = 64, 8, 8
	together := 0
	border := make([]int, len(value)) // of each beginning: the longest that is its end too
	for i, c := range value {
		if together++; !isLead(c) {
			together = 0
		}
		if together > leads {
			return true
		}
		if i == 0 {
			continue
		}
		b := border[i-1]
		for b > 0 && value[b] != c {
			b = border[b-1]
		}
		if value[b] == c {
			b++
		}
		border[i] = b
		if n := i + 1; n > longest && n >= times*(n-b) {
			return true
		}
	}
	return false
}
