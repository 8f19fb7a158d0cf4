package main

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/internal/api"
)

// checkKeys finds the keys of a document that the struct does not have, before anything is decoded: a key that is
// misspelt must not silently leave a default in force.
func checkKeys(n *yaml.Node, into any, found *problems) {
	walkKeys(n, reflect.TypeOf(into), "", found)
}

var unmarshaler = reflect.TypeOf((*yaml.Unmarshaler)(nil)).Elem()

func walkKeys(n *yaml.Node, t reflect.Type, path string, found *problems) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && n.Kind == yaml.MappingNode && reflect.PointerTo(t).Implements(unmarshaler) {
		walkStruct(n, t.Elem(), path, found) // one, or a list of them
		return
	}
	structs := t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
	if !structs && (t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler)) {
		return
	}
	switch {
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, item := range n.Content {
			walkKeys(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i), found)
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Map:
		for i := 0; i+1 < len(n.Content); i += 2 {
			walkKeys(n.Content[i+1], t.Elem(), join(path, n.Content[i].Value), found)
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		walkStruct(n, t, path, found)
	}
}

func walkStruct(n *yaml.Node, t reflect.Type, path string, found *problems) {
	fields := yamlFields(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		field, known := fields[key.Value]
		if !known {
			where := "here"
			if path != "" {
				where = "in " + path
			}
			found.add(key.Line, "", "unknown key %q %s; known: %s%s", key.Value, where, strings.Join(sorted(fields), ", "), hint(key.Value, fields))
			continue
		}
		if ofMapping(t) && isNothing(n.Content[i+1]) {
			found.add(key.Line, join(path, key.Value), "it is empty, and would be as if it were not there; write what belongs there, or leave the key out")
			continue
		}
		walkKeys(n.Content[i+1], field, join(path, key.Value), found)
	}
}

// ofMapping reports whether a section is of a mapping. There a key of which all that stood below was commented out would
// lift what it bounds: limits, conditions, an override's grants.
func ofMapping(t reflect.Type) bool { return t.PkgPath() == reflect.TypeFor[api.Mapping]().PkgPath() }

func isNothing(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

func yamlFields(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			fields[name] = t.Field(i).Type
		}
	}
	return fields
}

func sorted(fields map[string]reflect.Type) []string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// hint names the known key that differs least, where one is near.
func hint(key string, fields map[string]reflect.Type) string {
	best, distance := "", 3
	for _, name := range sorted(fields) {
		if d := editDistance(key, name); d < distance {
			best, distance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		previous := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			previous, row[j] = row[j], min(row[j]+1, row[j-1]+1, previous+cost)
		}
	}
	return row[len(b)]
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

var (
	lineText = regexp.MustCompile(`^line (\d+): (.*)$`)
	typeText = regexp.MustCompile("^cannot unmarshal (!![a-z]+).* into ([^ ]+)$")
)

// addDecodeErrors takes what the decoder says apart into lines.
func addDecodeErrors(found *problems, err error) {
	texts := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	var typed *yaml.TypeError
	if errors.As(err, &typed) {
		texts = typed.Errors
	}
	for _, text := range texts {
		line := 0
		if m := lineText.FindStringSubmatch(text); m != nil {
			line, _ = strconv.Atoi(m[1])
			text = m[2]
		}
		if m := typeText.FindStringSubmatch(text); m != nil {
			// The decoder quotes the value, which may be a secret at the wrong place.
			text = fmt.Sprintf("%s is wanted here, not %s", wantedText(m[2]), yamlText(m[1]))
		}
		found.add(line, "", "%s", text)
	}
}

// wantedText says in words what a Go type is written as.
func wantedText(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case goType == "string":
		return "a text"
	case goType == "bool":
		return "true or false"
	case strings.HasPrefix(goType, "int"):
		return "a whole number"
	}
	return "a section of keys"
}

func yamlText(tag string) string {
	switch tag {
	case "!!seq":
		return "a list"
	case "!!map":
		return "a section of keys"
	case "!!str":
		return "a text"
	}
	return "this value"
}

var pathStep = regexp.MustCompile(`([^.\[\]]+)|\[(\d+)\]`)

// lineOf returns the line of the value that a path such as "mappings[0].grants[1].allow" names, or of the nearest one
// above it that the document has.
func lineOf(root *yaml.Node, path string) int {
	n, line := root, root.Line
	for _, step := range pathStep.FindAllStringSubmatch(path, -1) {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		next, at := child(n, step[1], step[2])
		if next == nil {
			break
		}
		n, line = next, at
	}
	return line
}

func child(n *yaml.Node, key, index string) (*yaml.Node, int) {
	if index != "" {
		i, err := strconv.Atoi(index)
		if err != nil || n.Kind != yaml.SequenceNode || i >= len(n.Content) {
			return nil, 0
		}
		return n.Content[i], n.Content[i].Line
	}
	if n.Kind != yaml.MappingNode {
		return nil, 0
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1], n.Content[i].Line
		}
	}
	return nil, 0
}
