package federation

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// jwt is a JWS in compact form whose shape was checked. Its content is nobody's word until the signature is checked.
//
//	BASE64URL(header) "." BASE64URL(payload) "." BASE64URL(signature)
type jwt struct {
	raw     string
	signed  string // header and payload as they were signed
	payload []byte
	claims  access.Claims
	alg     string
	kid     string // "" where there is none
}

// parse checks the shape of a token, RFC 7515 section 7.1, strictly, and that its payload is a set of claims.
func parse(raw string) (*jwt, error) {
	t, err := parseJWS(raw)
	if err != nil {
		return nil, err
	}
	if t.claims, err = decodeObject(t.payload); err != nil {
		return nil, refuse(reasonMalformed, "payload: %w", err)
	}
	return t, nil
}

// parseJWS takes a JWS in compact form apart, whatever it signs. No padding, no white space, no JSON serialization, no
// encryption; JSON without duplicates.
func parseJWS(raw string) (*jwt, error) {
	if len(raw) > maxToken {
		return nil, refuse(reasonMalformed, "%d bytes, more than %d", len(raw), maxToken)
	}
	if strings.Count(raw, ".") != 2 {
		return nil, refuse(reasonMalformed, "not three parts")
	}
	parts := strings.Split(raw, ".")
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = decodePart(part); err != nil {
			return nil, refuse(reasonMalformed, "part %d: %w", i+1, err)
		}
	}
	header, err := decodeObject(decoded[0])
	if err != nil {
		return nil, refuse(reasonMalformed, "header: %w", err)
	}
	t := &jwt{raw: raw, signed: parts[0] + "." + parts[1], payload: decoded[1]}
	return t, t.readHeader(header)
}

// decodePart decodes base64url without padding. Every value has one encoding: Go's decoder would skip line ends, and
// take left-over bits.
func decodePart(part string) ([]byte, error) {
	if i := strings.IndexFunc(part, func(r rune) bool { return !isBase64URL(r) }); i >= 0 {
		return nil, fmt.Errorf("character %d is not of base64url", i+1)
	}
	return base64.RawURLEncoding.Strict().DecodeString(part)
}

func isBase64URL(r rune) bool {
	return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

// readHeader takes what the header may say. Keys and places of keys in it (jwk, jku, x5u, x5c, x5t) are ignored: who
// forges a token would name his own.
func (t *jwt) readHeader(header map[string]any) error {
	var ok bool
	if t.alg, ok = header["alg"].(string); !ok {
		return refuse(reasonMalformed, "header: alg is no string")
	}
	if t.alg == "" || strings.EqualFold(t.alg, "none") || strings.HasPrefix(t.alg, "HS") {
		return refuse(reasonAlgorithm, "%s is no signature of an issuer", shown(t.alg))
	}
	for _, name := range []string{"crit", "b64", "zip", "enc", "cty"} {
		if _, there := header[name]; there {
			return refuse(reasonHeader, "%s", name)
		}
	}
	if typ, there := header["typ"]; there {
		if s, ok := typ.(string); !ok || !strings.EqualFold(s, "JWT") {
			return refuse(reasonHeader, "typ is %s, not JWT", shown(fmt.Sprint(typ)))
		}
	}
	if kid, there := header["kid"]; there {
		if t.kid, ok = kid.(string); !ok {
			return refuse(reasonMalformed, "header: kid is no string")
		}
	}
	return nil
}

// audience returns the token's audience, which is a string or an array of one. An audience beside ours could show the
// token to us.
func (t *jwt) audience() (string, error) {
	switch aud := t.claims["aud"].(type) {
	case string:
		return aud, nil
	case []any:
		if len(aud) == 1 {
			if s, ok := aud[0].(string); ok {
				return s, nil
			}
		}
	}
	return "", fmt.Errorf("aud is not one string")
}

// tokenTimes are a token's NumericDates.
type tokenTimes struct {
	issued, expires time.Time
	notBefore       time.Time // zero where there is none
}

func (t *jwt) times() (tokenTimes, error) {
	var out tokenTimes
	for _, claim := range []struct {
		name     string
		required bool
		into     *time.Time
	}{{"exp", true, &out.expires}, {"iat", true, &out.issued}, {"nbf", false, &out.notBefore}} {
		value, there := t.claims[claim.name]
		if !there {
			if claim.required {
				return out, refuse(reasonMissing, "%s", claim.name)
			}
			continue
		}
		at, err := numericDate(value)
		if err != nil {
			return out, refuse(reasonType, "%s: %w", claim.name, err)
		}
		*claim.into = at
	}
	return out, nil
}

// numericDate reads seconds since 1970, perhaps with a fraction: RFC 7519 section 2.
func numericDate(value any) (time.Time, error) {
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("no number")
	}
	seconds, err := number.Float64()
	if err != nil || seconds < 0 || seconds > maxSeconds {
		return time.Time{}, fmt.Errorf("no time")
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

// shownBytes bounds what is shown of a claim.
const shownBytes = 120

// shown returns a text of a stranger for people: printable, cut, in single quotes.
func shown(s string) string { return "'" + printable(s) + "'" }

// printable returns a text, cut, in the characters that an OAuth error description may hold: RFC 6749 section 5.2.
func printable(s string) string {
	cut := ""
	if len(s) > shownBytes {
		s, cut = s[:shownBytes], "..."
	}
	clean := func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < 0x20 || r > 0x7e || r == '\\':
			return '?'
		}
		return r
	}
	return strings.Map(clean, s) + cut
}
