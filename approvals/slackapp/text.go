package slackapp

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// visible spells out every character that does not show itself as what it is: controls, invisible and
// direction-changing ones, odd spaces, broken UTF-8. Line feeds and tabs stay where lines is set.
func visible(s string, lines bool) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case lines && (r == '\n' || r == '\t'):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case !strconv.IsPrint(r) || blank(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// blank reports whether a character that counts as printable looks like nothing.
func blank(r rune) bool {
	switch r {
	case 0x034F, // combining grapheme joiner
		0x115F, 0x1160, 0x3164, 0xFFA0, // Hangul fillers
		0x17B4, 0x17B5, // Khmer inherent vowels
		0x2800: // Braille pattern blank
		return true
	}
	return 0xFE00 <= r && r <= 0xFE0F || 0xE0100 <= r && r <= 0xE01EF // variation selectors
}

// cut returns the beginning of s that fits into most units, and how many characters are left over.
func cut(s string, most int) (head string, left int) {
	n := 0
	for i, r := range s {
		if n += utf16.RuneLen(r); n > most {
			return s[:i], utf8.RuneCountInString(s[i:])
		}
	}
	return s, 0
}

// line is a value in one line, cut visibly.
func line(s string, most int) string {
	head, left := cut(visible(strings.TrimSpace(s), false), most)
	if left > 0 {
		return fmt.Sprintf("%s… (%d more characters)", head, left)
	}
	return head
}

var mrkdwnEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// mrkdwn is a line for texts in which Slack interprets markup: mentions and links need "<", the rest is defused by
// what it stands in.
func mrkdwn(s string, most int) string { return mrkdwnEscapes.Replace(line(s, most)) }

// runLink returns the address of a run if it is one that a person can be sent to.
func runLink(raw string) (string, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(raw) > maxLink {
		return "", false
	}
	for _, r := range raw {
		if r <= ' ' || r >= utf8.RuneSelf || strings.ContainsRune("<>|\"`\\", r) {
			return "", false
		}
	}
	return u.String(), true
}
