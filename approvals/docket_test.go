package approvals_test

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/jobgate/jobgate/internal/access"
)

// docket keeps questions in memory, under the same rules as the store.
type docket struct {
	mu    sync.Mutex // guards all below
	rows  map[string]access.Approval
	order []string
	posts map[string][2]string
	down  error // what every method fails with, nil while it is up
}

func newDocket() *docket {
	return &docket{rows: map[string]access.Approval{}, posts: map[string][2]string{}}
}

func (k *docket) setDown(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = err
}

func (k *docket) CreateApproval(ctx context.Context, a access.Approval) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failLocked(ctx); err != nil {
		return err
	}
	if _, taken := k.rows[a.ID]; taken {
		return access.Refuse(access.CodeConflict, "the id is taken")
	}
	k.rows[a.ID] = a
	k.order = append(k.order, a.ID)
	return nil
}

func (k *docket) SettleApproval(ctx context.Context, a access.Approval, fromVersion int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failLocked(ctx); err != nil {
		return err
	}
	if k.rows[a.ID].Version != fromVersion {
		return access.Refuse(access.CodeConflict, "the question changed")
	}
	k.rows[a.ID] = a
	return nil
}

func (k *docket) Approval(ctx context.Context, id string) (access.Approval, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failLocked(ctx); err != nil {
		return access.Approval{}, err
	}
	a, ok := k.rows[id]
	if !ok {
		return access.Approval{}, access.Refuse(access.CodeNotFound, fmt.Sprintf("no question %q", id))
	}
	return a, nil
}

func (k *docket) Approvals(ctx context.Context, state access.ApprovalState) ([]access.Approval, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failLocked(ctx); err != nil {
		return nil, err
	}
	var out []access.Approval
	for _, id := range slices.Backward(k.order) {
		if a := k.rows[id]; state == "" || a.State == state {
			out = append(out, a)
		}
	}
	return out, nil
}

func (k *docket) SettledApproval(ctx context.Context, session, digest string) (access.Approval, bool, error) {
	list, err := k.Approvals(ctx, "")
	if err != nil {
		return access.Approval{}, false, err
	}
	for _, a := range list {
		if a.Session == session && a.Digest == digest && (a.State == access.Denied || a.State == access.Expired) {
			return a, true, nil
		}
	}
	return access.Approval{}, false, nil
}

func (k *docket) SetApprovalPost(ctx context.Context, id, channel, ts string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failLocked(ctx); err != nil {
		return err
	}
	k.posts[id] = [2]string{channel, ts}
	return nil
}

func (k *docket) ApprovalPost(ctx context.Context, id string) (channel, ts string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failLocked(ctx); err != nil {
		return "", "", err
	}
	p := k.posts[id]
	return p[0], p[1], nil
}

func (k *docket) failLocked(ctx context.Context) error {
	if k.down != nil {
		return k.down
	}
	return ctx.Err()
}
