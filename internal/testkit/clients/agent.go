package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
)

// AgentRun is one query of the Claude Agent SDK.
type AgentRun struct {
	// Prompt is what the agent is asked. Empty: a greeting.
	Prompt string
	// Tools are the agent's tools, all of them allowed. Nil: Bash.
	Tools []string
	// Dir is where the agent works. Empty: Home.
	Dir string
	// Home is the agent's home folder. Required.
	Home string
	// Env is what the agent finds in its environment besides PATH and HOME:
	// ANTHROPIC_BASE_URL and what the client needs to log in there.
	Env map[string]string
	// Options are further options of the SDK, which win.
	Options map[string]any
}

// ToolUse is a tool use as the client took it from the model.
type ToolUse struct {
	ID, Name string
	Input    json.RawMessage
}

// ToolResult is what the client answered to a tool use.
type ToolResult struct {
	ID    string
	Text  string
	Error bool
}

// Transcript is what a run of the Agent SDK showed.
type Transcript struct {
	// OK tells whether the run ended as a success; Result is its last text,
	// or the error that the user reads.
	OK     bool
	Result string
	// Said, Uses and Results are in the order of the run.
	Said    []string
	Uses    []ToolUse
	Results []ToolResult
	// Lines are the SDK's messages as JSON, for what is not above.
	Lines []json.RawMessage
}

// Agent runs one query to its end.
func (k *Kit) Agent(ctx context.Context, r AgentRun) (*Transcript, error) {
	options := map[string]any{}
	set := func(key string, value any, given bool) {
		if given {
			options[key] = value
		}
	}
	set("prompt", r.Prompt, r.Prompt != "")
	set("tools", r.Tools, r.Tools != nil)
	set("options", r.Options, r.Options != nil)
	dir := r.Dir
	if dir == "" {
		dir = r.Home
	}
	arg, err := json.Marshal(options)
	if err != nil {
		return nil, fmt.Errorf("encode the agent's options: %w", err)
	}
	out, err := run(ctx, dir, r.Home, r.Env, k.node, filepath.Join(k.dir, "agent.mjs"), string(arg))
	if err != nil {
		return nil, err
	}
	t := &Transcript{}
	for line := range bytes.Lines(out.stdout) {
		if err := t.add(line); err != nil {
			return nil, fmt.Errorf("read the agent's line %q: %w", line, err)
		}
	}
	if len(t.Lines) == 0 {
		return nil, fmt.Errorf("the agent said nothing and ended with %d: %s", out.code, tail(out.stderr))
	}
	t.OK = t.OK && out.code == 0
	return t, nil
}

// block is a block of content, of either side.
type block struct {
	Type, Text, ID, Name string
	Input                json.RawMessage
	ToolUseID            string `json:"tool_use_id"`
	Content              json.RawMessage
	IsError              bool `json:"is_error"`
}

func (t *Transcript) add(line []byte) error {
	var m struct {
		Type, Subtype, Result, Message string
		IsError                        bool `json:"is_error"`
	}
	var held struct {
		Message struct{ Content json.RawMessage }
	}
	// A message is an object in the SDK's lines and a string in an error.
	errWhole, errHeld := json.Unmarshal(line, &m), json.Unmarshal(line, &held)
	if errWhole != nil && errHeld != nil {
		return errWhole
	}
	t.Lines = append(t.Lines, bytes.Clone(line))
	switch m.Type {
	case "result":
		t.OK, t.Result = m.Subtype == "success" && !m.IsError, m.Result
	case "error":
		t.OK, t.Result = false, m.Message
	case "assistant", "user":
		t.addBlocks(held.Message.Content)
	}
	return nil
}

// addBlocks takes a message's content; a prompt is a string, and skipped.
func (t *Transcript) addBlocks(content json.RawMessage) {
	var blocks []block
	if json.Unmarshal(content, &blocks) != nil {
		return
	}
	for _, b := range blocks {
		switch b.Type {
		case "text":
			t.Said = append(t.Said, b.Text)
		case "tool_use":
			t.Uses = append(t.Uses, ToolUse{ID: b.ID, Name: b.Name, Input: b.Input})
		case "tool_result":
			t.Results = append(t.Results, ToolResult{ID: b.ToolUseID, Text: resultText(b.Content), Error: b.IsError})
		}
	}
}

// resultText reads a tool result's content: a string, or text blocks.
func resultText(content json.RawMessage) string {
	var text string
	if json.Unmarshal(content, &text) == nil {
		return text
	}
	var blocks []block
	if json.Unmarshal(content, &blocks) != nil {
		return string(content)
	}
	for _, b := range blocks {
		text += b.Text
	}
	return text
}

// SDKAnswer is one answer that the plain SDK got.
type SDKAnswer struct {
	Stream bool
	Text   string
	Error  *struct {
		Name, Message string
		Status        int
		RequestID     string `json:"request_id"`
	}
}

// SDK asks one question not streamed and one streamed with Anthropic's plain
// SDK. Auth is "federation" (its own credential chain) or "token-file" (the
// session token as a bearer, from JOBGATE_TOKEN_FILE).
func (k *Kit) SDK(ctx context.Context, auth, home string, env map[string]string) ([]SDKAnswer, error) {
	out, err := run(ctx, home, home, env, k.node, filepath.Join(k.dir, "sdk.mjs"), auth)
	if err != nil {
		return nil, err
	}
	var answers []SDKAnswer
	for line := range bytes.Lines(out.stdout) {
		var a SDKAnswer
		if err := json.Unmarshal(line, &a); err != nil {
			return nil, fmt.Errorf("read the SDK's line %q: %w", line, err)
		}
		answers = append(answers, a)
	}
	if len(answers) != 2 {
		return nil, fmt.Errorf("the SDK gave %d answers of 2 and ended with %d: %s", len(answers), out.code, tail(out.stderr))
	}
	return answers, nil
}
