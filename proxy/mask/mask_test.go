package mask_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/jobgate/jobgate/proxy/mask"
)

const key = "sk-ant-api03-Zq8_x/7+Vw==é \"q\"\\n"

func compile(t testing.TB, c mask.Config) *mask.Set {
	t.Helper()
	if c.Key == nil {
		c.Key = []byte("session")
	}
	set, err := mask.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func escapeAll(format string, s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, format, s[i])
	}
	return b.String()
}

func utf16Escapes(s string) string {
	var b strings.Builder
	for _, r := range utf16.Encode([]rune(s)) {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}

func jsonEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "/", `\/`).Replace(s)
}

// forms are the ways to write a secret that are claimed.
func forms(s string) map[string]string {
	b64 := base64.StdEncoding.EncodeToString
	f := map[string]string{
		"raw":                 s,
		"percent":             escapeAll("%%%02X", s),
		"percent lower":       escapeAll("%%%02x", s),
		"percent twice":       escapeAll("%%25%02x", s),
		"percent all twice":   escapeAll("%%%02x", escapeAll("%%%02X", s)),
		"plus":                strings.ReplaceAll(s, " ", "+"),
		"hex":                 hex.EncodeToString([]byte(s)),
		"HEX":                 strings.ToUpper(hex.EncodeToString([]byte(s))),
		"base64 0":            b64([]byte(s)),
		"base64 1":            b64([]byte("x" + s + "yz")),
		"base64 2":            b64([]byte("xy" + s + "z")),
		"base64 0 url raw":    base64.RawURLEncoding.EncodeToString([]byte(s + "z")),
		"base64 1 url raw":    base64.RawURLEncoding.EncodeToString([]byte("x" + s)),
		"base64 2 url raw":    base64.RawURLEncoding.EncodeToString([]byte("xy" + s)),
		"base64 percent":      escapeAll("%%%02X", b64([]byte("x"+s))),
		"base64 json":         strings.ReplaceAll(jsonEscape(b64([]byte(s))), "=", `\u003d`),
		"json":                jsonEscape(s),
		"json in json":        jsonEscape(jsonEscape(s)),
		"json u":              utf16Escapes(s),
		"json U":              strings.ReplaceAll(strings.ToUpper(utf16Escapes(s)), `\U`, `\u`),
		"json u in json":      jsonEscape(utf16Escapes(s)),
		"json u in json u":    utf16Escapes(utf16Escapes(s)),
		"json u in percent":   escapeAll("%%%02x", utf16Escapes(s)),
		"percent in json u":   utf16Escapes(escapeAll("%%%02x", s)),
		"percent in json":     jsonEscape(escapeAll("%%%02x", s)),
		"base64 with newline": b64([]byte("xy" + s))[:12] + "\r\n" + b64([]byte("xy" + s))[12:],
	}
	return f
}

func TestForms(t *testing.T) {
	for _, secret := range []string{key, "hunter2", "😀 pass wörd", "%41%2B%25", `\u0041\n\\`, strings.Repeat("ab", 30)} {
		set := compile(t, mask.Config{Secrets: []mask.Secret{{Name: "it", Value: []byte(secret)}}})
		plain, n := set.Mask(nil, []byte(secret))
		if n != 1 {
			t.Fatalf("Mask(%q) = %q, %d", secret, plain, n)
		}
		for name, form := range forms(secret) {
			for _, around := range [][2]string{{"", ""}, {"<", ">"}, {`{"a":"`, `"}`}, {"\n", "\n"}, {"%", "%"}, {`\`, `\`}, {"%2", "0"}} {
				src := around[0] + form + around[1]
				out, n := set.Mask(nil, []byte(src))
				if n != 1 || !strings.Contains(string(out), string(plain)) || len(out) > len(src)+40 && len(form) < 20 {
					t.Errorf("%s of %q: Mask(%q) = %q, %d", name, secret, src, out, n)
				}
				if got := stream(set, []byte(src), 1); got != string(out) {
					t.Errorf("%s of %q: by bytes %q, at once %q", name, secret, got, out)
				}
			}
		}
	}
}

// stream masks src in pieces of n bytes.
func stream(set *mask.Set, src []byte, n int) string {
	st := set.NewStream()
	var out []byte
	for len(src) > 0 {
		piece := src[:min(n, len(src))]
		src = src[len(piece):]
		out = st.Write(out, append([]byte(nil), piece...))
	}
	return string(st.Close(out))
}
