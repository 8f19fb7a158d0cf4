package slackapp_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/approvals/slackapp"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
)

func TestOnlySlackIsHeard(t *testing.T) {
	tests := []struct {
		name   string
		forge  testkit.SlackForgery
		status int
	}{
		{"right", testkit.SlackForgery{}, 200},
		{"four minutes old", testkit.SlackForgery{Age: 4 * time.Minute}, 200},
		{"wrong secret", testkit.SlackForgery{Secret: "guessed"}, 401},
		{"six minutes old", testkit.SlackForgery{Age: 6 * time.Minute}, 401},
		{"six minutes ahead", testkit.SlackForgery{Age: -6 * time.Minute}, 401},
		{"body changed", testkit.SlackForgery{Body: func(b string) string { return b + "&x=y" }}, 401},
		{"body decoded and encoded again", testkit.SlackForgery{Body: func(b string) string { return strings.Replace(b, "%7B", "%7b", 1) }}, 401},
		{"no signature", testkit.SlackForgery{Header: func(h http.Header) { h.Del("X-Slack-Signature") }}, 401},
		{"no timestamp", testkit.SlackForgery{Header: func(h http.Header) { h.Del("X-Slack-Request-Timestamp") }}, 401},
		{"two signatures", testkit.SlackForgery{Header: func(h http.Header) { h.Add("X-Slack-Signature", "v0=00") }}, 401},
		{"another version", testkit.SlackForgery{Header: func(h http.Header) {
			h.Set("X-Slack-Signature", "v1"+h.Get("X-Slack-Signature")[2:])
		}}, 401},
		{"cut signature", testkit.SlackForgery{Header: func(h http.Header) { h.Set("X-Slack-Signature", h.Get("X-Slack-Signature")[:20]) }}, 401},
		{"no hex", testkit.SlackForgery{Header: func(h http.Header) { h.Set("X-Slack-Signature", "v0=zz") }}, 401},
		{"another timestamp", testkit.SlackForgery{Header: func(h http.Header) {
			n, _ := strconv.ParseInt(h.Get("X-Slack-Request-Timestamp"), 10, 64)
			h.Set("X-Slack-Request-Timestamp", strconv.FormatInt(n+1, 10))
		}}, 401},
		{"timestamp is no number", testkit.SlackForgery{Header: func(h http.Header) { h.Set("X-Slack-Request-Timestamp", "now") }}, 401},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorkspace(t, nil)
			ts := w.post(t, question())
			answer, err := w.PressForged(t.Context(), ts, "approve", "UANA", tc.forge)
			if err != nil || answer.Status != tc.status || answer.Body != "" {
				t.Fatalf("answered %d %q, %v, want an empty %d", answer.Status, answer.Body, err, tc.status)
			}
			if tc.status == 200 {
				if v := w.questions.vote(t); v.State != access.Approved || v.By != "Ana (UANA)" || v.Via != "slack" {
					t.Errorf("vote = %+v", v)
				}
				return
			}
			if err := w.app.Close(); err != nil { // what could still work is done then
				t.Fatal(err)
			}
			w.questions.none(t)
		})
	}
}

func TestBodiesThatAreNoClick(t *testing.T) {
	w := newWorkspace(t, nil)
	payload := func(s string) string { return url.Values{"payload": {s}}.Encode() }
	for name, tc := range map[string]struct {
		body   string
		status int
	}{
		"empty":           {"", 400},
		"no form":         {"%zz", 400},
		"no JSON":         {payload("{"), 400},
		"another shape":   {payload(`{"type":"block_actions","actions":"x"}`), 400},
		"a view":          {payload(`{"type":"view_submission"}`), 200},
		"no action":       {payload(`{"type":"block_actions","actions":[]}`), 200},
		"another button":  {payload(`{"type":"block_actions","user":{"id":"UANA"},"actions":[{"action_id":"x","value":"apr_1"}]}`), 200},
		"no question":     {payload(`{"type":"block_actions","user":{"id":"UANA"},"actions":[{"action_id":"jobgate_approve"}]}`), 200},
		"two actions":     {payload(`{"type":"block_actions","user":{"id":"UANA"},"actions":[{"action_id":"jobgate_deny","value":"a"},{"action_id":"jobgate_approve","value":"a"}]}`), 200},
		"a megabyte":      {payload(strings.Repeat("x", 1<<20)), 413},
		"nobody's answer": {payload(`{"type":"block_actions","actions":[{"action_id":"jobgate_approve","value":"apr_1"}]}`), 200},
	} {
		answer, err := w.Interact(t.Context(), tc.body, testkit.SlackForgery{})
		if err != nil || answer.Status != tc.status {
			t.Errorf("%s: answered %d, %v, want %d", name, answer.Status, err, tc.status)
		}
	}
	res, err := http.Get(w.url)
	if err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Fatalf("GET = %v, %v, want 405", res, err)
	}
	_ = res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	w.questions.none(t)
}

func TestWhoMayAnswer(t *testing.T) {
	tests := []struct {
		name      string
		user      string
		approvers []string
		forge     testkit.SlackForgery
		want      string // "" for a vote, else what the person is told
	}{
		{name: "by email, without case", user: "UANA", approvers: []string{"sre"}},
		{name: "by user group", user: "UGROUP", approvers: []string{"ops"}},
		{name: "by the second group", user: "UGROUP", approvers: []string{"sre", "ops"}},
		{name: "beside a group that is gone", user: "UANA", approvers: []string{"gone", "sre"}},
		{name: "no approvers named", user: "UBEN"},
		{name: "a guest who is named", user: "UGUEST", approvers: []string{"visitors"}},
		{name: "not in the group", user: "UBEN", approvers: []string{"sre"}, want: "not among the approvers of this question: sre"},
		{name: "group that is not configured", user: "UANA", approvers: []string{"typo"}, want: "not among the approvers"},
		{name: "empty group", user: "UANA", approvers: []string{"nobody"}, want: "not among the approvers"},
		{name: "group of an empty email", user: "UBEN", approvers: []string{"blank"}, want: "not among the approvers"},
		{name: "empty user group", user: "UANA", approvers: []string{"hollow"}, want: "not among the approvers"},
		{name: "user group that is gone", user: "UANA", approvers: []string{"gone"}, want: "could not be done now"},
		{name: "a guest who is not named", user: "UGUEST", want: "guests of this workspace cannot answer"},
		{name: "deactivated", user: "UGONE", approvers: []string{"sre"}, want: "only active members"},
		{name: "program", user: "UBOT", approvers: []string{"sre"}, want: "only active members"},
		{name: "email not confirmed", user: "UCLAIM", approvers: []string{"sre"}, want: "not among the approvers"},
		{name: "another workspace's member", user: "UFAR", approvers: []string{"sre"}, want: "only members of the app's own workspace"},
		{name: "another workspace", user: "UANA", approvers: []string{"sre"}, forge: testkit.SlackForgery{Team: "T2"}, want: "only members of the app's own workspace"},
		{name: "unknown", user: "UNONE", approvers: []string{"sre"}, want: "does not know who you are"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorkspace(t, nil)
			q := question()
			q.Approvers = tc.approvers
			ts := w.post(t, q)
			if _, err := w.PressForged(t.Context(), ts, "deny", tc.user, tc.forge); err != nil {
				t.Fatal(err)
			}
			if tc.want == "" {
				if v := w.questions.vote(t); v.State != access.Denied || !strings.HasSuffix(v.By, "("+tc.user+")") {
					t.Errorf("vote = %+v, want denied by %s", v, tc.user)
				}
				return
			}
			if got := w.told(t, 1); got.User != tc.user || !strings.Contains(got.Text, tc.want) {
				t.Errorf("%s is told %q, want %q", got.User, got.Text, tc.want)
			}
			w.questions.none(t)
		})
	}
}

func TestAWorkspaceIsLookedUpNotBelieved(t *testing.T) {
	w := newWorkspace(t, nil)
	w.post(t, question())
	for i, userTeam := range []string{"", `,"team_id":"T00000001"`} {
		body := url.Values{"payload": {`{"type":"block_actions","user":{"id":"UFAR"` + userTeam + `},"team":{"id":"T00000001"},` +
			`"container":{"channel_id":"` + w.Channel() + `","message_ts":"1.1"},"actions":[{"action_id":"jobgate_approve","value":"apr_1"}]}`}}.Encode()
		// The emulator shows an ephemeral message to whom it knows, from wherever.
		if answer, err := w.Interact(t.Context(), body, testkit.SlackForgery{}); err != nil || answer.Status != 200 {
			t.Fatalf("Interact = %+v, %v", answer, err)
		}
		if got := w.told(t, i+1); !strings.Contains(got.Text, "only active members of the app's own workspace") {
			t.Errorf("told %q", got.Text)
		}
	}
	w.questions.none(t)
}

func TestWhoCannotBeCheckedCannotVote(t *testing.T) {
	w := newWorkspace(t, nil)
	ts := w.post(t, question())
	w.SetDown(true)
	w.press(t, ts, "approve", "UANA")
	if got := w.told(t, 1); !strings.Contains(got.Text, "jobgate approvals") {
		t.Errorf("told %q, want another way", got.Text)
	}
	w.questions.none(t)
	w.SetDown(false)
	w.press(t, ts, "approve", "UANA")
	if v := w.questions.vote(t); v.State != access.Approved {
		t.Errorf("vote = %+v, want it to count when Slack is back", v)
	}
}

func TestADoubleClickIsToldTheOutcome(t *testing.T) {
	w := newWorkspace(t, nil)
	ts := w.post(t, question())
	w.press(t, ts, "approve", "UANA")
	w.questions.vote(t)
	w.press(t, ts, "deny", "UANA")
	if got := w.told(t, 1); got.User != "UANA" || !strings.Contains(got.Text, "approved by Ana (UANA), via slack") {
		t.Errorf("told %q, want the outcome", got.Text)
	}
	ctx := t.Context()
	if err := w.Await(ctx, func(s *testkit.Slack) bool { return s.Messages()[0].Edits == 1 }); err != nil {
		t.Fatal(err)
	}
	if got := w.message(t, ts).Buttons(); len(got) != 0 {
		t.Errorf("the stale message still shows %+v", got)
	}
	w.questions.none(t)
}

func TestALateClickIsToldTheExpiry(t *testing.T) {
	w := newWorkspace(t, nil)
	q := question()
	q.Expires = time.Now().Add(-time.Second)
	ts := w.post(t, q)
	w.press(t, ts, "approve", "UANA")
	if got := w.told(t, 1); !strings.Contains(got.Text, "expired") {
		t.Errorf("told %q, want that it had expired", got.Text)
	}
	w.questions.none(t)
}

func TestClicksOnWhatIsNotThere(t *testing.T) {
	w := newWorkspace(t, nil)
	ts := w.post(t, question())
	w.questions.mu.Lock()
	delete(w.questions.rows, "apr_1")
	w.questions.mu.Unlock()
	w.press(t, ts, "approve", "UANA")
	if got := w.told(t, 1); !strings.Contains(got.Text, "not known") {
		t.Errorf("told %q", got.Text)
	}
	w.questions.mu.Lock()
	w.questions.fail = errors.New("the disk is gone: /secret/path")
	w.questions.mu.Unlock()
	w.press(t, ts, "approve", "UANA")
	if got := w.told(t, 2); !strings.Contains(got.Text, "could not be done now") || strings.Contains(got.Text, "disk") {
		t.Errorf("told %q", got.Text)
	}
}

func TestAStaleApproveOfWhatIsCutDoesNotCount(t *testing.T) {
	w := newWorkspace(t, nil)
	q := question()
	ts := w.post(t, q)
	q.Truncated = true
	w.questions.put(q)
	w.press(t, ts, "approve", "UANA")
	if got := w.told(t, 1); !strings.Contains(got.Text, "cannot be approved from here") {
		t.Errorf("told %q", got.Text)
	}
	w.questions.none(t)
	w.press(t, ts, "deny", "UANA")
	if v := w.questions.vote(t); v.State != access.Denied {
		t.Errorf("vote = %+v", v)
	}
}

func TestClicksAreAcknowledgedBeforeTheWork(t *testing.T) {
	w := newWorkspace(t, nil)
	ts := w.post(t, question())
	hold := make(chan struct{})
	w.questions.mu.Lock()
	w.questions.hold = hold
	w.questions.mu.Unlock()
	for range 64 {
		w.press(t, ts, "approve", "UANA")
	}
	answer, err := w.Press(t.Context(), ts, "approve", "UANA")
	if err != nil || answer.Status != http.StatusServiceUnavailable {
		t.Errorf("the 65th click that waits is answered %d, %v, want 503", answer.Status, err)
	}
	close(hold)
	w.questions.vote(t)
	w.told(t, 63)
	w.questions.none(t)
}

func TestAnswersGoToSlackOnly(t *testing.T) {
	var reached bool
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer stranger.Close()
	w := newWorkspace(t, nil)
	body := url.Values{"payload": {`{"type":"block_actions","user":{"id":"UBEN","team_id":"T00000001"},"team":{"id":"T00000001"},` +
		`"container":{"channel_id":"` + w.Channel() + `","message_ts":"1.1"},"response_url":"` + stranger.URL + `/x",` +
		`"actions":[{"action_id":"jobgate_approve","value":"apr_none"}]}`}}.Encode()
	if answer, err := w.Interact(t.Context(), body, testkit.SlackForgery{}); err != nil || answer.Status != 200 {
		t.Fatalf("Interact = %+v, %v", answer, err)
	}
	if got := w.told(t, 1); got.User != "UBEN" || w.Calls("chat.postEphemeral") != 1 {
		t.Errorf("told %+v, want it by chat.postEphemeral", got)
	}
	if reached {
		t.Error("an address that is not Slack's was called")
	}
}

func TestANameIsShownHarmlessly(t *testing.T) {
	w := newWorkspace(t, nil)
	q := question()
	q.Approvers = []string{"evil"}
	ts := w.post(t, q)
	w.press(t, ts, "approve", "UEVIL")
	w.questions.vote(t)
	w.press(t, ts, "approve", "UEVIL")
	got := w.told(t, 1)
	if len(got.Pings()) != 0 || strings.Contains(got.Text, "\u202e") || !strings.Contains(got.Text, "(UEVIL)") {
		t.Errorf("told %q, which pings %q", got.Text, got.Pings())
	}
}

func FuzzInteraction(f *testing.F) {
	for _, seed := range []string{
		"", "payload={}", "payload=%7B%22type%22%3A%22block_actions%22%7D", "payload=%5B%5D", "%zz", "payload=null",
		"payload=" + url.QueryEscape(`{"type":"block_actions","user":{"id":"U"},"actions":[{"action_id":"jobgate_deny","value":"apr_1"}]}`),
	} {
		f.Add(seed)
	}
	app, err := slackapp.New(slackapp.Config{
		BotToken: access.NewSecret("t"), SigningSecret: access.NewSecret("s"), Channel: "C1", APIURL: "http://127.0.0.1:1/",
		Now: func() time.Time { return time.Unix(1_000_000, 0) },
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = app.Close() })
	h := app.Handler(newQuestions())
	f.Fuzz(func(t *testing.T, body string) {
		for _, secret := range []string{"s", "other"} {
			r := httptest.NewRequest(http.MethodPost, "/hooks/slack/interactions", strings.NewReader(body))
			r.Header.Set("X-Slack-Request-Timestamp", "1000000")
			r.Header.Set("X-Slack-Signature", testkit.SlackSignature(secret, "1000000", body))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if got := w.Code; (got == 401) != (secret == "other") || w.Body.Len() != 0 {
				t.Errorf("signed by %q: %d %q", secret, got, w.Body)
			}
		}
	})
}
