package slackapp_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
)

// texts returns every text of a message that is shown, and the fallback.
func texts(t *testing.T, m testkit.SlackMessage) string {
	t.Helper()
	var blocks any
	if err := json.Unmarshal(m.Blocks, &blocks); err != nil {
		t.Fatal(err)
	}
	out := []string{m.Text}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if s, ok := v["text"].(string); ok {
				out = append(out, s)
			}
			for _, k := range []string{"text", "elements", "fields"} {
				walk(v[k])
			}
		}
	}
	walk(blocks)
	return strings.Join(out, "\x00")
}

func labels(m testkit.SlackMessage) (out []string) {
	for _, b := range m.Buttons() {
		out = append(out, b.Text.Text)
	}
	return out
}

func TestAQuestionShowsWhoWhatAndWhy(t *testing.T) {
	w := newWorkspace(t, nil)
	q := question()
	m := w.message(t, w.post(t, q))
	shown := texts(t, m)
	for _, want := range []string{
		"acme/app", "release", "refs/heads/main", "0123abc", "ana", "push", "release-agents, revision 3", "anthropic", "ses_1",
		"Bash", "\x00rm -rf build\nmake release\x00", "commands need a yes", "commands", "sre", "2 values masked", "apr_1",
		fmt.Sprintf("<!date^%d^{date_short_pretty} at {time_secs}|%s>", q.Expires.Unix(), q.Expires.UTC().Format("2006-01-02 15:04:05 UTC")),
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("the message does not show %q:\n%q", want, shown)
		}
	}
	if got := m.Links(); !slices.Equal(got, []string{q.Job.URL}) {
		t.Errorf("links lead to %q, want %q", got, q.Job.URL)
	}
	if b := m.Buttons(); len(b) != 2 || b[0].Text.Text != "Approve" || b[0].Style != "primary" || b[1].Text.Text != "Deny" || b[1].Style != "danger" || b[0].Value != q.ID {
		t.Errorf("buttons are %+v", b)
	}
}

func TestAnOutcomeReplacesTheQuestion(t *testing.T) {
	w := newWorkspace(t, nil)
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	tests := []struct {
		vote access.Vote
		note string
		want []string
	}{
		{access.Vote{State: access.Approved, By: "Ana (UANA)", Via: "slack", At: at}, "", []string{"Approved", "approved by Ana (UANA), via slack", "<!date^1795514400^"}},
		{access.Vote{State: access.Denied, By: "admin token", Via: "cli", Reason: "not today", At: at}, "", []string{"Denied", "denied by admin token, via cli: not today"}},
		{access.Vote{State: access.Expired, Reason: "nobody answered in time", At: at}, "", []string{"Expired, which denies", "expired: nobody answered in time"}},
		{access.Vote{State: access.Cancelled, At: at}, "the client left", []string{"Cancelled", "cancelled: the client left"}},
	}
	for _, tc := range tests {
		q := question()
		ts := w.post(t, q)
		q.State, q.Vote, q.Note = tc.vote.State, tc.vote, tc.note
		if err := w.app.Settle(t.Context(), w.Channel(), ts, q); err != nil {
			t.Fatal(err)
		}
		m := w.message(t, ts)
		if got := m.Buttons(); len(got) != 0 {
			t.Errorf("%s: buttons are left: %+v", tc.vote.State, got)
		}
		for _, want := range append(tc.want, "rm -rf build", "acme/app", "commands") {
			if shown := texts(t, m); !strings.Contains(shown, want) {
				t.Errorf("%s: the message does not show %q:\n%q", tc.vote.State, want, shown)
			}
		}
	}
}

// fill sets every string of a question, also of its parts.
func fill(q *access.Approval, text string) {
	var walk func(reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			v.SetString(text)
		case reflect.Slice:
			v.Set(reflect.ValueOf([]string{text, text}))
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[time.Time]() {
				return
			}
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		}
	}
	walk(reflect.ValueOf(q).Elem())
}

func TestHostileTextsDoNothing(t *testing.T) {
	hostile := map[string]string{
		"mentions":  "<!channel> <!here> <@UANA> <#C1> <!subteam^S1>",
		"links":     "<https://evil.example|approve> https://evil.example <mailto:a@b|x>",
		"script":    "javascript:alert(1)",
		"controls":  "a\x00\x1b[31m\r\b\x7f\u0085b",
		"direction": "a\u202e\u2066\u200fb",
		"invisible": "a\u200b\u2060\ufeff\u00ad\u3164\u2800\U000E0041\ufe0fb",
		"spaces":    "\u00a0\u3000\u2003\u2028\u2029",
		"broken":    "a\xff\xfeb\xc3",
		"markup":    "*bold* _it_ ~no~ `code` ```pre``` > quote &amp; & <",
		"emoji":     ":white_check_mark: approved",
		"empty":     "",
		"blank":     "  \n\t ",
	}
	w := newWorkspace(t, nil)
	for name, text := range hostile {
		for _, state := range []access.ApprovalState{access.Pending, access.Approved, access.Cancelled} {
			t.Run(name+"/"+string(state), func(t *testing.T) {
				q := question()
				fill(&q, text)
				q.State = access.Pending
				ts := w.post(t, q)
				if state != access.Pending {
					q.State = state
					if err := w.app.Settle(t.Context(), w.Channel(), ts, q); err != nil {
						t.Fatalf("Settle = %v", err)
					}
				}
				harmless(t, w.message(t, ts))
			})
		}
	}
}

func harmless(t *testing.T, m testkit.SlackMessage) {
	t.Helper()
	if pings, links := m.Pings(), m.Links(); len(pings) != 0 || len(links) != 0 {
		t.Errorf("the message pings %q and links to %q", pings, links)
	}
	shown := strings.ReplaceAll(texts(t, m), "\x00", "\n")
	if !utf8.ValidString(shown) {
		t.Errorf("broken UTF-8 in %q", shown)
	}
	for _, r := range shown {
		if r < ' ' && r != '\n' && r != '\t' || strings.ContainsRune("\x7f\u0085\u202e\u2066\u200f\u200b\u2060\ufeff\u00ad\u3164\u2800\U000E0041\ufe0f\u00a0\u3000\u2003\u2028\u2029", r) {
			t.Errorf("%U is shown as it is in %q", r, shown)
		}
	}
}

func TestOnlyARunsPageIsLinked(t *testing.T) {
	w := newWorkspace(t, nil)
	for address, linked := range map[string]bool{
		"https://github.com/acme/app/actions/runs/1?a=b&c=d": true,
		"http://github.com/acme/app":                         false,
		"javascript:alert(1)":                                false,
		"https://user:pass@github.com/":                      false,
		"https://github.com/\u202eevil":                      false,
		"https://github.com/|x>":                             false,
		"https://github.com/a b":                             false,
		"https:///nohost":                                    false,
		"//github.com":                                       false,
		"https://github.com/" + strings.Repeat("a", 4000):    false,
	} {
		q := question()
		q.Job.URL = address
		m := w.message(t, w.post(t, q))
		if got := len(m.Links()) == 1; got != linked {
			t.Errorf("%.40q is linked: %v, want %v", address, got, linked)
		}
	}
}

func TestWhatDoesNotFitCannotBeApprovedHere(t *testing.T) {
	tests := []struct {
		name   string
		change func(*access.Approval)
		whole  bool
		says   string
	}{
		{"fits exactly", func(q *access.Approval) { q.Text = strings.Repeat("x", 3000) }, true, ""},
		{"one too long", func(q *access.Approval) { q.Text = strings.Repeat("x", 3001) }, false, "1 more characters are not shown"},
		{"100 KB", func(q *access.Approval) { q.Text = strings.Repeat("x", 100<<10) }, false, "99400 more characters are not shown"},
		{"pairs fit", func(q *access.Approval) { q.Text = strings.Repeat("😀", 1500) }, true, ""},
		{"pairs do not", func(q *access.Approval) { q.Text = strings.Repeat("😀", 1501) }, false, "1 more characters are not shown"},
		{"escapes count", func(q *access.Approval) { q.Text = strings.Repeat("\u202e", 1000) }, false, "more characters are not shown"},
		{"long title", func(q *access.Approval) { q.Title = strings.Repeat("x", 301) }, false, "Not all of it is shown"},
		{"cut before", func(q *access.Approval) { q.Truncated = true }, false, "Not all of it is shown"},
		{"everything 100 KB", func(q *access.Approval) { fill(q, strings.Repeat("<&>", 100<<10/3)); q.State = access.Pending }, false, "more characters are not shown"},
	}
	w := newWorkspace(t, nil)
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			q := question()
			tc.change(&q)
			ts := w.post(t, q)
			m := w.message(t, ts)
			if got := slices.Contains(labels(m), "Approve"); got != tc.whole {
				t.Errorf("Approve is offered: %v, want %v", got, tc.whole)
			}
			if got := slices.Contains(labels(m), "Deny"); got != (len(q.ID) <= 2000) {
				t.Errorf("Deny is offered: %v", got)
			}
			if shown := texts(t, m); tc.says != "" && (!strings.Contains(shown, tc.says) || !strings.Contains(shown, "jobgate approvals approve")) {
				t.Errorf("the message does not say %q and how to approve", tc.says)
			}
			q.State = access.Denied
			if err := w.app.Settle(t.Context(), w.Channel(), ts, q); err != nil {
				t.Errorf("Settle = %v", err)
			}
		})
	}
}
