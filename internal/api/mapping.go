package api

import (
	"encoding/json"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a time.Duration written as "15m" or "1h30m".
type Duration time.Duration

// MarshalText writes "1h0m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration; write for example 15m or 1h30m", text)
	}
	*d = Duration(v)
	return nil
}

// UnmarshalYAML reads the same text from a scalar.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	if err := d.UnmarshalText([]byte(n.Value)); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return nil
}

// Mapping is the wire form of a mapping: the same in the configuration file (YAML) and in PUT /v1/mappings/{name}
// (JSON). Unknown keys are errors in both.
type Mapping struct {
	Name   string `json:"name" yaml:"name"`
	Issuer string `json:"issuer" yaml:"issuer"`
	Mode   string `json:"mode,omitempty" yaml:"mode,omitempty"` // enforce (default) or observe

	// Match names claims and the values that they must have: a string, a boolean or an integer, compared with the
	// claim's own type, or a list of which one must be equal.
	Match map[string]Values `json:"match" yaml:"match"`
	// When is an optional CEL condition over the typed claims. An error counts as no match.
	When string `json:"when,omitempty" yaml:"when,omitempty"`

	Require []string          `json:"require,omitempty" yaml:"require,omitempty"` // claims that must be present and not empty
	Forbid  []string          `json:"forbid,omitempty" yaml:"forbid,omitempty"`   // claims that must be absent
	Deny    map[string]Values `json:"deny,omitempty" yaml:"deny,omitempty"`       // values that a claim must not have
	Equal   [][]string        `json:"equal,omitempty" yaml:"equal,omitempty"`     // pairs of claims that must be equal
	Paths   []PathCondition   `json:"paths,omitempty" yaml:"paths,omitempty"`     // conditions on nested claims
	Subject string            `json:"subject_scheme,omitempty" yaml:"subject_scheme,omitempty"`
	MaxAge  Duration          `json:"max_age,omitempty" yaml:"max_age,omitempty"` // of the token, since its iat
	JobKey  string            `json:"job_key,omitempty" yaml:"job_key,omitempty"` // "run" accepts tokens that name only the run
	Bound   *bool             `json:"job_bound,omitempty" yaml:"job_bound,omitempty"`
	Live    bool              `json:"require_liveness,omitempty" yaml:"require_liveness,omitempty"`
	Window  Window            `json:"window,omitempty" yaml:"window,omitempty"`
	Grants  []Grant           `json:"grants" yaml:"grants"`
	// Overrides are exceptions for some of the mapping's jobs. The first that matches holds, and no other.
	Overrides []Override `json:"overrides,omitempty" yaml:"overrides,omitempty"`
}

// Override is an exception for the jobs of a mapping that have these claims, too. A key that it has takes the place of
// the mapping's own key, whole.
type Override struct {
	Name  string            `json:"name,omitempty" yaml:"name,omitempty"` // for people and records; without one it is its place, overrides[0]
	Match map[string]Values `json:"match" yaml:"match"`
	Deny  bool              `json:"deny,omitempty" yaml:"deny,omitempty"` // takes these jobs out of the mapping
	Mode  string            `json:"mode,omitempty" yaml:"mode,omitempty"`
	// Window nil and Grants nil leave the mapping's.
	Window *Window `json:"window,omitempty" yaml:"window,omitempty"`
	Grants []Grant `json:"grants,omitempty" yaml:"grants,omitempty"`
}

// PathCondition is a condition on a nested claim.
type PathCondition struct {
	Path    []string `json:"path" yaml:"path"`
	Value   Values   `json:"value,omitempty" yaml:"value,omitempty"`
	Present bool     `json:"present,omitempty" yaml:"present,omitempty"`
}

// Window is the length of a mapping's sessions. Zero takes the defaults: 1h and 15m.
type Window struct {
	Max   Duration `json:"max,omitempty" yaml:"max,omitempty"`
	Lease Duration `json:"lease,omitempty" yaml:"lease,omitempty"`
}

// Grant is a connection and what may be done with it.
type Grant struct {
	Connection string     `json:"connection" yaml:"connection"`
	Allow      []string   `json:"allow,omitempty" yaml:"allow"`
	Limits     LimitsList `json:"limits,omitempty" yaml:"limits,omitempty"`
	Features   []string   `json:"features,omitempty" yaml:"features,omitempty"`
	OnDeny     string     `json:"on_deny,omitempty" yaml:"on_deny,omitempty"` // tell (default), stop or fail
	Mask       *Mask      `json:"mask,omitempty" yaml:"mask,omitempty"`
	Rules      []Rule     `json:"rules,omitempty" yaml:"rules,omitempty"`
}

// Limits bound what one job may use or, with Per, what all jobs of the mapping with the same value of a claim may use
// together within a period; zero is no limit.
type Limits struct {
	Per          string   `json:"per,omitempty" yaml:"per,omitempty"`       // a claim; empty, or "job", is the job
	Period       Duration `json:"period,omitempty" yaml:"period,omitempty"` // with Per only; zero takes 24h
	Requests     int64    `json:"requests,omitempty" yaml:"requests,omitempty"`
	InputTokens  int64    `json:"input_tokens,omitempty" yaml:"input_tokens,omitempty"`
	OutputTokens int64    `json:"output_tokens,omitempty" yaml:"output_tokens,omitempty"`
	Models       []string `json:"models,omitempty" yaml:"models,omitempty"`
}

// Mask changes what is masked; held secrets are always masked in responses.
type Mask struct {
	Requests  bool  `json:"requests,omitempty" yaml:"requests,omitempty"`
	Responses *bool `json:"responses,omitempty" yaml:"responses,omitempty"` // detectors in what the job gets
}

// Rule is a condition with an effect.
type Rule struct {
	Name      string   `json:"name" yaml:"name"`
	Effect    string   `json:"effect" yaml:"effect"` // deny or approve
	When      string   `json:"when" yaml:"when"`
	Reason    string   `json:"reason,omitempty" yaml:"reason,omitempty"`
	Approvers []string `json:"approvers,omitempty" yaml:"approvers,omitempty"`
	Timeout   Duration `json:"timeout,omitempty" yaml:"timeout,omitempty"`
	Mode      string   `json:"mode,omitempty" yaml:"mode,omitempty"`
}

// Values is one scalar or a list of them: string, bool or int64, nothing coerced. A nil, null in a list, stands for a
// claim that is null.
type Values []any

// UnmarshalYAML reads a scalar or a list of scalars.
func (v *Values) UnmarshalYAML(n *yaml.Node) error {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	out := make(Values, 0, len(nodes))
	for _, node := range nodes {
		if node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		value, err := scalar(node)
		if err != nil {
			return fmt.Errorf("line %d: %w", node.Line, err)
		}
		out = append(out, value)
	}
	*v = out
	return nil
}

func scalar(n *yaml.Node) (any, error) {
	if n.Kind != yaml.ScalarNode {
		return nil, fmt.Errorf("a claim's value is a string, a boolean, an integer, or a list of them")
	}
	switch n.Tag {
	case "!!str":
		return n.Value, nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return b, err
	case "!!null":
		return nil, nil
	case "!!int":
		var i int64
		err := n.Decode(&i)
		return i, err
	}
	return nil, fmt.Errorf("%q is no string, boolean or integer; put it in quotes to compare it as a string", n.Value)
}

// UnmarshalJSON reads a scalar or a list of scalars.
func (v *Values) UnmarshalJSON(data []byte) error {
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		raw = []json.RawMessage{data}
	}
	out := make(Values, 0, len(raw))
	for _, item := range raw {
		value, err := jsonScalar(item)
		if err != nil {
			return err
		}
		out = append(out, value)
	}
	*v = out
	return nil
}

func jsonScalar(item json.RawMessage) (any, error) {
	var s string
	var b bool
	var i int64
	switch {
	case string(item) == "null":
		return nil, nil
	case json.Unmarshal(item, &s) == nil:
		return s, nil
	case json.Unmarshal(item, &b) == nil:
		return b, nil
	case json.Unmarshal(item, &i) == nil:
		return i, nil
	}
	return nil, fmt.Errorf("%s: a claim's value is a string, a boolean, an integer, or a list of them", item)
}

// FieldError is a value that cannot be taken, with the path to it in its document: "grants[0].rules[1].when".
type FieldError struct {
	Path string
	Err  error
}

// Error names the path first.
func (e *FieldError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }
