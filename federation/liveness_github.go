package federation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// githubEnded is the status of a job, or of an attempt of a run, that is over, whatever its conclusion. The words
	// before it are githubRunning.
	// https://docs.github.com/en/rest/actions/workflow-jobs
	githubEnded   = "completed"
	githubRunning = "queued in_progress waiting requested pending"

	// repositoryKnown is how long it is remembered that a name leads to a repository id.
	repositoryKnown = 10 * time.Minute
	// jobPages is how many pages of 100 jobs an attempt may have.
	jobPages = 10
)

// githubJob is what a token says of its job, as the API has it.
type githubJob struct {
	owner, repo            string
	repository, ownerID    int64
	run, attempt, checkRun int64 // checkRun is 0 where the token does not name the job
}

func githubJobOf(c access.Claims) (githubJob, error) {
	var j githubJob
	var ok bool
	if j.owner, j.repo, ok = strings.Cut(c.Text("repository"), "/"); !ok || !githubName.MatchString(c.Text("repository")) || dots(j.owner) || dots(j.repo) {
		return j, errors.New("the token's repository is no name of one")
	}
	for claim, into := range map[string]*int64{"repository_id": &j.repository, "repository_owner_id": &j.ownerID, "run_id": &j.run,
		"run_attempt": &j.attempt, "check_run_id": &j.checkRun} {
		text := c.Text(claim)
		if text == "" && claim == "check_run_id" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n <= 0 {
			return j, fmt.Errorf("the token's %s is no id", claim)
		}
		*into = n
	}
	return j, nil
}

func dots(name string) bool { return name == "." || name == ".." }

// githubAPI asks GitHub's REST API. Its paths hold the repository's name, so what they lead to is compared with the
// token's ids.
type githubAPI struct {
	base      *url.URL
	transport *http.Transport
	now       func() time.Time
	token     *github.Client // nil with an App
	app       *githubApp     // nil with a token

	mu    sync.Mutex // guards known
	known map[knownRepository]time.Time
}

// knownRepository is a name that led to an id.
type knownRepository struct {
	name string
	id   int64
}

func newGithubAPI(a JobAPI, base *url.URL, now func() time.Time) (jobAPI, error) {
	g := &githubAPI{base: base, transport: a.transport(base), now: now, known: make(map[knownRepository]time.Time)}
	hasApp := a.AppID != 0 || !a.PrivateKey.IsZero()
	switch {
	case hasApp && !a.Token.IsZero():
		return nil, errors.New("write app_id and private_key, or token, not both")
	case hasApp:
		app, err := newGithubApp(a, g.client, now)
		g.app = app
		return g, err
	case a.InstallationID != 0:
		return nil, errors.New("installation_id is for an App: write app_id and private_key, too")
	case a.Token.IsZero():
		return nil, errors.New("a credential is missing: app_id and private_key of a GitHub App, or token")
	}
	g.token = g.client(bearer("Authorization", "Bearer "+a.Token.Reveal()))
	return g, nil
}

// client returns a client with a credential of its own, and so with a rate limit of its own.
func (g *githubAPI) client(authorize func(context.Context, http.Header) error) *github.Client {
	t := &politeTransport{base: g.transport, host: g.base.Scheme + "://" + g.base.Host, now: g.now, authorize: authorize}
	c := github.NewClient(&http.Client{Transport: t, CheckRedirect: sameRepository})
	c.BaseURL = g.base.JoinPath("/")
	return c
}

type repositoryKey struct{}

// sameRepository follows the redirect of a repository that was renamed: to the same repository by its id, nowhere else.
func sameRepository(req *http.Request, via []*http.Request) error {
	id, ok := req.Context().Value(repositoryKey{}).(int64)
	if !ok || len(via) > 2 || !strings.Contains(req.URL.Path, fmt.Sprintf("/repositories/%d/", id)) {
		return errors.New("the API redirects to something else than the token's repository")
	}
	return nil
}

func (g *githubAPI) close() { g.transport.CloseIdleConnections() }

// state asks for the job, and for its run where the job alone does not tell: whether the repository is the token's, and
// whether the attempt is the run's latest.
func (g *githubAPI) state(ctx context.Context, c access.Claims) (LiveState, error) {
	j, err := githubJobOf(c)
	if err != nil {
		return LiveUnknown, err
	}
	ctx = context.WithValue(ctx, repositoryKey{}, j.repository)
	client := g.token
	if g.app != nil {
		if client, err = g.app.client(ctx, j); err != nil {
			return LiveUnknown, err
		}
	}
	state := LiveUnknown
	if j.checkRun != 0 {
		if state, err = j.ask(ctx, client); err != nil {
			return LiveUnknown, githubError(err)
		}
		if state == LiveRunning && g.isKnown(j) {
			return state, nil
		}
	}
	return g.ofRun(ctx, client, j, state)
}

// ofRun completes what is known of a job by what its run says.
func (g *githubAPI) ofRun(ctx context.Context, client *github.Client, j githubJob, job LiveState) (LiveState, error) {
	run, _, err := client.Actions.GetWorkflowRunByID(ctx, j.owner, j.repo, j.run)
	latest := int64(run.GetRunAttempt())
	switch {
	case err != nil && job == LiveEnded:
		return job, nil
	case err != nil:
		return LiveUnknown, githubError(err)
	case run.GetRepository().GetID() != j.repository || run.GetID() != j.run:
		return LiveUnknown, fmt.Errorf("%s/%s is another repository now than the token's", j.owner, j.repo)
	case latest > j.attempt:
		return LiveSuperseded, nil
	case latest < j.attempt && job == LiveUnknown:
		return LiveUnknown, fmt.Errorf("the API does not know attempt %d of the run yet", j.attempt)
	}
	g.know(j)
	if j.checkRun == 0 {
		return j.ofAttempt(ctx, client)
	}
	return job, nil
}

// ofAttempt returns the state of the token's own attempt, where the token does not name its job: what the run says of
// itself is of the attempt that is the latest by then.
func (j githubJob) ofAttempt(ctx context.Context, client *github.Client) (LiveState, error) {
	run, _, err := client.Actions.GetWorkflowRunAttempt(ctx, j.owner, j.repo, j.run, int(j.attempt), nil)
	switch {
	case err != nil:
		return LiveUnknown, githubError(err)
	case run.GetRepository().GetID() != j.repository || run.GetID() != j.run || int64(run.GetRunAttempt()) != j.attempt:
		return LiveUnknown, errors.New("the API answers with another attempt")
	}
	return stateIn(run.GetStatus(), githubRunning, githubEnded), nil
}

// ask returns the job's state. Its id is the check run's at github.com; where it is not, the attempt's jobs are gone
// through.
func (j githubJob) ask(ctx context.Context, client *github.Client) (LiveState, error) {
	job, resp, err := client.Actions.GetWorkflowJobByID(ctx, j.owner, j.repo, j.checkRun)
	switch {
	case err == nil && j.is(job):
		return stateIn(job.GetStatus(), githubRunning, githubEnded), nil
	case err != nil && (resp == nil || resp.StatusCode != http.StatusNotFound):
		return LiveUnknown, err
	}
	opts := &github.ListOptions{PerPage: 100}
	for range jobPages {
		jobs, resp, err := client.Actions.ListWorkflowJobsAttempt(ctx, j.owner, j.repo, j.run, j.attempt, opts)
		if err != nil {
			return LiveUnknown, err
		}
		for _, job := range jobs.Jobs {
			if j.is(job) {
				return stateIn(job.GetStatus(), githubRunning, githubEnded), nil
			}
		}
		if resp.NextPage == 0 {
			break
		}
		opts.Page = resp.NextPage
	}
	return LiveUnknown, nil
}

func (j githubJob) is(job *github.WorkflowJob) bool {
	return job.GetRunID() == j.run && job.GetRunAttempt() == j.attempt && checkRunOf(job) == strconv.FormatInt(j.checkRun, 10)
}

// checkRunOf returns the id of a job's check run, which the token's check_run_id is.
func checkRunOf(job *github.WorkflowJob) string {
	at := job.GetCheckRunURL()
	return at[strings.LastIndexByte(at, '/')+1:]
}

func (g *githubAPI) isKnown(j githubJob) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now().Before(g.known[knownRepository{j.owner + "/" + j.repo, j.repository}])
}

func (g *githubAPI) know(j githubJob) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for old := range g.known {
		if len(g.known) < answersKept {
			break
		}
		delete(g.known, old)
	}
	g.known[knownRepository{j.owner + "/" + j.repo, j.repository}] = g.now().Add(repositoryKnown)
}

// githubError keeps an answer's status and drops its body, which is for people and may be long.
func githubError(err error) error {
	var answered *github.ErrorResponse
	if !errors.As(err, &answered) || answered.Response == nil {
		return err
	}
	if answered.Response.StatusCode == http.StatusNotFound {
		return errNotThere
	}
	return fmt.Errorf("the API answers %d", answered.Response.StatusCode)
}

// githubAPIURL returns the API of the server that an issuer belongs to, "" where that cannot be told.
func githubAPIURL(issuer string) string {
	server := githubServer(issuer)
	host, ok := strings.CutPrefix(server, "https://")
	switch {
	case !ok:
		return ""
	case host == "github.com":
		return "https://api.github.com"
	case strings.HasSuffix(host, ".ghe.com"):
		return "https://api." + host
	}
	return server + "/api/v3"
}

// githubNames are the names of a job and of its attempt. An attempt's end is the end of all of its jobs.
func githubNames(c access.Claims) []string {
	repository, run, attempt := c.Text("repository_id"), c.Text("run_id"), c.Text("run_attempt")
	names := []string{nameOf("github-run", repository, run, attempt)}
	if check := c.Text("check_run_id"); check != "" {
		names = append(names, nameOf("github-job", repository, run, attempt, check))
	}
	return names
}
