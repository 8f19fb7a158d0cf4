package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
)

var kills = flag.Int("kills", 4, "how often TestKill kills the server at a random point")

// killable is a server in a process of its own, which can be killed.
type killable struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (w *world) startChild() *killable {
	w.t.Helper()
	c := &killable{cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), serveVariable+"="+w.file())
	for _, name := range []string{"MODEL_KEY", "ADMIN", "SLACK_TOKEN", "SLACK_SECRET"} {
		c.cmd.Env = append(c.cmd.Env, name+"="+w.getenv(name))
	}
	c.cmd.Stdout, c.cmd.Stderr = w.log, w.log
	if err := c.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { _ = c.cmd.Wait(); close(c.done) }()
	w.eventually("the child serves", func() bool {
		resp, err := http.Get(w.base() + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return c
}

// kill is SIGKILL: the process does nothing any more.
func (c *killable) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// TestKill kills the server at random points while calls run, and starts it again on the same folder. What a client
// was given is in the record, no limit is refilled, the sessions go on, and in the end their archives verify.
func TestKill(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, limits: "requests: 100000"})
	w.stop()
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 7))
	server := w.startChild()
	t.Cleanup(func() { server.kill() })
	var tokens []string
	var sessions []string
	for i := range 3 {
		status, token, bad := w.exchange(w.token(w.job(map[string]any{"run_id": fmt.Sprint(100 + i), "check_run_id": fmt.Sprint(200 + i)})), nil)
		if status != http.StatusOK {
			t.Fatalf("exchange = %d %+v", status, bad)
		}
		tokens, sessions = append(tokens, token.AccessToken), append(sessions, token.SessionID)
	}
	var acknowledged sync.Map // call id: session
	given := 0
	for round := range *kills {
		ctx, cancel := context.WithCancel(context.Background())
		var work sync.WaitGroup
		for i := range tokens {
			work.Go(func() { w.hammer(ctx, tokens[i], sessions[i], &acknowledged) })
		}
		open := w.send(tokens[0], messageBody("hold", true))
		acknowledged.Store(open.header.Get("request-id"), sessions[0])
		<-time.After(time.Duration(random.IntN(150)) * time.Millisecond) // the random point
		server.kill()
		cancel()
		work.Wait()
		w.wait(open)
		server = w.startChild()
		for i, token := range tokens {
			if status, body := w.ask(token, fmt.Sprint("after kill ", round)); status != http.StatusOK {
				t.Fatalf("after kill %d a call of session %d = %d %s", round, i, status, body)
			}
		}
	}
	server.kill()
	w.start()
	acknowledged.Range(func(any, any) bool { given++; return true })
	for i, session := range sessions {
		used := w.session(session).Usage["anthropic"].Requests
		must(w, w.admin("DELETE", "/v1/sessions/"+session, nil, nil))
		sent, ended, interrupted := w.callsOf(session)
		for call, of := range acknowledged.Range {
			if of == session && !slices.Contains(ended, call.(string)) {
				t.Errorf("call %s was answered, and the record of session %d does not hold it", call, i)
			}
		}
		if used < int64(sent) {
			t.Errorf("session %d: %d requests are counted and %d were sent: a crash refilled the limit", i, used, sent)
		}
		if i == 0 && interrupted < *kills {
			t.Errorf("%d calls of the first session are interrupted, want one a kill at least", interrupted)
		}
	}
	t.Logf("%d kills, %d answers acknowledged", *kills, given)
}

// hammer calls until ctx ends, and remembers each call whose answer was whole.
func (w *world) hammer(ctx context.Context, token, session string, acknowledged *sync.Map) {
	for n := 0; ctx.Err() == nil && n < 40; n++ {
		req, err := http.NewRequestWithContext(ctx, "POST", w.base()+"/anthropic/v1/messages", bytes.NewReader(messageBody("words", n%2 == 0)))
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Anthropic-Version", "2023-06-01")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK && (strings.Contains(string(body), "message_stop") || n%2 == 1) {
			acknowledged.Store(resp.Header.Get("request-id"), session)
		}
	}
}

// callsOf reads a record: how many calls were sent upstream, the ids of those that ended, and how many are interrupted.
func (w *world) callsOf(session string) (sent int, ended []string, interrupted int) {
	w.t.Helper()
	for _, l := range w.events(session) {
		switch l.Type {
		case record.TypeCallSent:
			sent++
		case record.TypeCallEnded:
			if slices.Contains(ended, l.Call) {
				w.t.Errorf("call %s ended twice", l.Call)
			}
			ended = append(ended, l.Call)
			if decode[record.CallEnded](w.t, l).Reason == record.ReasonInterrupted {
				interrupted++
			}
		}
	}
	return sent, ended, interrupted
}

// TestKillWithQuestion kills the server while a question waits, and lets a window pass before the next start.
func TestKillWithQuestion(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, mapping: "    window: {max: 6s, lease: 6s}"})
	w.stop()
	server := w.startChild()
	t.Cleanup(server.kill)
	token := w.open()
	opened := time.Now()
	held := w.send(token.AccessToken, messageBody("release", true))
	w.slackMessage(func(m testkit.SlackMessage) bool { return len(m.Buttons()) == 2 })
	server.kill()
	w.wait(held)
	w.eventually("the window has passed", func() bool { return time.Since(opened) > 6*time.Second })
	w.start()
	// A kill between Slack's answer and its being written down leaves a message that nobody mends until it is pressed.
	message := w.slack.Messages()[0]
	if len(message.Buttons()) > 0 {
		if _, err := w.slack.Press(t.Context(), message.TS, "approve", "U1"); err != nil {
			t.Error(err)
		}
	}
	w.eventually("Slack says that it is over", func() bool {
		return len(w.slack.Messages()[0].Buttons()) == 0 || len(w.slack.Ephemerals()) > 0
	})
	var list api.List[api.ApprovalView]
	if err := w.admin("GET", "/v1/approvals", nil, &list); err != nil || len(list.Items) != 1 || list.Items[0].State == "approved" || list.Items[0].State == "pending" {
		t.Errorf("the question is %+v (%v)", list.Items, err)
	}
	w.refused(token.AccessToken, "the window reached its longest duration")
	w.endsOfCalls(token.SessionID, record.ReasonInterrupted)
	lines := w.events(token.SessionID)
	if end := decode[record.SessionEnded](t, lines[len(lines)-1]); end.Reason != "max" || !end.Interrupted {
		t.Errorf("the record ends with %+v", end)
	}
}
