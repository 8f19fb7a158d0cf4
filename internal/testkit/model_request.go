package testkit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Request is one request that the model received.
type Request struct {
	// ID is the request id that the answer carries.
	ID string
	// Time is when its body had been read.
	Time   time.Time
	Method string
	// Target is the request target as it was sent (path and query, still
	// escaped).
	Target string
	Header http.Header
	// Raw is the body, byte for byte; Body is what was understood of it.
	Raw  []byte
	Body Body
}

// Body is the part of a Messages request that scripts look at. Anything else
// is in Request.Raw.
type Body struct {
	Model     string          `json:"model"`
	MaxTokens int             `json:"max_tokens"`
	Stream    bool            `json:"stream"`
	System    json.RawMessage `json:"system"`
	Messages  []Message       `json:"messages"`
	Tools     []Tool          `json:"tools"`
}

// Tool is a tool that the client offers. Type is empty, or names a tool of
// the provider (web_search_...).
type Tool struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

// Message is one turn of the history.
type Message struct {
	Role    string  `json:"role"`
	Content Content `json:"content"`
}

// Content is a list of blocks; a string in its place is one text block.
type Content []Part

// UnmarshalJSON reads both forms of a content.
func (c *Content) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*c = Content{{Type: "text", Text: text}}
		return nil
	}
	var parts []Part
	if err := json.Unmarshal(b, &parts); err != nil {
		return fmt.Errorf("content is neither a string nor a list of blocks: %w", err)
	}
	*c = parts
	return nil
}

// Text joins the text of all text blocks.
func (c Content) Text() string {
	var b strings.Builder
	for _, part := range c {
		b.WriteString(part.Text)
	}
	return b.String()
}

// Part is one block of a message; which fields are set depends on Type.
type Part struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Thinking  string          `json:"thinking"`
	Signature string          `json:"signature"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	IsError   bool            `json:"is_error"`
	Content   Content         `json:"content"`
}

// Credential is the credential that the request showed, whichever header it
// stood in. Scripts use it to play an upstream that echoes it.
func (r Request) Credential() string {
	if key := r.Header.Get("X-Api-Key"); key != "" {
		return key
	}
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// Turn is how many answers of the model the history holds: 0 for the first
// request of a conversation.
func (r Request) Turn() int {
	turns, before := 0, ""
	for _, message := range r.Body.Messages {
		if message.Role == "assistant" && before != "assistant" {
			turns++
		}
		before = message.Role
	}
	return turns
}

// Results are the tool results that the history ends with.
func (r Request) Results() []Part {
	var results []Part
	if n := len(r.Body.Messages); n > 0 {
		for _, part := range r.Body.Messages[n-1].Content {
			if part.Type == "tool_result" {
				results = append(results, part)
			}
		}
	}
	return results
}

// Offers reports whether the client offers a tool of this name.
func (r Request) Offers(tool string) bool {
	for _, t := range r.Body.Tools {
		if t.Name == tool {
			return true
		}
	}
	return false
}

// refusal is an answer in Anthropic's error envelope.
type refusal struct {
	status        int
	kind, message string
}

func invalid(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, "invalid_request_error", fmt.Sprintf(format, args...)}
}

func readRequest(r *http.Request, now time.Time) (Request, *refusal) {
	req := Request{
		ID: "req_011" + random(21), Time: now, Method: r.Method, Target: r.RequestURI, Header: r.Header.Clone(),
	}
	raw, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	req.Raw = raw
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return req, &refusal{http.StatusRequestEntityTooLarge, "request_too_large", "Request exceeds the maximum size"}
	}
	if err != nil {
		return req, invalid("the request body could not be read")
	}
	if r.Method != http.MethodPost {
		return req, nil
	}
	if err := json.Unmarshal(raw, &req.Body); err != nil {
		return req, invalid("The request body is not valid JSON: %v", err)
	}
	return req, nil
}

// checkEnvelope holds what both message endpoints demand.
func checkEnvelope(req Request) *refusal {
	switch {
	case req.Header.Get("Anthropic-Version") == "":
		return invalid("anthropic-version: header is required")
	case req.Body.Model == "":
		return invalid("model: Field required")
	case len(req.Body.Messages) == 0:
		return invalid("messages: at least one message is required")
	case req.Body.Messages[0].Role != "user":
		return invalid("messages: first message must use the \"user\" role")
	}
	return nil
}

func (m *Model) check(req Request) *refusal {
	if refusal := checkEnvelope(req); refusal != nil {
		return refusal
	}
	if req.Body.MaxTokens < 1 {
		return invalid("max_tokens: Field required")
	}
	if m.lax {
		return nil
	}
	if refusal := checkToolUses(req.Body.Messages); refusal != nil {
		return refusal
	}
	return m.checkThinking(req.Body.Messages)
}

// checkToolUses holds the API's rule that each tool use is answered in the
// very next user turn, and that a result answers one of the turn before.
// Neighbouring messages of one side are one turn.
func checkToolUses(messages []Message) *refusal {
	name := regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)
	turns := mergeTurns(messages)
	for n, turn := range turns {
		for _, part := range turn.Content {
			switch {
			case part.Type == "tool_use" && !name.MatchString(part.Name):
				return invalid("messages.%d: tool_use.name: String should match pattern '%s'", n, name)
			case part.Type == "tool_use" && !holds(turns, n+1, "tool_result", part.ID):
				return invalid("messages.%d: `tool_use` ids were found without `tool_result` blocks immediately after: %s. "+
					"Each `tool_use` block must have a corresponding `tool_result` block in the next message.", n, part.ID)
			case part.Type == "tool_result" && !holds(turns, n-1, "tool_use", part.ToolUseID):
				return invalid("messages.%d: unexpected `tool_use_id` found in `tool_result` blocks: %s. "+
					"Each `tool_result` block must have a corresponding `tool_use` block in the previous message.", n, part.ToolUseID)
			}
		}
	}
	return nil
}

func mergeTurns(messages []Message) []Message {
	var turns []Message
	for _, message := range messages {
		if n := len(turns) - 1; n >= 0 && sameSide(turns[n].Role, message.Role) {
			turns[n].Content = append(slices.Clip(turns[n].Content), message.Content...)
			continue
		}
		turns = append(turns, message)
	}
	return turns
}

// sameSide reports whether two roles are both the model's, or both not: a
// client also sends "system" messages among those of the user.
func sameSide(a, b string) bool { return (a == "assistant") == (b == "assistant") }

// holds reports whether turn n has a block of this type for the tool use id.
func holds(turns []Message, n int, kind, id string) bool {
	if n < 0 || n >= len(turns) {
		return false
	}
	return slices.ContainsFunc(turns[n].Content, func(p Part) bool {
		return p.Type == kind && (p.ID == id || p.ToolUseID == id)
	})
}

// checkThinking refuses a thinking block that is not, byte for byte, one that
// this model sent.
func (m *Model) checkThinking(messages []Message) *refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, message := range messages {
		for p, part := range message.Content {
			if part.Type != "thinking" {
				continue
			}
			if text, ok := m.issued[part.Signature]; !ok || text != part.Thinking {
				return invalid("messages.%d.content.%d: Invalid `signature` in `thinking` block", n, p)
			}
		}
	}
	return nil
}

func (m *Model) remember(blocks []Block) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, block := range blocks {
		if thinking, ok := block.(Thinking); ok {
			m.issued[thinking.Signature] = thinking.Text
		}
	}
}
