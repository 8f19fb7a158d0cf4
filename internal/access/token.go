package access

import (
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"io"
	"math/big"
	"strings"
	"time"
)

// TokenPrefix begins every access token, so that secret scanners and people know one when they see it.
const TokenPrefix = "jg_"

// base62 of 32 bytes takes 43 digits, of a CRC-32 6.
const (
	tokenDigits    = 43
	checksumDigits = 6
	// TokenLength is the length of an access token in bytes.
	TokenLength = len(TokenPrefix) + tokenDigits + checksumDigits
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// TokenHash is the SHA-256 of an access token: all that is kept of one.
type TokenHash [sha256.Size]byte

// AccessToken is what is kept of a token that was given out.
type AccessToken struct {
	Hash    TokenHash
	Session string
	// Connections are the names it is good for.
	Connections []string
	Issued      time.Time
	Expires     time.Time
	// Assertion says whether it may serve as assertion at the exchange of a connection.
	Assertion bool
}

// Allows reports whether the token is good for a connection.
func (t AccessToken) Allows(connection string) bool {
	for _, name := range t.Connections {
		if name == connection {
			return true
		}
	}
	return false
}

// NewToken makes an access token: "jg_", 32 random bytes in base62, and a CRC-32 in base62, by which a mistyped or cut
// token is told from an unknown one without a look-up.
func NewToken(random io.Reader) (string, TokenHash, error) {
	var raw [32]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", TokenHash{}, fmt.Errorf("read random bytes for a token: %w", err)
	}
	body := TokenPrefix + digits(raw[:], tokenDigits)
	sum := checksum(body)
	token := body + string(sum[:])
	return token, sha256.Sum256([]byte(token)), nil
}

// HashToken returns the hash by which a token is looked up, and whether the text has the form of one. Each call begins with it: it takes no
// memory.
func HashToken(token string) (TokenHash, bool) {
	if len(token) != TokenLength || !strings.HasPrefix(token, TokenPrefix) {
		return TokenHash{}, false
	}
	body := token[:TokenLength-checksumDigits]
	if sum := checksum(body); string(sum[:]) != token[len(body):] {
		return TokenHash{}, false
	}
	var text [TokenLength]byte
	copy(text[:], token)
	return sha256.Sum256(text[:]), true
}

// checksum is the CRC-32 (IEEE) of a text in base62. The loop stands here because what is given to package crc32 escapes to the heap.
func checksum(body string) (out [checksumDigits]byte) {
	sum := ^uint32(0)
	for i := range len(body) {
		sum = crc32.IEEETable[byte(sum)^body[i]] ^ sum>>8
	}
	sum = ^sum
	for i := checksumDigits - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return out
}

func digits(raw []byte, width int) string {
	n, base, digit := new(big.Int).SetBytes(raw), big.NewInt(62), new(big.Int)
	out := make([]byte, width)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		out[i] = base62[digit.Int64()]
	}
	return string(out)
}
