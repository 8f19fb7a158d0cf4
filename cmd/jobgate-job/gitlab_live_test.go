package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
)

// sessionOf returns the session of a GitLab job, once it has called something.
func (w *world) sessionOf(job string) (api.SessionView, bool) {
	w.t.Helper()
	list := w.sessions()
	i := slices.IndexFunc(list, func(s api.SessionView) bool { return strings.Contains(s.JobKey, job) })
	if i < 0 {
		return api.SessionView{}, false
	}
	return list[i], list[i].Tally.Calls > 0
}

// TestGitLabLivesByTheJobAPI has jobs of a real GitLab runtime, whose one token cannot renew anything, and a lease that
// runs out several times while the agent works: GitLab's job API keeps the session awake, and its end is the session's.
func TestGitLabLivesByTheJobAPI(t *testing.T) {
	k := findGitLab(t)
	gl, err := testkit.NewGitLabAPI(gitlabAPIToken)
	if err != nil {
		t.Fatal(err)
	}
	defer gl.Close()
	slow := testkit.Step{Use: []testkit.ToolUse{{Name: "Bash", Input: `{"command":"sleep 2; echo worked","description":"a slow step"}`}}}
	steps := testkit.ScriptTools(slow, slow, testkit.Step{Say: "three leases later: {result}"})
	endless := func(r testkit.Request) testkit.Response {
		if !strings.Contains(fmt.Sprint(r.Body.Messages), "hold the line") {
			return steps(r)
		}
		return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: strings.Repeat("words that go on and on, ", 40)}},
			Pacing: &testkit.Pacing{Gate: func(e testkit.Event) {
				if e.N == 4 {
					<-e.Done
				}
			}}}
	}
	w := newWorld(t, worldConfig{lease: "1500ms", script: endless, gitlab: `, api: {url: "` + gl.URL() + `", token: "env:GITLAB_API_TOKEN", every: 1s}`})
	status := func(job int64, word string) {
		gl.SetJob(testkit.GitLabJob{Project: 20, Pipeline: 574, ID: job, Status: word})
	}
	pipeline := func(job int64, prompt string) gitlabPipeline {
		return gitlabPipeline{helper: "jobgate-job", base: ".jobgate-connect", left: true, token: w.gitlabToken(map[string]any{"job_id": fmt.Sprint(job)}),
			script: `    - node "$AGENT_MJS" '{"prompt":"` + prompt + `"}'`}
	}

	t.Run("running, then success", func(t *testing.T) {
		status(701, "running")
		got := k.run(w, pipeline(701, "go"))
		all := got.stdout + got.stderr
		if got.code != 0 || !strings.Contains(all, "three leases later: worked") {
			t.Fatalf("the pipeline ended with %d:\n%s", got.code, all)
		}
		s, _ := w.sessionOf("job_id=701")
		if s.State != "awake" || s.Sign != "job API" || s.Tally.Calls < 3 {
			t.Errorf("after the agent the session is %s after %d calls, sign of life %q; want it awake by the job API", s.State, s.Tally.Calls, s.Sign)
		}
		said := time.Now()
		status(701, "success")
		w.eventually("the session is over", func() bool { s, _ = w.sessionOf("job_id=701"); return s.State == "ended" })
		if s.EndReason != "job_ended" || s.Ended.Sub(said) > time.Second {
			t.Errorf("the session ended (%s) %s after GitLab said success", s.EndReason, s.Ended.Sub(said))
		}
	})
	t.Run("canceled while the agent reads an answer", func(t *testing.T) {
		status(702, "running")
		done := make(chan result, 1)
		go func() {
			defer close(done)
			done <- k.run(w, pipeline(702, "hold the line"))
		}()
		w.eventually("the agent calls", func() bool { _, calls := w.sessionOf("job_id=702"); return calls })
		status(702, "canceled")
		got := <-done
		if all := got.stdout + got.stderr; got.code == 0 || !strings.Contains(all, "the CI provider reports that the job is over") {
			t.Errorf("the pipeline ended with %d:\n%s", got.code, all)
		}
		if s, _ := w.sessionOf("job_id=702"); s.EndReason != "job_ended" {
			t.Errorf("the session is %s (%s)", s.State, s.EndReason)
		}
	})
	t.Run("nobody says that it runs", func(t *testing.T) {
		got := k.run(w, pipeline(703, "go"))
		if all := got.stdout + got.stderr; got.code == 0 || strings.Contains(all, "three leases later") {
			t.Errorf("a session whose lease ran out served the agent on; the pipeline ended with %d:\n%s", got.code, all)
		}
	})
	t.Run("over before it begins", func(t *testing.T) {
		status(704, "failed")
		got := k.run(w, pipeline(704, "go"))
		if all := got.stdout + got.stderr; got.code == 0 || !strings.Contains(all, "the job is over") {
			t.Errorf("the pipeline ended with %d:\n%s", got.code, all)
		}
	})
}
