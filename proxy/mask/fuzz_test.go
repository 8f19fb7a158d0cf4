package mask_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/mask"
)

// FuzzKnown holds known secrets against the oracle, over splits.
func FuzzKnown(f *testing.F) {
	f.Add("hunter2!", "%41%2B", "hunter2! %68unter2! 68756e7465723221 aHVudGVyMiE= \\u0068unter2!", uint64(1))
	f.Add(`\\n\u00`, "\n\n\n\nx\n", `\\\\n\\u00\u005c`, uint64(2))
	f.Add("aaaaaa", "aaaaab", "aaaaaaaaaaaaabYWFhYWFhYWFhYWFh", uint64(3))
	for seed := range uint64(16) {
		w := writer{rand.New(rand.NewPCG(seed, 1))}
		a, b := w.secret(), w.secret()
		f.Add(a, b, w.text([]string{a, b}), seed)
	}
	f.Fuzz(func(t *testing.T, a, b, src string, seed uint64) {
		if len(src) > 300 || len(a) > 40 || len(b) > 40 {
			return
		}
		o := oracle{key: "session", secrets: plainSecrets(a, b)}
		set, err := mask.Compile(mask.Config{Secrets: o.secrets, Key: []byte(o.key)})
		if err != nil {
			return
		}
		agree(t, rand.New(rand.NewPCG(seed, 2)), o, set, src)
	})
}

// plainSecrets leaves out what the package would trim or take apart: the oracle knows nothing of that.
func plainSecrets(values ...string) (secrets []mask.Secret) {
	for i, v := range values {
		if i > 0 && v == values[0] || strings.TrimSpace(v) != v || strings.HasPrefix(v, "{") {
			continue
		}
		if strings.Contains(v, "\n") && len(v) >= mask.MinLine {
			continue
		}
		secrets = append(secrets, mask.Secret{Name: string(rune('a' + i)), Value: []byte(v)})
	}
	return secrets
}

// FuzzDetectors: with everything on, splits change nothing, and what is masked stays masked.
func FuzzDetectors(f *testing.F) {
	for _, examples := range detectorExamples {
		for i, example := range examples {
			f.Add(example+" "+example, uint64(i))
		}
	}
	set, err := mask.Compile(mask.Config{
		Secrets:   benchSecrets(2),
		Detectors: append(mask.Detectors(), mask.Detector{Name: "ticket", Anchors: []string{"TICKET"}, Pattern: `TICKET-([0-9]{4,8})`, Max: 20}),
		Key:       []byte("k"),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, src string, seed uint64) {
		out, n := set.Mask(nil, []byte(src))
		pieces := splits(rand.New(rand.NewPCG(seed, 3)), src)
		if got := streamed(set, pieces); got != string(out) {
			t.Fatalf("pieces %q\n got %q\nwant %q", pieces, got, out)
		}
		if got := scanned(t, set, pieces); got != string(out) {
			t.Fatalf("scanned %q\n got %q\nwant %q", pieces, got, out)
		}
		if n == 0 && string(out) != src {
			t.Fatalf("Mask(%q) = %q, 0", src, out)
		}
	})
}
