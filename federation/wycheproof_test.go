package federation

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// wycheproof is a file of testdata/wycheproof.
type wycheproof struct {
	Tests  int `json:"numberOfTests"`
	Groups []struct {
		Comment string          `json:"comment"`
		Public  json.RawMessage `json:"public"`
		Private json.RawMessage `json:"private"` // the only key where it is symmetric
		Tests   []struct {
			ID      int             `json:"tcId"`
			Comment string          `json:"comment"`
			JWS     json.RawMessage `json:"jws"`
			JWE     json.RawMessage `json:"jwe"`
			Result  string          `json:"result"`
		} `json:"tests"`
	} `json:"testGroups"`
}

func readWycheproof(t *testing.T, name string) wycheproof {
	t.Helper()
	text, err := os.ReadFile("testdata/wycheproof/json_web_" + name + "_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file wycheproof
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file
}

// serialized returns a token as it is sent: the text of a JSON string, or the JSON serialization.
func serialized(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// keySetOf returns the key set that a group's key is of.
func keySetOf(key json.RawMessage) []byte {
	if strings.Contains(string(key), `"keys"`) {
		return key
	}
	return fmt.Appendf(nil, `{"keys":[%s]}`, key)
}

// checkJWS is what a token's signature goes through, without a look at what it signs.
func checkJWS(raw string, set []byte) error {
	token, err := parseJWS(raw)
	if err != nil {
		return err
	}
	if !slices.Contains(signatureAlgorithms, token.alg) {
		return refuse(reasonAlgorithm, "%s", token.alg)
	}
	keys, err := parseKeys(set)
	if err != nil {
		return err
	}
	key, known := keys[token.kid]
	if !known {
		return refuse(reasonKeyID, "%s", token.kid)
	}
	payload, err := key.verify(raw, token.alg)
	if err == nil && string(payload) != string(token.payload) {
		return errors.New("what was signed is not what was parsed")
	}
	return err
}

// stricterThanWycheproof are signatures that the files call valid, and that are refused all the same.
var stricterThanWycheproof = map[string]string{
	"signature/346": "PS384 under a key for PS256", "signature/350": "PS384 under a key for PS256",
	"signature/347": "ES512 under a key for ES521, which is no algorithm", "signature/351": "ES512 under a key for ES521, which is no algorithm",
}

func TestWycheproofSignatures(t *testing.T) {
	ran, accepted := 0, map[string]int{}
	for _, name := range []string{"signature", "key", "crypto"} {
		file := readWycheproof(t, name)
		for _, group := range file.Groups {
			key := group.Public
			if key == nil {
				key = group.Private
			}
			for _, test := range group.Tests {
				ran++
				if test.JWS == nil {
					continue // an encryption, for the test below
				}
				id := fmt.Sprintf("%s/%d", name, test.ID)
				raw := serialized(test.JWS)
				err := checkJWS(raw, keySetOf(key))
				want := test.Result == "valid" && stricterThanWycheproof[id] == "" && group.Public != nil
				if (err == nil) != want {
					t.Errorf("%s, %s, %s: %v, and the file says %s", id, group.Comment, test.Comment, err, test.Result)
				}
				if token, _ := parseJWS(raw); err == nil {
					accepted[token.alg]++
				}
			}
		}
	}
	if ran != 401+26+83 {
		t.Errorf("%d cases ran, want all %d", ran, 401+26+83)
	}
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256"} {
		if accepted[alg] == 0 {
			t.Errorf("no signature by %s was accepted", alg)
		}
	}
}

func TestWycheproofEncryption(t *testing.T) {
	ran := 0
	for _, name := range []string{"encryption", "crypto"} {
		for _, group := range readWycheproof(t, name).Groups {
			for _, test := range group.Tests {
				if test.JWE == nil {
					continue
				}
				ran++
				if _, err := parseJWS(serialized(test.JWE)); err == nil {
					t.Errorf("%s/%d, %s, %s: accepted", name, test.ID, group.Comment, test.Comment)
				}
			}
		}
	}
	if ran != 139+34 {
		t.Errorf("%d cases ran, want all %d", ran, 139+34)
	}
}
