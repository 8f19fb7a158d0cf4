package federation_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
)

const (
	hookSecret    = "a-webhook-secret-of-the-test"
	signingSecret = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q="
)

// hooks returns what takes webhooks for one issuer of a provider.
func (w *world) hooks(provider, secret string) *federation.Hooks {
	name := provider
	if provider == "github-actions" {
		name = "github"
	}
	h, err := federation.NewHooks(federation.HooksConfig{Sessions: w.sessions, Now: w.now,
		Hooks: []federation.Hook{{Issuer: federation.Issuer{Name: name, Provider: provider}, Secret: access.NewSecret(secret)}}})
	if err != nil {
		panic(err) // also called by a fuzz target, which has no w.t
	}
	return h
}

// worldJob is the job of the world's token "1/...", as GitHub's webhook tells of it.
func worldJob(action, status string, change map[string]any) map[string]any {
	job := map[string]any{"id": 70, "run_id": 1, "run_attempt": 1, "status": status, "check_run_url": "https://api.github.com/repos/o/r/check-runs/7"}
	for k, v := range change {
		job[k] = v
	}
	return map[string]any{"action": action, "workflow_job": job, "repository": map[string]any{"id": 456789, "full_name": "o/r"}}
}

func worldRun(action, status string, attempt int) map[string]any {
	return map[string]any{"action": action, "repository": map[string]any{"id": 456789, "full_name": "o/r"},
		"workflow_run": map[string]any{"id": 1, "run_attempt": attempt, "status": status}}
}

func githubDelivery(event string, payload map[string]any) testkit.Delivery {
	return testkit.SignGitHub(hookSecret, event, payload)
}

func (w *world) deliver(h *federation.Hooks, kind string, d testkit.Delivery) federation.HookResult {
	w.t.Helper()
	r, err := h.Receive(w.t.Context(), kind, d.Header, d.Body)
	w.must(err)
	return r
}

// wantResult delivers and compares.
func (w *world) wantResult(h *federation.Hooks, kind string, d testkit.Delivery, outcome string, sessions int) {
	w.t.Helper()
	if diff := cmp.Diff(federation.HookResult{Outcome: outcome, Sessions: sessions}, w.deliver(h, kind, d)); diff != "" {
		w.t.Errorf("result (-want +got)\n%s", diff)
	}
}

func TestGitHubHooks(t *testing.T) {
	for _, test := range []struct {
		name     string
		event    string
		payload  map[string]any
		outcome  string
		sessions int
		open     bool // afterwards
	}{
		{"the job is completed", "workflow_job", worldJob("completed", "completed", nil), "ended", 1, false},
		{"its attempt is completed", "workflow_run", worldRun("completed", "completed", 1), "ended", 1, false},
		{"it runs", "workflow_job", worldJob("in_progress", "in_progress", nil), "running", 1, true},
		{"it is queued", "workflow_job", worldJob("queued", "queued", nil), "ignored", 0, true},
		{"its run is in progress", "workflow_run", worldRun("in_progress", "in_progress", 1), "ignored", 0, true},
		{"another attempt's job", "workflow_job", worldJob("completed", "completed", map[string]any{"run_attempt": 2}), "ended", 0, true},
		{"another attempt", "workflow_run", worldRun("completed", "completed", 2), "ended", 0, true},
		{"a new attempt is requested", "workflow_run", worldRun("requested", "queued", 2), "ignored", 0, true},
		{"another job of the run", "workflow_job", worldJob("completed", "completed", map[string]any{"check_run_url": "https://api.github.com/repos/o/r/check-runs/8"}), "ended", 0, true},
		{"another run", "workflow_job", worldJob("completed", "completed", map[string]any{"run_id": 2}), "ended", 0, true},
		{"another repository", "workflow_job", func() map[string]any {
			p := worldJob("completed", "completed", nil)
			p["repository"] = map[string]any{"id": 5}
			return p
		}(), "ended", 0, true},
		{"another event", "push", map[string]any{"ref": "refs/heads/main"}, "ignored", 0, true},
		{"ping", "ping", map[string]any{"zen": "Design for failure."}, "ignored", 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			inTime(t, func(t *testing.T) {
				w := newWorld(t, agents())
				o := w.mustOpen("1/a")
				w.wantResult(w.hooks("github-actions", hookSecret), "github", githubDelivery(test.event, test.payload), test.outcome, test.sessions)
				if want := map[bool]access.Code{true: "", false: access.CodeEnded}[test.open]; w.call(o) != want {
					t.Errorf("call = %q, want %q", w.call(o), want)
				}
			})
		})
	}
}

func TestHooksThatAreRefused(t *testing.T) {
	now := time.Now()
	job := worldJob("completed", "completed", nil)
	change := func(d testkit.Delivery, change func(h http.Header, body []byte) []byte) testkit.Delivery {
		d.Header = d.Header.Clone()
		d.Body = change(d.Header, append([]byte(nil), d.Body...))
		return d
	}
	set := func(name string, values ...string) func(http.Header, []byte) []byte {
		return func(h http.Header, b []byte) []byte { h[http.CanonicalHeaderKey(name)] = values; return b }
	}
	good := githubDelivery("workflow_job", job)
	glJob := testkit.GitLabJob{Project: 20, Pipeline: 574, ID: 302, Status: "success"}
	bkJob := testkit.BuildkiteJob{ID: "1", State: "passed"}
	generic := map[string]any{"issuer": "github", "job_key": "run_id=1", "state": "ended"}
	for _, test := range []struct {
		name, provider, secret, kind string
		d                            testkit.Delivery
		want                         access.Code
	}{
		{"good", "github-actions", hookSecret, "github", good, ""},
		{"no signature", "github-actions", hookSecret, "github", change(good, set("X-Hub-Signature-256")), access.CodeUnauthenticated},
		{"SHA-1 alone", "github-actions", hookSecret, "github", change(good, func(h http.Header, b []byte) []byte {
			h.Set("X-Hub-Signature", "sha1=0000000000000000000000000000000000000000")
			h.Del("X-Hub-Signature-256")
			return b
		}), access.CodeUnauthenticated},
		{"SHA-1 in the SHA-256 header", "github-actions", hookSecret, "github", change(good, set("X-Hub-Signature-256", "sha1=0000")), access.CodeUnauthenticated},
		{"two signatures", "github-actions", hookSecret, "github", change(good, set("X-Hub-Signature-256", good.Header.Get("X-Hub-Signature-256"), "sha256=00")), access.CodeUnauthenticated},
		{"empty signature", "github-actions", hookSecret, "github", change(good, set("X-Hub-Signature-256", "sha256=")), access.CodeUnauthenticated},
		{"cut signature", "github-actions", hookSecret, "github", change(good, set("X-Hub-Signature-256", good.Header.Get("X-Hub-Signature-256")[:20])), access.CodeUnauthenticated},
		{"another body", "github-actions", hookSecret, "github", change(good, func(_ http.Header, b []byte) []byte { return append(b, ' ') }), access.CodeUnauthenticated},
		{"another secret", "github-actions", "another-secret", "github", good, access.CodeUnauthenticated},
		{"form", "github-actions", hookSecret, "github", change(good, set("Content-Type", "application/x-www-form-urlencoded")), access.CodeInvalid},
		{"no JSON", "github-actions", hookSecret, "github", testkit.SignGitHubBody(hookSecret, "workflow_job", []byte("{")), access.CodeInvalid},
		{"no job", "github-actions", hookSecret, "github", githubDelivery("workflow_job", map[string]any{"action": "completed"}), access.CodeInvalid},
		{"no run", "github-actions", hookSecret, "github", githubDelivery("workflow_run", map[string]any{"action": "completed"}), access.CodeInvalid},
		{"no such webhook", "gitlab", hookSecret, "github", good, access.CodeNotFound},
		{"no such kind", "github-actions", hookSecret, "circleci", good, access.CodeNotFound},

		{"gitlab, good", "gitlab", hookSecret, "gitlab", testkit.GitLabDelivery(hookSecret, glJob, now), ""},
		{"gitlab, another token", "gitlab", hookSecret, "gitlab", testkit.GitLabDelivery("another", glJob, now), access.CodeUnauthenticated},
		{"gitlab, no token", "gitlab", hookSecret, "gitlab", change(testkit.GitLabDelivery(hookSecret, glJob, now), set("X-Gitlab-Token")), access.CodeUnauthenticated},
		{"gitlab, signed", "gitlab", signingSecret, "gitlab", testkit.GitLabDelivery(signingSecret, glJob, now), ""},
		{"gitlab, signing token in clear", "gitlab", signingSecret, "gitlab", change(testkit.GitLabDelivery(hookSecret, glJob, now), set("X-Gitlab-Token", signingSecret)), access.CodeUnauthenticated},
		{"gitlab, signed long ago", "gitlab", signingSecret, "gitlab", testkit.GitLabDelivery(signingSecret, glJob, now.Add(-6*time.Minute)), access.CodeUnauthenticated},
		{"gitlab, another id", "gitlab", signingSecret, "gitlab", change(testkit.GitLabDelivery(signingSecret, glJob, now), set("webhook-id", "x")), access.CodeUnauthenticated},
		{"gitlab, one of two signatures", "gitlab", signingSecret, "gitlab", change(testkit.GitLabDelivery(signingSecret, glJob, now), func(h http.Header, b []byte) []byte {
			h.Set("Webhook-Signature", "v1a,xyz v1,AAAA "+h.Get("Webhook-Signature"))
			return b
		}), ""},
		{"gitlab, no ids", "gitlab", hookSecret, "gitlab", change(testkit.GitLabDelivery(hookSecret, glJob, now), func(http.Header, []byte) []byte { return []byte(`{"object_kind":"build"}`) }), access.CodeInvalid},

		{"buildkite, good", "buildkite", hookSecret, "buildkite", testkit.BuildkiteDelivery(hookSecret, "job.finished", bkJob, now), ""},
		{"buildkite, old", "buildkite", hookSecret, "buildkite", testkit.BuildkiteDelivery(hookSecret, "job.finished", bkJob, now.Add(-6*time.Minute)), access.CodeUnauthenticated},
		{"buildkite, from the future", "buildkite", hookSecret, "buildkite", testkit.BuildkiteDelivery(hookSecret, "job.finished", bkJob, now.Add(6*time.Minute)), access.CodeUnauthenticated},
		{"buildkite, token in clear", "buildkite", hookSecret, "buildkite", change(testkit.BuildkiteDelivery("another", "job.finished", bkJob, now), set("X-Buildkite-Token", hookSecret)), access.CodeUnauthenticated},
		{"buildkite, another time", "buildkite", hookSecret, "buildkite", change(testkit.BuildkiteDelivery(hookSecret, "job.finished", bkJob, now), func(h http.Header, b []byte) []byte {
			h.Set("X-Buildkite-Signature", fmt.Sprintf("timestamp=%d,%s", now.Unix()+1, h.Get("X-Buildkite-Signature")[len("timestamp=0000000000,"):]))
			return b
		}), access.CodeUnauthenticated},

		{"generic, good", "github-actions", hookSecret, "generic", testkit.GenericDelivery(hookSecret, generic, now), ""},
		{"generic, old", "github-actions", hookSecret, "generic", testkit.GenericDelivery(hookSecret, generic, now.Add(-time.Hour)), access.CodeUnauthenticated},
		{"generic, unknown key", "github-actions", hookSecret, "generic", testkit.GenericDelivery(hookSecret, map[string]any{"issuer": "github", "job": "1", "state": "ended"}, now), access.CodeInvalid},
		{"generic, another state", "github-actions", hookSecret, "generic", testkit.GenericDelivery(hookSecret, map[string]any{"issuer": "github", "job_key": "1", "state": []any{}}, now), access.CodeInvalid},
		{"generic, no job", "github-actions", hookSecret, "generic", testkit.GenericDelivery(hookSecret, map[string]any{"issuer": "github", "state": "ended"}, now), access.CodeInvalid},
		{"generic, two names of the job", "github-actions", hookSecret, "generic", testkit.GenericDelivery(hookSecret, map[string]any{"issuer": "github", "job_key": "1", "claims": map[string]any{}, "state": "ended"}, now), access.CodeInvalid},
		{"generic, a claim that does not count", "github-actions", hookSecret, "generic", testkit.GenericDelivery(hookSecret, map[string]any{"issuer": "github", "state": "ended",
			"claims": map[string]any{"run_id": "1", "run_attempt": "1", "repository_id": "5"}}, now), access.CodeInvalid},
		{"generic, a claim is missing", "github-actions", hookSecret, "generic", testkit.GenericDelivery(hookSecret, map[string]any{"issuer": "github", "state": "ended",
			"claims": map[string]any{"run_id": "1"}}, now), access.CodeInvalid},
		{"generic, another issuer", "github-actions", hookSecret, "generic", testkit.GenericDelivery(hookSecret, map[string]any{"issuer": "other", "job_key": "1", "state": "ended"}, now), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, agents())
			_, err := w.hooks(test.provider, test.secret).Receive(t.Context(), test.kind, test.d.Header, test.d.Body)
			if access.CodeOf(err) != test.want {
				t.Errorf("error = %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), test.secret) {
				t.Errorf("the secret stands in %v", err)
			}
		})
	}
}

// A job that is over stays so: for a later signal, for a redelivery, and for an exchange that comes after it.
func TestHookOrder(t *testing.T) {
	ended := githubDelivery("workflow_job", worldJob("completed", "completed", nil))
	running := githubDelivery("workflow_job", worldJob("in_progress", "in_progress", nil))
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		h := w.hooks("github-actions", hookSecret)
		w.wantResult(h, "github", ended, "ended", 0) // before its session
		_, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/a"})
		wantRefused(t, err, access.CodeGrant, "job_ended")
		w.wantResult(h, "github", running, "running", 0)
		_, err = w.open("1/b")
		wantRefused(t, err, access.CodeGrant, "job_ended")
		w.mustOpen("2/c") // another run
	})
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents())
		h := w.hooks("github-actions", hookSecret)
		o := w.mustOpen("1/a")
		w.wantResult(h, "github", ended, "ended", 1)
		w.wantResult(h, "github", ended, "duplicate", 0)
		again := ended
		again.Header = ended.Header.Clone()
		again.Header.Set("X-GitHub-Delivery", "another-id") // nobody signs it
		w.wantResult(h, "github", again, "duplicate", 0)
		w.wantCall(o, access.CodeEnded)
		info, err := w.sessions.Get(t.Context(), o.Session.ID)
		if err != nil || info.Reason != access.EndJob || info.EndedBy != "a webhook of issuer github" {
			t.Errorf("info = %+v, %v", info, err)
		}
	})
}

// A signal renews a lease within the window, once, and a captured one does not do it again.
func TestHookRenews(t *testing.T) {
	running := githubDelivery("workflow_job", worldJob("in_progress", "in_progress", nil))
	inTime(t, func(t *testing.T) {
		w := newWorld(t, agents(window(30*time.Minute, 10*time.Minute)))
		h := w.hooks("github-actions", hookSecret)
		o := w.mustOpen("1/a")
		time.Sleep(9 * time.Minute)
		w.wantResult(h, "github", running, "running", 1)
		time.Sleep(9 * time.Minute)
		w.wantCall(o, "")
		if info, _ := w.sessions.Get(t.Context(), o.Session.ID); info.Sign != federation.LifeHook {
			t.Errorf("sign of life = %q", info.Sign)
		}
		w.wantResult(h, "github", running, "duplicate", 0)
		time.Sleep(2 * time.Minute)
		w.wantCall(o, access.CodeUnauthenticated)
	})
	inTime(t, func(t *testing.T) { // a heartbeat of one's own is signed anew each time
		w := newWorld(t, agents(window(30*time.Minute, 10*time.Minute)))
		h := w.hooks("github-actions", hookSecret)
		o := w.mustOpen("1/a")
		for range 5 {
			time.Sleep(5 * time.Minute)
			w.wantResult(h, "generic", testkit.GenericDelivery(hookSecret, map[string]any{"issuer": "github", "job_key": "run_id=1", "state": "running"}, time.Now()), "running", 1)
			w.wantCall(o, "")
		}
		time.Sleep(5 * time.Minute)
		w.wantCall(o, access.CodeEnded)
	})
}

// Webhooks of other providers end exactly the job that they name.
func TestOtherHooks(t *testing.T) {
	now := time.Now()
	gl := func(change func(*testkit.GitLabJob)) testkit.Delivery {
		j := testkit.GitLabJob{Project: 20, Pipeline: 574, ID: 302, Status: "failed"}
		change(&j)
		return testkit.GitLabDelivery(hookSecret, j, now)
	}
	bk := func(event, id, state string) testkit.Delivery {
		return testkit.BuildkiteDelivery(hookSecret, event, testkit.BuildkiteJob{ID: id, State: state}, now)
	}
	for _, test := range []struct {
		name, provider string
		d              testkit.Delivery
		outcome        string
		sessions       int
	}{
		{"gitlab: ended", "gitlab", gl(func(*testkit.GitLabJob) {}), "ended", 1},
		{"gitlab: running", "gitlab", gl(func(j *testkit.GitLabJob) { j.Status = "running" }), "running", 1},
		{"gitlab: canceling", "gitlab", gl(func(j *testkit.GitLabJob) { j.Status = "canceling" }), "ignored", 0},
		{"gitlab: another job", "gitlab", gl(func(j *testkit.GitLabJob) { j.ID = 303 }), "ended", 0},
		{"gitlab: another project", "gitlab", gl(func(j *testkit.GitLabJob) { j.Project = 21 }), "ended", 0},
		{"buildkite: finished", "buildkite", bk("job.finished", "j-1", "passed"), "ended", 1},
		{"buildkite: a later state than the event's", "buildkite", bk("job.started", "j-1", "canceled"), "ended", 1},
		{"buildkite: started", "buildkite", bk("job.started", "j-1", "running"), "running", 1},
		{"buildkite: another job", "buildkite", bk("job.finished", "j-2", "passed"), "ended", 0},
		{"buildkite: another event", "buildkite", bk("build.finished", "j-1", "passed"), "ignored", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, agents(func(m *api.Mapping) {
				m.Issuer, m.Match = test.provider, map[string]api.Values{"pipeline_id": {"574"}}
				if test.provider == "gitlab" {
					m.Match["project_id"] = api.Values{"9"}
				}
			}))
			w.openIdentity(access.Identity{Issuer: test.provider, Provider: test.provider, JobKey: "job_id=1", Claims: access.Claims{
				"project_id": "9", "job_project_id": "20", "pipeline_id": "574", "pipeline_source": "push", "job_id": map[string]string{"gitlab": "302", "buildkite": "j-1"}[test.provider],
			}})
			w.wantResult(w.hooks(test.provider, hookSecret), test.provider, test.d, test.outcome, test.sessions)
		})
	}
}

// openIdentity puts a session of a job of another provider into the registry, as a restart finds it.
func (w *world) openIdentity(id access.Identity) {
	w.t.Helper()
	now := time.Now()
	id.TokenID, id.Expires = "jti:other", now.Add(time.Hour)
	w.must(w.db.OpenSession(w.t.Context(), access.Opening{
		Session: access.SessionRow{ID: "ses_other", Mapping: "agents", Revision: 1, Identity: id, Opened: now, Closes: now.Add(time.Hour), Asleep: now.Add(time.Minute)},
		Seen:    access.SeenToken{Issuer: id.Issuer, ID: id.TokenID, Mapping: "agents", Session: "ses_other", Until: id.Expires},
		Token:   access.AccessToken{Session: "ses_other", Issued: now, Expires: now.Add(time.Hour)},
	}))
	if _, err := w.sessions.Restore(w.t.Context(), nil); err != nil {
		w.t.Fatal(err)
	}
}

// A run's session, of tokens that name no job, ends with the run's attempt and not with one of its jobs.
func TestHooksOfTokensWithoutAJob(t *testing.T) {
	for _, test := range []struct {
		event    string
		payload  map[string]any
		sessions int
	}{
		{"workflow_job", worldJob("completed", "completed", nil), 0},
		{"workflow_run", worldRun("completed", "completed", 1), 1},
	} {
		w := newWorld(t, agents(func(m *api.Mapping) { m.JobKey = "run" }))
		w.openIdentity(access.Identity{Issuer: "github", Provider: "github-actions", JobKey: "run_id=1;run_attempt=1", Claims: access.Claims{
			"repository_id": "456789", "repository_owner_id": owner, "run_id": "1", "run_attempt": "1", "event_name": "push",
		}})
		w.wantResult(w.hooks("github-actions", hookSecret), "github", githubDelivery(test.event, test.payload), "ended", test.sessions)
	}
}

// An end that is said while an exchange is under way is not missed: it registers its session, and then looks.
func TestHookRacesExchange(t *testing.T) {
	end := githubDelivery("workflow_job", worldJob("completed", "completed", nil))
	w := newWorld(t, agents())
	h := w.hooks("github-actions", hookSecret)
	w.record.opened = func(*access.Session) { w.wantResult(h, "github", end, "ended", 0) }
	o, err := w.open("1/a")
	if access.CodeOf(err) != access.CodeGrant {
		t.Errorf("opened %+v, %v", o, err)
	}
	list, err := w.sessions.List(t.Context(), true)
	if err != nil || len(list) != 0 {
		t.Errorf("open sessions %+v, %v", list, err)
	}
}

func TestHookCheck(t *testing.T) {
	for _, test := range []struct{ provider, secret, want string }{
		{"gitlab", signingSecret, ""},
		{"gitlab", "whsec_not base64", "signing token"},
		{"gitlab", "whsec_", "signing token"},
		{"github-actions", "whsec_anything goes here", ""},
		{"github-actions", "", "secret is missing"},
	} {
		h := federation.Hook{Issuer: federation.Issuer{Provider: test.provider}}
		if test.secret != "" {
			h.Secret = access.NewSecret(test.secret)
		}
		if err := h.Check(); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %q: %v, want %q", test.provider, test.secret, err, test.want)
		}
	}
}

// FuzzHooks sends bodies that are signed well, and signatures that are not: nothing panics, and a session ends only by
// a payload that names its job.
func FuzzHooks(f *testing.F) {
	for _, p := range []map[string]any{worldJob("completed", "completed", nil), worldRun("completed", "completed", 1), worldJob("in_progress", "in_progress", nil)} {
		raw, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(0), "workflow_job", "", raw)
		f.Add(uint8(0), "workflow_run", "", raw)
	}
	now := time.Now()
	f.Add(uint8(1), "Job Hook", "", testkit.GitLabDelivery(hookSecret, testkit.GitLabJob{Project: 20, Pipeline: 574, ID: 302, Status: "failed"}, now).Body)
	f.Add(uint8(2), "", "timestamp=1,signature=00", testkit.BuildkiteDelivery(hookSecret, "job.finished", testkit.BuildkiteJob{ID: "1"}, now).Body)
	f.Add(uint8(3), "", "t=1,v1=00", []byte(`{"issuer":"github","job_key":"run_id=1","state":"ended"}`))
	f.Add(uint8(3), "", "t=,v1=", []byte(`{"issuer":"github","claims":{"run_id":"1","run_attempt":"1"},"state":{}}`))
	w := newWorld(f, agents())
	kinds := federation.HookKinds()
	providers := map[string]string{"github": "github-actions", "gitlab": "gitlab", "buildkite": "buildkite", "generic": "github-actions"}
	f.Fuzz(func(t *testing.T, n uint8, event, signature string, body []byte) {
		kind := kinds[int(n)%len(kinds)]
		h := w.hooks(providers[kind], hookSecret)
		d := testkit.SignBody(kind, hookSecret, event, body, time.Now())
		result, err := h.Receive(t.Context(), kind, d.Header, d.Body)
		if code := access.CodeOf(err); err != nil && code != access.CodeInvalid {
			t.Errorf("a good signature: %v", err)
		}
		if result.Sessions != 0 {
			t.Errorf("result = %+v without a session", result)
		}
		for _, name := range []string{"X-Hub-Signature-256", "X-Gitlab-Token", "X-Buildkite-Signature", "X-Jobgate-Signature"} {
			d.Header.Set(name, signature)
		}
		if _, err := h.Receive(t.Context(), kind, d.Header, d.Body); access.CodeOf(err) != access.CodeUnauthenticated && signature != hookSecret {
			t.Errorf("signature %q: %v", signature, err)
		}
	})
}
