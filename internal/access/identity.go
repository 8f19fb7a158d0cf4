package access

import (
	"encoding/json"
	"strings"
	"time"
)

// Claims are the verified claims of a token, as its JSON has them: string, bool, json.Number, []any, map[string]any
// or nil. Every claim has the type that its provider's schema states.
type Claims map[string]any

// Text returns a claim that is a string, and "" for one that is absent or of another type. For people; decisions
// compare typed values.
func (c Claims) Text(name string) string {
	s, _ := c[name].(string)
	return s
}

// Value returns a claim that is a string or a number and not empty, as text: what can be counted by.
func (c Claims) Value(name string) (string, bool) {
	switch v := c[name].(type) {
	case string:
		return v, v != ""
	case json.Number:
		return v.String(), true
	}
	return "", false
}

// JobKey names one job run of one attempt within an issuer: the provider's job key claims in their order, as
// "run_id=1;run_attempt=1;check_run_id=2".
type JobKey string

// Identity is a verified job.
type Identity struct {
	Issuer    string // the issuer's name in this deployment
	IssuerURL string // its "iss"
	Provider  string // such as "github-actions"
	Subject   string // "sub", for people: its grammar differs and changes, nothing is decided by it
	Claims    Claims
	JobKey    JobKey
	// Job is what people read, where the issuer's configuration says which claims that is; it is zero where the provider is
	// known, and package federation tells it from the claims.
	Job Job
	// TokenID names the token for the replay check: "jti:..." or "sha256:..." of the signed part.
	TokenID  string
	IssuedAt time.Time
	Expires  time.Time
}

// Job is what people read of an identity. Every value was chosen by whoever writes the repository: escape it.
type Job struct {
	Repository string `json:"repository,omitempty"`
	Workflow   string `json:"workflow,omitempty"`
	Ref        string `json:"ref,omitempty"`
	Commit     string `json:"commit,omitempty"`
	Actor      string `json:"actor,omitempty"`
	Event      string `json:"event,omitempty"`
	URL        string `json:"url,omitempty"` // the run's page at the provider; "" where it cannot be told
}

// Fields returns the non-empty fields with their labels, in reading order.
func (j Job) Fields() [][2]string {
	var out [][2]string
	for _, f := range [][2]string{
		{"Repository", j.Repository}, {"Workflow", j.Workflow}, {"Ref", j.Ref},
		{"Commit", j.Commit}, {"Actor", j.Actor}, {"Event", j.Event}, {"Run", j.URL},
	} {
		if strings.TrimSpace(f[1]) != "" {
			out = append(out, f)
		}
	}
	return out
}
