package testkit

import (
	"fmt"
	"net/http"
	"time"
)

// BuildkiteJob is a job of a build.
type BuildkiteJob struct {
	Organization, Pipeline string
	Build                  int
	ID, State              string
}

func (j BuildkiteJob) path() string {
	return fmt.Sprintf("/v2/organizations/%s/pipelines/%s/builds/%d/jobs/%s", j.Organization, j.Pipeline, j.Build, j.ID)
}

// BuildkiteAPI is the part of Buildkite's REST API that tells of jobs.
type BuildkiteAPI struct {
	ciAPI
	jobs map[string]BuildkiteJob // by path; guarded by ciAPI.mu
}

// NewBuildkiteAPI starts the emulator; token may read it.
func NewBuildkiteAPI(token string) (*BuildkiteAPI, error) {
	b := &BuildkiteAPI{jobs: map[string]BuildkiteJob{}}
	var err error
	b.srv, err = listen(b.polite(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		job, there := b.jobs[r.URL.Path]
		b.mu.Unlock()
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			http.Error(w, `{"message":"Authentication required. Please supply a valid API Access Token"}`, http.StatusUnauthorized)
		case r.Method != http.MethodGet || !there:
			http.Error(w, `{"message":"No job found"}`, http.StatusNotFound)
		default:
			writeJSON(w, map[string]any{"id": job.ID, "type": "script", "state": job.State, "name": "agent"})
		}
	})))
	return b, err
}

// SetJob adds a job, or changes it.
func (b *BuildkiteAPI) SetJob(job BuildkiteJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs[job.path()] = job
}

// BuildkiteDelivery is the webhook that tells of a job: an event such as
// "job.finished", signed at a time.
func BuildkiteDelivery(secret, event string, job BuildkiteJob, at time.Time) Delivery {
	d := newDelivery(map[string]any{
		"event": event, "job": map[string]any{"id": job.ID, "type": "script", "state": job.State},
		"build":    map[string]any{"number": job.Build, "state": "running"},
		"pipeline": map[string]any{"slug": job.Pipeline}, "organization": map[string]any{"slug": job.Organization},
	}, nil)
	return SignBody("buildkite", secret, event, d.Body, at)
}

// GenericDelivery is Jobgate's own webhook, for what has none.
func GenericDelivery(secret string, payload any, at time.Time) Delivery {
	return SignBody("generic", secret, "", newDelivery(payload, nil).Body, at)
}
