package testkit

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// A response URL works five times within thirty minutes.
const (
	responseUses = 5
	responseLife = 30 * time.Minute
)

type responseURL struct {
	channel, ts, user string
	until             time.Time
	uses              int
}

// content reads and checks text and blocks of a message.
func (s *Slack) content(form url.Values) (SlackMessage, error) {
	m := SlackMessage{Channel: form.Get("channel"), Text: form.Get("text")}
	if !slices.Contains(s.cfg.Channels, m.Channel) {
		return m, refuseSlack("channel_not_found")
	}
	if raw := form.Get("blocks"); raw != "" {
		m.Blocks = json.RawMessage(raw)
	}
	return m, checkSlackMessage(m.Text, m.Blocks)
}

func (s *Slack) nextTSLocked() string {
	s.lastID++
	return fmt.Sprintf("%d.%06d", s.cfg.Now().Unix(), s.lastID)
}

func (s *Slack) post(form url.Values) (map[string]any, error) {
	m, err := s.content(form)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.TS = s.nextTSLocked()
	s.messages = append(s.messages, m)
	s.versions[m.TS] = append(s.versions[m.TS], m.Blocks)
	s.touchLocked()
	return map[string]any{"channel": m.Channel, "ts": m.TS, "message": map[string]any{"ts": m.TS, "text": m.Text}}, nil
}

func (s *Slack) update(form url.Values) (map[string]any, error) {
	m, err := s.content(form)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.replaceLocked(m.Channel, form.Get("ts"), m) {
		return nil, refuseSlack("message_not_found")
	}
	return map[string]any{"channel": m.Channel, "ts": form.Get("ts"), "text": m.Text}, nil
}

func (s *Slack) replaceLocked(channel, ts string, by SlackMessage) bool {
	i := slices.IndexFunc(s.messages, func(m SlackMessage) bool { return m.TS == ts && m.Channel == channel })
	if i < 0 {
		return false
	}
	m := &s.messages[i]
	m.Text, m.Blocks = by.Text, by.Blocks
	m.Edits++
	s.versions[ts] = append(s.versions[ts], by.Blocks)
	s.touchLocked()
	return true
}

func (s *Slack) postEphemeral(form url.Values) (map[string]any, error) {
	m, err := s.content(form)
	if err != nil {
		return nil, err
	}
	if _, ok := s.user(form.Get("user")); !ok {
		return nil, refuseSlack("user_not_in_channel")
	}
	m.User = form.Get("user")
	s.mu.Lock()
	defer s.mu.Unlock()
	m.TS = s.nextTSLocked()
	s.ephemeral = append(s.ephemeral, m)
	s.touchLocked()
	return map[string]any{"message_ts": m.TS}, nil
}

// serveResponse answers a POST to a response URL.
func (s *Slack) serveResponse(w http.ResponseWriter, r *http.Request, id string) {
	var message struct {
		Text            string          `json:"text"`
		Blocks          json.RawMessage `json:"blocks"`
		ResponseType    string          `json:"response_type"`
		ReplaceOriginal bool            `json:"replace_original"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&message)
	if err == nil {
		err = checkSlackMessage(message.Text, message.Blocks)
	}
	if err != nil {
		http.Error(w, "invalid_payload", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	place, ok := s.responses[id]
	if !ok || place.uses == responseUses || s.cfg.Now().After(place.until) {
		http.Error(w, "expired_url", http.StatusNotFound)
		return
	}
	place.uses++
	m := SlackMessage{Channel: place.channel, Text: message.Text, Blocks: message.Blocks}
	switch {
	case message.ReplaceOriginal:
		s.replaceLocked(place.channel, place.ts, m)
	case message.ResponseType == "in_channel":
		m.TS = s.nextTSLocked()
		s.messages = append(s.messages, m)
	default:
		m.User, m.TS = place.user, s.nextTSLocked()
		s.ephemeral = append(s.ephemeral, m)
	}
	s.touchLocked()
	_, _ = w.Write([]byte("ok"))
}
