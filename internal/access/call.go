package access

import (
	"time"
)

// Call is one request as the rules see it: parsed, before anything was sent.
type Call struct {
	ID         string
	Session    string
	Connection string
	Kind       string // of the connection: "anthropic", "http"
	Method     string
	Path       string // below the connection, as it will be sent: "/v1/messages"
	Query      string // raw, without "?"
	Bytes      int64  // of the body; -1 while it is streamed and not known

	// Of connections whose body is understood:
	Model     string
	Stream    bool
	MaxTokens int64
	Tools     []string // names of the tools that the model is offered
	Features  []string // what the request would run at the provider

	// Digest is the SHA-256, hex, of exactly this call: session, connection, method, path, query and body without
	// "stream". Empty where no rule can ask about it.
	Digest string
}

// ToolUse is one thing that an agent is about to do, as the model wrote it.
type ToolUse struct {
	ID   string
	Name string
	// Input is the upstream's own JSON text, after a strict parse.
	Input []byte
}

// Decision is what the rules said. The zero value denies.
type Decision struct {
	Effect    Effect
	Rule      string // "" where no rule spoke; "allow", "features", "models", "limits" for the parts of a grant
	Reason    string
	Approvers []string
	Timeout   time.Duration
	// Also are further rules that ask beside Rule: each needs a yes of its own.
	Also []Decision
	// Overruled are the names of enforced rules that matched, too, where a stricter or an earlier one decides.
	Overruled []string
	// Observed are matches of what is only observed.
	Observed []Observation
}

// Questions returns what must be asked, one for each rule that asks.
func (d Decision) Questions() []Decision {
	if d.Effect != Ask {
		return nil
	}
	return append([]Decision{d}, d.Also...)
}

// Observation is a match that refused nothing, because its rule or mapping observes.
type Observation struct {
	Rule   string
	Effect Effect
	Reason string
}
