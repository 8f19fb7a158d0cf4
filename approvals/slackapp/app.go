package slackapp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/slack-go/slack"

	"github.com/jobgate/jobgate/internal/access"
)

// Group is who may answer for a name in a rule's approvers. Empty: nobody.
type Group struct {
	Emails          []string // compared without case
	SlackUsergroups []string // ids, such as "S0123456789"
}

// Config is what an app needs.
type Config struct {
	BotToken      access.Secret // required
	SigningSecret access.Secret // required
	Channel       string        // required: the id of the channel to post to
	Groups        map[string]Group
	// APIURL is where Slack's methods are, with a slash at its end. Empty: Slack's own.
	APIURL string
	// Now is the clock of signatures and caches. Nil: time.Now.
	Now func() time.Time
	// Log gets what goes wrong after an interaction was acknowledged. Nil: slog.Default().
	Log *slog.Logger
}

// App is one Slack app in one workspace. Its methods may be called from any goroutine.
type App struct {
	api     *slack.Client
	client  *http.Client
	secret  access.Secret
	channel string
	apiURL  string
	groups  map[string]Group
	now     func() time.Time
	log     *slog.Logger

	teams   *cache[string]
	users   *cache[*slack.User]
	members *cache[[]string]

	lanes   chan struct{} // one for each message that is being written
	clicks  chan struct{} // one for each click that is worked on
	working context.Context
	abort   context.CancelFunc
	works   sync.WaitGroup

	mu     sync.Mutex // guards all below
	closed bool
	quiet  map[string]time.Time // by method: when Slack wants to be asked again
}

// New returns an app. It does not call Slack: the server starts while Slack is away. Use [App.Check] to find out
// whether the token works.
func New(c Config) (*App, error) {
	switch {
	case c.BotToken.IsZero():
		return nil, errors.New("approvals.slack: bot_token is empty; take the app's bot token, which begins with xoxb-")
	case c.SigningSecret.IsZero():
		return nil, errors.New("approvals.slack: signing_secret is empty; take it from the app's Basic Information page")
	case c.Channel == "":
		return nil, errors.New("approvals.slack: channel is empty; take the channel's id, which begins with C")
	}
	a := &App{
		client: &http.Client{
			Timeout:   callWithin,
			Transport: http.DefaultTransport.(*http.Transport).Clone(),
			// The token would go along to wherever a redirect leads.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		secret: c.SigningSecret, channel: c.Channel, apiURL: c.APIURL, groups: c.Groups, now: c.Now, log: c.Log,
		lanes: make(chan struct{}, maxLanes), clicks: make(chan struct{}, maxClicks), quiet: map[string]time.Time{},
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.log == nil {
		a.log = slog.Default()
	}
	if a.apiURL == "" {
		a.apiURL = slack.APIURL
	}
	a.api = slack.New(c.BotToken.Reveal(), slack.OptionHTTPClient(a.client), slack.OptionAPIURL(a.apiURL))
	a.teams, a.users, a.members = newCache[string](a.now), newCache[*slack.User](a.now), newCache[[]string](a.now)
	a.working, a.abort = context.WithCancel(context.Background())
	return a, nil
}

// Check asks Slack whether the token works.
func (a *App) Check(ctx context.Context) error {
	_, err := a.team(ctx)
	return err
}

// Close waits for the clicks that are being worked on. Close the desk first: it posts until then.
func (a *App) Close() error {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	grace := time.AfterFunc(closeGrace, a.abort)
	a.works.Wait()
	grace.Stop()
	a.abort()
	a.client.CloseIdleConnections()
	return nil
}

// Post shows a question with its buttons and returns the message's channel and timestamp.
func (a *App) Post(ctx context.Context, q access.Approval) (channel, ts string, err error) {
	err = a.write(ctx, "chat.postMessage", func() (err error) {
		channel, ts, err = a.api.PostMessageContext(ctx, a.channel, message(asked(q))...)
		return err
	})
	return channel, ts, err
}

// Settle replaces a question by its outcome.
func (a *App) Settle(ctx context.Context, channel, ts string, q access.Approval) error {
	return a.write(ctx, "chat.update", func() error {
		_, _, _, err := a.api.UpdateMessageContext(ctx, channel, ts, message(settled(q))...)
		return err
	})
}

// write is call for messages, of which a thousand may be due at once: when Slack asks for a pause, those that wait for
// a lane heed it.
func (a *App) write(ctx context.Context, method string, f func() error) error {
	select {
	case a.lanes <- struct{}{}:
	case <-ctx.Done():
		return &access.Error{Code: access.CodeUnavailable, Public: "Slack is slow, and others wait for " + method, Err: ctx.Err()}
	}
	defer func() { <-a.lanes }()
	return a.call(method, f)
}

// call makes one request, unless Slack has asked to leave the method alone for a while, and gives errors codes.
func (a *App) call(method string, f func() error) error {
	a.mu.Lock()
	wait := a.quiet[method].Sub(a.now())
	a.mu.Unlock()
	if wait > 0 {
		return limited(method, wait, nil)
	}
	err := f()
	var rate *slack.RateLimitedError
	if errors.As(err, &rate) {
		a.mu.Lock()
		a.quiet[method] = a.now().Add(rate.RetryAfter)
		a.mu.Unlock()
		return limited(method, rate.RetryAfter, err)
	}
	return coded(method, err)
}

func limited(method string, wait time.Duration, err error) error {
	return &access.Error{Code: access.CodeUnavailable, RetryAfter: wait, Public: fmt.Sprintf("Slack limits %s; it may be asked again in %s", method, wait), Err: err}
}

// coded tells what may be tried again (CodeUnavailable) from what is gone and from what is wrong.
func coded(method string, err error) error {
	if err == nil {
		return nil
	}
	code := access.CodeUnavailable
	var said slack.SlackErrorResponse
	var transport *url.Error
	switch {
	case errors.As(err, &said):
		code = wordCode(said.Err)
	case errors.As(err, &transport):
		err = transport.Err // without the address, which may be a response URL
	}
	return &access.Error{Code: code, Public: fmt.Sprintf("Slack does not serve %s", method), Err: err}
}

func wordCode(word string) access.Code {
	switch word {
	case "message_not_found", "cant_update_message", "edit_window_closed", "user_not_found", "user_not_visible", "no_such_subteam":
		return access.CodeNotFound
	case "invalid_blocks", "invalid_blocks_format", "msg_too_long", "msg_blocks_too_long", "no_text":
		return access.CodeInvalid
	}
	return access.CodeUnavailable
}
