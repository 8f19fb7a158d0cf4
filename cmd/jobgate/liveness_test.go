package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
)

const (
	itsEnd      = "the CI provider reports that the job is over"
	hookSecret  = "webhook-secret-4c1d9a7e20b35f68"
	githubToken = "ghp_World4c1d9a7e20b35f68World4c1d9a7e20"
)

// follows gives a world's issuer a webhook and a job API, and starts the server anew.
func (w *world) follows() *testkit.GitHubAPI {
	w.t.Helper()
	gh, err := testkit.NewGitHubAPI(testkit.GitHubAPIConfig{Token: githubToken})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = gh.Close() })
	gh.SetRepository("octo-org/octo-repo", 456789, 123456)
	w.secretFile("hook", hookSecret)
	w.secretFile("token", githubToken)
	w.stop()
	w.config = strings.Replace(w.config, "provider: github-actions,", `provider: github-actions, webhook: {secret: "file:hook.secret"}, api: {url: "`+gh.URL()+`", token: "file:token.secret", every: 1s},`, 1)
	w.writeConfig(w.config)
	w.start()
	return gh
}

func (w *world) secretFile(name, value string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.folder, name+".secret"), []byte(value), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// worldJob is the job of the issuer's claims.
func worldJob(status string) testkit.GitHubJob {
	j := testkit.GitHubJob{Repository: 456789, Run: 16055869479, Attempt: 1, ID: 48211923411, CheckRun: 48211923411, Status: status}
	if status == "completed" {
		j.Conclusion = "success"
	}
	return j
}

// TestWebhookCutsTheStreams ends a job by GitHub's webhook while its streams are open.
func TestWebhookCutsTheStreams(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	gh := w.follows()
	gh.SetJob(worldJob("in_progress"))
	job := w.job(nil)
	_, token, _ := w.exchange(w.token(job), nil)
	first, second := w.send(token.AccessToken, messageBody("hold 1", true)), w.send(token.AccessToken, messageBody("hold 2", true))

	send := func(d testkit.Delivery, want int, answer string) {
		t.Helper()
		status, body, err := d.Send(context.Background(), w.base()+"/hooks/github")
		if err != nil || status != want || !strings.Contains(body, answer) {
			t.Errorf("delivery = %d %s, %v; want %d %s", status, body, err, want, answer)
		}
	}
	send(gh.Delivery("another-secret", "completed", worldJob("completed")), http.StatusUnauthorized, "unauthenticated")
	next := worldJob("completed")
	next.Attempt = 2
	send(gh.Delivery(hookSecret, "completed", next), http.StatusOK, `"sessions":0`)
	send(gh.Delivery(hookSecret, "in_progress", worldJob("in_progress")), http.StatusOK, `"running"`)
	if s := w.session(token.SessionID); s.State != "awake" || s.Sign == "" {
		t.Errorf("the session is %s, sign of life %q", s.State, s.Sign)
	}

	end := gh.Delivery(hookSecret, "completed", worldJob("completed"))
	start := time.Now()
	send(end, http.StatusOK, `"outcome":"ended","sessions":1`)
	for _, c := range []*liveCall{first, second} {
		w.wait(c)
		c.cutWith(t, itsEnd)
		if took := c.ended.Sub(start); took > time.Second {
			t.Errorf("a stream was cut after %s", took)
		}
	}
	send(end, http.StatusOK, `"duplicate"`)
	w.refused(token.AccessToken, itsEnd)
	w.openFails(w.token(job), "invalid_grant")
	lines := w.events(token.SessionID)
	if last := decode[record.SessionEnded](t, lines[len(lines)-1]); last.Reason != "job_ended" || last.By != "a webhook of issuer github" {
		t.Errorf("the record ends with %+v", last)
	}

	w.stop()
	w.start()
	w.refused(token.AccessToken, itsEnd)
	w.openFails(w.token(job), "invalid_grant")
	w.nowhereBut(map[string]string{"the webhook's secret": hookSecret, "the API's token": githubToken})
}

// nowhereBut is nowhere, the references' own files excepted.
func (w *world) nowhereBut(values map[string]string) {
	w.t.Helper()
	for _, name := range []string{"hook", "token"} {
		if err := os.Remove(filepath.Join(w.folder, name+".secret")); err != nil {
			w.t.Fatal(err)
		}
	}
	w.nowhere(values)
}

// TestJobAPIEndsTheSession asks the provider while the session is open, and at an exchange.
func TestJobAPIEndsTheSession(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, mapping: "    require_liveness: true\n    window: {max: 1h, lease: 3s}"})
	gh := w.follows()
	job := w.job(nil)
	if status, _, bad := w.exchange(w.token(job), nil); status != http.StatusServiceUnavailable || bad.Error != "temporarily_unavailable" {
		t.Errorf("an exchange of a job that nobody knows = %d %+v", status, bad)
	}
	gh.SetJob(worldJob("in_progress"))
	status, token, bad := w.exchange(w.token(job), nil)
	if status != http.StatusOK {
		t.Fatalf("exchange = %d %+v", status, bad)
	}
	stream := w.send(token.AccessToken, messageBody("hold", true))
	w.eventually("the job API keeps the session awake", func() bool {
		s := w.session(token.SessionID)
		return s.Sign == "job API" && s.State == "awake" && time.Since(s.Opened) > 4*time.Second
	})
	if out := w.must("sessions", "show", token.SessionID); !strings.Contains(out, "job API") {
		t.Errorf("sessions show:\n%s", out)
	}

	gh.SetJob(worldJob("completed"))
	w.wait(stream)
	stream.cutWith(t, itsEnd)
	w.openFails(w.token(job), "invalid_grant")

	again := worldJob("in_progress")
	again.Attempt, again.ID, again.CheckRun = 2, 5, 5
	gh.SetJob(again)
	old := map[string]any{"check_run_id": "48211923412"}
	stale := worldJob("completed")
	stale.ID, stale.CheckRun = 48211923412, 48211923412
	gh.SetJob(stale)
	if refused := w.openFails(w.token(w.job(old)), "invalid_grant"); !strings.Contains(refused.Description, "attempt") {
		t.Errorf("a token of a superseded attempt is refused with %+v", refused)
	}
	if status, _, bad := w.exchange(w.token(w.job(map[string]any{"run_attempt": "2", "check_run_id": "5"})), nil); status != http.StatusOK {
		t.Errorf("the next attempt = %d %+v", status, bad)
	}
	if !slices.ContainsFunc(gh.Requests(), func(r string) bool { return strings.HasSuffix(r, " 304") }) {
		t.Errorf("no answer was asked for by its ETag: %q", gh.Requests())
	}
}

func TestBadLiveness(t *testing.T) {
	for _, test := range []struct{ issuer, line, want string }{
		{"api: {token: sesame-open-now}", ":5:", "is a reference"},
		{`api: {token: "env:NOTHING"}`, ":5:", "NOTHING"},
		{"api: {}", ":5:", "credential is missing"},
		{`api: {token: "env:MODEL_KEY", app_id: 5, private_key: "env:MODEL_KEY"}`, ":5:", "not both"},
		{`api: {app_id: 5, private_key: "env:MODEL_KEY"}`, ":5:", "PEM"},
		{`api: {tokn: "env:MODEL_KEY"}`, ":5:", `did you mean "token"`},
		{`api: {token: "env:MODEL_KEY", url: "http://api.example.com"}`, ":5:", "plain http"},
		{`api: {token: "env:MODEL_KEY", every: 10ms}`, ":5:", "1s"},
		{"webhook: {}", ":5:", "secret is missing"},
		{"webhook: {secret: sesame-open-now}", ":5:", "is a reference"},
	} {
		file := filepath.Join(t.TempDir(), "jobgate.yaml")
		text := "public_url: https://jobgate.example.com\nissuers:\n  - name: github\n    provider: github-actions\n    " + test.issuer +
			"\nconnections:\n  - {name: web, kind: http, upstream: \"https://example.com\"}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := loadConfig(file)
		if err == nil {
			_, err = buildConfig(cfg, environment{Getenv: (&world{}).getenv}, slog.New(slog.DiscardHandler))
		}
		if err == nil || !strings.Contains(err.Error(), file+test.line) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), worldKey) {
			t.Errorf("%s: %v, want %s %s", test.issuer, err, test.line, test.want)
		}
	}
}
