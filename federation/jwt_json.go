package federation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// decodeObject reads one JSON object strictly: valid UTF-8, no unpaired surrogate, no NUL, no name twice in any object,
// nothing after it, bounded depth. Names keep their case, numbers their text. What a lenient reader would take for two
// different things is refused.
func decodeObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("no valid UTF-8")
	}
	if err := checkEscapes(data); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	first, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	if first != json.Delim('{') {
		return nil, errors.New("no JSON object")
	}
	object, err := decodeMembers(dec, 1)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return object, nil
}

func decodeMembers(dec *json.Decoder, depth int) (map[string]any, error) {
	object := make(map[string]any)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("no JSON: %w", err)
		}
		name, ok := token.(string)
		if !ok {
			return nil, errors.New("no JSON: a member without a name")
		}
		if _, twice := object[name]; twice {
			return nil, fmt.Errorf("member %s twice", shown(name))
		}
		if object[name], err = decodeValue(dec, depth); err != nil {
			return nil, err
		}
	}
	return object, closing(dec)
}

func decodeValue(dec *json.Decoder, depth int) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	if depth++; depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	if delim == '{' {
		return decodeMembers(dec, depth)
	}
	list := []any{}
	for dec.More() {
		item, err := decodeValue(dec, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, closing(dec)
}

func closing(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("no JSON: %w", err)
	}
	return nil
}

// checkEscapes refuses \uXXXX escapes that encode NUL or half a surrogate pair: encoding/json would replace the latter,
// and two different texts would read as one. A backslash stands in strings only, or the text is no JSON anyway.
func checkEscapes(data []byte) error {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++
		if i >= len(data) || data[i] != 'u' {
			continue
		}
		unit, ok := escapedUnit(data, i)
		switch {
		case !ok:
			return errors.New("a broken \\u escape")
		case unit == 0:
			return errors.New("a NUL in a string")
		case unit >= 0xdc00 && unit < 0xe000:
			return errors.New("an unpaired surrogate")
		case unit >= 0xd800 && unit < 0xdc00:
			low, ok := escapedUnit(data, i+6)
			if !ok || data[i+5] != '\\' || low < 0xdc00 || low >= 0xe000 {
				return errors.New("an unpaired surrogate")
			}
			i += 6
		}
		i += 4
	}
	return nil
}

// escapedUnit reads the four hex digits after the 'u' at data[at].
func escapedUnit(data []byte, at int) (uint64, bool) {
	if at+5 > len(data) || data[at] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(data[at+1:at+5]), 16, 16)
	return unit, err == nil
}
