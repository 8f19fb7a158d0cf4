package inject_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/inject"
)

func TestPlacement(t *testing.T) {
	header := func(name, prefix string) (inject.Placement, error) { return inject.NewPlacement(name, prefix) }
	basic := func(user, _ string) (inject.Placement, error) { return inject.NewBasic(user) }
	for _, c := range []struct {
		name         string
		make         func(string, string) (inject.Placement, error)
		a, b         string
		value        string
		header, want string
		refused      string
	}{
		{name: "plain header", make: header, a: "x-api-key", value: "sk-ant-1", header: "X-Api-Key", want: "sk-ant-1"},
		{name: "bearer", make: header, a: "authorization", b: "Bearer ", value: "t0ken", header: "Authorization", want: "Bearer t0ken"},
		{name: "basic", make: basic, a: "git", value: "pw", header: "Authorization", want: "Basic Z2l0OnB3"},
		{name: "oauth token brings its beta", make: header, a: "authorization", b: "Bearer ", value: "sk-ant-oat01-x", header: "Anthropic-Beta", want: "oauth-2025-04-20"},
		{name: "no header name", make: header, a: "x api", refused: "no header name"},
		{name: "transport's header", make: header, a: "content-length", refused: "belongs to the transport"},
		{name: "authorization without scheme", make: header, a: "authorization", refused: "needs a prefix"},
		{name: "colon in user", make: basic, a: "a:b", refused: "colon"},
		{name: "line break in value", make: header, a: "x-api-key", value: "a\r\nX-Evil: b", refused: "line break"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := c.make(c.a, c.b)
			h := http.Header{"X-Api-Key": {"theirs"}}
			if err == nil {
				err = p.Apply(h, access.NewSecret(c.value))
			}
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("error = %v, want one that says %q", err, c.refused)
				}
				if c.value != "" && strings.Contains(err.Error(), c.value) {
					t.Fatalf("the error shows the value: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := h.Get(c.header); got != c.want {
				t.Errorf("%s = %q, want %q", c.header, got, c.want)
			}
		})
	}
}

func TestSourceFollowsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(value string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	write("first\n", now)
	src, err := inject.NewSource("file:"+path, os.Getenv, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string) inject.Credential {
		t.Helper()
		c, err := src.Credential(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Secret.Reveal(); got != want {
			t.Fatalf("credential = %q, want %q", got, want)
		}
		return c
	}
	before := expect("first")
	write("second\n", now.Add(time.Minute))
	expect("first") // not looked at yet
	now = now.Add(10 * time.Second)
	if after := expect("second"); after.Version == before.Version {
		t.Error("the version did not change with the value")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	now = now.Add(10 * time.Second)
	expect("second") // a vanished file stops nothing
}

func TestSourceRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"env:JOBGATE_NOT_SET":      "JOBGATE_NOT_SET is not set",
		"file:/does/not/exist":     "/does/not/exist",
		"file:" + empty:            "is empty",
		"sk-ant-api03-literal-key": "a secret is a reference",
	} {
		_, err := inject.NewSource(ref, func(string) string { return "" }, time.Now)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewSource(%q) = %v, want an error that says %q", ref, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "literal-key") {
			t.Errorf("the error shows a literal secret: %v", err)
		}
	}
}

func TestCredentialPrintsNothing(t *testing.T) {
	src, err := inject.NewSource("env:X", func(string) string { return "hunter2-value" }, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := src.Credential(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		if got := fmt.Sprintf(verb, c); strings.Contains(got, "hunter2") || strings.Contains(got, "68756e74657232") {
			t.Errorf("Sprintf(%q) shows the value: %s", verb, got)
		}
	}
}

// TestFollowedSource uses the latest value that can be used, for every call.
func TestFollowedSource(t *testing.T) {
	latest, away := "first-value", error(nil)
	src, err := inject.NewFollowed("vault://key", "first-value", func(context.Context) (string, error) { return latest, away }, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	src.Require(func(s access.Secret) error {
		if len(s.Reveal()) < 8 {
			return fmt.Errorf("too short")
		}
		return nil
	})
	version := ""
	for _, c := range []struct {
		value string
		away  error
		want  string
		new   bool
	}{
		{"first-value", nil, "first-value", true}, {"second-value", nil, "second-value", true}, {"", nil, "second-value", false},
		{"short", nil, "second-value", false}, {"third-value", fmt.Errorf("away"), "second-value", false}, {"third-value", nil, "third-value", true},
	} {
		latest, away = c.value, c.away
		got, err := src.Credential(t.Context())
		if err != nil || got.Secret.Reveal() != c.want || got.Name != "vault://key" || (got.Version != version) != c.new {
			t.Errorf("after %q, %v: %q %s %s, %v; want %q", c.value, c.away, got.Secret.Reveal(), got.Name, got.Version, err, c.want)
		}
		version = got.Version
	}
	if _, err := inject.NewFollowed("vault://key", "", nil, time.Now); err == nil {
		t.Error("an empty secret was taken")
	}
}
