package mask_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
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

// tag is what a placeholder under the key of compile shows of a value.
func tag(value string) string {
	mac := hmac.New(sha256.New, []byte("session"))
	mac.Write([]byte(value))
	return hex.EncodeToString(mac.Sum(nil)[:4])
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
				if got := stream(set, []byte(src), 1+len(around[0])*3); got != string(out) {
					t.Errorf("%s of %q: in pieces %q, at once %q", name, secret, got, out)
				}
			}
		}
	}
}

// TestBase64Edges: what a base64 form shares with its neighbours. Before the value nothing is masked, and other text there
// says that it is no encoding of the value; behind it one character is.
func TestBase64Edges(t *testing.T) {
	set := compile(t, mask.Config{Secrets: []mask.Secret{{Name: "a", Value: []byte("hunter2!")}}})
	m := "[masked:a:" + tag("hunter2!") + "]"
	b64 := base64.StdEncoding.EncodeToString
	for src, want := range map[string]string{
		b64([]byte("hunter2!")):         m + "=",
		b64([]byte("xhunter2!")):        "eG" + m,
		b64([]byte("xyhunter2!")):       "eHl" + m + "==",
		b64([]byte("xyzhunter2!xyz")):   "eHl6a" + m + "4eXo=",
		"the" + b64([]byte("hunter2!")): "thea" + m + "=",
		"eH" + "h1bnRlcjIh":             "eHh1bnRlcjIh", // G holds the first bits, H does not
		" " + "h1bnRlcjIh":              " " + m,
		"\n" + "h1bnRlcjIh":             "\n" + m,
		"e%47" + "h1bnRlcjIh":           "e%47" + m,
		`e\u0047` + "h1bnRlcjIh":        `e\u0047` + m,
		"e" + "G\n" + "h1bnRlcjIh":      "eG\n" + m,
		"eHm" + "odW50ZXIyI" + "Q==":    "eHmodW50ZXIyIQ==",
		"\"" + "odW50ZXIyI" + "Q==":     "\"" + m + "==",
	} {
		out, _ := set.Mask(nil, []byte(src))
		if string(out) != want {
			t.Errorf("Mask(%q) = %q, want %q", src, out, want)
		}
		if got := stream(set, []byte(src), 1); got != string(out) {
			t.Errorf("%q by bytes: %q, want %q", src, got, out)
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

func TestCompileRefuses(t *testing.T) {
	detector := func(d mask.Detector) mask.Config { return mask.Config{Detectors: []mask.Detector{d}} }
	secret := func(name, value string) mask.Config {
		return mask.Config{Secrets: []mask.Secret{{Name: name, Value: []byte(value)}}}
	}
	for _, c := range []struct {
		why    string
		config mask.Config
		want   string // part of the error
	}{
		{"short", secret("db", "qwert"), "db"},
		{"short when trimmed", secret("db", " qwert \n"), "db"},
		{"empty", secret("db", ""), "db"},
		{"long", secret("db", strings.Repeat("0123456789abcdefgh", 4000)), "db"},
		{"repetitive", secret("db", strings.Repeat("qwert", 30)), "db"},
		{"escapes in a row", secret("db", "qwert"+strings.Repeat(`\`, 9)), "db"},
		{"no name", secret("", "qwertz"), "name"},
		{"name with an upper-case letter", secret("DB", "qwertz"), "DB"},
		{"name with a bracket", secret("d]b", "qwertz"), "d]b"},
		{"value in every placeholder", secret("db", "masked"), "placeholder"},
		{"value in its own placeholder", secret("my-database", "database"), "placeholder"},
		{"detector without anchors", detector(mask.Detector{Name: "d", Pattern: "abc", Max: 3}), "anchors"},
		{"short anchor", detector(mask.Detector{Name: "d", Anchors: []string{"ab"}, Pattern: "abc", Max: 3}), "anchor"},
		{"no limit", detector(mask.Detector{Name: "d", Anchors: []string{"abc"}, Pattern: "abc"}), "max"},
		{"bad expression", detector(mask.Detector{Name: "d", Anchors: []string{"abc"}, Pattern: "abc(", Max: 3}), "d"},
		{"empty match", detector(mask.Detector{Name: "d", Anchors: []string{"abc"}, Pattern: "(abc)?", Max: 3}), "empty"},
	} {
		_, err := mask.Compile(c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.why, err, c.want)
		} else if strings.Contains(err.Error(), "qwert") {
			t.Errorf("%s: error %q holds the value", c.why, err)
		}
	}
	set := compile(t, secret("db", "my-database"))
	if _, err := set.With(mask.Secret{Name: "my-database", Value: []byte("qwertz")}); err == nil {
		t.Error("With took a name that is a secret")
	}
	if _, err := set.With(mask.Secret{Name: "db", Value: []byte("qwert")}); err == nil || strings.Contains(err.Error(), "qwert") {
		t.Errorf("With took a short value, or told it: %v", err)
	}
}

func TestPlaceholders(t *testing.T) {
	text := func(set *mask.Set, src string) string {
		out, _ := set.Mask(nil, []byte(src))
		return string(out)
	}
	secrets := []mask.Secret{{Name: "a", Value: []byte("first-value")}}
	set := compile(t, mask.Config{Secrets: secrets, Key: []byte("k1")})
	one := text(set, "first-value")
	if other := text(compile(t, mask.Config{Secrets: secrets, Key: []byte("k1")}), "first-value"); other != one {
		t.Errorf("same key: %q and %q", one, other)
	}
	if other := text(set.WithKey([]byte("k2")), "first-value"); other == one || len(other) != len(one) {
		t.Errorf("other key: %q and %q", one, other)
	}
	own1, own2 := text(compileWithoutKey(t, secrets), "first-value"), text(compileWithoutKey(t, secrets), "first-value")
	if own1 == own2 || own1 == one {
		t.Errorf("without a key: %q and %q", own1, own2)
	}

	more, err := set.With(mask.Secret{Name: "b", Value: []byte("second-value")})
	if err != nil {
		t.Fatal(err)
	}
	third, err := more.WithKey([]byte("k3")).With(mask.Secret{Name: "c", Value: []byte("third-value")})
	if err != nil {
		t.Fatal(err)
	}
	for src, want := range map[string][3]int{"first-value": {1, 1, 1}, "second-value": {0, 1, 1}, "third-value": {0, 0, 1}} {
		for i, s := range []*mask.Set{set, more, third} {
			if _, n := s.Mask(nil, []byte(src)); n != want[i] {
				t.Errorf("set %d masks %q %d times, want %d", i, src, n, want[i])
			}
		}
	}
	if got := text(third, "first-value"); got == one || got != text(set.WithKey([]byte("k3")), "first-value") {
		t.Errorf("With lost the key: %q", got)
	}
}

func compileWithoutKey(t *testing.T, secrets []mask.Secret) *mask.Set {
	t.Helper()
	set, err := mask.Compile(mask.Config{Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestNothingFound(t *testing.T) {
	set := compile(t, mask.Config{Secrets: []mask.Secret{{Name: "a", Value: []byte("value-1")}}})
	src := []byte("nothing here")
	if out, n := set.Mask(nil, src); n != 0 || &out[0] != &src[0] {
		t.Errorf("Mask copied, or counted %d", n)
	}
	if set.Contains(src) || !set.Contains([]byte("a value-1")) {
		t.Error("Contains is wrong")
	}
	none := compile(t, mask.Config{})
	if set.Empty() || !none.Empty() {
		t.Error("Empty is wrong")
	}
	if got := stream(none, []byte(`a%20\u0020`), 1); got != `a%20\u0020` {
		t.Errorf("the empty set made %q", got)
	}
	if out, n := none.Mask(nil, nil); len(out) != 0 || n != 0 {
		t.Errorf("Mask of nothing: %q, %d", out, n)
	}
}

func TestPlaces(t *testing.T) {
	set := compile(t, mask.Config{Secrets: []mask.Secret{
		{Name: "short", Value: []byte("abcdef")}, {Name: "long", Value: []byte("abcdefgh")}, {Name: "late", Value: []byte("ghijkl")},
	}})
	for src, want := range map[string]string{
		"abcdef":           "[short]",
		"abcdefg":          "[short]g",
		"abcdefgh":         "[long]",
		"abcdefghijkl!":    "[long]!",
		"abcdefabcdefgh.":  "[short].",
		"abcdef abcdefgh.": "[short] [long].",
		"xabcdefGHIJKL":    "x[short]GHIJKL",
	} {
		out, _ := set.Mask(nil, []byte(src))
		got := string(out)
		for _, name := range []string{"short", "long", "late"} {
			for {
				at := strings.Index(got, "[masked:"+name+":")
				if at < 0 {
					break
				}
				got = got[:at] + "[" + name + "]" + got[at+len("[masked::12345678]")+len(name):]
			}
		}
		if got != want {
			t.Errorf("Mask(%q) = %q, want %q", src, got, want)
		}
	}
}

func TestParts(t *testing.T) {
	line := func(c string) string { return strings.Repeat(c+"Q1w2E3r4T5", 5) }
	pem := "-----BEGIN PRIVATE KEY-----\n" + line("a") + "\r\n" + line("b") + "\nc==\n-----END PRIVATE KEY-----\n"
	account, err := json.Marshal(map[string]any{
		"type": "service_account", "private_key": pem, "private_key_id": line("d"), "token_uri": "https://oauth2.example.com/token",
		"client_email": "robot@project.example.com", "nested": map[string]any{"client_secret": line("e")},
	})
	if err != nil {
		t.Fatal(err)
	}
	set := compile(t, mask.Config{Secrets: []mask.Secret{{Name: "pem", Value: []byte(pem)}}})
	file := compile(t, mask.Config{Secrets: []mask.Secret{{Name: "account", Value: account}}})
	for _, c := range []struct {
		set  *mask.Set
		src  string
		want int
	}{
		{set, pem, 1},
		{set, strings.ReplaceAll(pem, "\n", `\n`), 1},
		{set, jsonEscape(strings.ReplaceAll(pem, "\r", "")), 2},
		{set, "x" + line("b") + "x", 1},
		{set, base64.StdEncoding.EncodeToString([]byte("x" + line("a"))), 1},
		{set, "-----BEGIN PRIVATE KEY-----", 0},
		{set, "c==", 0},
		{file, string(account), 1},
		{file, pem, 1},
		{file, line("b"), 1},
		{file, line("d"), 1},
		{file, line("e"), 1},
		{file, "https://oauth2.example.com/token robot@project.example.com", 0},
	} {
		if out, n := c.set.Mask(nil, []byte(c.src)); n != c.want {
			t.Errorf("Mask(%q) = %q, %d places, want %d", c.src, out, n, c.want)
		}
	}
}

func TestOwnDetector(t *testing.T) {
	set := compile(t, mask.Config{Detectors: []mask.Detector{
		{Name: "ticket", Anchors: []string{"TKT", "ticket "}, Pattern: `(?:TKT-|ticket )([0-9]{4,8})`, Max: 15},
	}})
	for src, masked := range map[string]bool{"TKT-12345": true, "a ticket 1234.": true, "TKT-123": false, "TKT": false} {
		out, n := set.Mask(nil, []byte(src))
		if (n == 1) != masked || masked && !strings.Contains(string(out), "[masked:ticket:") {
			t.Errorf("Mask(%q) = %q, %d", src, out, n)
		}
		if got := stream(set, []byte(src), 1); got != string(out) {
			t.Errorf("%q by bytes: %q, want %q", src, got, out)
		}
	}
}
