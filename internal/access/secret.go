package access

import (
	"fmt"
	"io"
	"log/slog"
)

const hidden = "[secret]"

// Secret is a value that must not be printed. It keeps its bytes behind a closure, because fmt reaches through
// pointers and unexported fields with %d and %v but cannot look into a function.
//
// The zero Secret is empty. Secrets are not comparable; compare what Reveal returns, in constant time.
type Secret struct {
	reveal func() []byte
}

// NewSecret takes a copy of value.
func NewSecret(value string) Secret {
	kept := []byte(value)
	return Secret{reveal: func() []byte { return kept }}
}

// Reveal returns the value. Few places may call it: the injection of a credential, the building of a masker, and the
// constructors of the products' clients.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return string(s.reveal())
}

// IsZero reports whether there is no value.
func (s Secret) IsZero() bool { return s.reveal == nil || len(s.reveal()) == 0 }

// String returns a fixed text.
func (s Secret) String() string { return hidden }

// Format prints the fixed text for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue keeps the value out of slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText keeps the value out of JSON, YAML and every other encoding that asks.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
