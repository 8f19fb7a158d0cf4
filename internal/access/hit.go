package access

import "time"

// Outcome is what became of something that a part of a mapping spoke about.
type Outcome string

const (
	OutcomeCall      Outcome = "call"       // a call on the grant, whatever came of it
	OutcomeDenied    Outcome = "denied"     // refused by the rule or part
	OutcomeOverruled Outcome = "overruled"  // the rule matched, too, and another one decided
	OutcomeAsked     Outcome = "asked"      // people were asked, and then one of the four below
	OutcomeApproved  Outcome = "approved"   // people said yes
	OutcomeRefused   Outcome = "refused"    // people said no, or had said it before
	OutcomeExpired   Outcome = "expired"    // nobody answered in time
	OutcomeCancelled Outcome = "cancelled"  // the job went away, or was cut
	OutcomeWouldDeny Outcome = "would_deny" // observed: enforced, it would have been refused
	OutcomeWouldAsk  Outcome = "would_ask"  // observed: enforced, people would have been asked

	// Of exchanges:
	OutcomeOpened     Outcome = "opened"
	OutcomeRenewed    Outcome = "renewed"
	OutcomeJoined     Outcome = "joined"
	OutcomeTurnedAway Outcome = "turned_away" // an exchange that matched the mapping and was refused
)

// Hit is one time that a rule, or a part of a grant, spoke about a call or a tool use.
type Hit struct {
	Mapping    string
	Connection string // "" for exchanges
	Rule       string // its name; "allow", "features", "models", "limits" for the parts of a grant; "" for the grant itself
	Outcome    Outcome
	Session    string
	Call       string
	What       string // one line, masked: method and path, or the tool's name; "" is no sample
}

// HitCount is how often something happened on one day.
type HitCount struct {
	Mapping    string
	Connection string
	Rule       string
	Outcome    Outcome
	Day        int64 // since 1970, UTC
	N          int64
	Last       time.Time
}

// HitSample is one of the latest hits of a rule.
type HitSample struct {
	Time    time.Time `json:"time"`
	Session string    `json:"session"`
	Call    string    `json:"call"`
	Outcome Outcome   `json:"outcome"`
	What    string    `json:"what"`
}

// HitSamples are the latest hits of one rule, the oldest first.
type HitSamples struct {
	Mapping    string
	Connection string
	Rule       string
	Samples    []HitSample
}
