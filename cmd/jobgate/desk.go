package main

import (
	"context"
	"net/http"

	"github.com/jobgate/jobgate/approvals"
)

// openDesk opens the desk, with Slack where it is configured, and cancels the questions whose calls went away with the
// process before. It returns the handler of Slack's interactions, nil without Slack.
func (s *server) openDesk(ctx context.Context, channels []approvals.Channel) (http.Handler, error) {
	var err error
	if s.desk, err = approvals.New(approvals.Config{Docket: s.store, Channels: channels, Log: s.log}); err != nil {
		return nil, err
	}
	s.recorder.desk = s.desk
	return nil, s.desk.Recover(ctx)
}
