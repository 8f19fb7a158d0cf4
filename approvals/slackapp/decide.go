package slackapp

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/slack-go/slack"

	"github.com/jobgate/jobgate/internal/access"
)

const tryElsewhere = "That could not be done now. Try again in a moment, or answer with `jobgate approvals`."

// decide turns a click into a vote, and tells the person where it is none.
func (a *App) decide(ctx context.Context, questions Questions, c click) {
	q, err := questions.Get(ctx, c.question)
	switch {
	case access.CodeOf(err) == access.CodeNotFound:
		a.tell(ctx, c, "This question is not known any more.")
		return
	case err != nil:
		a.unable(ctx, c, "read the question", err)
		return
	case q.State != access.Pending:
		a.late(ctx, c, q)
		return
	}
	by, err := a.approver(ctx, c, q.Approvers)
	switch {
	case access.CodeOf(err) == access.CodeDenied:
		a.log.Info("a click in Slack does not count", "approval", c.question, "user", c.user, "team", c.team, "why", err)
		a.tell(ctx, c, "Your click does not count: "+mrkdwn(access.PublicText(err), maxReason)+".")
		return
	case err != nil:
		a.unable(ctx, c, "find out who clicked", err)
		return
	case c.state == access.Approved && !whole(q):
		a.tell(ctx, c, fmt.Sprintf("This question cannot be approved from here, because not all of it is shown. Run `jobgate approvals approve %s`.", mrkdwn(q.ID, maxLine)))
		return
	}
	now, err := questions.Vote(ctx, c.question, access.Vote{State: c.state, By: by, Via: "slack"})
	switch code := access.CodeOf(err); {
	case code == access.CodeConflict && now.State != access.Pending:
		a.late(ctx, c, now)
	case code == access.CodeConflict || code == access.CodeDenied:
		a.tell(ctx, c, "Your click does not count: "+mrkdwn(access.PublicText(err), maxReason)+".")
	case err != nil:
		a.unable(ctx, c, "vote", err)
	}
}

// late answers a double click and a click on a message that is stale. The message is brought up to date as well: it
// shows buttons where an earlier update never arrived.
func (a *App) late(ctx context.Context, c click, q access.Approval) {
	text := "This question is settled: " + mrkdwn(outcomeText(q), maxReason)
	if !q.Vote.At.IsZero() {
		text += ", " + date(q.Vote.At)
	}
	a.tell(ctx, c, text+".")
	if c.channel == "" || c.ts == "" {
		return
	}
	if err := a.Settle(ctx, c.channel, c.ts, q); err != nil {
		a.log.Warn("a stale message cannot be brought up to date", "approval", q.ID, "err", err)
	}
}

func (a *App) unable(ctx context.Context, c click, what string, err error) {
	a.log.Warn("cannot "+what+" after a click in Slack", "approval", c.question, "user", c.user, "err", err)
	a.tell(ctx, c, tryElsewhere)
}

// tell shows a text to the person who clicked, and to nobody else.
func (a *App) tell(ctx context.Context, c click, text string) {
	err := a.respond(ctx, c, text)
	if err != nil && c.channel != "" {
		err = a.call("chat.postEphemeral", func() error {
			_, err := a.api.PostEphemeralContext(ctx, c.channel, c.user, slack.MsgOptionText(text, false))
			return err
		})
	}
	if err != nil {
		a.log.Warn("a person in Slack cannot be told what became of a click", "approval", c.question, "user", c.user, "err", err)
	}
}

// respond uses the interaction's own address, which works also where the bot is no member of the channel.
func (a *App) respond(ctx context.Context, c click, text string) error {
	if !a.answers(c.responseURL) {
		return access.Refuse(access.CodeInvalid, "the interaction has no address of Slack to answer at")
	}
	return a.call("response_url", func() error {
		return slack.PostWebhookCustomHTTPContext(ctx, c.responseURL, a.client, &slack.WebhookMessage{
			Text: text, ResponseType: slack.ResponseTypeEphemeral,
		})
	})
}

// answers reports whether an address is Slack's: the documented host, or the host of the methods where that is another.
func (a *App) answers(address string) bool {
	if strings.HasPrefix(address, "https://hooks.slack.com/") {
		return true
	}
	u, err := url.Parse(address)
	own, ownErr := url.Parse(a.apiURL)
	return err == nil && ownErr == nil && u.User == nil && u.Scheme == own.Scheme && u.Host == own.Host && own.Host != "slack.com"
}
