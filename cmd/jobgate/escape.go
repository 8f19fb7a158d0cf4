package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// escape makes a text that others wrote (prompts, branch names, commands) safe for a terminal: what would move the
// cursor, change colours or turn the direction of reading is shown as its code. Line breaks and tabs stay.
func escape(s string) string {
	var out strings.Builder
	for _, r := range s {
		switch {
		case r == '\n', r == '\t', unicode.IsPrint(r) && r != unicode.ReplacementChar:
			out.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&out, `\x%02x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// line is escape on one line, cut at n characters.
func line(s string, n int) string {
	s = strings.NewReplacer("\n", `\n`, "\t", " ", "\r", `\r`).Replace(s)
	runes := []rune(escape(s))
	if len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return string(runes)
}

// escapeJSON makes a JSON text safe for a terminal. Only strings of it hold what is not printable.
func escapeJSON(s string) string {
	var out strings.Builder
	for _, r := range s {
		if r == '\n' || unicode.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&out, `\u%04x`, unit)
		}
	}
	return out.String()
}
