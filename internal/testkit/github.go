package testkit

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// GitHubAPIConfig is who may ask.
type GitHubAPIConfig struct {
	// Token is a personal access token that may read actions.
	Token string
	// AppID is a GitHub App's; it has a key of its own. Installation is where
	// it is installed.
	AppID, Installation int64
	// TokenLife is how long the token of an installation is good; zero takes
	// an hour.
	TokenLife time.Duration
}

// GitHubJob is a job of a run. ID and CheckRun are the same number at
// github.com; nothing says that they must be.
type GitHubJob struct {
	Repository, Run, Attempt, ID, CheckRun int64
	Status, Conclusion                     string
}

// GitHubAPI is the part of GitHub's REST API that tells of jobs. A path of a
// repository that was renamed redirects to its id; what a credential may not
// see is 404; every GET has an ETag.
type GitHubAPI struct {
	ciAPI
	c   GitHubAPIConfig
	key *rsa.PrivateKey

	// Guarded by ciAPI.mu.
	names  map[string]int64 // of repositories, former ones too
	repos  map[int64]gitHubRepository
	jobs   []GitHubJob
	hidden map[int64]bool
	tokens map[string]time.Time // of installations, until when
}

type gitHubRepository struct {
	name  string // owner/name
	owner int64
}

// NewGitHubAPI starts the emulator.
func NewGitHubAPI(c GitHubAPIConfig) (*GitHubAPI, error) {
	if c.TokenLife == 0 {
		c.TokenLife = time.Hour
	}
	g := &GitHubAPI{c: c, names: map[string]int64{}, repos: map[int64]gitHubRepository{}, hidden: map[int64]bool{}, tokens: map[string]time.Time{}}
	var err error
	if c.AppID != 0 {
		if g.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return nil, fmt.Errorf("make the App's key: %w", err)
		}
	}
	mux := http.NewServeMux()
	for _, at := range []string{"/repos/{owner}/{repo}", "/repositories/{id}"} {
		mux.HandleFunc("GET "+at+"/actions/runs/{run}", g.repository(g.getRun))
		mux.HandleFunc("GET "+at+"/actions/jobs/{job}", g.repository(g.getJob))
		mux.HandleFunc("GET "+at+"/actions/runs/{run}/attempts/{attempt}", g.repository(g.getAttempt))
		mux.HandleFunc("GET "+at+"/actions/runs/{run}/attempts/{attempt}/jobs", g.repository(g.listJobs))
	}
	mux.HandleFunc("GET /repos/{owner}/{repo}/installation", g.asApp(g.getInstallation))
	mux.HandleFunc("POST /app/installations/{id}/access_tokens", g.asApp(g.makeToken))
	g.srv, err = listen(g.polite(mux))
	return g, err
}

// AppKey returns the App's private key as the PEM file that GitHub gives.
func (g *GitHubAPI) AppKey() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(g.key)}))
}

// SetRepository adds a repository, "owner/name", or renames it.
func (g *GitHubAPI) SetRepository(name string, id, owner int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.names[name] = id
	g.repos[id] = gitHubRepository{name, owner}
}

// Hide makes a repository one that no credential may see.
func (g *GitHubAPI) Hide(id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hidden[id] = true
}

// SetJob adds a job, or changes the one with its id.
func (g *GitHubAPI) SetJob(job GitHubJob) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.jobs {
		if g.jobs[i].ID == job.ID {
			g.jobs[i] = job
			return
		}
	}
	g.jobs = append(g.jobs, job)
}

func notFound(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write([]byte(`{"message":"Not Found","documentation_url":"https://docs.github.com/rest","status":"404"}`))
}

// repository finds the repository that a path names, and checks the credential.
func (g *GitHubAPI) repository(h func(w http.ResponseWriter, r *http.Request, id int64)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !g.mayRead(r) {
			http.Error(w, `{"message":"Bad credentials"}`, http.StatusUnauthorized)
			return
		}
		id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
		name := r.PathValue("owner") + "/" + r.PathValue("repo")
		g.mu.Lock()
		if id == 0 {
			id = g.names[name]
		}
		repo, there := g.repos[id]
		hidden := g.hidden[id]
		g.mu.Unlock()
		switch {
		case !there || hidden:
			notFound(w)
		case r.PathValue("id") == "" && repo.name != name:
			w.Header().Set("Location", g.srv.url+strings.Replace(r.URL.RequestURI(), "/repos/"+name, fmt.Sprintf("/repositories/%d", id), 1))
			w.WriteHeader(http.StatusMovedPermanently)
		default:
			h(w, r, id)
		}
	}
}

func (g *GitHubAPI) mayRead(r *http.Request) bool {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.c.Token != "" && token == g.c.Token || time.Now().Before(g.tokens[token])
}

func (g *GitHubAPI) getRun(w http.ResponseWriter, r *http.Request, id int64) {
	run, _ := strconv.ParseInt(r.PathValue("run"), 10, 64)
	jobs := g.jobsOf(func(j GitHubJob) bool { return j.Repository == id && j.Run == run })
	var latest int64
	for _, j := range jobs {
		latest = max(latest, j.Attempt)
	}
	g.writeAttempt(w, id, run, latest, jobs)
}

func (g *GitHubAPI) getAttempt(w http.ResponseWriter, r *http.Request, id int64) {
	run, _ := strconv.ParseInt(r.PathValue("run"), 10, 64)
	attempt, _ := strconv.ParseInt(r.PathValue("attempt"), 10, 64)
	g.writeAttempt(w, id, run, attempt, g.jobsOf(func(j GitHubJob) bool { return j.Repository == id && j.Run == run }))
}

// writeAttempt answers with one attempt of a run of these jobs.
func (g *GitHubAPI) writeAttempt(w http.ResponseWriter, id, run, attempt int64, jobs []GitHubJob) {
	status := ""
	for _, j := range jobs {
		if j.Attempt == attempt && status != "in_progress" {
			status = "in_progress"
			if j.Status == "completed" {
				status = j.Status
			}
		}
	}
	if status == "" {
		notFound(w)
		return
	}
	writeJSON(w, map[string]any{"id": run, "run_attempt": attempt, "status": status, "repository": g.about(id)})
}

func (g *GitHubAPI) about(id int64) map[string]any {
	g.mu.Lock()
	defer g.mu.Unlock()
	repo := g.repos[id]
	owner, name, _ := strings.Cut(repo.name, "/")
	return map[string]any{"id": id, "name": name, "full_name": repo.name, "owner": map[string]any{"login": owner, "id": repo.owner}}
}

func (g *GitHubAPI) jobsOf(match func(GitHubJob) bool) []GitHubJob {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []GitHubJob
	for _, j := range g.jobs {
		if match(j) {
			out = append(out, j)
		}
	}
	return out
}

func (g *GitHubAPI) getJob(w http.ResponseWriter, r *http.Request, id int64) {
	job, _ := strconv.ParseInt(r.PathValue("job"), 10, 64)
	jobs := g.jobsOf(func(j GitHubJob) bool { return j.Repository == id && j.ID == job })
	if len(jobs) == 0 {
		notFound(w)
		return
	}
	writeJSON(w, g.wire(jobs[0]))
}

// perPage is smaller than GitHub's, so that tests turn pages.
const perPage = 2

func (g *GitHubAPI) listJobs(w http.ResponseWriter, r *http.Request, id int64) {
	run, _ := strconv.ParseInt(r.PathValue("run"), 10, 64)
	attempt, _ := strconv.ParseInt(r.PathValue("attempt"), 10, 64)
	jobs := g.jobsOf(func(j GitHubJob) bool { return j.Repository == id && j.Run == run && j.Attempt == attempt })
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	from := min(max(page-1, 0)*perPage, len(jobs))
	to := min(from+perPage, len(jobs))
	if to < len(jobs) {
		next := *r.URL
		q := next.Query()
		q.Set("page", strconv.Itoa(max(page, 1)+1))
		next.RawQuery = q.Encode()
		w.Header().Set("Link", fmt.Sprintf(`<%s%s>; rel="next"`, g.srv.url, next.RequestURI()))
	}
	list := []any{}
	for _, j := range jobs[from:to] {
		list = append(list, g.wire(j))
	}
	writeJSON(w, map[string]any{"total_count": len(jobs), "jobs": list})
}

func (g *GitHubAPI) wire(j GitHubJob) map[string]any {
	var conclusion any
	if j.Conclusion != "" {
		conclusion = j.Conclusion
	}
	name := g.about(j.Repository)["full_name"]
	return map[string]any{
		"id": j.ID, "run_id": j.Run, "run_attempt": j.Attempt, "status": j.Status, "conclusion": conclusion,
		"head_sha": "7f93a73b8273af5d35fcd70661704c1cadc57054", "head_branch": "main", "name": "deploy", "workflow_name": "deploy",
		"url":           fmt.Sprintf("%s/repos/%s/actions/jobs/%d", g.srv.url, name, j.ID),
		"run_url":       fmt.Sprintf("%s/repos/%s/actions/runs/%d", g.srv.url, name, j.Run),
		"check_run_url": fmt.Sprintf("%s/repos/%s/check-runs/%d", g.srv.url, name, j.CheckRun),
		"labels":        []string{"ubuntu-latest"}, "runner_id": 5, "runner_name": "runner-5", "steps": []any{},
	}
}

// asApp wants the App's own token: RS256, its id as issuer, ten minutes at most.
func (g *GitHubAPI) asApp(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := g.checkApp(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); err != nil {
			http.Error(w, fmt.Sprintf(`{"message":%q}`, err.Error()), http.StatusUnauthorized)
			return
		}
		h(w, r)
	}
}

func (g *GitHubAPI) checkApp(token string) error {
	if g.key == nil {
		return fmt.Errorf("there is no App")
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return fmt.Errorf("a JSON web token could not be decoded: %w", err)
	}
	payload, err := signed.Verify(&g.key.PublicKey)
	if err != nil {
		return fmt.Errorf("a JSON web token could not be verified: %w", err)
	}
	var claims struct {
		Issuer   string `json:"iss"`
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	now := time.Now().Unix()
	if claims.Issuer != strconv.FormatInt(g.c.AppID, 10) || claims.IssuedAt > now || claims.Expires <= now || claims.Expires > now+600 {
		return fmt.Errorf("'Expiration time' claim ('exp') is too far in the future, or another claim is wrong")
	}
	return nil
}

func (g *GitHubAPI) getInstallation(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	repo, there := g.repos[g.names[r.PathValue("owner")+"/"+r.PathValue("repo")]]
	g.mu.Unlock()
	if !there {
		notFound(w)
		return
	}
	writeJSON(w, map[string]any{"id": g.c.Installation, "app_id": g.c.AppID, "account": map[string]any{"id": repo.owner, "login": r.PathValue("owner")}})
}

func (g *GitHubAPI) makeToken(w http.ResponseWriter, r *http.Request) {
	var ask struct{ Permissions map[string]string }
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || r.PathValue("id") != strconv.FormatInt(g.c.Installation, 10) {
		notFound(w)
		return
	}
	if len(ask.Permissions) != 1 || ask.Permissions["actions"] != "read" {
		http.Error(w, `{"message":"more is asked for than actions: read"}`, http.StatusUnprocessableEntity)
		return
	}
	token, until := "ghs_"+uuid(), time.Now().Add(g.c.TokenLife)
	g.mu.Lock()
	g.tokens[token] = until
	g.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_at": until.UTC().Format(time.RFC3339), "permissions": ask.Permissions})
}

// Delivery is the webhook that tells of a job: workflow_job with an action
// such as "completed".
func (g *GitHubAPI) Delivery(secret, action string, job GitHubJob) Delivery {
	return SignGitHub(secret, "workflow_job", map[string]any{
		"action": action, "workflow_job": g.wire(job), "repository": g.about(job.Repository), "sender": map[string]any{"id": 12, "login": "octocat"},
	})
}

// RunDelivery is the webhook that tells of a run: workflow_run.
func (g *GitHubAPI) RunDelivery(secret, action string, job GitHubJob) Delivery {
	return SignGitHub(secret, "workflow_run", map[string]any{
		"action": action, "repository": g.about(job.Repository), "sender": map[string]any{"id": 12, "login": "octocat"},
		"workflow_run": map[string]any{"id": job.Run, "run_attempt": job.Attempt, "status": job.Status, "conclusion": job.Conclusion, "event": "push"},
	})
}

// SignGitHub is a webhook of any event.
func SignGitHub(secret, event string, payload any) Delivery {
	return SignGitHubBody(secret, event, newDelivery(payload, nil).Body)
}

// SignGitHubBody is a webhook with any body.
func SignGitHubBody(secret, event string, body []byte) Delivery {
	return SignBody("github", secret, event, body, time.Time{})
}
