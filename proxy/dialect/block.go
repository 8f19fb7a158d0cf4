package dialect

import (
	"fmt"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
)

// block is a content block that has started and not stopped.
type block struct {
	index int
	shift int   // what the client's index is higher by
	class class // of strings in its events that are no flow
	tool  bool  // the client runs it, so that nothing but its input may come in deltas
	input bool  // it has an input
	held  bool  // it is judged when it stops
	gone  bool  // it was denied before it stopped: the rest is dropped
	flows []*flowStream

	use     access.ToolUse
	start   []byte // data of its start, on one line
	inputAt span   // of the input in start
	indexAt span   // of the index in start
	deltas  bool   // there was input besides that of start
	problem string // why it cannot be judged
}

// isToolUse reports whether the client may run a block: every tool use but those that ran at the provider. A type that
// is not known here and looks like one is taken for one.
func (b *blockFacts) isToolUse() bool {
	switch b.kind {
	case "server_tool_use", "mcp_tool_use":
		return false
	case "text", "thinking", "redacted_thinking", "container_upload":
		return false
	}
	if strings.Contains(b.kind, "tool_use") {
		return true
	}
	return b.name != "" && !b.input.empty() && !strings.HasSuffix(b.kind, "_tool_result")
}

// judge decides on a block that has stopped and returns its verdict. An allowed one has its input in use.Input.
func (f *Filter) judge(b *block) (Verdict, error) {
	if problem := b.inputProblem(&f.scan); problem != "" {
		return f.unreadable(b, problem)
	}
	if f.policy.opaque != nil && !f.policy.redact && f.policy.opaque.Contains(b.use.Input) {
		return Verdict{}, secretError()
	}
	v := Verdict{Rule: "rules"}
	if f.cfg.Judge != nil {
		v = f.cfg.Judge(b.use)
	}
	return v, v.Err
}

// inputProblem settles what the client would take for the input, and says why that cannot be told.
func (b *block) inputProblem(s *scanner) string {
	if b.problem != "" {
		return b.problem
	}
	if given := b.start[b.inputAt.start:b.inputAt.end]; !emptyInput(given) {
		if b.deltas {
			return "its input is given twice"
		}
		b.use.Input = given
	}
	if len(b.use.Input) == 0 {
		b.use.Input = []byte("{}")
	}
	s.reset(b.use.Input)
	if s.peek() != '{' {
		return "its input is no JSON object"
	}
	s.skip()
	if err := s.finish(); err != nil {
		return "its input is not JSON that every parser reads alike: " + err.Error()
	}
	return ""
}

// emptyInput reports whether the input of a block's start is the usual nothing, in whose place the deltas stand.
func emptyInput(input []byte) bool {
	switch string(input) {
	case "", "{}", `""`, "null":
		return true
	}
	return false
}

// unreadable denies a tool use that cannot be judged.
func (f *Filter) unreadable(b *block, problem string) (Verdict, error) {
	v := Verdict{Rule: "unreadable"}
	if f.cfg.Unreadable != nil {
		v = f.cfg.Unreadable(access.ToolUse{ID: b.use.ID, Name: b.use.Name}, problem)
		v.Allow = false
	}
	if v.Reason == "" {
		v.Reason = fmt.Sprintf("Jobgate: the use of tool %q was refused because it cannot be judged: %s", b.use.Name, problem)
	}
	return v, v.Err
}

// words returns the reason as text for the agent. A text block must not be empty.
func (v *Verdict) words(tool string) string {
	if v.Reason != "" {
		return v.Reason
	}
	return fmt.Sprintf("Jobgate: the use of tool %q was denied by rule %q", tool, v.Rule)
}

// refusal returns the error of a denial that ends the answer.
func (v *Verdict) refusal(tool string) error {
	return &access.Error{Code: access.CodeDenied, Reason: v.Rule, Public: v.words(tool)}
}

// maxToolName is how long a tool's name may be; the Messages API takes [a-zA-Z0-9_-]{1,128}.
const maxToolName = 128

// deniedName returns a name that no tool has, and that says why: "Bash__denied__no-network-tools".
func deniedName(tool, rule string) string {
	suffix := "__denied__" + toolCharacters(rule)
	if len(suffix) > maxToolName-1 {
		suffix = suffix[:maxToolName-1]
	}
	name := toolCharacters(tool)
	if len(name) > maxToolName-len(suffix) {
		name = name[:maxToolName-len(suffix)]
	}
	return name + suffix
}

func toolCharacters(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '-':
			return r
		}
		return '_'
	}, text)
}
