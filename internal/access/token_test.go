package access_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"math/big"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// The last six digits are the CRC-32 of what is before them, whose value anybody can compute with what is at hand.
func TestTokenForm(t *testing.T) {
	for range 100 {
		token, hash, err := access.NewToken(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		body := token[:len(token)-6]
		sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(body)))
		n := new(big.Int)
		for _, c := range token[len(body):] {
			n.Add(n.Mul(n, big.NewInt(62)), big.NewInt(int64(strings.IndexRune(base62, c))))
		}
		if len(token) != access.TokenLength || !strings.HasPrefix(token, access.TokenPrefix) || n.Cmp(new(big.Int).SetBytes(sum)) != 0 {
			t.Fatalf("token %s: %d bytes, checksum %d, want %d bytes and %x", token, len(token), n, access.TokenLength, sum)
		}
		if got, ok := access.HashToken(token); !ok || got != hash || got != access.TokenHash(sha256.Sum256([]byte(token))) {
			t.Fatalf("HashToken(%s) = %x, %v, want %x", token, got, ok, hash)
		}
		for i := range token {
			bad := token[:i] + string(base62[(strings.IndexByte(base62, token[i])+1)%62]) + token[i+1:]
			if _, ok := access.HashToken(bad); ok {
				t.Fatalf("HashToken took %s, which is not %s", bad, token)
			}
		}
	}
}

func TestHashTokenTakesNoMemory(t *testing.T) {
	token, _, err := access.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { access.HashToken(token) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkHashToken(b *testing.B) {
	token, _, err := access.NewToken(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		access.HashToken(token)
	}
}
