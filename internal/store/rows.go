package store

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// nanos and instant translate times; the zero time is 0.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func instant(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func encode(v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode %T: %w", v, err)
	}
	return string(data), nil
}

// decode keeps numbers as they were written: claims are compared by type.
func decode(text string, into any) error {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("decode %T: %w", into, err)
	}
	return nil
}

func hexed(h access.TokenHash) string { return hex.EncodeToString(h[:]) }

func unhexed(text string) (access.TokenHash, error) {
	var h access.TokenHash
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(h) {
		return h, fmt.Errorf("a token's hash is %d hexadecimal digits", 2*len(h))
	}
	copy(h[:], raw)
	return h, nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
