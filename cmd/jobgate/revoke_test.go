package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
)

// TestRevocation deletes a mapping in every way there is, while streams are open and a question waits.
func TestRevocation(t *testing.T) {
	ways := map[string]struct {
		remove, back func(*world)
		api          bool // deleted through the API: a tombstone
	}{
		"admin API": {
			remove: func(w *world) { must(w, w.admin("DELETE", "/v1/mappings/agents", nil, nil)) },
			back:   func(w *world) { must(w, w.admin("POST", "/v1/mappings/agents/restore", nil, nil)) }, api: true,
		},
		"command": {
			remove: func(w *world) { w.must("mappings", "delete", "agents") },
			back:   func(w *world) { w.must("mappings", "restore", "agents") }, api: true,
		},
		"out of the file": {
			remove: func(w *world) { w.writeConfig(w.without()); w.hangUp(reloaded) },
			back:   func(w *world) { w.writeConfig(w.config); w.hangUp(reloaded) },
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldConfig{script: holding})
			job := w.job(nil)
			_, token, _ := w.exchange(w.token(job), nil)
			first, second := w.send(token.AccessToken, messageBody("hold 1", true)), w.send(token.AccessToken, messageBody("hold 2", true))
			held := w.send(token.AccessToken, messageBody("release", true))
			asked := w.question()
			message := w.slackMessage(func(testkit.SlackMessage) bool { return true })

			way.remove(w)
			for _, c := range []*liveCall{first, second, held} {
				w.wait(c)
				c.cutWith(t, itsDelete)
			}
			w.refused(token.AccessToken, itsDelete)
			w.openFails(w.token(job), "invalid_target")
			w.openFails(w.token(w.job(nil)), "invalid_target")
			w.eventually("the question is cancelled", func() bool { return w.approval(asked.ID).State == "cancelled" })
			settled := w.slackMessage(func(m testkit.SlackMessage) bool { return m.TS == message.TS && m.Edits > 0 && len(m.Buttons()) == 0 })
			if !strings.Contains(strings.ToLower(string(settled.Blocks)+settled.Text), "cancelled") || !strings.Contains(string(settled.Blocks), itsDelete) {
				t.Errorf("Slack reads %s\n%s", settled.Text, settled.Blocks)
			}
			if s := w.session(token.SessionID); s.State != "ended" || s.EndReason != "mapping_deleted" {
				t.Errorf("the session is %s (%s)", s.State, s.EndReason)
			}
			w.endsOfCalls(token.SessionID, "ended", "ended", "ended")

			w.stop()
			w.start()
			w.refused(token.AccessToken, itsDelete)
			w.openFails(w.token(w.job(nil)), "invalid_target")
			if way.api {
				w.hangUp(reloaded)
				w.openFails(w.token(w.job(nil)), "invalid_target")
				if out := w.must("mappings", "ls"); !strings.Contains(out, "deleted") {
					t.Errorf("mappings ls shows no tombstone:\n%s", out)
				}
			}
			way.back(w)
			if status, _, bad := w.exchange(w.token(w.job(map[string]any{"run_id": "991", "check_run_id": "992"})), nil); status != http.StatusOK {
				t.Errorf("another job after it is back: %d %+v", status, bad)
			}
			w.openFails(w.token(job), "invalid_grant") // an end is for good
			w.refused(token.AccessToken, itsDelete)
		})
	}
}

// TestRevocationWhileStopped takes a mapping out of the file while the server is down.
func TestRevocationWhileStopped(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	token := w.open()
	w.stop()
	w.writeConfig(w.without())
	w.start()
	w.refused(token.AccessToken, itsDelete)
	lines := w.events(token.SessionID)
	if end := decode[record.SessionEnded](t, lines[len(lines)-1]); end.Reason != "mapping_deleted" {
		t.Errorf("the record ends with %+v", end)
	}
	w.stop()
	w.writeConfig(w.config)
	w.start()
	w.refused(token.AccessToken, itsDelete)
	if status, _, bad := w.exchange(w.token(w.job(map[string]any{"run_id": "991", "check_run_id": "992"})), nil); status != http.StatusOK {
		t.Errorf("another job after it is back: %d %+v", status, bad)
	}
}

// TestBadReload keeps what was in force when the file cannot be taken.
func TestBadReload(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	token := w.open()
	for _, bad := range []string{"mappings: [", strings.Replace(w.config, "lease", "leese", 1) + "\nnonsense: 1\n", ""} {
		w.writeConfig(bad)
		w.hangUp(notTaken)
		if status, body := w.ask(token.AccessToken, "still there?"); status != http.StatusOK {
			t.Errorf("after a bad reload a call = %d %s", status, body)
		}
	}
}

// TestExchangeRacesDelete exchanges and deletes at the same time: no session outlives the deletion.
func TestExchangeRacesDelete(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	for round := range 5 {
		var tokens []string
		for i := range 8 {
			tokens = append(tokens, w.token(w.job(map[string]any{"run_id": fmt.Sprintf("%d%03d", round+1, i), "check_run_id": fmt.Sprintf("%d%03d", 1000+round, i)})))
		}
		var wg sync.WaitGroup
		given := make(chan string, len(tokens))
		for _, token := range tokens {
			wg.Go(func() {
				if status, opened, bad := w.exchange(token, nil); status == http.StatusOK {
					given <- opened.AccessToken
				} else if bad.Error != "invalid_target" && !strings.Contains(bad.Description, itsDelete) {
					t.Errorf("an exchange that raced = %d %+v", status, bad)
				}
			})
		}
		wg.Go(func() { must(w, w.admin("DELETE", "/v1/mappings/agents", nil, nil)) })
		wg.Wait()
		close(given)
		if open := w.sessions("?state=open"); len(open) != 0 {
			t.Fatalf("round %d: %d sessions are open after the deletion", round, len(open))
		}
		for token := range given {
			w.refused(token, itsDelete)
		}
		must(w, w.admin("POST", "/v1/mappings/agents/restore", nil, nil))
	}
}

func must(w *world, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// slackMessage waits for a message.
func (w *world) slackMessage(is func(testkit.SlackMessage) bool) (found testkit.SlackMessage) {
	w.t.Helper()
	w.eventually("Slack shows the message", func() bool {
		messages := w.slack.Messages()
		i := slices.IndexFunc(messages, is)
		if i >= 0 {
			found = messages[i]
		}
		return i >= 0
	})
	return found
}

// endsOfCalls compares how the calls of a record ended.
func (w *world) endsOfCalls(session string, want ...string) {
	w.t.Helper()
	var got []string
	for _, l := range w.events(session) {
		if l.Type == record.TypeCallEnded {
			got = append(got, decode[record.CallEnded](w.t, l).Reason)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Errorf("calls ended with %q, want %q", got, want)
	}
}

// BenchmarkRevokeThousandStreams deletes a mapping of a thousand open streams, of ten jobs, over the whole server, and
// reports how long it takes until the last of them is cut, from the request to the last client's end of stream.
func BenchmarkRevokeThousandStreams(b *testing.B) {
	const jobs, streams = 10, 100
	w := newWorld(b, worldConfig{script: holding})
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 2
	var last, middle time.Duration
	for n := 0; b.Loop(); n++ {
		calls := w.manyStreams(b, n, jobs, streams)
		start := time.Now()
		must(w, w.admin("DELETE", "/v1/mappings/agents", nil, nil))
		took := w.cutTimes(b, calls, start, itsDelete)
		last, middle = last+took[len(took)-1], middle+took[len(took)/2]
		must(w, w.admin("POST", "/v1/mappings/agents/restore", nil, nil))
	}
	b.ReportMetric(float64(last.Microseconds())/1e3/float64(b.N), "ms-last-cut")
	b.ReportMetric(float64(middle.Microseconds())/1e3/float64(b.N), "ms-median-cut")
	b.ReportMetric(0, "ns/op")
}

// manyStreams opens streams of new jobs that stay open; n tells one round's jobs from another's.
func (w *world) manyStreams(b *testing.B, n, jobs, streams int) (calls []*liveCall) {
	for j := range jobs {
		status, token, bad := w.exchange(w.token(w.job(map[string]any{"run_id": fmt.Sprintf("%d%03d", n+1, j), "check_run_id": fmt.Sprintf("7%d%03d", n+1, j)})), nil)
		if status != http.StatusOK {
			b.Fatalf("exchange = %d %+v", status, bad)
		}
		for range streams {
			calls = append(calls, w.send(token.AccessToken, messageBody("hold", true)))
		}
	}
	return calls
}

// cutTimes waits until all calls were cut for a reason, and returns how long that took after an instant, the shortest first.
func (w *world) cutTimes(b *testing.B, calls []*liveCall, since time.Time, reason string) []time.Duration {
	took := make([]time.Duration, 0, len(calls))
	for _, c := range calls {
		w.wait(c)
		c.cutWith(b, reason)
		took = append(took, c.ended.Sub(since))
	}
	slices.Sort(took)
	return took
}
