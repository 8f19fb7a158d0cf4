package approvals

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// spawn runs f in a goroutine that Close waits for. After Close has begun to wait it does nothing.
func (d *Desk) spawn(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.works.Add(1)
	go func() {
		defer d.works.Done()
		f()
	}()
}

// posts are where one question is shown: one place for each of the desk's channels, in their order, empty where it is
// not shown. The docket keeps them as two texts of lines.
type posts struct {
	mu            sync.Mutex // guards both
	channels, ids []string
}

// announce shows a question in every channel, in the background, until asked ends. Whoever settles a question while
// its message is on the way finds no place to update; so the question is read again after the place was kept.
func (d *Desk) announce(asked context.Context, a access.Approval) {
	shown := &posts{channels: make([]string, len(d.channels)), ids: make([]string, len(d.channels))}
	for i := range d.channels {
		d.spawn(func() {
			if !d.post(asked, a, i, shown) {
				return
			}
			current, err := d.docket.Approval(d.trying, a.ID)
			if err != nil {
				d.log.Warn("a question cannot be read again after it was posted", "approval", a.ID, "err", err)
				return
			}
			if current.State != access.Pending {
				d.show(current)
			}
		})
	}
}

// post shows a question in one channel and keeps the place.
func (d *Desk) post(asked context.Context, a access.Approval, i int, shown *posts) bool {
	var channel, ts string
	posted := d.retry(asked, "post", a.ID, func(ctx context.Context) (err error) {
		channel, ts, err = d.channels[i].Post(ctx, a)
		return err
	})
	if !posted {
		return false
	}
	// The place must be kept also for a question that was settled meanwhile, or its buttons stay.
	keep, cancel := context.WithTimeout(d.running, updateFor)
	defer cancel()
	return d.retry(keep, "keep the place of", a.ID, func(ctx context.Context) error {
		shown.mu.Lock()
		defer shown.mu.Unlock()
		shown.channels[i], shown.ids[i] = channel, ts
		return d.docket.SetApprovalPost(ctx, a.ID, strings.Join(shown.channels, "\n"), strings.Join(shown.ids, "\n"))
	})
}

// update shows an outcome wherever the question was shown, in the background.
func (d *Desk) update(a access.Approval) {
	if len(d.channels) > 0 {
		d.spawn(func() { d.show(a) })
	}
}

// show is update in the foreground.
func (d *Desk) show(a access.Approval) {
	late, cancel := context.WithTimeout(d.running, updateFor)
	defer cancel()
	var channels, ids []string
	found := d.retry(late, "find the place of", a.ID, func(ctx context.Context) error {
		channel, ts, err := d.docket.ApprovalPost(ctx, a.ID)
		channels, ids = strings.Split(channel, "\n"), strings.Split(ts, "\n")
		return err
	})
	if !found || len(channels) != len(ids) {
		return
	}
	var each sync.WaitGroup
	for i, channel := range d.channels {
		if i < len(ids) && ids[i] != "" {
			each.Go(func() {
				d.retry(late, "update", a.ID, func(ctx context.Context) error {
					return channel.Settle(ctx, channels[i], ids[i], a)
				})
			})
		}
	}
	each.Wait()
}

// retry tries f at least once, and again with growing pauses until it succeeds, cannot succeed, or while ends. It
// reports whether f succeeded.
func (d *Desk) retry(while context.Context, what, id string, f func(context.Context) error) bool {
	level := slog.LevelWarn // the first failure is news, its repetitions are not
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		err := d.try(f)
		if err == nil {
			return true
		}
		if code := access.CodeOf(err); code == access.CodeNotFound || code == access.CodeInvalid {
			d.log.Warn("cannot "+what+" a question", "approval", id, "err", err)
			return false
		}
		wait := max(pause, retryAfter(err))
		d.log.Log(while, level, "cannot "+what+" a question yet", "approval", id, "again_in", wait, "err", err)
		level = slog.LevelDebug
		timer := time.NewTimer(wait)
		select {
		case <-while.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

func (d *Desk) try(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(d.trying, tryFor)
	defer cancel()
	return f(ctx)
}

func retryAfter(err error) time.Duration {
	var e *access.Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
