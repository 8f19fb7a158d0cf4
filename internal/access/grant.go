package access

import "time"

// Effect is what a rule, or all rules together, say. The zero value denies.
type Effect uint8

const (
	// Deny refuses.
	Deny Effect = iota
	// Ask pauses until people decide.
	Ask
	// Allow lets pass.
	Allow
)

// String returns "deny", "approve" or "allow", the words of the configuration and of the record.
func (e Effect) String() string {
	switch e {
	case Allow:
		return "allow"
	case Ask:
		return "approve"
	}
	return "deny"
}

// Mode says whether rules, limits and allow lists refuse, or are only written down. The zero value enforces.
type Mode uint8

const (
	// Enforce refuses.
	Enforce Mode = iota
	// Observe records what would have been refused or asked. Identity and window are enforced all the same.
	Observe
)

// String returns the word of the configuration.
func (m Mode) String() string {
	if m == Observe {
		return "observe"
	}
	return "enforce"
}

// OnDeny says what an agent gets in place of a tool use that is denied.
type OnDeny uint8

const (
	// Tell gives the reason and a block that no tool answers: the agent reads it and goes on.
	Tell OnDeny = iota
	// Stop gives the reason and ends the turn.
	Stop
	// Fail ends the stream with an error.
	Fail
)

// String returns the word of the configuration.
func (o OnDeny) String() string {
	switch o {
	case Stop:
		return "stop"
	case Fail:
		return "fail"
	}
	return "tell"
}

// Rule is a condition with an effect. When is CEL source text; package guard compiles it.
type Rule struct {
	Name      string
	Effect    Effect // Deny or Ask
	When      string
	Reason    string
	Approvers []string // groups, for Ask
	Timeout   time.Duration
	Mode      Mode
}

// Limits bound what one job uses of one connection. Zero means no limit.
type Limits struct {
	Requests     int64
	InputTokens  int64
	OutputTokens int64
	// Models are exact names or prefixes that end in "*". Empty allows every model.
	Models []string
	// Shared bound what several jobs use together.
	Shared []SharedLimit
}

// SharedLimit bounds what all jobs of a mapping that have the same value of a claim use of one connection, in a period
// as [PeriodEnd] has them. Zero means no limit.
type SharedLimit struct {
	Per          string // the claim
	Period       time.Duration
	Requests     int64
	InputTokens  int64
	OutputTokens int64
}

// Grant is a connection plus what may be done with it.
type Grant struct {
	Connection string
	// Allow lists "METHOD /path/{template}". Empty refuses every call.
	Allow    []string
	Limits   Limits
	Rules    []Rule
	Features []string // what may run at the provider: "web_search", "mcp_servers", "files", ...
	OnDeny   OnDeny
	// MaskRequests masks what goes to the upstream, too.
	MaskRequests bool
	// MaskResponses applies the detectors to what the job gets; nil takes the connection kind's default.
	MaskResponses *bool
}

// WindowSpec is how long a mapping's sessions last.
type WindowSpec struct {
	Max   time.Duration // from the job's first exchange
	Lease time.Duration // awake without a sign of life
}

// Policy is what one revision of a mapping says. It does not change after it was made.
type Policy struct {
	Mapping  string
	Revision int64
	Origin   Origin // as it was when the revision came into force
	// Override names the mapping's override that the policy is of, "" where none applies.
	Override string
	Mode     Mode
	Window   WindowSpec
	Grants   []Grant
}

// Grant returns the grant on a connection.
func (p *Policy) Grant(connection string) (*Grant, bool) {
	if p == nil {
		return nil, false
	}
	for i := range p.Grants {
		if p.Grants[i].Connection == connection {
			return &p.Grants[i], true
		}
	}
	return nil, false
}

// Connections returns the names of the granted connections, in the mapping's order.
func (p *Policy) Connections() []string {
	names := make([]string, 0, len(p.Grants))
	for i := range p.Grants {
		names = append(names, p.Grants[i].Connection)
	}
	return names
}
