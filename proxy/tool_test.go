package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"
)

// toolRules are rules on "anthropic" with a form of denial.
func toolRules(onDeny access.OnDeny, rules ...access.Rule) func(*access.Policy) {
	return func(p *access.Policy) { p.Grants[0].Rules, p.Grants[0].OnDeny = rules, onDeny }
}

var noBash = access.Rule{Name: "no-bash", Effect: access.Deny, When: `tool.name == "Bash"`, Reason: "no commands here"}

// use is a tool use as a client has it.
type use struct{ name, input string }

// uses are the tool uses that a client would start, from either form of an answer.
func uses(t *testing.T, stream bool, body string) (list []use) {
	t.Helper()
	if !stream {
		var m struct {
			Content []struct {
				Type, Name string
				Input      json.RawMessage
			}
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		for _, b := range m.Content {
			if b.Type == "tool_use" {
				list = append(list, use{b.Name, string(b.Input)})
			}
		}
		return list
	}
	open := map[int]*use{}
	for _, e := range events(t, body) {
		switch {
		case e.kind == "content_block_start" && e.block.Type == "tool_use":
			open[e.index] = &use{name: e.block.Name}
		case e.input != "":
			open[e.index].input += e.input
		case e.kind == "content_block_stop" && open[e.index] != nil:
			list = append(list, *open[e.index])
		}
	}
	return list
}

func TestToolUsesAreJudged(t *testing.T) {
	blocks := []testkit.Block{
		testkit.Text{Text: "I will do two things."}, testkit.ToolUse{Name: "Bash", Input: `{"command": "rm  -rf /"}`},
		testkit.ToolUse{Name: "Read", Input: `{"file_path": "/a"}`},
	}
	for _, c := range []struct {
		name   string
		policy func(*access.Policy)
		blocks []testkit.Block
		uses   []use
		says   string
		action []string // of the record's tool_use events
		ends   bool     // with an error
		whole  bool     // ends where it is not streamed
	}{
		{name: "tell", policy: toolRules(access.Tell, noBash), uses: []use{{"Bash__denied__no-bash", "{}"}, {"Read", `{"file_path": "/a"}`}}, says: "no commands here", action: []string{"told"}},
		{name: "stop", policy: toolRules(access.Stop, noBash), uses: []use{{"Read", `{"file_path": "/a"}`}}, says: "no commands here", action: []string{"stopped"}},
		{name: "fail", policy: toolRules(access.Fail, noBash), says: "no commands here", action: []string{"failed"}, ends: true},
		{name: "all allowed", policy: toolRules(access.Tell, access.Rule{Name: "r", Effect: access.Deny, When: `tool.input.command == "other"`, Reason: "x"}),
			uses: []use{{"Bash", `{"command": "rm  -rf /"}`}}, blocks: blocks[:2], action: []string{"passed"}},
		{name: "condition fails", policy: toolRules(access.Tell, access.Rule{Name: "r", Effect: access.Deny, When: `tool.input.missing == "x"`, Reason: "cannot say"}),
			uses: []use{{"Bash__denied__r", "{}"}, {"Read__denied__r", "{}"}}, says: "cannot say", action: []string{"told", "told"}},
		{name: "observed", policy: toolRules(access.Tell, access.Rule{Name: "r", Effect: access.Deny, When: `tool.name == "Bash"`, Reason: "x", Mode: access.Observe}),
			uses: []use{{"Bash", `{"command": "rm  -rf /"}`}, {"Read", `{"file_path": "/a"}`}}, action: []string{"passed"}},
		{name: "twice the same key", policy: toolRules(access.Tell, access.Rule{Name: "r", Effect: access.Deny, When: `tool.input.command == "evil"`, Reason: "x"}),
			blocks: []testkit.Block{testkit.ToolUse{Name: "Bash", Input: `{"command":"good","command":"evil"}`}}, uses: []use{{"Bash__denied__strict-json", "{}"}}, says: "Jobgate:", action: []string{"told"}, whole: true},
	} {
		for _, stream := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/stream=%t", c.name, stream), func(t *testing.T) {
				w := newWorld(t, options{policy: c.policy})
				if c.whole && !stream { // all of it is ambiguous
					c.ends, c.action = true, nil
				}
				w.model.SetScript(func(testkit.Request) testkit.Response {
					if c.blocks == nil {
						return testkit.Response{Blocks: blocks}
					}
					return testkit.Response{Blocks: c.blocks}
				})
				resp := w.call("POST", "/anthropic/v1/messages", message(stream, ""))
				body := read(t, resp)
				if c.ends != strings.Contains(body, "policy_blocked") || !strings.Contains(body, c.says) {
					t.Errorf("status %d: %s", resp.StatusCode, body)
				}
				if !c.ends {
					if got := uses(t, stream, body); fmt.Sprint(got) != fmt.Sprint(c.uses) {
						t.Errorf("the client would start %v, want %v: %s", got, c.uses, body)
					}
				}
				w.settled(1)
				if tally, _ := w.session.Tally(); (tally.Denials > 0) != (c.says != "") {
					t.Errorf("tally = %+v", tally)
				}
				var actions []string
				for _, e := range w.record.await(t, record.TypeToolUse, len(c.action)) {
					actions = append(actions, e.Data.(record.ToolUse).Action)
				}
				if fmt.Sprint(actions) != fmt.Sprint(c.action) {
					t.Errorf("the record has %v, want %v", actions, c.action)
				}
			})
		}
	}
}

// What the client could start is on record before it sees the first byte of it; blocks before a held one pass.
func TestToolUseIsOnRecordBefore(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, options{policy: toolRules(access.Tell, access.Rule{Name: "r", Effect: access.Deny, When: `tool.input.command == "x"`, Reason: "x"}),
		model: testkit.ModelConfig{Pacing: testkit.Pacing{Gate: func(e testkit.Event) {
			if e.Index == 1 && e.Name == "content_block_stop" {
				select {
				case <-release:
				case <-e.Done:
				}
			}
		}}}})
	w.model.SetScript(func(testkit.Request) testkit.Response {
		return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "First."}, testkit.ToolUse{Name: "Bash", Input: `{"command":"make test"}`}}}
	})
	resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
	body := bufio.NewReader(resp.Body)
	var seen strings.Builder
	for !strings.Contains(seen.String(), `"type":"content_block_stop","index":0`) {
		line, err := body.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %s", err, seen.String())
		}
		seen.WriteString(line)
	}
	if strings.Contains(seen.String(), "tool_use") {
		t.Error("a part of a tool use passes before its decision")
	}
	close(release)
	for !strings.Contains(seen.String(), "tool_use") {
		line, err := body.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %s", err, seen.String())
		}
		seen.WriteString(line)
	}
	w.record.mu.Lock()
	recorded := false
	for n, e := range w.record.events {
		if u, ok := e.Data.(record.ToolUse); ok {
			recorded = u.Name == "Bash" && u.Input == `{"command":"make test"}` && w.record.waited[n]
		}
	}
	w.record.mu.Unlock()
	if !recorded {
		t.Error("the client sees a tool use that is not on record")
	}
	_, _ = io.Copy(io.Discard, body)
}

var askBash = access.Rule{Name: "commands", Effect: access.Ask, When: `tool.name == "Bash"`, Reason: "commands need a yes", Approvers: []string{"sre"}, Timeout: time.Minute}

func askingModel() testkit.ModelConfig {
	return testkit.ModelConfig{Script: func(testkit.Request) testkit.Response {
		return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "I deploy."}, testkit.ToolUse{Name: "Bash", Input: `{"command":"deploy","token":"ghp_16C7e42F292c6912E7710c838347Ae178B4a"}`}, testkit.Text{Text: "After."}}}
	}}
}

func TestPeopleDecideOnToolUses(t *testing.T) {
	for _, c := range []struct {
		name   string
		vote   access.ApprovalState
		change func(*world)
		uses   string
		says   string
		ends   bool
	}{
		{name: "yes", vote: access.Approved, uses: "Bash"},
		{name: "no", vote: access.Denied, uses: "Bash__denied__commands", says: "denied by Ana"},
		{name: "expired", vote: access.Expired, uses: "Bash__denied__commands", says: "nobody answered"},
		{name: "a rule denies meanwhile", vote: access.Approved, change: func(w *world) { w.change(2, toolRules(access.Tell, noBash)) }, uses: "Bash__denied__no-bash", says: "no commands here"},
		{name: "the same rule", vote: access.Approved, change: func(w *world) { w.change(2, toolRules(access.Tell, askBash)) }, uses: "Bash"},
		{name: "other people", vote: access.Approved, change: func(w *world) {
			other := askBash
			other.Approvers = []string{"board"}
			w.change(2, toolRules(access.Tell, other))
		}, uses: "Bash__denied__commands", says: "the mapping was changed"},
		{name: "the grant goes", vote: access.Approved, change: func(w *world) { w.change(2, func(p *access.Policy) { p.Grants = p.Grants[1:] }) }, says: "grants nothing", ends: true},
		{name: "the session ends", vote: access.Approved, change: func(w *world) { w.session.End(access.EndDeleted, time.Now()) }, says: "its mapping was deleted", ends: true},
	} {
		for _, stream := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/stream=%t", c.name, stream), func(t *testing.T) {
				w := newWorld(t, options{policy: toolRules(access.Tell, askBash), model: askingModel(), limits: quick})
				got := make(chan string, 1)
				pings := make(chan struct{}, 1000)
				go func() {
					resp := w.call("POST", "/anthropic/v1/messages", message(stream, ""))
					var all strings.Builder
					body := bufio.NewReader(resp.Body)
					for {
						line, err := body.ReadString('\n')
						all.WriteString(line)
						if line == "event: ping\n" {
							pings <- struct{}{}
						}
						if err != nil {
							break
						}
					}
					got <- all.String()
				}()
				asked := <-w.people.arrive
				if asked.ToolUse == "" || asked.Title != "Bash" || strings.Contains(asked.Text, "ghp_16C7") || !strings.Contains(asked.Text, `"command":"deploy"`) || asked.Masked != 1 {
					t.Errorf("asked %+v", asked)
				}
				if stream {
					for range 4 { // one stands in every answer of the model
						select {
						case <-pings:
						case body := <-got:
							t.Fatalf("the stream ends while people think: %s", body)
						}
					}
				}
				if c.change != nil {
					c.change(w)
				}
				w.people.reply <- vote(c.vote)
				body := <-got
				if !strings.Contains(body, c.says) {
					t.Errorf("the answer is %s", body)
				}
				if c.ends {
					if !strings.Contains(body, "error") || strings.Contains(body, `"name":"Bash`) {
						t.Errorf("the answer is %s", body)
					}
				} else if got := uses(t, stream, body); len(got) != 1 || got[0].name != c.uses || !strings.Contains(body, "After.") && stream {
					t.Errorf("the client would start %v: %s", got, body)
				}
				w.settled(1)
				if strings.Contains(w.record.text(), "ghp_16C7") {
					t.Error("a token is on record")
				}
			})
		}
	}
}

// While people think, nobody reads the upstream: that is not its silence.
func TestPeopleMayThinkForLongerThanAnUpstreamMayBeSilent(t *testing.T) {
	w := newWorld(t, options{policy: toolRules(access.Tell, askBash), model: askingModel(), limits: proxy.Bounds{Idle: 300 * time.Millisecond}})
	w.people.answer = func(_ context.Context, a access.Approval) (access.Approval, error) {
		<-time.After(500 * time.Millisecond)
		return a.Settle(vote(access.Approved))
	}
	if body := read(t, w.call("POST", "/anthropic/v1/messages", message(true, ""))); !strings.Contains(body, "message_stop") {
		t.Errorf("the stream is %s", body)
	}
}

// Where the client leaves, the question about its tool use goes with it.
func TestQuestionAboutAToolUseIsCancelled(t *testing.T) {
	w := newWorld(t, options{policy: toolRules(access.Tell, askBash), model: askingModel(), limits: quick})
	ctx, leave := context.WithCancel(t.Context())
	resp, err := w.try(ctx, "POST", "/anthropic/v1/messages", strings.NewReader(message(true, "")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	<-w.people.arrive
	leave()
	w.settled(1)
	if d := w.record.await(t, record.TypeApprovalDecided, 1)[0].Data.(record.ApprovalDecided); d.State != "cancelled" {
		t.Errorf("decided %+v", d)
	}
	if end := w.record.await(t, record.TypeCallEnded, 1)[0].Data.(record.CallEnded); end.Reason != "client_gone" {
		t.Errorf("ended %+v", end)
	}
}

// A tool use that cannot be recorded does not pass.
func TestToolUseThatCannotBeRecorded(t *testing.T) {
	for _, stream := range []bool{true, false} {
		w := newWorld(t, options{policy: toolRules(access.Tell, access.Rule{Name: "r", Effect: access.Deny, When: `tool.input.command == "x"`, Reason: "x"}), model: askingModel()})
		w.record.failOn(record.TypeToolUse)
		body := read(t, w.call("POST", "/anthropic/v1/messages", message(stream, "")))
		if strings.Contains(body, `"Bash"`) || !strings.Contains(body, "cannot be recorded") {
			t.Errorf("stream=%t: %s", stream, body)
		}
		w.settled(1)
	}
}

// The same question about a command in another order of keys has the same digest, another command another.
func TestDigestOfAToolUse(t *testing.T) {
	digest := func(input string) string {
		w := newWorld(t, options{policy: toolRules(access.Tell, askBash)})
		w.model.SetScript(func(testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.ToolUse{Name: "Bash", Input: input}}}
		})
		w.people.reply <- vote(access.Denied)
		_ = read(t, w.call("POST", "/anthropic/v1/messages", message(false, "")))
		return (<-w.people.arrive).Digest
	}
	base := digest(`{"command":"a","n":1}`)
	if got := digest(`{ "n": 1, "comm\u0061nd": "a" }`); got != base {
		t.Error("another order of keys is another question")
	}
	for _, other := range []string{`{"command":"b","n":1}`, `{"command":"a","n":1.0}`, `{"command":"a"}`} {
		if digest(other) == base {
			t.Errorf("%s is the same question", other)
		}
	}
}
