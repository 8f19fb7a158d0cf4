package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// claims are what this program looks at in a token, unverified: it judges nothing by them, and tells people of them.
type claims struct {
	Issuer   string          `json:"iss"`
	Audience json.RawMessage `json:"aud"`
	Expires  int64           `json:"exp"`
	Issued   int64           `json:"iat"`
}

// readClaims decodes a token's payload; ok is false for anything that is no JWT.
func readClaims(token string) (claims, bool) {
	if len(token) > maxToken || !jwtForm.MatchString(token) {
		return claims{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return claims{}, false
	}
	var c claims
	return c, json.Unmarshal(raw, &c) == nil
}

func (c claims) audiences() []string {
	var one string
	if json.Unmarshal(c.Audience, &one) == nil {
		return []string{one}
	}
	var many []string
	_ = json.Unmarshal(c.Audience, &many) // of another form: none
	return many
}

func (c claims) expires() time.Time { return time.Unix(c.Expires, 0) }
