package approvals

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// Docket keeps the questions. Its errors carry codes: CodeNotFound for an id that it does not know.
type Docket interface {
	// CreateApproval writes down a pending question.
	CreateApproval(context.Context, access.Approval) error
	// SettleApproval replaces the question if its version is still fromVersion; otherwise it fails with CodeConflict.
	SettleApproval(ctx context.Context, a access.Approval, fromVersion int64) error
	// Approval returns a question as it stands.
	Approval(ctx context.Context, id string) (access.Approval, error)
	// Approvals lists the questions in a state, "" for all, newest first.
	Approvals(ctx context.Context, state access.ApprovalState) ([]access.Approval, error)
	// SettledApproval returns the newest denied or expired question about the same digest in the same session.
	SettledApproval(ctx context.Context, session, digest string) (access.Approval, bool, error)
	// SetApprovalPost keeps where a question is shown; ApprovalPost returns it, empty while it is shown nowhere.
	SetApprovalPost(ctx context.Context, id, channel, ts string) error
	ApprovalPost(ctx context.Context, id string) (channel, ts string, err error)
}

// Channel shows questions to people. Both methods may be called again after a failure. CodeNotFound and CodeInvalid
// say that trying again is useless; the RetryAfter of an [access.Error] says when it makes sense.
type Channel interface {
	// Post shows a pending question and returns where: ids that hold no line break.
	Post(context.Context, access.Approval) (channel, ts string, err error)
	// Settle replaces what Post has shown by the outcome.
	Settle(ctx context.Context, channel, ts string, a access.Approval) error
}

// Config is what a desk needs.
type Config struct {
	Docket   Docket    // required
	Channels []Channel // none: questions are answered by Vote only
	// Mask takes secrets out of what a voter gives as the reason, before it is written down or told to the session's
	// job. Nil leaves it as it is.
	Mask func(session, text string) string
	// Now is the clock of expiries and votes. Nil: time.Now.
	Now func() time.Time
	// Log gets what goes wrong in the background. Nil: slog.Default().
	Log *slog.Logger
}

// Desk asks people and collects their votes. Its methods may be called from any goroutine.
type Desk struct {
	docket   Docket
	channels []Channel
	mask     func(session, text string) string
	now      func() time.Time
	log      *slog.Logger

	running context.Context // ends when Close begins
	stop    context.CancelFunc
	trying  context.Context // of attempts at a channel; ends closeGrace after running
	abort   context.CancelFunc
	asks    sync.WaitGroup
	works   sync.WaitGroup

	mu      sync.Mutex // guards all below
	closing bool       // no new questions
	closed  bool       // no new background work
	waiting map[string]chan access.Approval
}

// New returns a desk with its background work started. The caller closes it.
func New(c Config) (*Desk, error) {
	if c.Docket == nil {
		return nil, errors.New("approvals: a desk needs a docket")
	}
	d := &Desk{docket: c.Docket, channels: c.Channels, mask: c.Mask, now: c.Now, log: c.Log, waiting: map[string]chan access.Approval{}}
	if d.now == nil {
		d.now = time.Now
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	d.running, d.stop = context.WithCancel(context.Background())
	d.trying, d.abort = context.WithCancel(context.Background())
	d.spawn(d.sweep)
	return d, nil
}

// Close cancels the questions that wait, tries once more to show what is not shown yet, and returns when none of the
// desk's goroutines is left. Closing again does nothing.
func (d *Desk) Close() error {
	d.mu.Lock()
	again := d.closing
	d.closing = true
	d.mu.Unlock()
	if again {
		return nil
	}
	d.stop()
	grace := time.AfterFunc(closeGrace, d.abort)
	d.asks.Wait()
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.works.Wait()
	grace.Stop()
	d.abort()
	return nil
}

// Ask puts a question to people and blocks until it is settled; only the state Approved of the answer, without an
// error, is a yes. Session, Digest and Expires must be set; ID and Asked are filled in where they are empty.
//
// A no that is remembered is returned at once: the answer is then the earlier question, with its own ID and Call. When
// ctx ends, the question is cancelled with the reason from [context.Cause], and the error has CodeCanceled.
func (d *Desk) Ask(ctx context.Context, a access.Approval) (access.Approval, error) {
	if a.Session == "" || a.Digest == "" || a.Expires.IsZero() {
		return a, access.Refuse(access.CodeInvalid, "a question needs a session, a digest and an expiry")
	}
	prior, known, err := d.remembered(ctx, a)
	if err != nil || known {
		return prior, err
	}
	a = d.opened(a)
	wake, err := d.enter(a.ID)
	if err != nil {
		return a, err
	}
	defer d.leave(a.ID)
	if !a.Expires.After(a.Asked) {
		return settledHere(a, d.expiry()), nil
	}
	if err := d.create(ctx, a); err != nil {
		return a, fmt.Errorf("write down question %s: %w", a.ID, err)
	}
	asked, settled := context.WithCancel(d.running)
	defer settled()
	d.announce(asked, a)
	return d.wait(ctx, a, wake)
}

// opened returns the question as it enters the docket.
func (d *Desk) opened(a access.Approval) access.Approval {
	if a.ID == "" {
		a.ID = "apr_" + strings.ToLower(rand.Text())
	}
	if a.Asked.IsZero() {
		a.Asked = d.now()
	}
	a.State, a.Vote, a.Version, a.Note = access.Pending, access.Vote{}, 1, ""
	return a
}

// create writes a question down, also for a client that leaves meanwhile: nobody could tell whether a write that was
// broken off left a row that is pending.
func (d *Desk) create(ctx context.Context, a access.Approval) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeWithin)
	defer cancel()
	return d.docket.CreateApproval(ctx, a)
}

// remembered returns the no that was said of the same call in the same session, where it still holds.
func (d *Desk) remembered(ctx context.Context, a access.Approval) (access.Approval, bool, error) {
	prior, ok, err := d.docket.SettledApproval(ctx, a.Session, a.Digest)
	switch {
	case err != nil:
		return a, false, fmt.Errorf("look for an earlier answer in session %s: %w", a.Session, err)
	case !ok:
		return a, false, nil
	case prior.State == access.Denied:
		return prior, true, nil
	case prior.State == access.Expired && d.now().Before(prior.Expires.Add(ExpiryMemory)):
		return prior, true, nil
	}
	return a, false, nil
}

func (d *Desk) enter(id string) (chan access.Approval, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return nil, access.Refuse(access.CodeUnavailable, "the server is stopping; ask again in a moment")
	}
	if _, taken := d.waiting[id]; taken {
		return nil, access.Refuse(access.CodeConflict, fmt.Sprintf("question %s is being asked already", id))
	}
	wake := make(chan access.Approval, 1)
	d.waiting[id] = wake
	d.asks.Add(1)
	return wake, nil
}

func (d *Desk) leave(id string) {
	d.mu.Lock()
	delete(d.waiting, id)
	d.mu.Unlock()
	d.asks.Done()
}

// wait blocks until the question is settled: here (wake), by another replica (the docket, polled), by its expiry, or
// because nobody waits for the answer any more.
func (d *Desk) wait(ctx context.Context, a access.Approval, wake <-chan access.Approval) (access.Approval, error) {
	expiry := time.NewTimer(a.Expires.Sub(d.now()))
	defer expiry.Stop()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case settled := <-wake:
			return settled, nil
		case <-ctx.Done():
			why := context.Cause(ctx)
			left := d.end(ctx, a, access.Vote{State: access.Cancelled, Reason: causeText(why), At: d.now()})
			return left, &access.Error{Code: access.CodeCanceled, Public: left.Outcome(), Err: why}
		case <-d.running.Done():
			return d.end(ctx, a, access.Vote{State: access.Cancelled, Reason: "the server is stopping; the client asks again", At: d.now()}), nil
		case <-expiry.C:
			return d.end(ctx, a, d.expiry()), nil
		case <-poll.C:
			current, err := d.docket.Approval(ctx, a.ID)
			if err != nil {
				d.log.Debug("a question cannot be read again", "approval", a.ID, "err", err)
			} else if current.State != access.Pending {
				return current, nil
			}
		}
	}
}

// end settles a question that waits no longer and returns how it stands. Where the docket does not answer, nobody can
// have said yes as far as this process knows, and the vote holds here; the row is swept later.
func (d *Desk) end(ctx context.Context, a access.Approval, v access.Vote) access.Approval {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeWithin)
	defer cancel()
	settled, err := d.settle(ctx, a.ID, v, nil)
	if settled.State != access.Pending && settled.State != "" {
		return settled
	}
	d.log.Error("the end of a question cannot be written down", "approval", a.ID, "state", v.State, "err", err)
	return settledHere(a, v)
}

func (d *Desk) expiry() access.Vote {
	return access.Vote{State: access.Expired, Reason: "nobody answered in time", At: d.now()}
}

// settledHere is a vote that the docket does not hold.
func settledHere(a access.Approval, v access.Vote) access.Approval {
	a.State, a.Vote = v.State, v
	if v.State == access.Cancelled {
		a.Note = v.Reason
	}
	return a
}

// causeText says why a client's wait ended. Only texts that were made for callers are passed on.
func causeText(cause error) string {
	var e *access.Error
	switch {
	case errors.As(cause, &e) && e.Public != "":
		return e.Public
	case errors.Is(cause, context.DeadlineExceeded):
		return "the client's time ran out"
	}
	return "the client left"
}
