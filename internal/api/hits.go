package api

import "time"

// MappingHits is what a mapping was used for on the last days, today among them.
type MappingHits struct {
	Mapping  string      `json:"mapping"`
	Days     int         `json:"days"`
	Since    string      `json:"since"` // the first of the days, UTC, as 2006-01-02
	LastUsed *time.Time  `json:"last_used,omitempty"`
	Exchange ExchangeUse `json:"exchanges"`
	Enforce  Enforcement `json:"enforce"`
	Rules    []RuleHits  `json:"rules"`
}

// ExchangeUse counts the exchanges that found the mapping.
type ExchangeUse struct {
	Opened  int64 `json:"opened"` // sessions
	Renewed int64 `json:"renewed"`
	Joined  int64 `json:"joined"`
	Refused int64 `json:"refused"`
}

// Enforcement is what would have been different, had everything that is only observed been enforced: calls and tool uses.
type Enforcement struct {
	Observing bool  `json:"observing"` // something of the mapping is only observed now
	WouldDeny int64 `json:"would_deny"`
	WouldAsk  int64 `json:"would_ask"` // and not deny
}

// RuleHits is how often one rule of a mapping, or one part of a grant, spoke.
type RuleHits struct {
	Connection string `json:"connection"`
	// Part is grant (every call that was judged), allow, features, models, limits or rule.
	Part   string `json:"part"`
	Rule   string `json:"rule,omitempty"`   // its name, of a rule
	Effect string `json:"effect,omitempty"` // deny or approve
	Mode   string `json:"mode,omitempty"`   // enforce or observe
	// Gone says that the mapping has it no more, or never granted it.
	Gone bool `json:"gone,omitempty"`
	// Hits is how often it matched, whatever came of it; of a grant, how many calls were judged.
	Hits      int64       `json:"hits"`
	Denied    int64       `json:"denied"`
	Overruled int64       `json:"overruled"` // matched, too, and another rule decided
	Asked     int64       `json:"asked"`
	Approved  int64       `json:"approved"`
	Refused   int64       `json:"refused"` // by people
	Expired   int64       `json:"expired"`
	Cancelled int64       `json:"cancelled"`
	WouldDeny int64       `json:"would_deny"`
	WouldAsk  int64       `json:"would_ask"`
	Last      *time.Time  `json:"last,omitempty"`
	Samples   []HitSample `json:"samples,omitempty"` // the latest, the oldest first
}

// HitSample is one of the latest hits. Its text is masked; who shows it must escape it.
type HitSample struct {
	Time    time.Time `json:"time"`
	Session string    `json:"session"`
	Call    string    `json:"call"`
	Outcome string    `json:"outcome"`
	What    string    `json:"what"`
}
