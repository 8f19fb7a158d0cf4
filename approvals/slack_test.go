package approvals_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/approvals"
	"github.com/jobgate/jobgate/approvals/slackapp"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/store"
	"github.com/jobgate/jobgate/internal/testkit"
)

// office is a desk with its docket in SQLite and its channel in a Slack that checks what Slack checks.
type office struct {
	*approvals.Desk
	slack  *testkit.Slack
	docket *store.DB
}

func openOffice(t *testing.T) *office {
	t.Helper()
	s, err := testkit.NewSlack(testkit.SlackConfig{Users: []testkit.SlackUser{
		{ID: "UANA", Name: "Ana", Email: "ana@example.com"}, {ID: "UBEN", Name: "Ben", Email: "ben@example.com"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	db, err := store.Open(t.Context(), store.Config{URL: "sqlite:jobgate.db", Folder: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	app, err := slackapp.New(slackapp.Config{
		BotToken: access.NewSecret(s.Token()), SigningSecret: access.NewSecret(s.SigningSecret()), Channel: s.Channel(),
		APIURL: s.APIURL(), Log: quiet(),
		Groups: map[string]slackapp.Group{"sre": {Emails: []string{"ana@example.com", "ben@example.com"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Close() })
	d := newDesk(t, db, app)
	front := httptest.NewServer(app.Handler(d))
	t.Cleanup(front.Close)
	s.SetInteractionsURL(front.URL)
	return &office{Desk: d, slack: s, docket: db}
}

// await waits for something in Slack.
func (o *office) await(t *testing.T, what string, holds func(*testkit.Slack) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := o.slack.Await(ctx, holds); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// posted waits for the first message and returns its timestamp.
func (o *office) posted(t *testing.T) string {
	t.Helper()
	o.await(t, "the question's message", func(s *testkit.Slack) bool { return len(s.Messages()) == 1 })
	return o.slack.Messages()[0].TS
}

// closed waits until the message shows an outcome, and no buttons.
func (o *office) closed(t *testing.T, outcome string) {
	t.Helper()
	o.await(t, "the message says "+outcome, func(s *testkit.Slack) bool {
		m := s.Messages()
		return len(m) == 1 && strings.Contains(string(m[0].Blocks), outcome) && len(m[0].Buttons()) == 0
	})
}

func TestAYesInSlack(t *testing.T) {
	o := openOffice(t)
	got := ask(t.Context(), o.Desk, question("q1"))
	answer, err := o.slack.Press(t.Context(), o.posted(t), "approve", "UANA")
	if err != nil || answer.Status != 200 {
		t.Fatalf("Press = %+v, %v", answer, err)
	}
	if a := <-got; a.err != nil || a.a.State != access.Approved || a.a.Vote.By != "Ana (UANA)" || a.a.Vote.Via != "slack" {
		t.Errorf("Ask = %+v, %v, want approved by Ana via slack", a.a.Vote, a.err)
	}
	o.closed(t, "approved by Ana (UANA), via slack")
}

func TestANoInSlackIsRemembered(t *testing.T) {
	o := openOffice(t)
	got := ask(t.Context(), o.Desk, question("q1"))
	if _, err := o.slack.Press(t.Context(), o.posted(t), "deny", "UBEN"); err != nil {
		t.Fatal(err)
	}
	<-got
	again, err := o.Ask(t.Context(), question("q2"))
	if err != nil || again.State != access.Denied || again.ID != "q1" || again.Vote.By != "Ben (UBEN)" {
		t.Errorf("the repeat is %s %+v, %v, want q1's no", again.ID, again.Vote, err)
	}
	o.closed(t, "denied by Ben (UBEN), via slack")
}

func TestTwoReviewersClickAtOnce(t *testing.T) {
	o := openOffice(t)
	got := ask(t.Context(), o.Desk, question("q1"))
	ts := o.posted(t)
	var both sync.WaitGroup
	for user, action := range map[string]string{"UANA": "approve", "UBEN": "deny"} {
		both.Go(func() {
			if answer, err := o.slack.Press(t.Context(), ts, action, user); err != nil || answer.Status != 200 {
				t.Errorf("Press = %+v, %v", answer, err)
			}
		})
	}
	both.Wait()
	a := (<-got).a
	o.await(t, "the loser is told", func(s *testkit.Slack) bool { return len(s.Ephemerals()) == 1 })
	told := o.slack.Ephemerals()[0]
	if !strings.Contains(told.Text, string(a.State)+" by "+a.Vote.By) || strings.Contains(a.Vote.By, told.User) {
		t.Errorf("%s is told %q, but the question is %s", told.User, told.Text, a.Outcome())
	}
	o.closed(t, string(a.State)+" by "+a.Vote.By)
}

func TestAnEndWithoutAnAnswerIsShownInSlack(t *testing.T) {
	ends := map[string]func(*office, context.CancelCauseFunc) error{
		"the client left": func(_ *office, leave context.CancelCauseFunc) error { leave(nil); return nil },
		"it was revoked": func(o *office, _ context.CancelCauseFunc) error {
			return o.CancelMapping(context.Background(), "release-agents", "it was revoked")
		},
		"the job is over": func(o *office, _ context.CancelCauseFunc) error {
			return o.CancelSession(context.Background(), "ses_1", "the job is over")
		},
		"nobody answered":    nil,
		"server is stopping": func(o *office, _ context.CancelCauseFunc) error { return o.Close() },
	}
	for outcome, end := range ends {
		t.Run(outcome, func(t *testing.T) {
			o := openOffice(t)
			ctx, leave := context.WithCancelCause(t.Context())
			defer leave(nil)
			q := question("q1")
			if end == nil {
				q.Expires = time.Now().Add(500 * time.Millisecond)
			}
			got := ask(ctx, o.Desk, q)
			ts := o.posted(t)
			if end != nil {
				if err := end(o, leave); err != nil {
					t.Fatal(err)
				}
			}
			if a := <-got; a.a.State == access.Approved || a.a.State == access.Pending {
				t.Errorf("Ask = %s", a.a.State)
			}
			o.closed(t, outcome)
			if _, err := o.slack.Press(t.Context(), ts, "approve", "UANA"); err != nil {
				t.Fatal(err)
			}
			o.await(t, "a late click is told", func(s *testkit.Slack) bool {
				return slices.ContainsFunc(s.Ephemerals(), func(m testkit.SlackMessage) bool { return strings.Contains(m.Text, "settled") })
			})
		})
	}
}

func TestSlackIsDownAndComesBack(t *testing.T) {
	o := openOffice(t)
	o.slack.SetDown(true)
	got := ask(t.Context(), o.Desk, question("q1"))
	o.await(t, "an attempt", func(s *testkit.Slack) bool { return s.Calls("chat.postMessage") > 0 })
	o.slack.SetDown(false)
	o.posted(t)

	o.slack.SetDown(true)
	if _, err := o.Vote(t.Context(), "q1", yes("admin token")); err != nil {
		t.Fatalf("Vote while Slack is down = %v", err)
	}
	if a := <-got; a.a.State != access.Approved {
		t.Errorf("Ask = %s, want approved while Slack is down", a.a.State)
	}
	o.await(t, "an attempt", func(s *testkit.Slack) bool { return s.Calls("chat.update") > 0 })
	o.slack.SetDown(false)
	o.closed(t, "approved by admin token, via cli")
}

func TestSlackLimitsTheRate(t *testing.T) {
	o := openOffice(t)
	o.slack.LimitRate(1, 2*time.Second)
	got := ask(t.Context(), o.Desk, question("q1"))
	if _, err := o.slack.Press(t.Context(), o.posted(t), "approve", "UANA"); err != nil {
		t.Fatal(err)
	}
	<-got
	if n := o.slack.Calls("chat.postMessage"); n != 2 {
		t.Errorf("posted with %d requests, want 2", n)
	}
	o.closed(t, "approved")
}

func TestARestartIsShownInSlack(t *testing.T) {
	o := openOffice(t)
	q := question("q1")
	q.State, q.Version = access.Pending, 1
	if err := o.docket.CreateApproval(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	// As an earlier process would have left it.
	earlier := openOfficeOn(t, o)
	channel, ts, err := earlier.Post(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.docket.SetApprovalPost(t.Context(), "q1", channel, ts); err != nil {
		t.Fatal(err)
	}
	if err := o.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.closed(t, "the server restarted; the client asks again")
}

// openOfficeOn returns another app in the same workspace.
func openOfficeOn(t *testing.T, o *office) *slackapp.App {
	t.Helper()
	app, err := slackapp.New(slackapp.Config{
		BotToken: access.NewSecret(o.slack.Token()), SigningSecret: access.NewSecret("s"), Channel: o.slack.Channel(), APIURL: o.slack.APIURL(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Close() })
	return app
}
