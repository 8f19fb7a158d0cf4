package main

import (
	"context"
	"crypto/rand"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
)

// otherCI is a provider beside GitHub: its tokens, its job API and its webhooks, all of small jobs by number.
type otherCI struct {
	provider, match, secret string
	claims                  map[string]any
	job                     func(n int) map[string]any // the claims that name a job

	url      string
	set      func(n int, ended bool)
	refuse   func(...testkit.Refusal)
	requests func() []string
	deliver  func(secret string, n int, ended bool) testkit.Delivery
}

const ciToken = "ci-api-token-4c1d9a7e20b35f68"

func gitlabCI(t *testing.T, secret string) otherCI {
	t.Helper()
	api, err := testkit.NewGitLabAPI(ciToken)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	job := func(n int, ended bool) testkit.GitLabJob {
		j := testkit.GitLabJob{Project: 20, Pipeline: 574, ID: int64(300 + n), Status: "running"}
		if ended {
			j.Status = "success"
		}
		return j
	}
	return otherCI{
		provider: "gitlab", secret: secret, match: `{namespace_id: "72", project_id: "20", ref_path: refs/heads/main, pipeline_source: [push]}`,
		claims: map[string]any{
			"sub": "project_path:g/p:ref_type:branch:ref:main", "namespace_id": "72", "project_id": "20", "job_namespace_id": "72", "job_project_id": "20",
			"pipeline_id": "574", "pipeline_source": "push", "ref_path": "refs/heads/main", "ref": "main", "ref_type": "branch", "project_path": "g/p", "namespace_path": "g",
		},
		job: func(n int) map[string]any { return map[string]any{"job_id": strconv.Itoa(300 + n), "jti": rand.Text()} },
		url: api.URL(), refuse: api.Refuse, requests: api.Requests,
		set: func(n int, ended bool) { api.SetJob(job(n, ended)) },
		deliver: func(secret string, n int, ended bool) testkit.Delivery {
			return testkit.GitLabDelivery(secret, job(n, ended), time.Now())
		},
	}
}

func buildkiteCI(t *testing.T) otherCI {
	t.Helper()
	api, err := testkit.NewBuildkiteAPI(ciToken)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	id := func(n int) string { return "0184990a-477b-4fa8-9968-" + strconv.Itoa(496074483000+n) }
	job := func(n int, ended bool) testkit.BuildkiteJob {
		j := testkit.BuildkiteJob{Organization: "acme-inc", Pipeline: "tools", Build: 7, ID: id(n), State: "running"}
		if ended {
			j.State = "passed"
		}
		return j
	}
	return otherCI{
		provider: "buildkite", secret: hookSecret, match: `{organization_id: org-1, pipeline_id: pipe-1, build_branch: main}`,
		claims: map[string]any{
			"sub": "organization:acme-inc:pipeline:tools", "organization_slug": "acme-inc", "organization_id": "org-1", "pipeline_slug": "tools", "pipeline_id": "pipe-1",
			"build_number": 7, "build_branch": "main", "build_commit": strings.Repeat("a", 40), "agent_id": "agent-1", "build_source": "webhook",
		},
		job: func(n int) map[string]any { return map[string]any{"job_id": id(n), "jti": rand.Text()} },
		url: api.URL(), refuse: api.Refuse, requests: api.Requests,
		set: func(n int, ended bool) { api.SetJob(job(n, ended)) },
		deliver: func(secret string, n int, ended bool) testkit.Delivery {
			event := map[bool]string{true: "job.finished", false: "job.started"}[ended]
			return testkit.BuildkiteDelivery(secret, event, job(n, ended), time.Now())
		},
	}
}

// ciWorld is a server that trusts the provider's jobs; follow are further keys of its issuer.
func ciWorld(t *testing.T, ci otherCI, follow, window string) *world {
	t.Helper()
	w := newWorld(t, worldConfig{script: holding, match: ci.match, mapping: "    window: " + window, edit: func(w *world) {
		w.secretFile("hook", ci.secret)
		w.secretFile("token", ciToken)
		w.config = strings.Replace(w.config, "provider: github-actions,", "provider: "+ci.provider+", "+follow+",", 1)
	}})
	return w
}

// ciJob mints a further token of a job.
func (w *world) ciJob(ci otherCI, n int) string {
	w.t.Helper()
	now := time.Now()
	claims := map[string]any{"iss": w.issuer.URL(), "aud": w.base(), "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	maps.Copy(claims, ci.claims)
	maps.Copy(claims, ci.job(n))
	token, err := w.issuer.Mint(claims, testkit.MintOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// TestWebhooksOfOthers ends jobs of GitLab, by both of its forms, and of Buildkite while their streams are open.
func TestWebhooksOfOthers(t *testing.T) {
	const webhook = `webhook: {secret: "file:hook.secret"}`
	for name, ci := range map[string]otherCI{
		"gitlab, token": gitlabCI(t, hookSecret), "gitlab, signed": gitlabCI(t, "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="), "buildkite": buildkiteCI(t),
	} {
		t.Run(name, func(t *testing.T) {
			w := ciWorld(t, ci, webhook, "{max: 1h, lease: 1h}")
			status, token, bad := w.exchange(w.ciJob(ci, 1), nil)
			if status != http.StatusOK {
				t.Fatalf("exchange = %d %+v", status, bad)
			}
			first, second := w.send(token.AccessToken, messageBody("hold 1", true)), w.send(token.AccessToken, messageBody("hold 2", true))
			send := func(d testkit.Delivery, want int, answer string) {
				t.Helper()
				status, body, err := d.Send(context.Background(), w.base()+"/hooks/"+ci.provider)
				if err != nil || status != want || !strings.Contains(body, answer) {
					t.Errorf("delivery = %d %s, %v; want %d %s", status, body, err, want, answer)
				}
			}
			forged := "another-secret-0123456789"
			if strings.HasPrefix(ci.secret, "whsec_") {
				forged = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
			}
			send(ci.deliver(forged, 1, true), http.StatusUnauthorized, "unauthenticated")
			send(ci.deliver(ci.secret, 2, true), http.StatusOK, `"outcome":"ended","sessions":0`) // the retry, or another job
			running := ci.deliver(ci.secret, 1, false)
			send(running, http.StatusOK, `"outcome":"running","sessions":1`)
			send(running, http.StatusOK, `"duplicate"`)
			if s := w.session(token.SessionID); s.State != "awake" || s.Sign != "webhook" {
				t.Errorf("the session is %s, sign of life %q", s.State, s.Sign)
			}
			for _, c := range []*liveCall{first, second} {
				select {
				case <-c.done:
					t.Fatalf("a stream was cut by what is said of another job: %s", tail(c.body, 300))
				default:
				}
			}

			end, start := ci.deliver(ci.secret, 1, true), time.Now()
			send(end, http.StatusOK, `"outcome":"ended","sessions":1`)
			for _, c := range []*liveCall{first, second} {
				w.wait(c)
				c.cutWith(t, itsEnd)
				if took := c.ended.Sub(start); took > time.Second {
					t.Errorf("a stream was cut after %s", took)
				}
			}
			send(end, http.StatusOK, `"duplicate"`)
			send(ci.deliver(ci.secret, 1, false), http.StatusOK, `"sessions":0`) // late: an end that was said stays said
			w.refused(token.AccessToken, itsEnd)
			w.openFails(w.ciJob(ci, 1), "invalid_grant")
			w.openFails(w.ciJob(ci, 2), "invalid_grant") // it was said to be over before it came
			if status, _, bad := w.exchange(w.ciJob(ci, 3), nil); status != http.StatusOK {
				t.Errorf("another job = %d %+v", status, bad)
			}
			lines := w.events(token.SessionID)
			if last := decode[record.SessionEnded](t, lines[len(lines)-1]); last.Reason != "job_ended" || last.By != "a webhook of issuer github" {
				t.Errorf("the record ends with %+v", last)
			}
			w.nowhereBut(map[string]string{"the webhook's secret": ci.secret})
		})
	}
}

// TestJobAPIsOfOthers asks GitLab and Buildkite at the exchange and while a session is open: a lease far shorter than the
// job is kept by it, and the job's end cuts its stream.
func TestJobAPIsOfOthers(t *testing.T) {
	for name, ci := range map[string]otherCI{"gitlab": gitlabCI(t, hookSecret), "buildkite": buildkiteCI(t)} {
		t.Run(name, func(t *testing.T) {
			api := `api: {url: "` + ci.url + `", token: "file:token.secret", every: 1s}`
			w := ciWorld(t, ci, api, "{max: 1h, lease: 1500ms}\n    require_liveness: true")
			if status, _, bad := w.exchange(w.ciJob(ci, 1), nil); status != http.StatusServiceUnavailable {
				t.Errorf("a job that nobody knows = %d %+v", status, bad)
			}
			ci.set(2, true)
			w.openFails(w.ciJob(ci, 2), "invalid_grant")
			ci.set(1, false)
			status, token, bad := w.exchange(w.ciJob(ci, 1), nil)
			if status != http.StatusOK {
				t.Fatalf("exchange = %d %+v", status, bad)
			}
			stream := w.send(token.AccessToken, messageBody("hold", true))
			w.eventually("the job API keeps the session awake, over two leases", func() bool {
				s := w.session(token.SessionID)
				return s.Sign == "job API" && s.State == "awake" && time.Since(s.Opened) > 4*time.Second
			})
			if !slices.ContainsFunc(ci.requests(), func(r string) bool { return strings.HasSuffix(r, " 304") }) {
				t.Errorf("no answer was asked for by its ETag: %q", ci.requests())
			}
			start := time.Now()
			ci.set(1, true)
			w.wait(stream)
			stream.cutWith(t, itsEnd)
			if took := stream.ended.Sub(start); took > time.Second {
				t.Errorf("the stream was cut %s after the API said so, and the API is asked twice a second", took)
			}
			w.openFails(w.ciJob(ci, 1), "invalid_grant")
			lines := w.events(token.SessionID)
			if last := decode[record.SessionEnded](t, lines[len(lines)-1]); last.Reason != "job_ended" || last.By != "the job API of issuer github" {
				t.Errorf("the record ends with %+v", last)
			}
		})
	}
}

// TestJobAPIIsLimited obeys a rate limit: nothing is asked before its time, the lease runs out meanwhile, and what the API
// says afterwards counts.
func TestJobAPIIsLimited(t *testing.T) {
	for name, ci := range map[string]otherCI{"gitlab": gitlabCI(t, hookSecret), "buildkite": buildkiteCI(t)} {
		t.Run(name, func(t *testing.T) {
			api := `api: {url: "` + ci.url + `", token: "file:token.secret", every: 1s}`
			w := ciWorld(t, ci, api, "{max: 1h, lease: 1500ms}")
			ci.set(1, false)
			_, token, _ := w.exchange(w.ciJob(ci, 1), nil)
			stream := w.send(token.AccessToken, messageBody("hold", true))
			ci.refuse(testkit.Refusal{Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "3"}, Body: `{"message":"slow down"}`})
			w.eventually("the API refuses", func() bool {
				return slices.ContainsFunc(ci.requests(), func(r string) bool { return strings.HasSuffix(r, " 429") })
			})
			refused, asked := time.Now(), len(ci.requests())
			ci.set(1, true)
			w.eventually("the lease runs out", func() bool { return w.session(token.SessionID).State == "dormant" })
			if n := len(ci.requests()); n != asked && time.Since(refused) < 2500*time.Millisecond {
				t.Errorf("the API was asked %d times within what it said to wait", n-asked)
			}
			w.wait(stream)
			stream.cutWith(t, itsEnd)
			if took := stream.ended.Sub(refused); took < 2500*time.Millisecond || took > 6*time.Second {
				t.Errorf("the session ended %s after the API said to wait three seconds", took)
			}
			if !strings.Contains(w.log.String(), "its rate limit is used up") {
				t.Error("the log says nothing of the rate limit")
			}
		})
	}
}
