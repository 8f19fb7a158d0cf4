package testkit

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Encoding is a form in which an upstream may echo a credential.
type Encoding string

// The encodings that a masker claims, and the alignments of base64.
const (
	Raw             Encoding = "raw"
	Percent         Encoding = "percent" // every byte as %XX
	PercentMixed    Encoding = "percent-mixed"
	HexLower        Encoding = "hex"
	HexUpper        Encoding = "hex-upper"
	Base64          Encoding = "base64"
	Base64At1       Encoding = "base64-at-1" // one byte stands before it
	Base64At2       Encoding = "base64-at-2"
	Base64URL       Encoding = "base64url"
	Base64Unpadded  Encoding = "base64-unpadded"
	JSONEscaped     Encoding = "json-escaped" // every character as \uXXXX
	JSONEscapedSome Encoding = "json-escaped-some"
)

// Encodings lists them all.
func Encodings() []Encoding {
	return []Encoding{Raw, Percent, PercentMixed, HexLower, HexUpper, Base64, Base64At1, Base64At2, Base64URL,
		Base64Unpadded, JSONEscaped, JSONEscapedSome}
}

// Encode writes secret in this encoding. It panics at an encoding that is not
// one of Encodings.
func (e Encoding) Encode(secret string) string {
	b := []byte(secret)
	switch e {
	case Raw:
		return secret
	case Percent:
		return percent(b, func(int) bool { return true })
	case PercentMixed:
		return percent(b, func(n int) bool { return n%3 == 0 })
	case HexLower:
		return hex.EncodeToString(b)
	case HexUpper:
		return strings.ToUpper(hex.EncodeToString(b))
	case Base64:
		return base64.StdEncoding.EncodeToString(b)
	case Base64At1:
		return base64.StdEncoding.EncodeToString(append([]byte(":"), b...))
	case Base64At2:
		return base64.StdEncoding.EncodeToString(append([]byte("u:"), b...))
	case Base64URL:
		return base64.URLEncoding.EncodeToString(b)
	case Base64Unpadded:
		return base64.RawStdEncoding.EncodeToString(b)
	case JSONEscaped:
		return escapeAll(secret)
	case JSONEscapedSome:
		return escapeAll(secret[:len(secret)/2]) + secret[len(secret)/2:]
	}
	panic(fmt.Sprintf("testkit: no encoding %q", string(e)))
}

// percent alternates the case of the digits, which both are claimed.
func percent(b []byte, encode func(n int) bool) string {
	var out strings.Builder
	for n, c := range b {
		switch {
		case !encode(n):
			out.WriteByte(c)
		case n%2 == 0:
			fmt.Fprintf(&out, "%%%02x", c)
		default:
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

// ScriptEcho is a model that says the credential which it was called with, in
// this encoding and between two words. The text is cut into two text_delta
// events cut bytes into the credential; 0 leaves it whole.
func ScriptEcho(e Encoding, cut int) Script {
	return func(req Request) Response {
		const before = "The key is "
		text := Text{Text: before + e.Encode(req.Credential()) + " as you see.", Cuts: []int{}}
		if cut > 0 {
			text.Cuts = []int{len(before) + cut}
		}
		return Response{Blocks: []Block{text}}
	}
}
