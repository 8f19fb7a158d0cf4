package federation

import (
	"context"

	"github.com/jobgate/jobgate/internal/access"
)

// LiveState is what a provider says of a job.
type LiveState string

const (
	// LiveUnknown is a job of which nobody can tell. It never extends anything.
	LiveUnknown LiveState = "unknown"
	// LiveRunning is a job that has not ended.
	LiveRunning LiveState = "running"
	// LiveEnded is a job that has ended. Final.
	LiveEnded LiveState = "ended"
	// LiveSuperseded is a job of an attempt after which another was started. Final.
	LiveSuperseded LiveState = "superseded"
)

// Liveness asks a provider whether a job has ended.
type Liveness interface {
	JobEnded(ctx context.Context, id access.Identity) (LiveState, error)
}

// NoLiveness knows nothing of any job.
type NoLiveness struct{}

// JobEnded returns LiveUnknown.
func (NoLiveness) JobEnded(context.Context, access.Identity) (LiveState, error) {
	return LiveUnknown, nil
}
