package slackapp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jobgate/jobgate/approvals/slackapp"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const botToken = "xoxb-1234-very-secret"

// workspace is a Slack with people in it, and the app in it.
type workspace struct {
	*testkit.Slack
	app       *slackapp.App
	questions *questions
	url       string
	log       *syncBuffer
}

func people() []testkit.SlackUser {
	return []testkit.SlackUser{
		{ID: "UANA", Name: "Ana", Email: "Ana@Example.com"},
		{ID: "UBEN", Name: "Ben", Email: "ben@example.com"},
		{ID: "UGROUP", Name: "Gro", Email: "gro@example.com"},
		{ID: "UGUEST", Name: "Guest", Email: "guest@example.com", Guest: true},
		{ID: "UGONE", Name: "Gone", Email: "ana@example.com", Deleted: true},
		{ID: "UBOT", Name: "Bot", Email: "ana@example.com", Bot: true},
		{ID: "UFAR", Name: "Far", Email: "ana@example.com", Team: "T99999999"},
		{ID: "UCLAIM", Name: "Claim", Email: "ana@example.com", Unconfirmed: true},
		{ID: "UEVIL", Name: "<!channel> \u202e *x*", Email: "evil@example.com"},
	}
}

func newWorkspace(t *testing.T, change func(*slackapp.Config)) *workspace {
	t.Helper()
	s, err := testkit.NewSlack(testkit.SlackConfig{
		Token: botToken, Users: people(), UserGroups: map[string][]string{"S1": {"UGROUP"}, "SEMPTY": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &workspace{Slack: s, questions: newQuestions(), log: &syncBuffer{}}
	cfg := slackapp.Config{
		BotToken: access.NewSecret(botToken), SigningSecret: access.NewSecret(s.SigningSecret()), Channel: s.Channel(),
		APIURL: s.APIURL(), Log: slog.New(slog.NewTextHandler(w.log, nil)),
		Groups: map[string]slackapp.Group{
			"sre": {Emails: []string{"ana@example.com"}}, "ops": {SlackUsergroups: []string{"S1"}},
			"visitors": {Emails: []string{"guest@example.com"}}, "evil": {Emails: []string{"evil@example.com"}},
			"nobody": {}, "blank": {Emails: []string{""}}, "hollow": {SlackUsergroups: []string{"SEMPTY"}}, "gone": {SlackUsergroups: []string{"SNONE"}},
		},
	}
	if change != nil {
		change(&cfg)
	}
	if w.app, err = slackapp.New(cfg); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(w.app.Handler(w.questions))
	w.url = front.URL
	s.SetInteractionsURL(front.URL)
	t.Cleanup(func() {
		front.Close()
		_ = w.app.Close()
		_ = s.Close()
		for _, secret := range []string{botToken, s.SigningSecret()} {
			if strings.Contains(w.log.String(), secret) {
				t.Errorf("the log holds a secret: %s", w.log.String())
			}
		}
	})
	return w
}

// post shows a question and returns its message's timestamp.
func (w *workspace) post(t *testing.T, q access.Approval) string {
	t.Helper()
	w.questions.put(q)
	channel, ts, err := w.app.Post(t.Context(), q)
	if err != nil {
		t.Fatalf("Post = %v", err)
	}
	if channel != w.Channel() {
		t.Fatalf("posted to %q, want %q", channel, w.Channel())
	}
	return ts
}

func (w *workspace) message(t *testing.T, ts string) testkit.SlackMessage {
	t.Helper()
	for _, m := range w.Messages() {
		if m.TS == ts {
			return m
		}
	}
	t.Fatalf("no message %s", ts)
	return testkit.SlackMessage{}
}

// press presses a button and wants it acknowledged.
func (w *workspace) press(t *testing.T, ts, action, user string) {
	t.Helper()
	answer, err := w.Press(t.Context(), ts, action, user)
	if err != nil || answer.Status != 200 || answer.Body != "" {
		t.Fatalf("Press(%s, %s) = %d %q, %v, want an empty 200", action, user, answer.Status, answer.Body, err)
	}
}

// told waits for what the nth ephemeral message says.
func (w *workspace) told(t *testing.T, n int) testkit.SlackMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.Await(ctx, func(s *testkit.Slack) bool { return len(s.Ephemerals()) >= n }); err != nil {
		t.Fatal(err)
	}
	return w.Ephemerals()[n-1]
}

func question() access.Approval {
	return access.Approval{
		ID: "apr_1", Session: "ses_1", Call: "call_1", Connection: "anthropic", Mapping: "release-agents", Revision: 3,
		Rule: "commands", Reason: "commands need a yes", Approvers: []string{"sre"}, Digest: "d1",
		Job: access.Job{
			Repository: "acme/app", Workflow: "release", Ref: "refs/heads/main", Commit: "0123abc", Actor: "ana",
			Event: "push", URL: "https://github.com/acme/app/actions/runs/1/attempts/1",
		},
		Title: "Bash", Text: "rm -rf build\nmake release", Masked: 2, State: access.Pending, Version: 1,
		Asked: time.Now(), Expires: time.Now().Add(15 * time.Minute),
	}
}

// questions is a desk of one table.
type questions struct {
	mu    sync.Mutex // guards all below
	rows  map[string]access.Approval
	fail  error
	hold  chan struct{} // Get waits for it where it is not nil
	votes chan access.Vote
}

func newQuestions() *questions {
	return &questions{rows: map[string]access.Approval{}, votes: make(chan access.Vote, 1000)}
}

func (q *questions) put(a access.Approval) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rows[a.ID] = a
}

func (q *questions) Get(ctx context.Context, id string) (access.Approval, error) {
	q.mu.Lock()
	hold := q.hold
	q.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return access.Approval{}, ctx.Err()
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	a, ok := q.rows[id]
	if !ok && q.fail == nil {
		return a, access.Refuse(access.CodeNotFound, "no such question")
	}
	return a, q.fail
}

func (q *questions) Vote(_ context.Context, id string, v access.Vote) (access.Approval, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	v.At = time.Now()
	a, err := q.rows[id].Settle(v)
	if err == nil {
		q.rows[id] = a
		q.votes <- v
	}
	return a, err
}

// vote waits for a vote that counted.
func (q *questions) vote(t *testing.T) access.Vote {
	t.Helper()
	select {
	case v := <-q.votes:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("no vote came")
	}
	return access.Vote{}
}

func (q *questions) none(t *testing.T) {
	t.Helper()
	select {
	case v := <-q.votes:
		t.Errorf("a vote counted: %+v", v)
	default:
	}
}

type syncBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	full := slackapp.Config{BotToken: access.NewSecret("t"), SigningSecret: access.NewSecret("s"), Channel: "C1"}
	for name, without := range map[string]func(*slackapp.Config){
		"bot_token":      func(c *slackapp.Config) { c.BotToken = access.Secret{} },
		"signing_secret": func(c *slackapp.Config) { c.SigningSecret = access.Secret{} },
		"channel":        func(c *slackapp.Config) { c.Channel = "" },
	} {
		cfg := full
		without(&cfg)
		if _, err := slackapp.New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New without %s = %v, want an error that names it", name, err)
		}
	}
}

func TestErrorsSayWhatMayBeTriedAgain(t *testing.T) {
	w := newWorkspace(t, nil)
	ts := w.post(t, question())
	tests := []struct {
		name string
		do   func() error
		want access.Code
	}{
		{"gone message", func() error { return w.app.Settle(t.Context(), w.Channel(), "1.1", question()) }, access.CodeNotFound},
		{"unknown channel", func() error { return w.app.Settle(t.Context(), "CNONE", ts, question()) }, access.CodeUnavailable},
		{"down", func() error {
			w.SetDown(true)
			defer w.SetDown(false)
			return w.app.Settle(t.Context(), w.Channel(), ts, question())
		}, access.CodeUnavailable},
		{"works again", func() error { return w.app.Settle(t.Context(), w.Channel(), ts, question()) }, ""},
	}
	for _, tc := range tests {
		err := tc.do()
		if got := access.CodeOf(err); got != tc.want {
			t.Errorf("%s: %v has code %q, want %q", tc.name, err, got, tc.want)
		}
		if err != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), botToken) {
			t.Errorf("%s: the error holds the token", tc.name)
		}
	}
}

func TestAWrongTokenIsFoundOut(t *testing.T) {
	w := newWorkspace(t, func(c *slackapp.Config) { c.BotToken = access.NewSecret("xoxb-other") })
	if err := w.app.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "invalid_auth") || strings.Contains(err.Error(), "xoxb-other") {
		t.Errorf("Check = %v, want invalid_auth and no token", err)
	}
	right := newWorkspace(t, nil)
	if err := right.app.Check(t.Context()); err != nil {
		t.Errorf("Check = %v", err)
	}
}

func TestSlackIsLeftAloneWhenItAsks(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	w := newWorkspace(t, func(c *slackapp.Config) { c.Now = clock })
	w.LimitRate(1, 30*time.Second)
	for range 3 {
		_, _, err := w.app.Post(t.Context(), question())
		var e *access.Error
		if !errors.As(err, &e) || e.Code != access.CodeUnavailable || e.RetryAfter != 30*time.Second {
			t.Fatalf("Post = %v, want to be asked again in 30s", err)
		}
	}
	if n := w.Calls("chat.postMessage"); n != 1 {
		t.Errorf("Slack was asked %d times, want once", n)
	}
	mu.Lock()
	now = now.Add(30 * time.Second)
	mu.Unlock()
	if _, _, err := w.app.Post(t.Context(), question()); err != nil {
		t.Errorf("Post after the wait = %v", err)
	}
}

func TestAThousandMessagesHeedOnePause(t *testing.T) {
	w := newWorkspace(t, nil)
	w.LimitRate(1000, time.Hour)
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			if err := w.app.Settle(t.Context(), w.Channel(), "1.1", question()); access.CodeOf(err) != access.CodeUnavailable {
				t.Errorf("Settle = %v, want to be asked again later", err)
			}
		})
	}
	all.Wait()
	if n := w.Calls("chat.update"); n > 4 {
		t.Errorf("Slack was asked %d times, want once in each of four lanes at most", n)
	}
}
