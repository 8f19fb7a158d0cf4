package federation

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// What GitLab's words for a job's state mean. A job that is canceling still runs its after_script.
// https://docs.gitlab.com/api/jobs/
const (
	gitlabRunning = "created waiting_for_resource preparing pending running canceling scheduled waiting_for_callback"
	gitlabEnded   = "success failed canceled skipped"
)

// gitlabAPI asks for jobs by the id of the project in which they run.
type gitlabAPI struct{ *apiClient }

func newGitlabAPI(a JobAPI, base *url.URL, now func() time.Time) (jobAPI, error) {
	c, err := newAPIClient(a, base, now, "PRIVATE-TOKEN", "")
	return gitlabAPI{c}, err
}

func (g gitlabAPI) state(ctx context.Context, c access.Claims) (LiveState, error) {
	var job struct {
		ID       json.Number `json:"id"`
		Status   string      `json:"status"`
		Pipeline struct {
			ID json.Number `json:"id"`
		} `json:"pipeline"`
	}
	if err := g.get(ctx, &job, "api", "v4", "projects", gitlabProject(c), "jobs", c.Text("job_id")); err != nil {
		return LiveUnknown, err
	}
	if job.ID.String() != c.Text("job_id") || job.Pipeline.ID.String() != c.Text("pipeline_id") {
		return LiveUnknown, errors.New("the API answers with another job")
	}
	return stateIn(job.Status, gitlabRunning, gitlabEnded), nil
}

// gitlabProject returns the id of the project in which a job runs. Of a fork's pipeline, project_id is the fork.
func gitlabProject(c access.Claims) string {
	if id := c.Text("job_project_id"); id != "" {
		return id
	}
	return c.Text("project_id")
}

func gitlabName(job, pipeline, project string) string {
	return nameOf("gitlab", job, pipeline, project)
}
