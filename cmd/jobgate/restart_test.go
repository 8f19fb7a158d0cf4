package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
)

// TestRestart stops and starts the server on the same folder: what a job has, and has used, is as it was.
func TestRestart(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, limits: "requests: 3", mapping: "    window: {max: 1h, lease: 30m}"})
	job := w.job(nil)
	shown := w.token(job)
	_, token, _ := w.exchange(shown, nil)
	if status, body := w.ask(token.AccessToken, "one"); status != http.StatusOK {
		t.Fatalf("the first call = %d %s", status, body)
	}
	w.eventually("the call is settled", func() bool { return w.session(token.SessionID).Usage["anthropic"].InputTokens > 0 })
	before := w.session(token.SessionID)

	w.stop()
	w.start()

	after := w.session(token.SessionID)
	if after.State != "awake" || !after.Closes.Equal(before.Closes) || !after.Asleep.Equal(before.Asleep) || after.Usage["anthropic"] != before.Usage["anthropic"] {
		t.Errorf("before the restart %+v, after it %+v", before, after)
	}
	if bad := w.openFails(shown, "invalid_grant"); !strings.Contains(bad.Description, "used") {
		t.Errorf("a token that was shown before the restart: %+v", bad)
	}
	if status, body := w.ask(token.AccessToken, "two"); status != http.StatusOK {
		t.Errorf("the old token after the restart = %d %s", status, body)
	}
	if status, renewed, bad := w.exchange(w.token(job), nil); status != http.StatusOK || renewed.SessionID != token.SessionID {
		t.Errorf("a fresh token of the same job = %d %+v %+v, want the same session", status, renewed, bad)
	}
	if status, _ := w.ask(token.AccessToken, "three"); status != http.StatusOK {
		t.Errorf("the third call = %d", status)
	}
	if status, body := w.ask(token.AccessToken, "four"); status != http.StatusTooManyRequests {
		t.Errorf("the fourth call of three = %d %s, want 429: a restart refills nothing", status, body)
	}
	must(w, w.admin("DELETE", "/v1/sessions/"+token.SessionID, nil, nil))
	lines := w.events(token.SessionID)
	if end := decode[record.SessionEnded](t, lines[len(lines)-1]); end.Counts["anthropic"].Requests != 3 || end.Calls != 4 {
		t.Errorf("the record ends with %+v", end)
	}
	w.stop()
	w.start()
	w.refused(token.AccessToken, "an operator closed it")
	w.openFails(w.token(job), "invalid_grant")
}

// TestRestartInMidStream stops the server while a stream is open and a question waits.
func TestRestartInMidStream(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	token := w.open()
	stream, held := w.send(token.AccessToken, messageBody("hold", true)), w.send(token.AccessToken, messageBody("release", true))
	asked := w.question()

	w.stop()
	for _, c := range []*liveCall{stream, held} {
		w.wait(c)
		c.cutWith(t, "the server is being restarted")
	}
	w.start()

	if state := w.approval(asked.ID).State; state != "cancelled" {
		t.Errorf("the question of a call that went away is %s", state)
	}
	w.slackMessage(func(m testkit.SlackMessage) bool { return m.Edits > 0 && len(m.Buttons()) == 0 })
	if status, body := w.ask(token.AccessToken, "on"); status != http.StatusOK {
		t.Errorf("the session does not go on: %d %s", status, body)
	}
	must(w, w.admin("DELETE", "/v1/sessions/"+token.SessionID, nil, nil))
	w.endsOfCalls(token.SessionID, "done", record.ReasonInterrupted, record.ReasonInterrupted)
	lines := w.events(token.SessionID)
	if end := decode[record.SessionEnded](t, lines[len(lines)-1]); end.Interrupted != true {
		t.Errorf("the record ends with %+v, want it interrupted", end)
	}
}

// TestWindowPassesWhileStopped finishes the archive of a session whose window closed while nobody served.
func TestWindowPassesWhileStopped(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, mapping: "    window: {max: 1s, lease: 1s}"})
	token := w.open()
	closes := w.session(token.SessionID).Closes
	w.stop()
	w.eventually("the window has passed", func() bool { return time.Now().After(closes) })
	w.start()
	w.refused(token.AccessToken, "the window reached its longest duration")
	lines := w.events(token.SessionID)
	if end := decode[record.SessionEnded](t, lines[len(lines)-1]); end.Reason != "max" {
		t.Errorf("the record ends with %+v", end)
	}
}

// TestTwoProcesses starts a second server on the folder of a running one, with the same store and with another.
func TestTwoProcesses(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	token := w.open()
	stream := w.send(token.AccessToken, messageBody("hold", true))
	for name, config := range map[string]string{
		"same file":     w.config,
		"another store": w.config + "store: sqlite:second.db\n",
		"other ports": strings.NewReplacer("listen: "+w.server.jobs.Addr().String(), "listen: "+freeAddr(t),
			"listen: "+w.server.control.Addr().String(), "listen: "+freeAddr(t)).Replace(w.config) + "store: sqlite:third.db\n",
	} {
		file := filepath.Join(t.TempDir(), "jobgate.yaml")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		var stderr syncBuffer
		code := run(ctx, []string{"-c", file, "serve"}, environment{Getenv: w.getenv, Stdin: strings.NewReader(""), Stdout: &syncBuffer{}, Stderr: &stderr})
		cancel()
		if said := stderr.String(); code != exitFailed || !strings.Contains(said, "another process") || !strings.Contains(said, w.folder) {
			t.Errorf("%s: the second server ended with %d: %s", name, code, said)
		}
	}
	select {
	case <-stream.done:
		t.Errorf("the second server cut a stream of the first: %s", stream.body)
	default:
	}
	if status, body := w.ask(token.AccessToken, "still served"); status != http.StatusOK {
		t.Errorf("a call = %d %s", status, body)
	}
	if out := w.must("sessions", "ls"); !strings.Contains(out, token.SessionID) {
		t.Errorf("the socket of the first server answers\n%s", out)
	}
}
