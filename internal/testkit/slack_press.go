package testkit

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// slackPatience is how long Slack waits for the answer to an interaction.
const slackPatience = 3 * time.Second

// SlackAnswer is what an interaction was answered with.
type SlackAnswer struct {
	Status  int
	Body    string
	Latency time.Duration
}

// SlackForgery says what is wrong with an interaction. The zero value is a
// right one.
type SlackForgery struct {
	// Secret signs in place of the signing secret.
	Secret string
	// Age is how long ago the request was signed; negative lies ahead.
	Age time.Duration
	// Team is the workspace that it claims to come from.
	Team string
	// Body changes the raw body after it was signed.
	Body func(string) string
	// Header changes the request's headers last.
	Header func(http.Header)
}

// Button is a button in a message's blocks.
type Button struct {
	ActionID string `json:"action_id"`
	BlockID  string `json:"-"`
	Value    string `json:"value"`
	Style    string `json:"style"`
	URL      string `json:"url"`
	Text     struct {
		Text string `json:"text"`
	} `json:"text"`
}

// Buttons returns the buttons that a message shows.
func (m SlackMessage) Buttons() []Button { return slackButtons(m.Blocks) }

func slackButtons(raw json.RawMessage) []Button {
	var blocks []json.RawMessage
	if json.Unmarshal(raw, &blocks) != nil {
		return nil
	}
	var out []Button
	for _, one := range blocks {
		var b struct {
			Type     string          `json:"type"`
			BlockID  string          `json:"block_id"`
			Elements json.RawMessage `json:"elements"`
		}
		var buttons []Button
		if json.Unmarshal(one, &b) != nil || b.Type != "actions" || json.Unmarshal(b.Elements, &buttons) != nil {
			continue
		}
		for i := range buttons {
			buttons[i].BlockID = b.BlockID
		}
		out = append(out, buttons...)
	}
	return out
}

// Press has a user press a button of a message: action is the button's action
// id, or its label in lower case ("approve"). A button that the message showed
// once can still be pressed, as by somebody whose screen is stale. An answer
// that takes longer than Slack waits is an error.
func (s *Slack) Press(ctx context.Context, ts, action, user string) (SlackAnswer, error) {
	return s.PressForged(ctx, ts, action, user, SlackForgery{})
}

// PressForged is Press with something wrong about it.
func (s *Slack) PressForged(ctx context.Context, ts, action, user string, f SlackForgery) (SlackAnswer, error) {
	payload, err := s.interaction(ts, action, user, f)
	if err != nil {
		return SlackAnswer{}, err
	}
	return s.Interact(ctx, url.Values{"payload": {payload}}.Encode(), f)
}

// interaction makes the payload of a pressed button.
func (s *Slack) interaction(ts, action, user string, f SlackForgery) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	channel, button, ok := s.findLocked(ts, action)
	if !ok {
		return "", fmt.Errorf("message %q never had a button %q", ts, action)
	}
	u, ok := s.user(user)
	if !ok {
		u = SlackUser{ID: user, Name: user, Team: s.cfg.Team}
	}
	team := s.cfg.Team
	if f.Team != "" {
		team = f.Team
	}
	id := rand.Text()
	s.responses[id] = &responseURL{channel: channel, ts: ts, user: user, until: s.cfg.Now().Add(responseLife)}
	payload, err := json.Marshal(map[string]any{
		"type": "block_actions", "api_app_id": "A0JOBGATE", "trigger_id": rand.Text(),
		"user":      map[string]any{"id": u.ID, "username": u.Name, "name": u.Name, "team_id": u.Team},
		"team":      map[string]any{"id": team, "domain": "testkit"},
		"channel":   map[string]any{"id": channel, "name": "approvals"},
		"container": map[string]any{"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": false},
		"message":   map[string]any{"type": "message", "ts": ts},
		"state":     map[string]any{"values": map[string]any{}},
		"actions": []any{map[string]any{
			"type": "button", "action_id": button.ActionID, "block_id": button.BlockID, "value": button.Value, "style": button.Style,
			"text": map[string]any{"type": "plain_text", "text": button.Text.Text}, "action_ts": ts,
		}},
		"response_url": s.srv.url + "/response/" + id,
	})
	return string(payload), err
}

// findLocked looks for a button in what the message shows or once showed.
func (s *Slack) findLocked(ts, action string) (channel string, b Button, ok bool) {
	for _, m := range s.messages {
		if m.TS == ts {
			channel = m.Channel
		}
	}
	for _, blocks := range s.versions[ts] {
		for _, button := range slackButtons(blocks) {
			if button.ActionID == action || strings.ToLower(button.Text.Text) == action {
				b, ok = button, true
			}
		}
	}
	return channel, b, ok && channel != ""
}

// Interact sends a raw body to the interactions URL, signed as Slack does it,
// or wrongly.
func (s *Slack) Interact(ctx context.Context, body string, f SlackForgery) (SlackAnswer, error) {
	s.mu.Lock()
	target := s.interactions
	s.mu.Unlock()
	stamp := strconv.FormatInt(s.cfg.Now().Add(-f.Age).Unix(), 10)
	secret := s.cfg.SigningSecret
	if f.Secret != "" {
		secret = f.Secret
	}
	signature := SlackSignature(secret, stamp, body)
	if f.Body != nil {
		body = f.Body(body)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(body))
	if err != nil {
		return SlackAnswer{}, fmt.Errorf("report an interaction to %q: %w", target, err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-Slack-Request-Timestamp", stamp)
	r.Header.Set("X-Slack-Signature", signature)
	if f.Header != nil {
		f.Header(r.Header)
	}
	start := time.Now()
	res, err := s.client.Do(r)
	if err != nil {
		return SlackAnswer{Latency: time.Since(start)}, fmt.Errorf("report an interaction: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return SlackAnswer{Status: res.StatusCode, Body: string(text), Latency: time.Since(start)}, err
}

// SlackSignature is the value of X-Slack-Signature for a raw body.
func SlackSignature(secret, timestamp, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = io.WriteString(mac, "v0:"+timestamp+":"+body)
	return "v0=" + hex.EncodeToString(mac.Sum(nil))
}
