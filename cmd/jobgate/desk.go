package main

import (
	"context"
	"net/http"

	"github.com/jobgate/jobgate/approvals"
	"github.com/jobgate/jobgate/approvals/slackapp"
)

// openDesk opens the desk, with Slack where it is configured, and settles the questions whose calls went away with the
// process before. It returns the handler of Slack's interactions, nil without Slack.
func (s *server) openDesk(ctx context.Context, channels []approvals.Channel) (http.Handler, error) {
	var err error
	if c := s.b.config.Approvals.Slack; c != nil {
		groups := make(map[string]slackapp.Group, len(s.b.groups))
		for name, g := range s.b.config.Approvals.Groups {
			groups[name] = slackapp.Group{Emails: g.Emails, SlackUsergroups: g.SlackUsergroups}
		}
		if s.slack, err = slackapp.New(slackapp.Config{
			BotToken: s.b.slackToken, SigningSecret: s.b.slackSecret, Channel: c.Channel, Groups: groups, APIURL: c.APIURL, Log: s.log,
		}); err != nil {
			return nil, err
		}
		channels = append(channels, s.slack)
	}
	if s.desk, err = approvals.New(approvals.Config{Docket: auditedDocket{s.store, s.audit}, Channels: channels, Mask: s.recorder.mask, Log: s.log}); err != nil {
		return nil, err
	}
	if err := s.desk.Recover(ctx); err != nil || s.slack == nil {
		return nil, err
	}
	return s.slack.Handler(s.desk), nil
}
