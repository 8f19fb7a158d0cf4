// Package record is the tamper-evident record of a session: what an event looks like, how one is bound to the one before it, and how a
// reader finds out that somebody changed, dropped or moved a line. It does no I/O of its own and masks nothing: what it is given is
// masked already.
//
// # Format
//
// A record is text, one JSON object a line (RFC 8259, UTF-8), each line ended by one newline:
//
//	{"schema_version":1,"session":"ses_…","seq":1,"time":"2026-11-24T09:30:00.000000001Z","prev":"000…0","type":"session.opened","mapping":…}
//	{"schema_version":1,"session":"ses_…","seq":2,"time":"…","prev":"5e88…","type":"call.started","call":"call_…","connection":…}
//	 └──────────────────────────── envelope: always these keys, in this order ──────────────────────────────────┘└─ data, flat ─
//
//	schema_version  1; a reader refuses any other
//	session         id of the session, the same in all lines of a record. In an audit stream (audit.go) the key is "stream" and the id
//	                begins with "aud_"
//	seq             1, 2, 3, … without a gap
//	time            RFC 3339, UTC, always nine digits of a second
//	prev            SHA-256, in lower-case hex, of the whole line before, without its newline; 64 zeros in line 1
//	type            one of the Type constants
//	call            id of the call; left out in events of the session itself
//
// The keys after the envelope are those of the event's type (SessionOpened, CallStarted, …). A key is in snake case and stands once in a line. Ids and types
// are written from the letters a-z, A-Z, 0-9 and "_-.:" only, so the envelope never needs an escape and can be compared by its bytes.
//
// The hash of the last line (the head) therefore commits to every byte of the record. Whoever signs the head signs the record.
//
//	line 1            line 2            line 3
//	┌──────────────┐  ┌──────────────┐  ┌──────────────┐
//	│ prev: 000…0  │◄─│ prev: H(1)   │◄─│ prev: H(2)   │◄─ head = H(3)
//	└──────────────┘  └──────────────┘  └──────────────┘
//
// # Use
//
// A Chain writes, a Reader reads, Verify does both sides' checking:
//
//	c := record.NewChain("ses_1")
//	buf, err := c.Append(nil, record.Event{Type: record.TypeGap, Time: now, Data: record.Gap{Reason: "spool full", Missing: 3}})
//	…
//	seq, head, err := record.Verify(file, "ses_1")
package record
