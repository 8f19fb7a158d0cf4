// Package mask replaces secret values in text that passes by.
//
// A [Set] knows secrets by their value, and detectors that recognise values nobody told us. It masks whole values with
// [Set.Mask], and streams, cut anywhere, with a [Stream]: what comes out does not depend on where the cuts lie.
//
//	set, err := mask.Compile(mask.Config{
//		Secrets: []mask.Secret{{Name: "anthropic-key", Value: key}},
//		Key:     sessionKey,
//	})
//	out, n := set.Mask(nil, body) // "... [masked:anthropic-key:5d1c9a0e] ..."
//
// # What is found
//
// A secret's value is found in each of these forms, over any split:
//
//   - as it is;
//   - each byte either as it is or as %XX, in either case of the digits, mixed freely, and + for a space;
//   - each character either as it is or as a JSON escape: \" \\ \/ \b \f \n \r \t, and \uXXXX in either case of the
//     digits, surrogate pairs included;
//   - in hexadecimal, in either case, mixed freely;
//   - in base64 and base64url, wherever in a longer encoded value it lies, padded or not. The character at its end, which
//     shares bits with what follows, is masked too (not where a line break parts it from the rest). The one at its
//     beginning, which shares bits with what precedes, is left standing, and so is the first one behind other base64: at
//     most 6 bits of the value show next to the placeholder. Where another base64 character stands in its place, the text is no encoding of the value and is
//     left as it is. Padding is left standing. Line breaks of a wrapped encoding, CR LF or LF, are stepped over;
//   - any of these once more inside percent encoding or JSON escapes: at most two layers of escapes in all, in any
//     order (JSON in JSON, a URL in JSON, JSON in a form field, twice percent-encoded).
//
// Other forms are not claimed: a value that was compressed, encrypted, reversed, spelled with separators or split by other
// text passes.
//
// Where the value itself holds more than a few backslashes or percent signs in a row, not every mixture of readings is
// followed; values with more than eight are refused, and so are values that repeat a short piece over more than 64 bytes:
// looking for them could be made to cost far more than the text is long.
//
// A value is trimmed of white space around it first. Of a value with several lines, each line of [MinLine] bytes or more
// is a secret too; of a JSON object (a service account file), so are the strings under keys that speak of a key, a
// secret, a token or a password.
//
// Detectors look at the text as it stands, without decoding. They are heuristics, for records and people.
//
// # What is put in place
//
// A placeholder is [masked:name:h]. h is the first 8 hexadecimal digits of HMAC-SHA256 over the secret's value (for
// a detector: the text it found) under the set's key. So equal values read equal in all their forms, and nobody without
// the key can try guesses. Matches that overlap or touch are one place: the placeholder names the leftmost of them, and
// the longest of those.
//
// # How
//
// Every form of every secret has a first piece of four bytes. One pass over the text looks up three bytes at every second
// offset in a bitmap, which nearly always says no; a second looks at escapes only. What both leave is compared with the
// whole pattern, under every reading of the escapes in it. A stream holds back text only from the first place at which
// a match may begin that the text so far does not decide.
package mask
