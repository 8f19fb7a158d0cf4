package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// AgentConfig says which model an agent talks to, and as whom.
type AgentConfig struct {
	// BaseURL is the connection's base URL, path prefix included. Plain http
	// is taken for loopback addresses only, as the real clients do.
	BaseURL string
	// Identity reads the job's token, anew at each exchange; the agent then
	// exchanges it at {BaseURL}/v1/oauth/token (RFC 7523) for what it shows on
	// calls. Nil: APIKey is shown.
	Identity func(context.Context) (string, error)
	// Rule and Organization are the federation_rule_id and organization_id of
	// the exchange. Both must be set with Identity.
	Rule, Organization string
	// APIKey is shown as x-api-key where there is no Identity.
	APIKey string
	// Model defaults to claude-sonnet-4-5.
	Model string
	// MaxTurns is how many answers of the model a run may take. 0: 16.
	MaxTurns int
	// Observe is told what happens, in order and from one goroutine. Nil:
	// nobody is.
	Observe func(AgentEvent)
	// Now is the clock for the expiry of tokens. Nil: time.Now.
	Now func() time.Time
}

// AgentEventKind says what an AgentEvent tells.
type AgentEventKind int

const (
	// AgentExchanged: the job's token was exchanged; Text says for how long.
	AgentExchanged AgentEventKind = iota
	// AgentText is a piece of text as it came. Text is that piece.
	AgentText
	// AgentToolStarted: a use of a tool that exists arrived whole and starts.
	// Tool and Text (its input) are set.
	AgentToolStarted
	// AgentToolResult is what the tool said; Tool, Text and IsError are set.
	AgentToolResult
	// AgentRefused: an exchange or a call was answered with an error status,
	// and the run ends.
	AgentRefused
	// AgentCut: a stream ended with an error event, or without an end. The run
	// may go on after it.
	AgentCut
)

// AgentEvent is one thing that happened in a run.
type AgentEvent struct {
	Kind    AgentEventKind
	Text    string
	Tool    ToolUse
	IsError bool
	// Err is set for AgentRefused and AgentCut.
	Err error
}

// APIError is an error that a server answered: with a status, or with an
// error event in a stream.
type APIError struct {
	// Status is the HTTP status; 0 for an event in a stream.
	Status int
	// Type, Message and RequestID are from Anthropic's error envelope; for an
	// exchange, Type and Message are error and error_description (RFC 6749
	// section 5.2).
	Type, Message, RequestID string
	exchange                 bool
}

// Error reads as the real client shows it to its user.
func (e *APIError) Error() string {
	switch {
	case e.exchange:
		return fmt.Sprintf("API Error: Token exchange failed with status %d: %s: %s", e.Status, e.Type, e.Message)
	case e.Status == 0:
		return "API Error: " + e.Message
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return fmt.Sprintf("Failed to authenticate. API Error: %d %s", e.Status, e.Message)
	}
	return fmt.Sprintf("API Error: %d %s", e.Status, e.Message)
}

// errCut is a stream that ended without message_stop and without an error
// event.
var errCut = errors.New("the stream ended before its message did")

const (
	// maxAnswer is the largest answer that is read: far over what a model
	// says within its max_tokens.
	maxAnswer = 16 << 20
	// maxCuts is how often a call is repeated whose stream broke off.
	maxCuts = 2
)

// resume is what the real client says to a model whose answer broke off.
const resume = "Your response above was cut off mid-stream. Resume directly from where it stops."

// Agent is a small agent loop that behaves like the Claude Agent SDK where a
// gateway can tell the difference. It exchanges the job's token by itself, and
// once more after a 401. It starts a tool at its content_block_stop, and
// answers an unknown one with an error result. After a stream that went wrong
// it does what depends on the blocks that were complete by then:
//
//	complete blocks    error event                 cut without one
//	none               repeated without a stream   repeated
//	text or thinking   the run ends                asked to resume
//	a tool use         goes on with its result     goes on with its result
//
// Its one tool, Bash, runs nothing on the machine: see Shell.
type Agent struct {
	cfg   AgentConfig
	http  *http.Client
	shell *Shell
	token string
	until time.Time
}

// NewAgent checks the configuration. The agent runs once or several times,
// one run at a time; the Shell keeps its files between them.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	base, err := url.Parse(cfg.BaseURL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("agent: base URL %q is no absolute URL", cfg.BaseURL)
	}
	if base.Scheme != "https" && !(base.Scheme == "http" && loopback(base.Hostname())) {
		return nil, fmt.Errorf("agent: base URL %q: use https, or http on a loopback address", cfg.BaseURL)
	}
	if (cfg.Identity == nil) == (cfg.APIKey == "") {
		return nil, errors.New("agent: set either Identity or APIKey")
	}
	if cfg.Identity != nil && (cfg.Rule == "" || cfg.Organization == "") {
		return nil, errors.New("agent: an exchange needs Rule and Organization")
	}
	cfg.BaseURL = strings.TrimSuffix(cfg.BaseURL, "/")
	if cfg.Model == "" {
		cfg.Model = "claude-sonnet-4-5"
	}
	if cfg.MaxTurns == 0 {
		cfg.MaxTurns = 16
	}
	if cfg.Observe == nil {
		cfg.Observe = func(AgentEvent) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Agent{cfg: cfg, http: client, shell: NewShell()}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Shell is the simulated shell of the Bash tool.
func (a *Agent) Shell() *Shell { return a.shell }

// Run gives the agent a task and lets it work until the model uses no more
// tools; it returns the model's last text. A refusal is an *APIError.
func (a *Agent) Run(ctx context.Context, task string) (string, error) {
	defer a.http.CloseIdleConnections()
	history := []map[string]any{{"role": "user", "content": task}}
	for range a.cfg.MaxTurns {
		answer, err := a.ask(ctx, history)
		if err != nil && (ctx.Err() != nil || !answer.goesOn(err)) {
			if api := (*APIError)(nil); errors.As(err, &api) && api.Status != 0 {
				a.cfg.Observe(AgentEvent{Kind: AgentRefused, Text: err.Error(), Err: err})
			}
			return "", err
		}
		next := answer.results
		switch {
		case err == nil && len(next) == 0:
			return answer.text.String(), nil
		case len(next) == 0:
			next = []any{map[string]any{"type": "text", "text": resume}}
		}
		history = append(history,
			map[string]any{"role": "assistant", "content": answer.blocks},
			map[string]any{"role": "user", "content": next})
	}
	return "", fmt.Errorf("agent: no end after %d turns", a.cfg.MaxTurns)
}

// ask gets one answer, with the repeats that the real client makes. With an
// error, the turn holds what was complete before it; it may be nil.
func (a *Agent) ask(ctx context.Context, history []map[string]any) (*turn, error) {
	exchanged, cuts, stream := false, 0, true
	for {
		answer, err := a.call(ctx, history, stream)
		inStream := isEvent(err) || errors.Is(err, errCut)
		if inStream {
			a.cfg.Observe(AgentEvent{Kind: AgentCut, Text: err.Error(), Err: err})
		}
		switch nothing := inStream && len(answer.blocks) == 0; {
		case a.staleToken(err) && !exchanged:
			exchanged, a.token = true, ""
		case nothing && isEvent(err) && stream:
			stream = false
		case nothing && errors.Is(err, errCut) && cuts < maxCuts && ctx.Err() == nil:
			cuts++
		default:
			return answer, err
		}
	}
}

// isEvent reports whether err is an error event of a stream.
func isEvent(err error) bool {
	api := (*APIError)(nil)
	return errors.As(err, &api) && api.Status == 0
}

// staleToken reports whether err is a 401 to a call whose token another
// exchange could replace.
func (a *Agent) staleToken(err error) bool {
	api := (*APIError)(nil)
	return errors.As(err, &api) && api.Status == http.StatusUnauthorized && !api.exchange && a.cfg.Identity != nil
}

// goesOn reports whether a run goes on after the stream of this turn went
// wrong with err.
func (t *turn) goesOn(err error) bool {
	return t != nil && (len(t.results) > 0 || errors.Is(err, errCut) && len(t.blocks) > 0)
}

// call makes one request. Its turn is not nil once the server answered 200.
func (a *Agent) call(ctx context.Context, history []map[string]any, stream bool) (*turn, error) {
	body, err := json.Marshal(map[string]any{
		"model": a.cfg.Model, "max_tokens": 4096, "stream": stream, "messages": history,
		"system": "You are an agent in a CI job. Use the Bash tool.",
		"tools":  []any{bashTool()},
	})
	if err != nil {
		return nil, fmt.Errorf("agent: encode the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.cfg.BaseURL+"/v1/messages", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Anthropic-Version", "2023-06-01")
	req.Header.Set("User-Agent", "jobgate-agent/1")
	if err := a.authenticate(ctx, req.Header); err != nil {
		return nil, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, readAPIError(resp)
	}
	answer := &turn{agent: a}
	if stream {
		return answer, answer.readStream(resp.Body)
	}
	return answer, answer.readWhole(io.LimitReader(resp.Body, maxAnswer))
}

func readAPIError(resp *http.Response) error {
	out := &APIError{Status: resp.StatusCode, Message: resp.Status}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return out
	}
	out.fill(raw)
	return out
}

// fill takes what it finds in Anthropic's error envelope; what does not parse
// leaves the error as it is.
func (e *APIError) fill(raw []byte) {
	var envelope struct {
		Error struct{ Type, Message string }
		ID    string `json:"request_id"`
	}
	if json.Unmarshal(raw, &envelope) != nil || envelope.Error.Message == "" {
		return
	}
	e.Type, e.Message, e.RequestID = envelope.Error.Type, envelope.Error.Message, envelope.ID
}
