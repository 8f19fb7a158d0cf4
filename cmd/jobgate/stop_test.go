package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/internal/testkit/clients"
)

// TestStop stops a connection, a mapping and everything in every way there is, while streams are open and a question
// waits, restarts the server meanwhile, and resumes: the same session goes on.
func TestStop(t *testing.T) {
	const reason = "key leaked, INC-42"
	whats := map[string]struct {
		flags, path, subject string
		exchanges            bool // pass
	}{
		"connection": {"--connection anthropic", "connection/anthropic", `connection \"anthropic\"`, true},
		"mapping":    {"--mapping agents", "mapping/agents", `mapping \"agents\"`, false},
		"all":        {"--all", "all", "everything", false},
	}
	ways := map[string]func(w *world, what, verb string){
		"socket": func(w *world, flags, verb string) {
			args := append([]string{verb}, strings.Fields(flags)...)
			if verb == "stop" {
				args = append(args, "--reason", reason)
			}
			w.must(args...)
		},
		"URL and token": func(w *world, flags, verb string) {
			args := append([]string{verb}, strings.Fields(flags)...)
			if verb == "stop" {
				args = append(args, "-r", reason)
			}
			env := map[string]string{"JOBGATE_URL": "http://" + w.server.control.Addr().String(), "JOBGATE_ADMIN_TOKEN": worldAdmin}
			if code, out, errs := w.commandEnv(env, append(args, "-c", "nowhere.yaml")...); code != exitDone {
				w.t.Fatalf("%s = %d %s%s", verb, code, out, errs)
			}
		},
	}
	for what, c := range whats {
		for name, way := range ways {
			t.Run(what+" by "+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, worldConfig{script: holding})
				job := w.job(nil)
				_, token, _ := w.exchange(w.token(job), nil)
				stream, held := w.send(token.AccessToken, messageBody("hold", true)), w.send(token.AccessToken, messageBody("release", true))
				asked := w.question()
				seen := len(w.model.Requests())

				way(w, c.flags, "stop")
				if state := w.approval(asked.ID).State; state != "cancelled" {
					t.Errorf("the question is %s when the stop is answered", state)
				}
				itsStop := "Jobgate: " + c.subject + " is stopped by an operator: " + reason + "; no call passes until an operator resumes it"
				for _, call := range []*liveCall{stream, held} {
					w.wait(call)
					call.cutWith(t, itsStop)
				}
				refusals := func() {
					t.Helper()
					w.refused(token.AccessToken, itsStop)
					if s := w.session(token.SessionID); s.State != "awake" || len(s.Stopped) != 1 || s.Stopped[0].Reason != reason {
						t.Errorf("the session is %s, stopped %+v", s.State, s.Stopped)
					}
					if !c.exchanges {
						bad := w.openFails(w.token(job), "invalid_target")
						if !strings.Contains(bad.Description, "is stopped by an operator: "+reason) {
							t.Errorf("an exchange is refused with %q", bad.Description)
						}
						return
					}
					if status, _, bad := w.exchange(w.token(job), nil); status != http.StatusOK {
						t.Errorf("an exchange = %d %+v", status, bad)
					}
				}
				refusals()
				if out := w.must("stop", "ls"); !strings.Contains(out, reason) {
					t.Errorf("stop ls:\n%s", out)
				}
				if out := w.must("sessions", "ls"); !strings.Contains(out, "STOPPED") {
					t.Errorf("sessions ls:\n%s", out)
				}
				if out := w.must("mappings", "ls"); strings.Contains(out, "STOPPED") == c.exchanges {
					t.Errorf("mappings ls:\n%s", out)
				}
				if status, body := w.get(t, "/metrics"); status != http.StatusOK || !strings.Contains(body, "jobgate_stopped{kind=\""+what) {
					t.Errorf("metrics = %d, without the stop", status)
				}
				w.stop()
				w.start()
				refusals()
				if log := w.log.String(); !strings.Contains(log, "a stop is in force") {
					t.Error("the start does not tell of the stop")
				}
				if status, _ := w.get(t, "/readyz"); status != http.StatusOK {
					t.Errorf("readyz = %d", status)
				}
				if n := len(w.model.Requests()); n != seen {
					t.Errorf("the upstream saw %d requests during the stop", n-seen)
				}
				way(w, c.flags, "resume")
				if status, body := w.ask(token.AccessToken, "again"); status != http.StatusOK {
					t.Errorf("after it is resumed, a call = %d %s", status, body)
				}
				if status, again, bad := w.exchange(w.token(job), nil); status != http.StatusOK || again.SessionID != token.SessionID {
					t.Errorf("after it is resumed, an exchange = %d %+v %+v", status, again, bad)
				}
				must(w, w.admin("DELETE", "/v1/sessions/"+token.SessionID, nil, nil))
				w.endsOfCalls(token.SessionID, "done", "stopped", "stopped", "stopped", "stopped")
			})
		}
	}
}

// get asks the people's side for a page that is not of the API.
func (w *world) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + w.server.control.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw)
}

// TestStopCommand shows what the operator reads.
func TestStopCommand(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	w.open()
	for _, c := range []struct {
		line string
		code int
		says []string
	}{
		{"stop ls", exitDone, []string{"nothing is stopped"}},
		{"stop", exitUsage, []string{"one of --connection NAME, --mapping NAME, --all"}},
		{"stop --all --mapping agents", exitUsage, []string{"one of"}},
		{"stop --connection antropic", exitFailed, []string{`there is no connection "antropic"; there are: anthropic`}},
		{"stop --mapping agent", exitFailed, []string{`there is no mapping "agent"; there are: agents`}},
		{"stop --connection anthropic -r leaked", exitDone, []string{"connection anthropic is stopped, by operator on the control socket: leaked\n", "0 calls cut; 1 open session waits until it is resumed\n", "lift it with: jobgate resume --connection anthropic"}},
		{"stop --connection anthropic", exitDone, []string{"connection anthropic is stopped already, since 20"}},
		{"stop --all", exitDone, []string{"everything is stopped, by operator", "jobgate resume --all"}},
		{"stop ls", exitDone, []string{"KIND", "connection  anthropic", "leaked"}},
		{"resume --mapping agents", exitDone, []string{"nothing to lift", "STILL STOPPED: everything (jobgate resume --all)"}},
		{"resume --connection anthropic", exitDone, []string{"connection anthropic is resumed; it was stopped", "STILL STOPPED: everything"}},
		{"resume --all", exitDone, []string{"everything is resumed"}},
		{"resume --all", exitDone, []string{"nothing to lift: this is not stopped\n"}},
	} {
		code, out, errs := w.command(strings.Fields(c.line)...)
		t.Logf("$ jobgate %s\n%s%s", c.line, out, errs)
		for _, want := range c.says {
			if code != c.code || !strings.Contains(out+errs, want) {
				t.Errorf("jobgate %s = %d, want %d and %q", c.line, code, c.code, want)
			}
		}
	}
	var change api.StopChange
	must(w, w.admin("PUT", "/v1/stops/all", nil, &change))
	if change.Stop == nil || change.Stop.Kind != "all" || change.Stop.Sessions != 1 {
		t.Errorf("over the API: %+v", change)
	}
}

// TestStopOutlivesAKill kills the server while everything is stopped: the next one refuses its first call already, and
// what is configured later is stopped, too.
func TestStopOutlivesAKill(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	w.stop()
	server := w.startChild()
	t.Cleanup(func() { server.kill() })
	token := w.open()
	w.must("stop", "--all", "--reason", "everything off")
	server.kill()
	seen := len(w.model.Requests())
	w.writeConfig(w.config + `
  - {name: later, issuer: github, match: {repository_owner_id: "123456", repository_id: "7"}, grants: [{connection: anthropic, allow: ["POST /v1/messages"]}]}
`)
	server = w.startChild()
	for range 3 {
		w.refused(token.AccessToken, "everything is stopped by an operator: everything off")
	}
	if bad := w.openFails(w.token(w.job(map[string]any{"repository_id": "7", "run_id": "7", "check_run_id": "8"})), "invalid_target"); !strings.Contains(bad.Description, "everything off") {
		t.Errorf("the later mapping's exchange is refused with %+v", bad)
	}
	if n := len(w.model.Requests()); n != seen {
		t.Errorf("the upstream saw %d requests", n-seen)
	}
	w.must("resume", "--all")
	if status, body := w.ask(token.AccessToken, "again"); status != http.StatusOK {
		t.Errorf("a call = %d %s", status, body)
	}
	server.kill()
	w.start()
}

// TestStopRacesCalls starts calls without a pause while stops land, over the whole server: of what began after a stop was
// answered, the upstream sees nothing, ever. (That no byte leaves then either, of calls that had begun, is shown in package
// proxy, where the connection can be watched.)
func TestStopRacesCalls(t *testing.T) {
	w := newWorld(t, worldConfig{script: testkit.ScriptSay("short")})
	token := w.open()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var number, passed, refused atomic.Int64
	var era atomic.Int64   // odd while a stop is answered and not lifted yet
	var forbidden sync.Map // prompts of calls that began and ended within one such time
	for i := range 6 {
		clients.Go(func() {
			for ctx.Err() == nil {
				prompt, began := fmt.Sprintf("call %d.", number.Add(1)), era.Load()
				req, _ := http.NewRequestWithContext(ctx, "POST", w.base()+"/anthropic/v1/messages", bytes.NewReader(messageBody(prompt, i%2 == 0)))
				req.Header = http.Header{"X-Api-Key": {token.AccessToken}, "Content-Type": {"application/json"}, "Anthropic-Version": {"2023-06-01"}}
				resp, err := http.DefaultClient.Do(req)
				if err != nil { // an answer that had begun was broken off
					continue
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				switch {
				case strings.Contains(string(body), "is stopped by an operator"):
					if began%2 == 1 && era.Load() == began {
						forbidden.Store(prompt, true)
					}
					refused.Add(1)
				case err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(body), "short"):
					passed.Add(1)
				case err == nil:
					t.Errorf("a call = %d %s", resp.StatusCode, body)
				}
			}
		})
	}
	for round := range 12 {
		from := passed.Load()
		w.eventually("calls pass", func() bool { return passed.Load() >= from+6 })
		path := []string{"/v1/stops/all", "/v1/stops/mapping/agents", "/v1/stops/connection/anthropic"}[round%3]
		must(w, w.admin("PUT", path, nil, nil))
		era.Add(1)
		from = refused.Load()
		w.eventually("calls are refused", func() bool { return refused.Load() >= from+30 })
		era.Add(1)
		must(w, w.admin("DELETE", path, nil, nil))
	}
	cancel()
	clients.Wait()
	for _, r := range w.model.Requests() {
		if prompt := r.Body.Messages[0].Content.Text(); prompt == "" {
			t.Fatal("a request of the upstream without its prompt")
		} else if _, bad := forbidden.Load(prompt); bad {
			t.Errorf("the upstream saw %q, which began after a stop was answered", prompt)
		}
	}
}

// TestAgentSDKStopped stops a run of the real Agent SDK in its middle, and a run that has not begun: the user reads the
// operator's reason, and nothing is tried again for minutes.
func TestAgentSDKStopped(t *testing.T) {
	k := kit(t)
	const reason = "key leaked, ask the platform team"
	for _, flags := range []string{"--connection anthropic", "--mapping agents", "--all"} {
		t.Run(flags, func(t *testing.T) {
			inStream := make(chan struct{})
			var once sync.Once
			w := newWorld(t, worldConfig{script: func(r testkit.Request) testkit.Response {
				answer := testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: strings.Repeat("a plan that goes on and on, ", 40)}}}
				answer.Pacing = &testkit.Pacing{Gate: func(e testkit.Event) {
					if e.N == 4 {
						once.Do(func() { close(inStream) })
						<-e.Done
					}
				}}
				return answer
			}})
			env := w.federation(w.token(w.job(nil)), "agents")
			done := make(chan *clients.Transcript, 1)
			go func() { done <- w.agent(k, t.TempDir(), env) }()
			<-inStream
			stopped := time.Now()
			w.must(append(append([]string{"stop"}, strings.Fields(flags)...), "-r", reason)...)
			run := <-done
			if took := time.Since(stopped); took > 20*time.Second {
				t.Errorf("the run went on for %s", took)
			}
			if run.OK || !strings.Contains(run.Result, "is stopped by an operator: "+reason) {
				t.Errorf("the run ended with %q, ok %v", run.Result, run.OK)
			}
			t.Logf("in mid-run, after %s, the user reads: %s", time.Since(stopped).Round(time.Millisecond), run.Result)
			if n := len(w.model.Requests()); n != 1 {
				t.Errorf("the upstream saw %d requests", n)
			}
			before := time.Now()
			next := w.agent(k, t.TempDir(), w.federation(w.token(w.job(map[string]any{"run_id": "31", "check_run_id": "32"})), "agents"))
			if next.OK || !strings.Contains(next.Result, reason) || time.Since(before) > 30*time.Second {
				t.Errorf("a run that begins then ended with %q, ok %v, after %s", next.Result, next.OK, time.Since(before))
			}
			t.Logf("a new run, after %s: %s", time.Since(before).Round(time.Millisecond), next.Result)
			if n := len(w.model.Requests()); n != 1 {
				t.Errorf("the upstream saw %d requests", n)
			}
		})
	}
}

// BenchmarkStopThousandStreams stops a connection with a thousand open streams, of ten jobs, over the whole server, and
// reports how long it takes until the stop is answered and until the last client reads the end of its stream.
func BenchmarkStopThousandStreams(b *testing.B) {
	const jobs, streams = 10, 100
	w := newWorld(b, worldConfig{script: holding})
	var answered, last, middle time.Duration
	for n := 0; b.Loop(); n++ {
		calls := w.manyStreams(b, n, jobs, streams)
		start := time.Now()
		var change api.StopChange
		must(w, w.admin("PUT", "/v1/stops/connection/anthropic", nil, &change))
		answered += time.Since(start)
		if change.Cut != jobs*streams {
			b.Errorf("%d calls were cut", change.Cut)
		}
		took := w.cutTimes(b, calls, start, "is stopped by an operator")
		last, middle = last+took[len(took)-1], middle+took[len(took)/2]
		must(w, w.admin("DELETE", "/v1/stops/connection/anthropic", nil, nil))
	}
	b.ReportMetric(float64(answered.Microseconds())/1e3/float64(b.N), "ms-answer")
	b.ReportMetric(float64(last.Microseconds())/1e3/float64(b.N), "ms-last-cut")
	b.ReportMetric(float64(middle.Microseconds())/1e3/float64(b.N), "ms-median-cut")
	b.ReportMetric(0, "ns/op")
}
