package federation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
)

const (
	apiToken     = "ghp_a-token-of-the-test"
	octoRepo     = 456789
	octoOwner    = 123456
	octoRun      = 16055869479
	octoCheck    = 48211923411
	runPath      = "/repos/octo-org/octo-repo/actions/runs/16055869479"
	jobPath      = "/repos/octo-org/octo-repo/actions/jobs/48211923411"
	attemptsPath = runPath + "/attempts/1/jobs"
)

// octoJob is the job of the tokens that octoIdentity stands for.
func octoJob(change ...func(*testkit.GitHubJob)) testkit.GitHubJob {
	j := testkit.GitHubJob{Repository: octoRepo, Run: octoRun, Attempt: 1, ID: octoCheck, CheckRun: octoCheck, Status: "in_progress"}
	for _, c := range change {
		c(&j)
	}
	return j
}

func completed(j *testkit.GitHubJob) { j.Status, j.Conclusion = "completed", "success" }

func octoIdentity(claims ...string) access.Identity {
	id := access.Identity{Issuer: "github", Provider: "github-actions", Claims: access.Claims{
		"repository": "octo-org/octo-repo", "repository_id": strconv.Itoa(octoRepo), "repository_owner_id": strconv.Itoa(octoOwner),
		"run_id": strconv.Itoa(octoRun), "run_attempt": "1", "check_run_id": strconv.Itoa(octoCheck),
	}}
	for i := 0; i+1 < len(claims); i += 2 {
		id.Claims[claims[i]] = claims[i+1]
	}
	return id
}

// newGitHub starts an emulator with one repository, and what asks it.
func newGitHub(t *testing.T, c testkit.GitHubAPIConfig, change ...func(*testkit.GitHubAPI, *federation.JobAPI)) (*testkit.GitHubAPI, *federation.JobAPIs) {
	t.Helper()
	gh, err := testkit.NewGitHubAPI(c)
	if err != nil {
		t.Fatal(err)
	}
	gh.SetRepository("octo-org/octo-repo", octoRepo, octoOwner)
	api := federation.JobAPI{Issuer: federation.Issuer{Name: "github", Provider: "github-actions"}, URL: gh.URL()}
	if c.Token != "" {
		api.Token = access.NewSecret(c.Token)
	}
	for _, f := range change {
		f(gh, &api)
	}
	apis, err := federation.NewJobAPIs([]federation.JobAPI{api}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		apis.Close()
		if err := gh.Close(); err != nil {
			t.Error(err)
		}
	})
	return gh, apis
}

func wantRequests(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
}

func TestGitHubJobs(t *testing.T) {
	other := func(j *testkit.GitHubJob) { j.ID, j.CheckRun = 7, 8 }
	for _, test := range []struct {
		name  string
		id    access.Identity
		setup func(gh *testkit.GitHubAPI)
		want  federation.LiveState
		err   string
	}{
		{name: "running", setup: func(gh *testkit.GitHubAPI) { gh.SetJob(octoJob()) }, want: federation.LiveRunning},
		{name: "not started by what the API says", setup: func(gh *testkit.GitHubAPI) { gh.SetJob(octoJob(func(j *testkit.GitHubJob) { j.Status = "queued" })) }, want: federation.LiveRunning},
		{name: "completed", setup: func(gh *testkit.GitHubAPI) { gh.SetJob(octoJob(completed)) }, want: federation.LiveEnded},
		{name: "completed, while the run goes on", setup: func(gh *testkit.GitHubAPI) {
			gh.SetJob(octoJob(completed))
			gh.SetJob(octoJob(other))
		}, want: federation.LiveEnded},
		{name: "a word that nobody knows", setup: func(gh *testkit.GitHubAPI) { gh.SetJob(octoJob(func(j *testkit.GitHubJob) { j.Status = "resting" })) }, want: federation.LiveUnknown},
		{name: "job id is not the check run's", setup: func(gh *testkit.GitHubAPI) {
			for n := range int64(4) {
				gh.SetJob(octoJob(func(j *testkit.GitHubJob) { j.ID, j.CheckRun = 10+n, 20+n }))
			}
			gh.SetJob(octoJob(completed, func(j *testkit.GitHubJob) { j.ID = 99 }))
		}, want: federation.LiveEnded},
		{name: "job id of another attempt", setup: func(gh *testkit.GitHubAPI) {
			gh.SetJob(octoJob(func(j *testkit.GitHubJob) { j.Attempt = 2 }))
			gh.SetJob(octoJob(other, completed))
		}, want: federation.LiveSuperseded},
		{name: "superseded attempt", setup: func(gh *testkit.GitHubAPI) {
			gh.SetJob(octoJob(completed))
			gh.SetJob(octoJob(other, func(j *testkit.GitHubJob) { j.Attempt = 2 }))
		}, want: federation.LiveSuperseded},
		{name: "attempt that the API does not know yet", id: octoIdentity("run_attempt", "2", "check_run_id", "1"),
			setup: func(gh *testkit.GitHubAPI) { gh.SetJob(octoJob(completed)) }, want: federation.LiveUnknown, err: "attempt 2"},
		{name: "not there", want: federation.LiveUnknown, err: "404"},
		{name: "not allowed", setup: func(gh *testkit.GitHubAPI) { gh.SetJob(octoJob()); gh.Hide(octoRepo) }, want: federation.LiveUnknown, err: "404"},
		{name: "renamed since", setup: func(gh *testkit.GitHubAPI) {
			gh.SetJob(octoJob())
			gh.SetRepository("octo-org/new-name", octoRepo, octoOwner)
		}, want: federation.LiveRunning},
		{name: "the name is another repository's now", setup: func(gh *testkit.GitHubAPI) {
			gh.SetRepository("octo-org/new-name", octoRepo, octoOwner)
			gh.SetRepository("octo-org/octo-repo", 5, octoOwner)
			gh.SetJob(octoJob(func(j *testkit.GitHubJob) { j.Repository = 5 }))
		}, want: federation.LiveUnknown, err: "another repository"},
		{name: "the name leads to another repository", setup: func(gh *testkit.GitHubAPI) {
			gh.SetJob(octoJob())
			gh.SetRepository("octo-org/octo-repo", 5, octoOwner)
			gh.SetRepository("octo-org/fifth", 5, octoOwner)
		}, want: federation.LiveUnknown, err: "redirects"},
		{name: "no check run, attempt runs", id: octoIdentity("check_run_id", ""), setup: func(gh *testkit.GitHubAPI) { gh.SetJob(octoJob()) }, want: federation.LiveRunning},
		{name: "no check run, attempt completed", id: octoIdentity("check_run_id", ""), setup: func(gh *testkit.GitHubAPI) { gh.SetJob(octoJob(completed)) }, want: federation.LiveEnded},
		{name: "no check run, superseded attempt", id: octoIdentity("check_run_id", ""), setup: func(gh *testkit.GitHubAPI) {
			gh.SetJob(octoJob())
			gh.SetJob(octoJob(other, func(j *testkit.GitHubJob) { j.Attempt = 2 }))
		}, want: federation.LiveSuperseded},
		{name: "no check run, another attempt in the answer", id: octoIdentity("check_run_id", ""), setup: func(gh *testkit.GitHubAPI) {
			run := fmt.Sprintf(`{"id":%d,"run_attempt":%%d,"status":"in_progress","repository":{"id":%d}}`, octoRun, octoRepo)
			gh.Refuse(testkit.Refusal{Status: 200, Body: fmt.Sprintf(run, 1)}, testkit.Refusal{Status: 200, Body: fmt.Sprintf(run, 2)})
		}, want: federation.LiveUnknown, err: "another attempt"},
		{name: "server error", setup: func(gh *testkit.GitHubAPI) { gh.Refuse(testkit.Refusal{Status: 502, Body: "a page for people"}) }, want: federation.LiveUnknown, err: "502"},
		{name: "no JSON", setup: func(gh *testkit.GitHubAPI) { gh.Refuse(testkit.Refusal{Status: 200, Body: "<html>"}) }, want: federation.LiveUnknown, err: "invalid character"},
		{name: "a huge answer", setup: func(gh *testkit.GitHubAPI) {
			gh.Refuse(testkit.Refusal{Status: 200, Body: `{"id":` + strings.Repeat(" ", 2<<20) + `1}`})
		}, want: federation.LiveUnknown, err: "1 MiB"},
		{name: "path tricks in the name", id: octoIdentity("repository", "../octo-repo"), want: federation.LiveUnknown, err: "no name"},
		{name: "an id that is none", id: octoIdentity("run_id", "1/../2"), want: federation.LiveUnknown, err: "run_id is no id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			gh, apis := newGitHub(t, testkit.GitHubAPIConfig{Token: apiToken})
			if test.setup != nil {
				test.setup(gh)
			}
			if test.id.Issuer == "" {
				test.id = octoIdentity()
			}
			got, err := apis.JobEnded(t.Context(), test.id)
			if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("state = %s, %v; want %s, %q; requests %q", got, err, test.want, test.err, gh.Requests())
			}
			if err != nil && strings.Contains(err.Error(), apiToken) {
				t.Errorf("the token stands in %v", err)
			}
		})
	}
}

func TestGitHubAsksLessOfWhatItKnows(t *testing.T) {
	gh, apis := newGitHub(t, testkit.GitHubAPIConfig{Token: apiToken})
	gh.SetJob(octoJob())
	for range 3 {
		if got, err := apis.JobEnded(t.Context(), octoIdentity()); got != federation.LiveRunning || err != nil {
			t.Fatalf("state = %s, %v", got, err)
		}
	}
	gh.SetJob(octoJob(completed))
	if got, err := apis.JobEnded(t.Context(), octoIdentity()); got != federation.LiveEnded || err != nil {
		t.Fatalf("state = %s, %v", got, err)
	}
	wantRequests(t, gh.Requests(),
		"GET "+jobPath+" 200", "GET "+runPath+" 200", // whose repository it is
		"GET "+jobPath+" 304", "GET "+jobPath+" 304",
		"GET "+jobPath+" 200", "GET "+runPath+" 200") // whether the attempt is the latest
}

// An end is an end, whatever becomes of the question that follows.
func TestGitHubEndIsNotLost(t *testing.T) {
	gh, apis := newGitHub(t, testkit.GitHubAPIConfig{Token: apiToken})
	gh.SetJob(octoJob())
	if _, err := apis.JobEnded(t.Context(), octoIdentity()); err != nil {
		t.Fatal(err)
	}
	gh.SetJob(octoJob(completed))
	job, err := json.Marshal(map[string]any{"id": octoCheck, "run_id": octoRun, "run_attempt": 1, "status": "completed",
		"check_run_url": fmt.Sprintf("https://api.github.com/repos/octo-org/octo-repo/check-runs/%d", octoCheck)})
	if err != nil {
		t.Fatal(err)
	}
	gh.Refuse(testkit.Refusal{Status: 200, Body: string(job)}, testkit.Refusal{Status: 500})
	if got, err := apis.JobEnded(t.Context(), octoIdentity()); got != federation.LiveEnded || err != nil {
		t.Errorf("state = %s, %v", got, err)
	}
}

func TestRateLimitsAreObeyed(t *testing.T) {
	in := func(d time.Duration) string { return strconv.FormatInt(time.Now().Add(d).Unix(), 10) }
	for _, test := range []struct {
		name     string
		refusal  testkit.Refusal
		min, max time.Duration // of the pause; zero: there is none
	}{
		{"retry-after", testkit.Refusal{Status: 429, Header: map[string]string{"Retry-After": "120"}}, 119 * time.Second, 121 * time.Second},
		{"retry-after as a date", testkit.Refusal{Status: 429, Header: map[string]string{"Retry-After": time.Now().Add(5 * time.Minute).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}},
			298 * time.Second, 301 * time.Second},
		{"primary limit", testkit.Refusal{Status: 403, Header: map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": in(10 * time.Minute)}},
			598 * time.Second, 601 * time.Second},
		{"seconds to the reset", testkit.Refusal{Status: 429, Header: map[string]string{"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}}, 29 * time.Second, 31 * time.Second},
		{"secondary limit", testkit.Refusal{Status: 403, Body: `{"message":"You have exceeded a secondary rate limit."}`}, 59 * time.Second, 61 * time.Second},
		{"429 without a word", testkit.Refusal{Status: 429}, 59 * time.Second, 61 * time.Second},
		{"a reset far away", testkit.Refusal{Status: 429, Header: map[string]string{"Retry-After": "999999"}}, 59 * time.Minute, 61 * time.Minute},
		{"a reset in the past", testkit.Refusal{Status: 403, Header: map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000000"}}, time.Millisecond, 2 * time.Second},
		{"forbidden for another reason", testkit.Refusal{Status: 403, Body: `{"message":"Resource not accessible by integration"}`}, 0, 0},
		{"unavailable for a while", testkit.Refusal{Status: 503, Header: map[string]string{"Retry-After": "60"}}, 59 * time.Second, 61 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			gh, apis := newGitHub(t, testkit.GitHubAPIConfig{Token: apiToken})
			gh.SetJob(octoJob())
			gh.Refuse(test.refusal)
			_, err := apis.JobEnded(t.Context(), octoIdentity())
			var limited *federation.LimitedError
			if errors.As(err, &limited) != (test.max > 0) {
				t.Fatalf("error = %v", err)
			}
			if test.max == 0 {
				return
			}
			if wait := time.Until(limited.Until); wait < test.min-time.Second || wait > test.max {
				t.Errorf("pause = %s, want %s to %s", wait, test.min, test.max)
			}
			_, err = apis.JobEnded(t.Context(), octoIdentity())
			if !errors.As(err, &limited) || len(gh.Requests()) != 1 {
				t.Errorf("error = %v, requests = %q; want no second request", err, gh.Requests())
			}
		})
	}
}

// The last answer before the limit is used up is taken, and then nothing is asked.
func TestNothingLeftOfTheLimit(t *testing.T) {
	gh, apis := newGitHub(t, testkit.GitHubAPIConfig{Token: apiToken})
	body := fmt.Sprintf(`{"id":%d,"run_id":%d,"run_attempt":1,"status":"completed","check_run_url":"x/%d"}`, octoCheck, octoRun, octoCheck)
	gh.Refuse(testkit.Refusal{Status: 200, Body: body, Header: map[string]string{
		"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)}})
	if got, err := apis.JobEnded(t.Context(), octoIdentity()); got != federation.LiveEnded || err != nil {
		t.Errorf("state = %s, %v", got, err)
	}
	wantRequests(t, gh.Requests(), "GET "+jobPath+" 200")
}

func asApp(installation int64) func(*testkit.GitHubAPI, *federation.JobAPI) {
	return func(gh *testkit.GitHubAPI, a *federation.JobAPI) {
		a.AppID, a.InstallationID, a.PrivateKey = 77, installation, access.NewSecret(gh.AppKey())
	}
}

func TestGitHubApp(t *testing.T) {
	for _, test := range []struct {
		name         string
		installation int64
		life         time.Duration
		asks         int
		want         []string
	}{
		{"looked up once", 0, time.Hour, 2, []string{
			"GET /repos/octo-org/octo-repo/installation 200", "POST /app/installations/88/access_tokens 201",
			"GET " + jobPath + " 200", "GET " + runPath + " 200", "GET " + jobPath + " 304"}},
		{"given", 88, time.Hour, 1, []string{"POST /app/installations/88/access_tokens 201", "GET " + jobPath + " 200", "GET " + runPath + " 200"}},
		{"a token that ends soon is replaced", 88, 4 * time.Minute, 1, []string{
			"POST /app/installations/88/access_tokens 201", "GET " + jobPath + " 200", "POST /app/installations/88/access_tokens 201", "GET " + runPath + " 200"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			gh, apis := newGitHub(t, testkit.GitHubAPIConfig{AppID: 77, Installation: 88, TokenLife: test.life}, asApp(test.installation))
			gh.SetJob(octoJob())
			for range test.asks {
				if got, err := apis.JobEnded(t.Context(), octoIdentity()); got != federation.LiveRunning || err != nil {
					t.Fatalf("state = %s, %v", got, err)
				}
			}
			wantRequests(t, gh.Requests(), test.want...)
		})
	}
}

func TestGitHubAppOfAnotherOwner(t *testing.T) {
	gh, apis := newGitHub(t, testkit.GitHubAPIConfig{AppID: 77, Installation: 88}, asApp(0))
	gh.SetJob(octoJob())
	got, err := apis.JobEnded(t.Context(), octoIdentity("repository_owner_id", "1"))
	if got != federation.LiveUnknown || err == nil || !strings.Contains(err.Error(), "another account") {
		t.Errorf("state = %s, %v", got, err)
	}
}

func TestGitLabJobs(t *testing.T) {
	const token = "glpat-a-token-of-the-test"
	claims := func(change ...string) access.Identity {
		id := access.Identity{Issuer: "gitlab", Provider: "gitlab", Claims: access.Claims{
			"project_id": "20", "job_project_id": "20", "pipeline_id": "574", "job_id": "302", "namespace_id": "72"}}
		for i := 0; i+1 < len(change); i += 2 {
			id.Claims[change[i]] = change[i+1]
		}
		return id
	}
	for _, test := range []struct {
		status string
		id     access.Identity
		want   federation.LiveState
		err    string
	}{
		{"running", claims(), federation.LiveRunning, ""},
		{"canceling", claims(), federation.LiveRunning, ""}, // after_script
		{"success", claims(), federation.LiveEnded, ""},
		{"failed", claims(), federation.LiveEnded, ""},
		{"canceled", claims(), federation.LiveEnded, ""},
		{"skipped", claims(), federation.LiveEnded, ""},
		{"manual", claims(), federation.LiveUnknown, ""},
		{"something new", claims(), federation.LiveUnknown, ""},
		{"running", claims("project_id", "999"), federation.LiveRunning, ""}, // a fork's pipeline runs in the target
		{"running", claims("job_project_id", ""), federation.LiveRunning, ""},
		{"running", claims("pipeline_id", "1"), federation.LiveUnknown, "another job"},
		{"running", claims("job_id", "303"), federation.LiveUnknown, "404"},
		{"running", claims("job_id", ".."), federation.LiveUnknown, "does not name"},
		{"running", claims("job_id", "302/../301"), federation.LiveUnknown, "404"},
	} {
		gl, err := testkit.NewGitLabAPI(token)
		if err != nil {
			t.Fatal(err)
		}
		gl.SetJob(testkit.GitLabJob{Project: 20, Pipeline: 574, ID: 302, Status: test.status})
		apis, err := federation.NewJobAPIs([]federation.JobAPI{{Issuer: federation.Issuer{Name: "gitlab", Provider: "gitlab", URL: gl.URL()}, Token: access.NewSecret(token)}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := apis.JobEnded(t.Context(), test.id)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s %v: state = %s, %v; want %s, %q", test.status, test.id.Claims, got, err, test.want, test.err)
		}
		apis.Close()
		_ = gl.Close()
	}
}

func TestBuildkiteJobs(t *testing.T) {
	const token = "bkua_a-token-of-the-test"
	bk, err := testkit.NewBuildkiteAPI(token)
	if err != nil {
		t.Fatal(err)
	}
	defer bk.Close()
	apis, err := federation.NewJobAPIs([]federation.JobAPI{{Issuer: federation.Issuer{Name: "bk", Provider: "buildkite"}, URL: bk.URL(), Token: access.NewSecret(token)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer apis.Close()
	id := access.Identity{Issuer: "bk", Provider: "buildkite", Claims: access.Claims{
		"organization_slug": "acme", "pipeline_slug": "super/duper", "build_number": json.Number("7"), "job_id": "0184990a-477b-4fa8-9968-496074483cee"}}
	if got, err := apis.JobEnded(t.Context(), id); got != federation.LiveUnknown || err == nil {
		t.Errorf("a job that is not there: %s, %v", got, err)
	}
	for state, want := range map[string]federation.LiveState{
		"running": federation.LiveRunning, "canceling": federation.LiveRunning, "timing_out": federation.LiveRunning, "passed": federation.LiveEnded,
		"failed": federation.LiveEnded, "timed_out": federation.LiveEnded, "expired": federation.LiveEnded, "resting": federation.LiveUnknown,
	} {
		bk.SetJob(testkit.BuildkiteJob{Organization: "acme", Pipeline: "super/duper", Build: 7, ID: "0184990a-477b-4fa8-9968-496074483cee", State: state})
		if got, err := apis.JobEnded(t.Context(), id); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", state, got, err, want)
		}
	}
}

func TestJobAPICheck(t *testing.T) {
	secret := access.NewSecret("a-token-of-the-test")
	gh := federation.Issuer{Name: "i", Provider: "github-actions"}
	for _, test := range []struct {
		name string
		api  federation.JobAPI
		want string // in the error
	}{
		{"token", federation.JobAPI{Issuer: gh, Token: secret}, ""},
		{"enterprise server", federation.JobAPI{Issuer: federation.Issuer{Provider: "github-actions", URL: "https://ghes.example.com/_services/token"}, Token: secret}, ""},
		{"no credential", federation.JobAPI{Issuer: gh}, "credential is missing"},
		{"both credentials", federation.JobAPI{Issuer: gh, Token: secret, AppID: 1, PrivateKey: secret}, "not both"},
		{"App without key", federation.JobAPI{Issuer: gh, AppID: 1}, "app_id and private_key"},
		{"key that is none", federation.JobAPI{Issuer: gh, AppID: 1, PrivateKey: secret}, "no PEM"},
		{"installation alone", federation.JobAPI{Issuer: gh, InstallationID: 1, Token: access.Secret{}}, "app_id"},
		{"App elsewhere", federation.JobAPI{Issuer: federation.Issuer{Provider: "gitlab", URL: "https://gitlab.com"}, AppID: 1, Token: secret}, "takes a token"},
		{"no token", federation.JobAPI{Issuer: federation.Issuer{Provider: "gitlab", URL: "https://gitlab.com"}}, "token is missing"},
		{"plain http", federation.JobAPI{Issuer: gh, URL: "http://api.example.com", Token: secret}, "plain http"},
		{"no API", federation.JobAPI{Issuer: federation.Issuer{Provider: "circleci", URL: "https://oidc.circleci.com/org/1"}, Token: secret}, "no job API"},
		{"unknown server", federation.JobAPI{Issuer: federation.Issuer{Provider: "github-actions", URL: "https://ci.example.com"}, Token: secret}, "url is missing"},
		{"too often", federation.JobAPI{Issuer: gh, Token: secret, Every: time.Millisecond}, "1s"},
	} {
		err := test.api.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), secret.Reveal()) {
			t.Errorf("%s: the secret stands in %v", test.name, err)
		}
	}
}

func TestAnIssuerWithoutAPI(t *testing.T) {
	apis, err := federation.NewJobAPIs(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := apis.JobEnded(context.Background(), octoIdentity()); got != federation.LiveUnknown || err != nil || apis.Every("github") != 0 {
		t.Errorf("state = %s, %v", got, err)
	}
}

// A credential goes to the API's own host, whatever the API says.
func TestCredentialsGoNowhereElse(t *testing.T) {
	var got []string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = append(got, r.URL.Path+" "+r.Header.Get("Authorization"))
	}))
	defer other.Close()
	gh, apis := newGitHub(t, testkit.GitHubAPIConfig{Token: apiToken})
	for _, at := range []string{other.URL + "/repositories/456789/actions/jobs/1", gh.URL() + "/repositories/5/actions/jobs/1", gh.URL() + "/user"} {
		gh.Refuse(testkit.Refusal{Status: 301, Header: map[string]string{"Location": at}})
		if got, err := apis.JobEnded(t.Context(), octoIdentity()); got != federation.LiveUnknown || err == nil {
			t.Errorf("%s: state = %s, %v", at, got, err)
		}
	}
	if got != nil {
		t.Errorf("the other host got %q", got)
	}
	wantRequests(t, gh.Requests(), "GET "+jobPath+" 301", "GET "+jobPath+" 301", "GET "+jobPath+" 301")
}
