package access

import "time"

// The outcomes of an exchange.
const (
	ExchangeOpened  = "opened"
	ExchangeRenewed = "renewed"
	ExchangeJoined  = "joined"
	ExchangeRefused = "refused"
	ExchangeTried   = "tried" // at the door of trials: nothing was given out
)

// ExchangeRow is what is kept of an exchange for a while, so that it can be explained, and judged again by other mappings.
type ExchangeRow struct {
	ID      string // "x_..."
	At      time.Time
	Door    string
	Outcome string
	// Identity is zero where the token did not verify. That of a session's exchanges is kept with the session; its IssuedAt and Expires
	// are those of this exchange's token.
	Identity Identity
	// Asked is the mapping that the job named, "" for none; Scope the connections, nil for all.
	Asked   string
	Scope   []string
	Mapping string
	Session string
	// Of a refusal:
	Code   Code
	Reason string
	Detail string // for operators
}
