package testkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SlackConfig says what a Slack workspace is like. The zero value has one
// channel and nobody in it.
type SlackConfig struct {
	// Token is the bot token that the methods want. Empty: "xoxb-testkit".
	Token string
	// SigningSecret signs interactions. Empty: "testkit-signing-secret".
	SigningSecret string
	// Team is the workspace's id. Empty: "T00000001".
	Team string
	// Channels are the ids of the channels that the bot may write to. Empty:
	// one, "C0123456789".
	Channels []string
	Users    []SlackUser
	// UserGroups are the members' ids by user group.
	UserGroups map[string][]string
	// Now is the clock of signatures and of response URLs. Nil: time.Now.
	Now func() time.Time
}

// SlackUser is somebody who can press a button.
type SlackUser struct {
	ID, Name, Email string
	// Team is the workspace that the user belongs to. Empty: the app's own.
	Team string
	// Deleted is a deactivated account, Bot a program, Guest a member of
	// single channels, Unconfirmed one whose email nobody has proved.
	Deleted, Bot, Guest, Unconfirmed bool
}

// SlackMessage is a message as it stands.
type SlackMessage struct {
	Channel, TS string
	Text        string
	Blocks      json.RawMessage
	// Edits is how often it was updated.
	Edits int
	// User is who alone sees an ephemeral message; empty for others.
	User string
}

// Slack is a workspace with one app installed: the Web API methods that an
// app for approvals needs, with Slack's checks of what it is sent, and people
// who press buttons.
type Slack struct {
	cfg    SlackConfig
	srv    *server
	client *http.Client

	mu           sync.Mutex // guards all below
	interactions string
	down         bool
	slow         time.Duration
	limited      int
	retryAfter   time.Duration
	calls        map[string]int
	messages     []SlackMessage
	versions     map[string][]json.RawMessage // blocks that were shown, by ts
	ephemeral    []SlackMessage
	responses    map[string]*responseURL
	lastID       int
	changed      chan struct{} // closed and replaced with every change
}

// NewSlack starts a workspace. The caller closes it.
func NewSlack(cfg SlackConfig) (*Slack, error) {
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&cfg.Token, "xoxb-testkit")
	fill(&cfg.SigningSecret, "testkit-signing-secret")
	fill(&cfg.Team, "T00000001")
	if len(cfg.Channels) == 0 {
		cfg.Channels = []string{"C0123456789"}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Slack{
		cfg: cfg, client: &http.Client{Timeout: slackPatience, Transport: &http.Transport{}},
		calls: map[string]int{}, versions: map[string][]json.RawMessage{}, responses: map[string]*responseURL{},
		changed: make(chan struct{}),
	}
	srv, err := listen(http.HandlerFunc(s.serve))
	if err != nil {
		return nil, fmt.Errorf("start a Slack workspace: %w", err)
	}
	s.srv = srv
	return s, nil
}

// Close ends the workspace.
func (s *Slack) Close() error {
	s.client.CloseIdleConnections()
	return s.srv.Close()
}

// APIURL is the base of the Web API methods, with a slash at its end.
func (s *Slack) APIURL() string { return s.srv.url + "/api/" }

// Token returns the bot token, SigningSecret what interactions are signed
// with, Channel the first channel's id.
func (s *Slack) Token() string         { return s.cfg.Token }
func (s *Slack) SigningSecret() string { return s.cfg.SigningSecret }
func (s *Slack) Channel() string       { return s.cfg.Channels[0] }

// SetInteractionsURL says where pressed buttons are reported.
func (s *Slack) SetInteractionsURL(u string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interactions = u
}

// SetDown has every method answer 503.
func (s *Slack) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// SetSlow has every method wait before it answers.
func (s *Slack) SetSlow(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = d
}

// LimitRate has the next calls answer 429 with a Retry-After of whole seconds.
func (s *Slack) LimitRate(calls int, retryAfter time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limited, s.retryAfter = calls, retryAfter
}

// Calls returns how often a method was called, refused calls included.
func (s *Slack) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Messages returns what stands in the channels, oldest first; Ephemerals what
// was shown to single users.
func (s *Slack) Messages() []SlackMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Ephemerals returns what was shown to single users, oldest first.
func (s *Slack) Ephemerals() []SlackMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ephemeral)
}

// Await blocks until what holds for the workspace, and fails when ctx ends
// first. It is asked again after every call of a method.
func (s *Slack) Await(ctx context.Context, what func(*Slack) bool) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if what(s) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for Slack: %w", context.Cause(ctx))
		}
	}
}

func (s *Slack) touchLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// slackError is the word in {"ok": false, "error": ...}, with details.
type slackError struct {
	word    string
	details []string
}

func (e *slackError) Error() string { return e.word }

func refuseSlack(word string, details ...string) error { return &slackError{word, details} }

func (s *Slack) serve(w http.ResponseWriter, r *http.Request) {
	if id, ok := strings.CutPrefix(r.URL.Path, "/response/"); ok {
		s.serveResponse(w, r, id)
		return
	}
	method, ok := strings.CutPrefix(r.URL.Path, "/api/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	if !s.admit(w, r, method) {
		return
	}
	form, err := slackForm(w, r)
	if err == nil {
		err = s.authorized(r, form)
	}
	answer := map[string]any{}
	if err == nil {
		answer, err = s.method(method, form)
	}
	answerSlack(w, answer, err)
}

// admit counts a call and plays the faults that are switched on.
func (s *Slack) admit(w http.ResponseWriter, r *http.Request, method string) bool {
	s.mu.Lock()
	s.calls[method]++
	s.touchLocked()
	down, slow, limited, after := s.down, s.slow, s.limited > 0, s.retryAfter
	if limited {
		s.limited--
	}
	s.mu.Unlock()
	switch {
	case !pause(r.Context(), slow):
		return false
	case down:
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return false
	case limited:
		w.Header().Set("Retry-After", strconv.Itoa(int(after/time.Second)))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte(`{"ok":false,"error":"ratelimited"}`))
		return false
	}
	return true
}

// slackForm reads arguments as Slack does: a form, or a JSON object whose
// members that are no strings count as their JSON text.
func slackForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		if err := r.ParseForm(); err != nil {
			return nil, refuseSlack("invalid_form_data")
		}
		return r.Form, nil
	}
	var object map[string]json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
		return nil, refuseSlack("invalid_json")
	}
	form := url.Values{}
	for name, raw := range object {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw)
		}
		form.Set(name, text)
	}
	return form, nil
}

func (s *Slack) authorized(r *http.Request, form url.Values) error {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		token = form.Get("token")
	}
	switch token {
	case "":
		return refuseSlack("not_authed")
	case s.cfg.Token:
		return nil
	}
	return refuseSlack("invalid_auth")
}

func (s *Slack) method(name string, form url.Values) (map[string]any, error) {
	switch name {
	case "auth.test":
		return map[string]any{
			"url": s.srv.url, "team": "Testkit", "user": "jobgate", "team_id": s.cfg.Team, "user_id": "U0JOBGATE", "bot_id": "B0JOBGATE",
		}, nil
	case "chat.postMessage":
		return s.post(form)
	case "chat.postEphemeral":
		return s.postEphemeral(form)
	case "chat.update":
		return s.update(form)
	case "users.info":
		return s.userInfo(form.Get("user"))
	case "usergroups.users.list":
		members, ok := s.cfg.UserGroups[form.Get("usergroup")]
		if !ok {
			return nil, refuseSlack("no_such_subteam")
		}
		return map[string]any{"users": members}, nil
	}
	return nil, refuseSlack("unknown_method")
}

func answerSlack(w http.ResponseWriter, answer map[string]any, err error) {
	if err != nil {
		answer = map[string]any{"error": err.Error()}
		var refused *slackError
		if errors.As(err, &refused) && len(refused.details) > 0 {
			answer["response_metadata"] = map[string]any{"messages": refused.details}
		}
	}
	answer["ok"] = err == nil
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *Slack) user(id string) (SlackUser, bool) {
	i := slices.IndexFunc(s.cfg.Users, func(u SlackUser) bool { return u.ID == id })
	if i < 0 {
		return SlackUser{}, false
	}
	u := s.cfg.Users[i]
	if u.Team == "" {
		u.Team = s.cfg.Team
	}
	return u, true
}

func (s *Slack) userInfo(id string) (map[string]any, error) {
	u, ok := s.user(id)
	if !ok {
		return nil, refuseSlack("user_not_found")
	}
	return map[string]any{"user": map[string]any{
		"id": u.ID, "team_id": u.Team, "name": strings.ToLower(u.Name), "real_name": u.Name,
		"deleted": u.Deleted, "is_bot": u.Bot, "is_restricted": u.Guest, "is_email_confirmed": !u.Unconfirmed,
		"profile": map[string]any{"email": u.Email, "real_name": u.Name, "display_name": u.Name, "team": u.Team},
	}}, nil
}
