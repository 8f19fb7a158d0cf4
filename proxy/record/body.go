package record

import (
	"encoding/base64"
	"fmt"
	"unicode/utf8"
)

// Body is a request body, or how it differs from the body of an earlier call. An agent sends its whole conversation with every call, so
// nearly all of a body is in the one before:
//
//	body = base[:Prefix] + Text + base[len(base)-Suffix:]
//
// where base is the body of the call Base, itself rebuilt. Without Base, Text is the whole.
type Body struct {
	Base      string `json:"base,omitempty"`
	Prefix    int    `json:"prefix,omitempty"` // bytes
	Suffix    int    `json:"suffix,omitempty"` // bytes
	Text      string `json:"text,omitempty"`
	Base64    bool   `json:"base64,omitempty"`    // Text is base64 (RFC 4648 section 4) of bytes that are not UTF-8
	Truncated bool   `json:"truncated,omitempty"` // the body was longer than what is kept
}

// NewBody describes body as a difference from base, the body of the call baseCall. An empty baseCall, or nothing in common, gives the
// whole body.
func NewBody(baseCall string, base, body []byte) *Body {
	b := &Body{}
	if baseCall != "" {
		b.Prefix, b.Suffix = common(base, body)
	}
	if b.Prefix+b.Suffix > 0 {
		b.Base = baseCall
	}
	middle := body[b.Prefix : len(body)-b.Suffix]
	if utf8.Valid(middle) {
		b.Text = string(middle)
		return b
	}
	b.Text, b.Base64 = base64.StdEncoding.EncodeToString(middle), true
	return b
}

// common returns how many bytes two bodies share at their beginning and, beyond that, at their end. Neither cuts a character in two.
func common(x, y []byte) (prefix, suffix int) {
	const block = 256 // compared at once
	n := min(len(x), len(y))
	for prefix+block <= n && string(x[prefix:prefix+block]) == string(y[prefix:prefix+block]) {
		prefix += block
	}
	for prefix < n && x[prefix] == y[prefix] {
		prefix++
	}
	for prefix > 0 && prefix < len(y) && !utf8.RuneStart(y[prefix]) {
		prefix--
	}
	for suffix+block <= n-prefix && string(x[len(x)-suffix-block:len(x)-suffix]) == string(y[len(y)-suffix-block:len(y)-suffix]) {
		suffix += block
	}
	for suffix < n-prefix && x[len(x)-1-suffix] == y[len(y)-1-suffix] {
		suffix++
	}
	for suffix > 0 && !utf8.RuneStart(y[len(y)-suffix]) {
		suffix--
	}
	return prefix, suffix
}

// Bytes rebuilds the body. Base is the rebuilt body of the call b.Base, or nil where there is none.
func (b *Body) Bytes(base []byte) ([]byte, error) {
	if b.Prefix < 0 || b.Suffix < 0 || b.Prefix > len(base) || b.Suffix > len(base)-b.Prefix {
		return nil, fmt.Errorf("rebuild body from call %s: %d and %d bytes of a body of %d", b.Base, b.Prefix, b.Suffix, len(base))
	}
	middle := []byte(b.Text)
	if b.Base64 {
		var err error
		if middle, err = base64.StdEncoding.DecodeString(b.Text); err != nil {
			return nil, fmt.Errorf("rebuild body: %w", err)
		}
	}
	out := make([]byte, 0, b.Prefix+len(middle)+b.Suffix)
	out = append(out, base[:b.Prefix]...)
	out = append(out, middle...)
	return append(out, base[len(base)-b.Suffix:]...), nil
}

// keptBodies is how many bodies Bodies remembers. A body refers to one shortly before it.
const keptBodies = 64

// Bodies rebuilds the bodies of a session, given to it in the order of the record. Its zero value is ready.
type Bodies struct {
	text  map[string][]byte // by call
	calls []string          // oldest first
}

// Rebuild returns the body that a call.started event describes; nil where it has none. The bytes are not to be written to.
func (b *Bodies) Rebuild(call string, body *Body) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	base, known := b.text[body.Base]
	if body.Base != "" && !known {
		return nil, fmt.Errorf("rebuild body of call %s: the record has no body of call %s before it", call, body.Base)
	}
	text, err := body.Bytes(base)
	if err != nil {
		return nil, err
	}
	if b.text == nil {
		b.text = map[string][]byte{}
	}
	if _, known := b.text[call]; !known {
		b.calls = append(b.calls, call)
	}
	b.text[call] = text
	if len(b.calls) > keptBodies {
		delete(b.text, b.calls[0])
		b.calls = b.calls[1:]
	}
	return text, nil
}
