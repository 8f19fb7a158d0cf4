package federation

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"os"
	"testing"
)

// FuzzParseKeys holds what a key that is taken from a set is: of a size that is safe and quick, known by an id, and no
// secret.
func FuzzParseKeys(f *testing.F) {
	for _, name := range []string{"signature", "key"} {
		text, err := os.ReadFile("testdata/wycheproof/json_web_" + name + "_test.json")
		if err != nil {
			f.Fatal(err)
		}
		var file wycheproof
		if err := json.Unmarshal(text, &file); err != nil {
			f.Fatal(err)
		}
		for _, group := range file.Groups {
			f.Add(keySetOf(group.Private))
			if group.Public != nil {
				f.Add(keySetOf(group.Public))
			}
		}
	}
	for _, seed := range []string{`{}`, `{"keys":[]}`, `{"keys":[1]}`, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"AA"}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		keys, err := parseKeys(document)
		if err != nil && keys != nil {
			t.Error("keys come with an error")
		}
		for kid, k := range keys {
			if kid == "" || len(kid) > maxKeyID {
				t.Errorf("kid %q", kid)
			}
			switch public := k.public.(type) {
			case *rsa.PublicKey:
				if !soundRSA(public) {
					t.Errorf("an RSA key of %d bits, exponent %d", public.N.BitLen(), public.E)
				}
			case *ecdsa.PublicKey:
				if _, err := public.ECDH(); err != nil {
					t.Errorf("a point that is on no curve: %v", err)
				}
			}
			for _, alg := range []string{"", "none", "HS256", "HS384", "HS512"} {
				if k.suits(alg) {
					t.Errorf("a key of the set serves for %q", alg)
				}
			}
		}
	})
}

func TestFromROCA(t *testing.T) {
	for _, test := range []struct {
		modulus int64
		want    bool
	}{
		{65537, true}, {65537 * 65537, true}, {1, true}, // powers of the generator
		{3 * 5, false}, {65537 * 2, false}, {65537 + 11, false},
	} {
		if got := fromROCA(big.NewInt(test.modulus)); got != test.want {
			t.Errorf("fromROCA(%d) = %v, want %v", test.modulus, got, test.want)
		}
	}
}
