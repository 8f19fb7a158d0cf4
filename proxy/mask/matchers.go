package mask

import (
	"bytes"
	"encoding/base64"
)

// basicAuth finds the credentials of RFC 7617: base64 of printable text with a colon.
func basicAuth(t text) (find, verdict) {
	f, v := shape(chars("A-Za-z0-9"), nil,
		run(chars("BASICbasic"), 5, 5), lit(" "), run(chars("A-Za-z0-9+/="), 8, maxRun).masked())(t)
	if v != found {
		return f, v
	}
	value := bytes.TrimRight(t.src[f.start:f.end], "=")
	plain, err := base64.RawStdEncoding.DecodeString(string(value))
	if err != nil || bytes.IndexByte(plain, ':') < 0 {
		return find{}, absent
	}
	for _, c := range plain {
		if c < ' ' {
			return find{}, absent
		}
	}
	return f, found
}

// privateKey finds what stands between the armor lines of a PEM private key (RFC 7468), or of a PGP one, with its line
// breaks as they are or as JSON writes them. The text begins at the last dash of the first line's five.
func privateKey(t text) (find, verdict) {
	const begin, dashes = "-BEGIN ", "-----"
	header, v := shape(nil, nil, lit(begin), run(chars("A-Z0-9 "), 11, 40), lit(dashes))(t)
	if v != found {
		return find{}, v
	}
	if !bytes.Contains(t.src[:header.end], []byte("PRIVATE KEY")) {
		return find{}, absent
	}
	body := t.src[header.end:]
	end, v := armored(text{src: body[:min(len(body), MaxMatch)], closed: t.closed || len(body) >= MaxMatch})
	if v != found {
		return find{}, v
	}
	f := find{start: header.end, end: header.end + end}
	if end == MaxMatch {
		f.tail = chars("A-Za-z0-9+/=\r\n")
	} else if !bytes.HasPrefix(body[end:], []byte(dashes)) && !longWord(body[:end]) {
		return find{}, absent
	}
	return f, found
}

// armored gives the length of the text before five dashes, or before what no armored text holds.
func armored(t text) (int, verdict) {
	plain := chars("A-Za-z0-9+/= \r\n\t:,.()@<>")
	pos := 0
	for pos < len(t.src) {
		c, rest := t.src[pos], t.src[pos:]
		switch {
		case plain.has(c):
			pos++
		case c == '-':
			if len(rest) < 5 && bytes.Count(rest, []byte("-")) == len(rest) && !t.closed {
				return 0, unknown
			}
			if bytes.HasPrefix(rest, []byte("-----")) {
				return pos, atLeast(pos)
			}
			pos++
		case c == '\\' && len(rest) == 1 && !t.closed:
			return 0, unknown
		case c == '\\' && len(rest) > 1 && bytes.IndexByte([]byte(`nrt/\u`), rest[1]) >= 0:
			pos += 2
		default:
			return pos, atLeast(pos)
		}
	}
	if !t.closed {
		return 0, unknown
	}
	return pos, atLeast(pos)
}

func atLeast(n int) verdict {
	if n < MinLine {
		return absent
	}
	return found
}

// longWord reports whether the text holds a run of base64 as long as a line of a key. Prose does not.
func longWord(b []byte) bool {
	n := 0
	for _, c := range b {
		if base64Value(c) < 0 {
			n = 0
		} else if n++; n == 40 {
			return true
		}
	}
	return false
}
