package testkit

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// GitLabJob is a job of a pipeline, in the project where it runs.
type GitLabJob struct {
	Project, Pipeline, ID int64
	Status                string
}

// GitLabAPI is the part of GitLab's REST API that tells of jobs.
type GitLabAPI struct {
	ciAPI
	token string
	jobs  map[string]GitLabJob // by "project/job"; guarded by ciAPI.mu
}

// NewGitLabAPI starts the emulator; token may read it.
func NewGitLabAPI(token string) (*GitLabAPI, error) {
	g := &GitLabAPI{token: token, jobs: map[string]GitLabJob{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v4/projects/{project}/jobs/{job}", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("PRIVATE-TOKEN") != token {
			http.Error(w, `{"message":"401 Unauthorized"}`, http.StatusUnauthorized)
			return
		}
		g.mu.Lock()
		job, there := g.jobs[r.PathValue("project")+"/"+r.PathValue("job")]
		g.mu.Unlock()
		if !there {
			http.Error(w, `{"message":"404 Not found"}`, http.StatusNotFound)
			return
		}
		writeJSON(w, map[string]any{
			"id": job.ID, "status": job.Status, "stage": "test", "name": "agent", "ref": "main", "tag": false,
			"pipeline": map[string]any{"id": job.Pipeline, "project_id": job.Project, "ref": "main", "status": "running"},
		})
	})
	var err error
	g.srv, err = listen(g.polite(mux))
	return g, err
}

// SetJob adds a job, or changes it.
func (g *GitLabAPI) SetJob(job GitLabJob) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.jobs[strconv.FormatInt(job.Project, 10)+"/"+strconv.FormatInt(job.ID, 10)] = job
}

// GitLabDelivery is the webhook that tells of a job. A secret that begins
// with "whsec_" signs it at a time; any other goes along in clear.
func GitLabDelivery(secret string, job GitLabJob, at time.Time) Delivery {
	d := newDelivery(map[string]any{
		"object_kind": "build", "ref": "main", "tag": false, "build_id": job.ID, "build_name": "agent", "build_stage": "test",
		"build_status": job.Status, "build_allow_failure": false, "build_failure_reason": "unknown_failure", "retries_count": 0,
		"pipeline_id": job.Pipeline, "project_id": job.Project, "project_name": "Group / Project",
		"user": map[string]any{"id": 42}, "commit": map[string]any{"id": job.Pipeline, "status": "running"},
		"runner": map[string]any{"id": 1, "runner_type": "instance_type", "is_shared": true},
	}, map[string]string{"X-Gitlab-Event": "Job Hook", "X-Gitlab-Event-UUID": uuid(), "Idempotency-Key": uuid()})
	encoded, signing := strings.CutPrefix(secret, "whsec_")
	if !signing {
		d.Header.Set("X-Gitlab-Token", secret)
		return d
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		panic(err) // the test's own secret
	}
	id, seconds := d.Header.Get("Idempotency-Key"), strconv.FormatInt(at.Unix(), 10)
	d.Header.Set("Webhook-Id", id)
	d.Header.Set("Webhook-Timestamp", seconds)
	d.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(sum256(string(key), []byte(id+"."+seconds+"."), d.Body)))
	return d
}
