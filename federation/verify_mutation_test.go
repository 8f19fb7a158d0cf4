package federation_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/federation"
)

// mutations are what a claim is changed in, one at a time. One that does not apply returns false.
var mutations = []struct {
	name   string
	change func(claims map[string]any, name string) bool
}{
	{"absent", func(c map[string]any, name string) bool { delete(c, name); return true }},
	{"null", func(c map[string]any, name string) bool {
		was := c[name]
		c[name] = nil
		return was != nil
	}},
	{"empty", func(c map[string]any, name string) bool {
		was := c[name]
		c[name] = ""
		return was != ""
	}},
	{"type", func(c map[string]any, name string) bool {
		switch c[name].(type) {
		case string:
			c[name] = json.Number("7")
		case nil:
			return false
		default:
			c[name] = fmt.Sprint(c[name])
		}
		return true
	}},
	{"list", func(c map[string]any, name string) bool { c[name] = []any{c[name]}; return true }},
	{"space", func(c map[string]any, name string) bool {
		s, ok := c[name].(string)
		c[name] = s + " "
		return ok
	}},
	{"case", func(c map[string]any, name string) bool {
		other := strings.ToUpper(name)
		if other == name {
			other = strings.ToLower(name)
		}
		c[other] = c[name]
		delete(c, name)
		return other != name
	}},
	{"capitals", func(c map[string]any, name string) bool {
		s, ok := c[name].(string)
		c[name] = strings.ToUpper(s)
		return ok && c[name] != s
	}},
	{"other", func(c map[string]any, name string) bool {
		switch v := c[name].(type) {
		case string:
			c[name] = otherText(v)
			return true
		case bool:
			c[name] = !v
			return true
		}
		return false
	}},
}

// otherText returns a text of the same kind: another tenant's id, another branch.
func otherText(s string) string {
	if s == "" {
		return "0"
	}
	last := s[len(s)-1]
	if last >= '0' && last < '9' || last >= 'a' && last < 'z' {
		return s[:len(s)-1] + string(last+1)
	}
	return s[:len(s)-1] + "0"
}

// mutationsPassed is where the changes are listed that make no difference, because nothing looks at what they change.
const mutationsPassed = "testdata/mutations-passed.txt"

// TestMutations changes every claim of every accepted vector in every way. The changed token must be refused, and the
// refusal name the claim, unless the change is on the list of those that nothing looks at. No change to a claim that
// the vector's mapping requires a value of is on that list.
func TestMutations(t *testing.T) {
	passed := map[string][]string{} // by provider and claim
	vectors, tokens := 0, 0
	for _, v := range readVectors(t) {
		if !v.Expect.Accept {
			continue
		}
		vectors++
		t.Run(v.ID, func(t *testing.T) { tokens += v.mutate(t, passed) })
	}
	t.Logf("%d accepted vectors, %d changed tokens", vectors, tokens)
	var lines []string
	for claim, changes := range passed {
		slices.Sort(changes)
		lines = append(lines, claim+": "+strings.Join(slices.Compact(changes), " ")+"\n")
	}
	slices.Sort(lines)
	got := "# provider, claim, and the changes to it that make no difference in some vector. Written by TestMutations -update.\n" +
		strings.Join(lines, "")
	if *federation.Update {
		if err := os.WriteFile(mutationsPassed, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(mutationsPassed)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("changes that pass (-want +got); when each is meant to, run go test -run TestMutations -update:\n%s", d)
	}
}

// readVectors returns the vectors, under the names of the provider table.
func readVectors(t *testing.T) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/ci-token-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	for i := range vectors {
		if vectors[i].Provider == "github" {
			vectors[i].Provider = "github-actions"
		}
	}
	return vectors
}

// mutate runs the changed tokens of one vector, and returns how many.
func (v vector) mutate(t *testing.T, passed map[string][]string) (tokens int) {
	judge := v.judgement(t)
	if err := judge(v.payload()); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	check := func(claim, change string, payload []byte) {
		tokens++
		err := judge(payload)
		last := claim[strings.LastIndex(claim, ">")+1:]
		switch required := v.requires(claim); {
		case err == nil && required && !(claim == "aud" && (change == "list" || change == "type")):
			t.Errorf("%s %s: accepted, and the mapping requires a value of it", claim, change)
		case err == nil:
			key := v.Provider + " " + claim
			passed[key] = append(passed[key], change)
		case !strings.Contains(err.Error(), last):
			t.Errorf("%s %s: refused, without its name: %v", claim, change, err)
		}
	}
	for _, place := range places(decoded(v.payload()), "") {
		for _, m := range mutations {
			claims := decoded(v.payload())
			if m.change(place.in(claims), place.name) {
				check(place.path, m.name, encoded(claims))
			}
		}
		if place.top() {
			claims := decoded(v.payload())
			again := fmt.Appendf(nil, ",%q:%s}", place.name, encoded(claims[place.name]))
			check(place.path, "twice", append(bytes.TrimSuffix(encoded(claims), []byte("}")), again...))
		}
	}
	return tokens
}

// requires reports whether a change of a claim must be refused whatever the list says: the claims of every token, and
// those of which the mapping requires a value.
func (v vector) requires(claim string) bool {
	if slices.Contains([]string{"iss", "aud", "exp", "iat"}, claim) {
		return true
	}
	_, matched := v.Policy.Require[claim]
	for _, p := range v.Policy.Path {
		matched = matched || len(p.Value) > 0 && claim == strings.Join(p.Path, ">")
	}
	return matched
}

// judgement returns what becomes of a payload under the vector's policy. Tokens are signed by EdDSA, which is faster.
func (v vector) judgement(t *testing.T) func(payload []byte) error {
	key := ed25519.NewKeyFromSeed([]byte("a seed of a key for tests, 32 by"))
	net := &network{issuer: v.Policy.Issuer, keys: []map[string]any{
		{"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(key.Public().(ed25519.PublicKey))}}}
	issuer := federation.Issuer{
		Name: "ci", Provider: v.Provider, URL: v.Policy.Issuer, Algorithms: []string{"EdDSA"},
		SharedAudience: v.Policy.Shared && v.Policy.Audience != audience, MaxLifetime: time.Duration(v.Policy.Lifetime) * time.Second,
	}
	own := v.Policy.Audience
	if issuer.SharedAudience {
		issuer.MaxAge, own = time.Duration(v.Policy.MaxAge)*time.Second, "https://jobgate.example.test"
	}
	verifier, err := federation.NewVerifier(federation.VerifierConfig{
		Audience: own, Issuers: []federation.Issuer{issuer}, Transport: net, Now: func() time.Time { return start },
	})
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := federation.NewMapping(v.mapping(), federation.MappingConfig{
		Issuers: []federation.Issuer{issuer}, Connections: map[string]string{"anthropic": "anthropic"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(payload []byte) error {
		token := sign(map[string]any{"alg": "EdDSA", "kid": "ed"}, payload, key)
		return v.exchange(t.Context(), verifier, mapping, token, start, map[string]bool{})
	}
}

// place is where a claim stands: in the payload, or in an object of it.
type place struct {
	path string // names joined by ">"
	name string // the last of them
}

func (p place) top() bool { return p.path == p.name }

// in returns the object of the claims that the place is in.
func (p place) in(claims map[string]any) map[string]any {
	names := strings.Split(p.path, ">")
	for _, name := range names[:len(names)-1] {
		claims = claims[name].(map[string]any)
	}
	return claims
}

func places(claims map[string]any, above string) (all []place) {
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		all = append(all, place{above + name, name})
		if nested, ok := claims[name].(map[string]any); ok {
			all = append(all, places(nested, above+name+">")...)
		}
	}
	return all
}

func decoded(payload []byte) map[string]any {
	var claims map[string]any
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	if err := dec.Decode(&claims); err != nil {
		panic(err)
	}
	return claims
}

func encoded(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return text
}
