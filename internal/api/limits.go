package api

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// LimitsList is one section of limits, or a list of them: of one job, and of all that share a claim's value.
type LimitsList []Limits

// UnmarshalYAML reads a section or a list of sections.
func (l *LimitsList) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.SequenceNode {
		var list []Limits
		if err := n.Decode(&list); err != nil {
			return err
		}
		*l = list
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: limits are a section of keys, or a list of such sections", n.Line)
	}
	var one Limits
	if err := n.Decode(&one); err != nil {
		return err
	}
	*l = LimitsList{one}
	return nil
}

// MarshalYAML writes a single section as such.
func (l LimitsList) MarshalYAML() (any, error) {
	if len(l) == 1 {
		return l[0], nil
	}
	return []Limits(l), nil
}

// UnmarshalJSON reads a section or a list of sections, strictly.
func (l *LimitsList) UnmarshalJSON(data []byte) error {
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return nil
	}
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '[' {
		var list []Limits
		if err := decodeStrict(data, &list); err != nil {
			return fmt.Errorf("limits: %w", err)
		}
		*l = list
		return nil
	}
	var one Limits
	if err := decodeStrict(data, &one); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	*l = LimitsList{one}
	return nil
}

// MarshalJSON writes a single section as such.
func (l LimitsList) MarshalJSON() ([]byte, error) {
	if len(l) == 1 {
		return json.Marshal(l[0])
	}
	return json.Marshal([]Limits(l))
}
