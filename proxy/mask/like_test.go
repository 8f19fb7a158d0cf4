package mask_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/mask"
)

// bodies makes one text after the other, each a change of the one before: as an agent's requests grow, and as they do not.
type bodies struct {
	writer
	secrets []string
	parts   []string
}

func (b *bodies) part() string {
	switch b.IntN(8) {
	case 0:
		return strings.Repeat(b.pick("a", "ab ", "QUJD", "%", `\\`, "\n", "x=y&"), b.IntN(3000))
	case 1:
		if b.IntN(6) == 0 {
			return b.text(b.secrets)
		}
	case 2:
		secret := b.secrets[b.IntN(len(b.secrets))]
		return secret[:b.IntN(len(secret))]
	case 3:
		return b.pick("sk-ant-api03-", "-----BEGIN RSA PRIVATE KEY-----\n", "AKIA", "eyJhbGciOiJIUzI1NiJ9.", "ghp_", "%2", `\u00`, "aHVu")
	}
	return strings.Repeat(fmt.Sprintf("The tests of package %d pass; go on with the next file.\\n", b.IntN(100)), b.IntN(60))
}

func (b *bodies) next() string {
	switch n := len(b.parts); {
	case n == 0 || b.IntN(3) > 0 && n < 30:
		at := n
		if n > 0 && b.IntN(2) == 0 {
			at = b.IntN(n)
		}
		b.parts = slices.Insert(b.parts, at, b.part())
	case b.IntN(2) == 0:
		b.parts[b.IntN(n)] = b.part()
	default:
		at := b.IntN(n)
		b.parts = slices.Delete(b.parts, at, at+1)
	}
	return strings.Join(b.parts, "")
}

// checkLike holds MaskLike against Mask over a row of texts.
func checkLike(t *testing.T, set *mask.Set, b *bodies, rounds int) {
	t.Helper()
	var base *mask.Clean
	for round := range rounds {
		src := b.next()
		want, wantN := set.Mask(nil, []byte(src))
		got, n, clean := set.MaskLike(base, []byte(src))
		if string(got) != string(want) || n != wantN || (clean == nil) != (n > 0) {
			t.Fatalf("text %d: %d places, want %d\n got %.2000q\nwant %.2000q", round, n, wantN, got, want)
		}
		if clean != nil || b.IntN(2) == 0 {
			base = clean
		}
	}
}

func TestLike(t *testing.T) {
	for seed := range uint64(30) {
		b := &bodies{writer: writer{rand.New(rand.NewPCG(seed, 3))}}
		b.secrets = []string{b.secret(), b.secret()}
		set, err := mask.Compile(mask.Config{Secrets: plainSecrets(b.secrets...), Detectors: mask.Detectors(), Key: []byte("k")})
		if err != nil {
			continue
		}
		checkLike(t, set, b, 60)
	}
}

// TestLikeOther looks through a text like one that another Set was clean of: it is looked through as a whole.
func TestLikeOther(t *testing.T) {
	first := compile(t, mask.Config{Secrets: []mask.Secret{{Name: "a", Value: []byte("first-secret")}}})
	second, err := first.With(mask.Secret{Name: "b", Value: []byte("second-secret")})
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(strings.Repeat("x ", 5000) + "second-secret" + strings.Repeat(" y", 5000))
	if _, _, clean := first.MaskLike(nil, text); clean == nil {
		t.Error("the first set finds something")
	} else if _, n, _ := second.MaskLike(clean, text); n != 1 {
		t.Errorf("the second set finds %d places, want 1", n)
	}
}

// FuzzLike holds it for any two texts.
func FuzzLike(f *testing.F) {
	f.Add("hunter2!", strings.Repeat("a", 5000), "hunt", "er2! ", uint64(1))
	f.Add("hunter2!", strings.Repeat(`\u0068`, 900), "%68unter", "2!", uint64(2))
	f.Fuzz(func(t *testing.T, secret, filler, x, y string, seed uint64) {
		set, err := mask.Compile(mask.Config{Secrets: plainSecrets(secret), Detectors: mask.Detectors(), Key: []byte("k")})
		if err != nil || len(filler) > 6000 {
			return
		}
		random := rand.New(rand.NewPCG(seed, 5))
		parts := []string{x, filler, y, filler, secret[:len(secret)/2], x, filler}
		var base *mask.Clean
		for range 12 {
			src := []byte(strings.Join(parts, ""))
			want, wantN := set.Mask(nil, src)
			got, n, clean := set.MaskLike(base, src)
			if string(got) != string(want) || n != wantN {
				t.Fatalf("%d places, want %d\n got %.3000q\nwant %.3000q", n, wantN, got, want)
			}
			if clean != nil {
				base = clean
			}
			at, other := random.IntN(len(parts)), random.IntN(len(parts))
			parts[at], parts[other] = parts[other], parts[at]
		}
	})
}

// BenchmarkLike is a request that is one turn longer than the last, at its end and in its middle.
func BenchmarkLike(b *testing.B) {
	body := agentBody()
	set, err := mask.Compile(mask.Config{Secrets: benchSecrets(20), Detectors: mask.Detectors()})
	if err != nil {
		b.Fatal(err)
	}
	turn := []byte(`,{"type":"text","text":"and then the tests pass"}`)
	for name, at := range map[string]int{"same": -1, "longer": len(body), "longer in the middle": len(body) / 4} {
		b.Run(name, func(b *testing.B) {
			src := body
			if at >= 0 {
				src = slices.Concat(body[:at], turn, body[at:])
			}
			_, _, base := set.MaskLike(nil, body)
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				if _, n, _ := set.MaskLike(base, src); n != 0 {
					b.Fatal("something was found")
				}
			}
		})
	}
	b.Run("first", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			set.MaskLike(nil, body)
		}
	})
}
