package approvals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// settleTries bounds how often a question that changed under a vote without being settled is read again.
const settleTries = 3

// Vote answers a question and wakes whoever waits for it. The desk's clock sets the vote's time. Who loses against
// another vote, or against the expiry, gets CodeConflict with the outcome, and the question as it stands.
//
// An approval that does not show all of what would run is refused from anywhere but the command line and the API,
// which can show it whole; it can be denied from everywhere. A no settles the same call's other open questions in that
// session as well: it would be answered from memory from now on.
func (d *Desk) Vote(ctx context.Context, id string, v access.Vote) (access.Approval, error) {
	if v.State != access.Approved && v.State != access.Denied {
		return access.Approval{}, access.Refuse(access.CodeInvalid, fmt.Sprintf("a vote says approved or denied, not %q", v.State))
	}
	if v.By == "" {
		return access.Approval{}, access.Refuse(access.CodeInvalid, "a vote names who votes")
	}
	v.At = d.now()
	settled, err := d.settle(ctx, id, v, shownWhole)
	if err != nil {
		return settled, err
	}
	if v.State == access.Denied {
		same := func(a access.Approval) bool { return a.Session == settled.Session && a.Digest == settled.Digest }
		if err := d.settleAll(context.WithoutCancel(ctx), same, v); err != nil {
			d.log.Warn("the same call's other questions stay open", "approval", id, "err", err)
		}
	}
	return settled, nil
}

// shownWhole refuses a yes from a place that cannot show what it would be a yes to.
func shownWhole(a access.Approval, v access.Vote) error {
	if v.State != access.Approved || !a.Truncated || v.Via == "cli" || v.Via == "api" {
		return nil
	}
	return access.Refuse(access.CodeDenied, fmt.Sprintf(
		"this question cannot be approved from here, because not all of what would run is shown; approve it with `jobgate approvals approve %s`", a.ID))
}

// List returns the questions in a state, "" for all, newest first.
func (d *Desk) List(ctx context.Context, state access.ApprovalState) ([]access.Approval, error) {
	list, err := d.docket.Approvals(ctx, state)
	if err != nil {
		return nil, fmt.Errorf("list questions: %w", err)
	}
	return list, nil
}

// Get returns a question as it stands; CodeNotFound for an id that is not known.
func (d *Desk) Get(ctx context.Context, id string) (access.Approval, error) {
	a, err := d.docket.Approval(ctx, id)
	if err != nil {
		return a, fmt.Errorf("read question %q: %w", id, err)
	}
	return a, nil
}

// CancelSession cancels the open questions of a session that is over.
func (d *Desk) CancelSession(ctx context.Context, session, why string) error {
	return d.cancel(ctx, why, func(a access.Approval) bool { return a.Session == session })
}

// CancelMapping cancels the open questions of a mapping that was deleted or replaced.
func (d *Desk) CancelMapping(ctx context.Context, mapping, why string) error {
	return d.cancel(ctx, why, func(a access.Approval) bool { return a.Mapping == mapping })
}

// Recover settles the questions that an earlier process left open, and has their messages say so: nobody waits for
// their answers. Call it once at the start, and only where no other process serves the same docket; where several do,
// the questions of one that died expire by themselves.
func (d *Desk) Recover(ctx context.Context) error {
	now := d.now()
	overdue := func(a access.Approval) bool { return !d.waits(a.ID) && !now.Before(a.Expires) }
	if err := d.settleAll(ctx, overdue, d.expiry()); err != nil {
		return err
	}
	return d.cancel(ctx, "the server restarted; the client asks again", func(a access.Approval) bool { return !d.waits(a.ID) })
}

func (d *Desk) cancel(ctx context.Context, why string, which func(access.Approval) bool) error {
	return d.settleAll(ctx, which, access.Vote{State: access.Cancelled, Reason: why, At: d.now()})
}

// settleAll settles every pending question that which picks. One that somebody else settles first is no error.
func (d *Desk) settleAll(ctx context.Context, which func(access.Approval) bool, v access.Vote) error {
	pending, err := d.docket.Approvals(ctx, access.Pending)
	if err != nil {
		return fmt.Errorf("list open questions: %w", err)
	}
	var failed []error
	for _, a := range pending {
		if !which(a) {
			continue
		}
		if _, err := d.settle(ctx, a.ID, v, nil); err != nil && access.CodeOf(err) != access.CodeConflict {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// settle is the one way from pending to an outcome: compare and swap, then wake and show. It returns the question as
// it stands, also beside CodeConflict.
func (d *Desk) settle(ctx context.Context, id string, v access.Vote, allowed func(access.Approval, access.Vote) error) (access.Approval, error) {
	var lost error
	for range settleTries {
		a, err := d.docket.Approval(ctx, id)
		if err != nil {
			return access.Approval{}, fmt.Errorf("read question %q: %w", id, err)
		}
		if d.mask != nil {
			v.Reason = d.mask(a.Session, v.Reason)
		}
		settled, err := a.Settle(v)
		if err != nil {
			return a, err
		}
		if allowed != nil {
			if err := allowed(a, v); err != nil {
				return a, err
			}
		}
		if v.State == access.Cancelled {
			settled.Note = v.Reason
		}
		lost = d.docket.SettleApproval(ctx, settled, a.Version)
		if lost == nil {
			d.wake(settled)
			d.update(settled)
			return settled, nil
		}
		if access.CodeOf(lost) != access.CodeConflict {
			return a, fmt.Errorf("write down that question %s is %s: %w", id, v.State, lost)
		}
	}
	return access.Approval{}, fmt.Errorf("settle question %s: it changed %d times meanwhile: %w", id, settleTries, lost)
}

func (d *Desk) wake(settled access.Approval) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if wake, ok := d.waiting[settled.ID]; ok {
		select {
		case wake <- settled:
		default: // settled once only; a full channel has the outcome already
		}
	}
}

func (d *Desk) waits(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.waiting[id]
	return ok
}

// sweep expires questions whose own wait is gone: of a process that died, or that could not write down the end.
func (d *Desk) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-d.running.Done():
			return
		case <-tick.C:
		}
		late := d.now().Add(-sweepGrace)
		err := d.settleAll(d.running, func(a access.Approval) bool { return a.Expires.Before(late) }, d.expiry())
		if err != nil && d.running.Err() == nil {
			d.log.Warn("overdue questions cannot be expired", "err", err)
		}
	}
}
