package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/api"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                 "plain",
		"a\nb\x1b[2Jc":          `a\u{A}b\u{1B}[2Jc`,
		"\u202etxt":             `\u{202E}txt`,
		"::error::x":            "::error::x",
		strings.Repeat("x", 30): strings.Repeat("x", 19) + "…",
		strings.Repeat("é", 20): strings.Repeat("é", 20),
		"bad \xff":              `bad \u{FFFD}`,
	} {
		if got := visible(in, 20); got != want {
			t.Errorf("visible(%q) = %q, want %q", in, got, want)
		}
	}
}

// A reason that is a sentence is followed by one full stop.
func TestDeniedText(t *testing.T) {
	got := deniedText(api.Introspection{Denials: 1, Denied: []api.Denial{{Rule: "stopped", Reason: "The session stays open."}}})
	if want := "1 call or tool use was refused; the first: stopped: The session stays open"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMarkdown(t *testing.T) {
	got := markdown("| a | [x](http://e) <b> @user #1 `c` *d*\n", 200)
	if strings.ContainsAny(got, "|[]<>@`*\n") || strings.Contains(got, "://") || strings.Contains(got, " #1") {
		t.Errorf("markdown leaves marks: %s", got)
	}
}

// FuzzShellQuoted has a real shell read what was quoted.
func FuzzShellQuoted(f *testing.F) {
	for _, seed := range []string{"", "plain", "it's", "$(touch x)`y`\\", "'\\''", "a\nb", "\"; exit 1; '"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsRune(s, 0) {
			return
		}
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+shellQuoted(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("sh reads %q as %q: %v", s, out, err)
		}
	})
}

// FuzzReadClaims holds that nothing that a variable can hold makes it fail otherwise than by false.
func FuzzReadClaims(f *testing.F) {
	for _, seed := range []string{"", "a.b.c", "e30.e30.e30", "e30.eyJhdWQiOiJ4In0.e30", "e30.eyJhdWQiOlsieCIsN119.e30", "e30.W10.e30"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, ok := readClaims(s); ok {
			c.audiences()
			c.expires()
		} else if len(c.audiences()) > 0 && !jwtForm.MatchString(s) {
			t.Errorf("%q has audiences and is no token", s)
		}
	})
}
