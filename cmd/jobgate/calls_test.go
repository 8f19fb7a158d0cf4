package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
)

// messageBody is what an agent sends, small.
func messageBody(prompt string, stream bool) []byte {
	raw, err := json.Marshal(map[string]any{
		"model": "claude-sonnet-4-5", "max_tokens": 1024, "stream": stream,
		"tools":    []any{map[string]any{"name": "Bash", "input_schema": map[string]any{"type": "object"}}},
		"messages": []any{map[string]any{"role": "user", "content": prompt}},
	})
	if err != nil {
		panic(err)
	}
	return raw
}

// liveCall is a call whose answer is read in the background.
type liveCall struct {
	status int
	header http.Header
	body   string    // whole after done
	err    error     // of reading the body
	ended  time.Time // when the body was at its end
	done   chan struct{}
}

// send starts a call with an access token and returns when the head of its answer is there and, of a stream, the first
// of its text.
func (w *world) send(token string, body []byte) *liveCall {
	w.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), "POST", w.base()+"/anthropic/v1/messages", bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Anthropic-Version", "2023-06-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &liveCall{status: resp.StatusCode, header: resp.Header, done: make(chan struct{})}
	begun := make(chan struct{})
	go c.read(resp.Body, begun)
	select {
	case <-begun:
	case <-c.done:
	case <-time.After(20 * time.Second):
		w.t.Fatal("no beginning of an answer within 20 seconds")
	}
	return c
}

func (c *liveCall) read(body io.ReadCloser, begun chan struct{}) {
	defer close(c.done)
	defer func() { _ = body.Close() }()
	var all strings.Builder
	r := bufio.NewReader(body)
	for {
		line, err := r.ReadString('\n')
		all.WriteString(line)
		if begun != nil && (strings.Contains(line, "text_delta") || strings.HasPrefix(line, "event: ping")) {
			close(begun)
			begun = nil
		}
		if err != nil {
			if err != io.EOF {
				c.err = err
			}
			c.ended = time.Now()
			c.body = all.String()
			return
		}
	}
}

// wait returns the whole answer.
func (w *world) wait(c *liveCall) string {
	w.t.Helper()
	select {
	case <-c.done:
		return c.body
	case <-time.After(20 * time.Second):
		w.t.Fatal("the call does not end")
		return ""
	}
}

// ask sends a call that is not streamed, and returns its whole answer.
func (w *world) ask(token, prompt string) (int, string) {
	w.t.Helper()
	c := w.send(token, messageBody(prompt, false))
	return c.status, w.wait(c)
}

// cutWith fails unless a stream ended with an error event of this text, and nothing came behind it.
func (c *liveCall) cutWith(t testing.TB, text string) {
	t.Helper()
	at := strings.LastIndex(c.body, "event: error\n")
	if at < 0 || !strings.Contains(c.body[at:], text) || strings.Contains(c.body, "event: message_stop") {
		t.Errorf("the stream ended with %q, want an error event of %q", tail(c.body, 300), text)
	}
}

// refused fails unless the answer is final: no client tries again, or exchanges anew.
func (w *world) refused(token, text string) {
	w.t.Helper()
	c := w.send(token, messageBody("once more", true))
	body := w.wait(c)
	if c.status != http.StatusBadRequest || c.header.Get("x-should-retry") != "false" || !strings.Contains(body, `"policy_blocked"`) || !strings.Contains(body, text) {
		w.t.Errorf("the next call = %d %s (x-should-retry %q), want a final 400 of %q", c.status, body, c.header.Get("x-should-retry"), text)
	}
}

// holding is a script whose streams stop after their first piece of text until the client leaves; a prompt that holds
// "release" uses a tool that needs a yes.
func holding(r testkit.Request) testkit.Response {
	prompt := r.Body.Messages[len(r.Body.Messages)-1].Content.Text()
	if strings.Contains(prompt, "release") {
		return testkit.Response{Blocks: []testkit.Block{bash("make release")}}
	}
	answer := testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: strings.Repeat("words that go on and on, ", 40)}}}
	if r.Body.Stream && strings.Contains(prompt, "hold") {
		answer.Pacing = &testkit.Pacing{Gate: func(e testkit.Event) {
			if e.N == 4 {
				<-e.Done
			}
		}}
	}
	return answer
}

// question waits for the question of a call that is held.
func (w *world) question() api.ApprovalView {
	w.t.Helper()
	var list api.List[api.ApprovalView]
	w.eventually("a question waits", func() bool {
		return w.admin("GET", "/v1/approvals?state=pending", nil, &list) == nil && len(list.Items) > 0
	})
	return list.Items[0]
}

// approval looks a question up.
func (w *world) approval(id string) api.ApprovalView {
	w.t.Helper()
	var a api.ApprovalView
	if err := w.admin("GET", "/v1/approvals/"+id, nil, &a); err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) session(id string) api.SessionView {
	w.t.Helper()
	var s api.SessionView
	if err := w.admin("GET", "/v1/sessions/"+id, nil, &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// hangUp sends the server SIGHUP, as it were, and waits until it has read the file.
func (w *world) hangUp(change string) {
	w.t.Helper()
	before := strings.Count(w.log.String(), change)
	w.reload <- nil
	w.eventually("the log says "+change, func() bool { return strings.Count(w.log.String(), change) > before })
}

const (
	reloaded  = "mappings reloaded"
	notTaken  = "the configuration was not taken"
	itsDelete = "its mapping was deleted"
)

// openFails expects that an exchange is refused with a code of RFC 6749, and never with 401.
func (w *world) openFails(token, code string) api.OAuthError {
	w.t.Helper()
	status, _, bad := w.exchange(token, nil)
	if status != http.StatusBadRequest || bad.Error != code {
		w.t.Errorf("exchange = %d %+v, want 400 %s", status, bad, code)
	}
	return bad
}

// command runs an operator's command against this world and returns what it prints.
func (w *world) command(args ...string) (code int, out, errs string) {
	return w.commandEnv(nil, args...)
}

func (w *world) commandEnv(env map[string]string, args ...string) (code int, out, errs string) {
	var stdout, stderr syncBuffer
	getenv := func(name string) string {
		if v, ok := env[name]; ok {
			return v
		}
		return w.getenv(name)
	}
	code = run(context.Background(), append([]string{"-c", w.file()}, args...), environment{Getenv: getenv, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr})
	return code, stdout.String(), stderr.String()
}

// must runs a command that has to work.
func (w *world) must(args ...string) string {
	w.t.Helper()
	code, out, errs := w.command(args...)
	if code != exitDone {
		w.t.Fatalf("jobgate %s = %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// without is the configuration with no mapping in it but one that nobody uses.
func (w *world) without() string {
	head, _, _ := strings.Cut(w.config, "mappings:\n")
	return head + `mappings:
  - {name: other, issuer: github, match: {repository_owner_id: "1"}, grants: [{connection: anthropic, allow: ["POST /v1/messages"]}]}
`
}
