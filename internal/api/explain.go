package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// ExplainRequest is the body of POST /v1/explain: exactly one of Token, Claims and Exchange.
type ExplainRequest struct {
	// Token is a CI token. It is verified as an exchange does, and opens nothing.
	Token string `json:"token,omitempty"`
	// Claims is what a token would say: a JSON object. Nothing of it is verified.
	Claims json.RawMessage `json:"claims,omitempty"`
	// Exchange is the id that a job's log shows, "x_...".
	Exchange string `json:"exchange,omitempty"`
	// Mapping is the one that the exchange names; without it all of the issuer are looked at. Not for an Exchange.
	Mapping string `json:"mapping,omitempty"`
	// Issuer names the issuer of claims that have no iss; without it there must be one issuer only.
	Issuer string `json:"issuer,omitempty"`
}

// Explanation says what the mappings in force make of a job. What tokens say was chosen by others: escape it.
type Explanation struct {
	Source string `json:"source"` // token, claims or exchange
	// Verified says that signature, audience and times of a token are good. Claims are never.
	Verified bool `json:"verified"`
	// Outcome is what an exchange would be answered with now: granted, or refused for Refusal.
	Outcome string          `json:"outcome"`
	Refusal *ExplainRefusal `json:"refusal,omitempty"`
	// Mapping is the one under which the session would be opened.
	Mapping  string         `json:"mapping,omitempty"`
	Issuer   string         `json:"issuer,omitempty"`
	Provider string         `json:"provider,omitempty"`
	Subject  string         `json:"subject,omitempty"`
	JobKey   string         `json:"job_key,omitempty"`
	Job      any            `json:"job,omitempty"`
	Claims   map[string]any `json:"claims,omitempty"`
	Notes    []string       `json:"notes,omitempty"`
	// Then is what the exchange was answered with, where an exchange is explained.
	Then *ExchangeView `json:"exchange,omitempty"`
	// Mappings are those of the job's issuer: what serves first, then what is for the job's owner, then what fails least.
	Mappings []MappingExplanation `json:"mappings"`
	// Suggestion is a mapping of its own for a job that none serves, in YAML. It is nobody's until it is put in force.
	Suggestion string `json:"suggestion,omitempty"`
}

// ExplainRefusal is why an exchange would be refused.
type ExplainRefusal struct {
	Reason string `json:"reason"` // stable, such as aud_mismatch, no_mapping or replayed
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"`
}

// ExchangeView is one exchange that was.
type ExchangeView struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Door    string    `json:"door"`
	Outcome string    `json:"outcome"` // opened, renewed, joined, tried or refused
	Mapping string    `json:"mapping,omitempty"`
	Session string    `json:"session,omitempty"`
	Code    string    `json:"code,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Detail  string    `json:"detail,omitempty"`
}

// MappingExplanation is what one mapping says to a job.
type MappingExplanation struct {
	Name       string             `json:"name"`
	Serves     bool               `json:"serves"`
	Failed     int                `json:"failed"` // how many conditions are not held
	Conditions []MappingCondition `json:"conditions"`
	// Override names the mapping's override that applies to the job, where one does.
	Override string `json:"override,omitempty"`
	// Grants is what a session under the mapping would have; Mode and Window are those of the session.
	Mode   string  `json:"mode,omitempty"`
	Window *Window `json:"window,omitempty"`
	Grants []Grant `json:"grants,omitempty"`
	// Change is the smallest change after which the mapping serves the job, where there is one that can be named.
	Change *MappingFix `json:"change,omitempty"`
	// Advice is about what no change of the mapping should mend.
	Advice []string `json:"advice,omitempty"`
}

// MappingCondition is one condition of a mapping. Got and Wanted are of one line, for people.
type MappingCondition struct {
	Kind   string `json:"kind"` // issuer, match, require, paths, deny, forbid, equal, subject_scheme, job_key, max_age, trigger, when, override or limits
	On     string `json:"on,omitempty"`
	Held   bool   `json:"held"`
	Got    string `json:"got"`
	Wanted string `json:"wanted"`
	Reason string `json:"reason,omitempty"` // of one that is not held, as in a refusal
}

// MappingFix is a change of a mapping, in YAML: keys that take the place of the mapping's own.
type MappingFix struct {
	YAML     string   `json:"yaml"`
	Warnings []string `json:"warnings,omitempty"` // what the change lets in
}

// MappingPreview is what a PUT of a mapping would do.
type MappingPreview struct {
	Name     string `json:"name"`
	Revision int64  `json:"revision"` // that the change would replace; 0 for a new mapping
	Changed  bool   `json:"changed"`
	// Before is the mapping in force, absent for a new one.
	Before *Mapping `json:"before,omitempty"`
	After  Mapping  `json:"after"`
	// Ends are the open sessions that would end; Stay counts those that the new grants would rule.
	Ends []SessionEnding `json:"ends"`
	Stay int             `json:"stay"`
}

// SessionEnding is an open session and why a change would end it.
type SessionEnding struct {
	ID     string `json:"id"`
	Job    any    `json:"job"`
	Reason string `json:"reason"`
}

// DecodeExplain reads a request strictly: an unknown key, or not exactly one question, is an error.
func DecodeExplain(data []byte) (ExplainRequest, error) {
	var r ExplainRequest
	if err := decodeStrict(data, &r); err != nil {
		return r, err
	}
	asked := 0
	for _, there := range []bool{r.Token != "", len(r.Claims) > 0, r.Exchange != ""} {
		if there {
			asked++
		}
	}
	if asked != 1 {
		return r, fmt.Errorf("%d of token, claims and exchange are there; write exactly one", asked)
	}
	return r, nil
}

// MarshalYAML writes a single value as a scalar, and several as a list in one line.
func (v Values) MarshalYAML() (any, error) {
	if len(v) == 1 && v[0] != nil {
		return v[0], nil
	}
	var n yaml.Node
	if err := n.Encode([]any(v)); err != nil {
		return nil, err
	}
	n.Style = yaml.FlowStyle
	return &n, nil
}

// EncodeYAML returns a value as people write it in a configuration file.
func EncodeYAML(v any) (string, error) {
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(v); err != nil {
		return "", fmt.Errorf("write YAML: %w", err)
	}
	return out.String(), nil
}

// MarshalYAML writes "1h" where MarshalText writes "1h0m0s".
func (d Duration) MarshalYAML() (any, error) {
	text := time.Duration(d).String()
	if short, whole := strings.CutSuffix(text, "m0s"); whole {
		text = short + "m"
		if hours, whole := strings.CutSuffix(text, "h0m"); whole {
			text = hours + "h"
		}
	}
	return text, nil
}
