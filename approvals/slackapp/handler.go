package slackapp

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// Questions is where a click goes. The desk is one.
type Questions interface {
	// Get returns a question as it stands; CodeNotFound for an id that is not known.
	Get(ctx context.Context, id string) (access.Approval, error)
	// Vote answers it; CodeConflict, and the question as it stands, for a vote that comes too late.
	Vote(ctx context.Context, id string, v access.Vote) (access.Approval, error)
}

// Handler serves Slack's interactions. A request without a right signature gets 401 and nothing else. Any other is
// acknowledged at once, as Slack wants it within three seconds, and worked on afterwards.
func (a *App) Handler(q Questions) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(a.receive(w, r, q))
	})
}

// receive verifies an interaction, starts the work on it, and returns the status to answer with.
func (a *App) receive(w http.ResponseWriter, r *http.Request, q Questions) int {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case err != nil:
		return http.StatusBadRequest
	case !a.signed(r.Header, body):
		return http.StatusUnauthorized
	}
	c, ok, err := parseClick(body)
	switch {
	case err != nil:
		a.log.Warn("an interaction from Slack cannot be read", "err", err)
		return http.StatusBadRequest
	case ok && !a.start(func(ctx context.Context) { a.decide(ctx, q, c) }):
		a.log.Warn("a click was refused, because too many are being worked on or the server is stopping", "approval", c.question)
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}

// signed reports whether Slack signed the raw body within the last five minutes:
// https://docs.slack.dev/authentication/verifying-requests-from-slack.
func (a *App) signed(h http.Header, body []byte) bool {
	stamp, signature := h.Values("X-Slack-Request-Timestamp"), h.Values("X-Slack-Signature")
	if len(stamp) != 1 || len(signature) != 1 {
		return false
	}
	seconds, err := strconv.ParseInt(stamp[0], 10, 64)
	if err != nil || a.now().Sub(time.Unix(seconds, 0)).Abs() > maxAge {
		return false
	}
	text, ok := strings.CutPrefix(signature[0], "v0=")
	given, err := hex.DecodeString(text)
	if !ok || err != nil {
		return false
	}
	mac := hmac.New(sha256.New, []byte(a.secret.Reveal()))
	_, _ = io.WriteString(mac, "v0:"+stamp[0]+":")
	_, _ = mac.Write(body)
	return hmac.Equal(mac.Sum(nil), given)
}

// click is what is taken from an interaction: ids, and where to answer.
type click struct {
	question                 string
	state                    access.ApprovalState
	user, userTeam, team     string
	channel, ts, responseURL string
}

// parseClick reads an interaction's form. It reports false for one that is no press of our buttons.
func parseClick(body []byte) (click, bool, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return click{}, false, errors.New("the body is no form")
	}
	var p struct {
		Type string `json:"type"`
		User struct {
			ID     string `json:"id"`
			TeamID string `json:"team_id"`
		} `json:"user"`
		Team struct {
			ID string `json:"id"`
		} `json:"team"`
		Container struct {
			ChannelID string `json:"channel_id"`
			MessageTS string `json:"message_ts"`
		} `json:"container"`
		ResponseURL string `json:"response_url"`
		Actions     []struct {
			ActionID string `json:"action_id"`
			Value    string `json:"value"`
		} `json:"actions"`
	}
	if err := json.Unmarshal([]byte(form.Get("payload")), &p); err != nil {
		return click{}, false, errors.New("the payload is no JSON object of the documented form")
	}
	c := click{
		user: p.User.ID, userTeam: p.User.TeamID, team: p.Team.ID,
		channel: p.Container.ChannelID, ts: p.Container.MessageTS, responseURL: p.ResponseURL,
	}
	if p.Type != "block_actions" || len(p.Actions) != 1 {
		return c, false, nil
	}
	c.question = p.Actions[0].Value
	switch p.Actions[0].ActionID {
	case approveAction:
		c.state = access.Approved
	case denyAction:
		c.state = access.Denied
	}
	return c, c.state != "" && c.question != "" && c.user != "", nil
}

// start works in a goroutine that Close waits for. It reports false when there are too many already.
func (a *App) start(work func(context.Context)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	select {
	case a.clicks <- struct{}{}:
	default:
		return false
	}
	a.works.Go(func() {
		defer func() { <-a.clicks }()
		ctx, cancel := context.WithTimeout(a.working, clickWithin)
		defer cancel()
		work(ctx)
	})
	return true
}
