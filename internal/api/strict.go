package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// decodeStrict reads exactly one JSON value without unknown keys.
func decodeStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("read JSON: there is more than one value")
	}
	return nil
}

// refuseNull refuses keys of mappings that are null: each would be as if it were not there, limits and conditions too. A
// claim's value may be null.
func refuseNull(data []byte) error {
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return err
	}
	return refuseNullAt("", value)
}

func refuseNullAt(path string, value any) error {
	switch v := value.(type) {
	case []any:
		for i, item := range v {
			if err := refuseNullAt(fmt.Sprintf("%s[%d]", path, i), item); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			at := strings.TrimPrefix(path+"."+key, ".")
			switch {
			case v[key] == nil:
				return &FieldError{Path: at, Err: errors.New("it is null, and would be as if it were not there; write what belongs there, or leave the key out")}
			case strings.EqualFold(key, "match"), strings.EqualFold(key, "deny"), strings.EqualFold(key, "value"): // claims
			default:
				if err := refuseNullAt(at, v[key]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
