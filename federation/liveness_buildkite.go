package federation

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// What Buildkite's words for a job's state mean. A job that is canceling or timing out still runs.
// https://buildkite.com/docs/apis/rest-api/jobs
const (
	buildkiteRunning = "pending waiting blocked unblocked limiting limited scheduled assigned accepted running canceling timing_out platform_limiting platform_limited"
	buildkiteEnded   = "finished passed failed canceled timed_out skipped broken expired waiting_failed blocked_failed unblocked_failed"
)

// buildkiteAPI asks for jobs by the names of organization and pipeline and the build's number; the job's id decides.
type buildkiteAPI struct{ *apiClient }

func newBuildkiteAPI(a JobAPI, base *url.URL, now func() time.Time) (jobAPI, error) {
	c, err := newAPIClient(a, base, now, "Authorization", "Bearer ")
	return buildkiteAPI{c}, err
}

func (b buildkiteAPI) state(ctx context.Context, c access.Claims) (LiveState, error) {
	var job struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}
	number, _ := c["build_number"].(json.Number)
	if err := b.get(ctx, &job, "v2", "organizations", c.Text("organization_slug"), "pipelines", c.Text("pipeline_slug"),
		"builds", number.String(), "jobs", c.Text("job_id")); err != nil {
		return LiveUnknown, err
	}
	if job.ID != c.Text("job_id") {
		return LiveUnknown, errors.New("the API answers with another job")
	}
	return stateIn(job.State, buildkiteRunning, buildkiteEnded), nil
}

func buildkiteName(job string) string { return nameOf("buildkite", job) }
