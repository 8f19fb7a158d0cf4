package main

import (
	"fmt"
	"strings"
	"unicode"
)

// visible shows a text that others wrote as one line of at most n characters in which nothing is hidden: what would move
// the cursor, hide, or turn the direction of reading is shown as its code.
func visible(s string, n int) string {
	var out strings.Builder
	for i, r := range []rune(s) {
		switch {
		case i == n-1 && len([]rune(s)) > n:
			out.WriteString("…")
			return out.String()
		case unicode.IsPrint(r) && r != unicode.ReplacementChar:
			out.WriteRune(r)
		default:
			fmt.Fprintf(&out, `\u{%X}`, r)
		}
	}
	return out.String()
}

// markdown shows a text as plain text inside GitHub's Markdown, table cells included: every mark that could begin a table,
// a link, a mention, code, emphasis or HTML becomes a character reference.
func markdown(s string, n int) string {
	var out strings.Builder
	for _, r := range visible(s, n) {
		if r < 0x7f && unicode.In(r, unicode.Punct, unicode.Symbol) && !strings.ContainsRune("-,;=%()/'\"?+", r) {
			fmt.Fprintf(&out, "&#%d;", r)
			continue
		}
		out.WriteRune(r)
	}
	return out.String()
}

// shellQuoted quotes a value for a POSIX shell.
func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
