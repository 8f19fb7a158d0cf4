package testkit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/testkit"
)

func newSlack(t *testing.T, cfg testkit.SlackConfig) *testkit.Slack {
	t.Helper()
	s, err := testkit.NewSlack(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// slackCall calls a method with the right token and returns its answer.
func slackCall(t *testing.T, s *testkit.Slack, method string, args url.Values) map[string]any {
	t.Helper()
	if !args.Has("token") {
		args.Set("token", s.Token())
	}
	res, err := http.PostForm(s.APIURL()+method, args)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer map[string]any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Fatalf("%s answers %d: %v", method, res.StatusCode, err)
	}
	return answer
}

func repeated(block string, n int) string {
	return "[" + strings.TrimSuffix(strings.Repeat(block+",", n), ",") + "]"
}

func TestSlackChecksMessages(t *testing.T) {
	s := newSlack(t, testkit.SlackConfig{})
	sectionOf := func(n int) string {
		return fmt.Sprintf(`[{"type":"section","text":{"type":"mrkdwn","text":%q}}]`, strings.Repeat("x", n))
	}
	buttonOf := func(label, value, id, style string) string {
		return fmt.Sprintf(`[{"type":"actions","elements":[{"type":"button","action_id":%q,"value":%q,"style":%q,"text":{"type":"plain_text","text":%q}}]}]`, id, value, style, label)
	}
	x := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name, text, blocks, want string
	}{
		{"a text", "hello", "", ""},
		{"nothing", "", "", "no_text"},
		{"a text that is too long", x(40_001), "", "msg_too_long"},
		{"no JSON", "", "[", "invalid_blocks_format"},
		{"unknown block", "", `[{"type":"carousel2"}]`, "invalid_blocks"},
		{"50 blocks", "", repeated(`{"type":"divider"}`, 50), ""},
		{"51 blocks", "", repeated(`{"type":"divider"}`, 51), "invalid_blocks"},
		{"section of 3000", "", sectionOf(3000), ""},
		{"section of 3001", "", sectionOf(3001), "invalid_blocks"},
		{"empty section", "", sectionOf(0), "invalid_blocks"},
		{"all texts", "", repeated(strings.Trim(sectionOf(3000), "[]"), 5), "msg_blocks_too_long"},
		{"header of 151", "", `[{"type":"header","text":{"type":"plain_text","text":"` + x(151) + `"}}]`, "invalid_blocks"},
		{"header in mrkdwn", "", `[{"type":"header","text":{"type":"mrkdwn","text":"x"}}]`, "invalid_blocks"},
		{"block id of 256", "", `[{"type":"divider","block_id":"` + x(256) + `"}]`, "invalid_blocks"},
		{"block ids twice", "", repeated(`{"type":"divider","block_id":"a"}`, 2), "invalid_blocks"},
		{"a button", "", buttonOf(x(75), x(2000), x(255), "primary"), ""},
		{"label of 76", "", buttonOf(x(76), "v", "a", "primary"), "invalid_blocks"},
		{"value of 2001", "", buttonOf("l", x(2001), "a", "primary"), "invalid_blocks"},
		{"action id of 256", "", buttonOf("l", "v", x(256), "primary"), "invalid_blocks"},
		{"unknown style", "", buttonOf("l", "v", "a", "green"), "invalid_blocks"},
		{"26 buttons", "", `[{"type":"actions","elements":` + repeated(`{"type":"button","text":{"type":"plain_text","text":"x"}}`, 26) + `}]`, "invalid_blocks"},
		{"no buttons", "", `[{"type":"actions","elements":[]}]`, "invalid_blocks"},
		{"rich text", "", `[{"type":"rich_text","elements":[{"type":"rich_text_preformatted","elements":[{"type":"text","text":"` + x(3000) + `"}]}]}]`, ""},
		{"long rich text", "", `[{"type":"rich_text","elements":[{"type":"rich_text_preformatted","elements":[{"type":"text","text":"` + x(3001) + `"}]}]}]`, "invalid_blocks"},
		{"empty rich text", "", `[{"type":"rich_text","elements":[{"type":"rich_text_section","elements":[]}]}]`, "invalid_blocks"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			answer := slackCall(t, s, "chat.postMessage", url.Values{"channel": {s.Channel()}, "text": {tc.text}, "blocks": {tc.blocks}})
			got, _ := answer["error"].(string)
			if got != tc.want || answer["ok"] != (tc.want == "") {
				t.Errorf("answered %v, want error %q", answer, tc.want)
			}
		})
	}
}

func TestSlackChecksCallers(t *testing.T) {
	s := newSlack(t, testkit.SlackConfig{Users: []testkit.SlackUser{{ID: "U1", Name: "Ana", Email: "ana@example.com"}}})
	in := func(more ...string) url.Values {
		v := url.Values{"channel": {s.Channel()}, "text": {"x"}}
		for i := 0; i < len(more); i += 2 {
			v.Set(more[i], more[i+1])
		}
		return v
	}
	for _, tc := range []struct {
		method string
		args   url.Values
		want   any
	}{
		{"chat.postMessage", in("token", "xoxb-other"), "invalid_auth"},
		{"chat.postMessage", in("token", ""), "not_authed"},
		{"chat.postMessage", in("channel", "C9"), "channel_not_found"},
		{"chat.update", in("ts", "1.1"), "message_not_found"},
		{"chat.postEphemeral", in("user", "U9"), "user_not_in_channel"},
		{"chat.postEphemeral", in("user", "U1"), nil},
		{"users.info", url.Values{"user": {"U9"}}, "user_not_found"},
		{"users.info", url.Values{"user": {"U1"}}, nil},
		{"usergroups.users.list", url.Values{"usergroup": {"S9"}}, "no_such_subteam"},
		{"auth.test", url.Values{}, nil},
		{"chat.delete", url.Values{}, "unknown_method"},
	} {
		if got := slackCall(t, s, tc.method, tc.args)["error"]; got != tc.want {
			t.Errorf("%s(%v) answers %v, want %v", tc.method, tc.args, got, tc.want)
		}
	}
}

const twoButtons = `[{"type":"actions","block_id":"b","elements":[
	{"type":"button","action_id":"yes","value":"q1","text":{"type":"plain_text","text":"Approve"}},
	{"type":"button","action_id":"no","value":"q1","text":{"type":"plain_text","text":"Deny"}}]}]`

func TestSlackPressesButtons(t *testing.T) {
	now := time.Now()
	var clock atomic.Pointer[time.Time]
	clock.Store(&now)
	s := newSlack(t, testkit.SlackConfig{Now: func() time.Time { return *clock.Load() }})
	seen := make(chan map[string]any, 10)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var p map[string]any
		_ = json.Unmarshal([]byte(r.FormValue("payload")), &p)
		seen <- p
	}))
	defer app.Close()
	s.SetInteractionsURL(app.URL)
	ts, _ := slackCall(t, s, "chat.postMessage", url.Values{"channel": {s.Channel()}, "blocks": {twoButtons}})["ts"].(string)
	if got := s.Messages()[0].Buttons(); len(got) != 2 || got[0].BlockID != "b" {
		t.Fatalf("buttons are %+v", got)
	}
	if _, err := s.Press(t.Context(), ts, "maybe", "U1"); err == nil {
		t.Error("a button that is not there was pressed")
	}
	slackCall(t, s, "chat.update", url.Values{"channel": {s.Channel()}, "ts": {ts}, "text": {"done"}})
	answer, err := s.Press(t.Context(), ts, "approve", "U1")
	if err != nil || answer.Status != 200 {
		t.Fatalf("Press on a stale screen = %+v, %v", answer, err)
	}
	p := <-seen
	action := p["actions"].([]any)[0].(map[string]any)
	if action["action_id"] != "yes" || action["value"] != "q1" || p["user"].(map[string]any)["id"] != "U1" {
		t.Errorf("the interaction is %v", p)
	}

	respond := func() int {
		res, err := http.Post(p["response_url"].(string), "application/json", strings.NewReader(`{"text":"hello"}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for i := range 6 {
		if got, want := respond(), map[bool]int{true: 200, false: 404}[i < 5]; got != want {
			t.Errorf("use %d of a response URL answers %d, want %d", i+1, got, want)
		}
	}
	if e := s.Ephemerals(); len(e) != 5 || e[0].User != "U1" || e[0].Text != "hello" {
		t.Errorf("shown to U1: %+v", e)
	}
	if _, err := s.Press(t.Context(), ts, "no", "U1"); err != nil {
		t.Fatal(err)
	}
	p = <-seen
	later := now.Add(31 * time.Minute)
	clock.Store(&later)
	if got := respond(); got != 404 {
		t.Errorf("a response URL after 31 minutes answers %d, want 404", got)
	}
}

func TestSlackWaitsThreeSeconds(t *testing.T) {
	s := newSlack(t, testkit.SlackConfig{})
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm() // a server notices that a client left only after it has read the body
		<-r.Context().Done()
	}))
	defer app.Close()
	s.SetInteractionsURL(app.URL)
	ts, _ := slackCall(t, s, "chat.postMessage", url.Values{"channel": {s.Channel()}, "blocks": {twoButtons}})["ts"].(string)
	answer, err := s.Press(t.Context(), ts, "deny", "U1")
	if err == nil || answer.Latency < 3*time.Second {
		t.Errorf("Press = %+v, %v, want no answer after 3s", answer, err)
	}
}

func TestSlackFaults(t *testing.T) {
	s := newSlack(t, testkit.SlackConfig{})
	status := func() (int, string) {
		res, err := http.PostForm(s.APIURL()+"auth.test", url.Values{"token": {s.Token()}})
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode, res.Header.Get("Retry-After")
	}
	s.LimitRate(1, 7*time.Second)
	if code, after := status(); code != 429 || after != "7" {
		t.Errorf("limited: %d, Retry-After %q, want 429 and 7", code, after)
	}
	s.SetDown(true)
	if code, _ := status(); code != 503 {
		t.Errorf("down: %d, want 503", code)
	}
	s.SetDown(false)
	if code, _ := status(); code != 200 {
		t.Errorf("up: %d, want 200", code)
	}
	if n := s.Calls("auth.test"); n != 3 {
		t.Errorf("%d calls were counted, want 3", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Await(ctx, func(*testkit.Slack) bool { return false }); err == nil {
		t.Error("Await returned although nothing came")
	}
}

func TestSlackTellsWhatTextsDo(t *testing.T) {
	m := testkit.SlackMessage{
		Text: "<!channel> &lt;!here&gt;",
		Blocks: json.RawMessage(`[
			{"type":"section","text":{"type":"mrkdwn","text":"<@U1> <https://a.example|x> <!date^1^{date}|then>"}},
			{"type":"section","text":{"type":"plain_text","text":"<@U2>"}},
			{"type":"rich_text","elements":[{"type":"rich_text_section","elements":[
				{"type":"text","text":"<@U3>"},{"type":"user","user_id":"U4"},{"type":"link","url":"https://b.example"}]}]}]`),
	}
	if got, want := m.Pings(), []string{"@U1", "@U4", "!channel"}; !slices.Equal(got, want) {
		t.Errorf("Pings = %q, want %q", got, want)
	}
	if got, want := m.Links(), []string{"https://a.example", "https://b.example"}; !slices.Equal(got, want) {
		t.Errorf("Links = %q, want %q", got, want)
	}
}
