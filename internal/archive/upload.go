package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// uploadWorkers is how many sessions are stored at once. They mostly wait for the bucket; compressing has its own, smaller limit.
	uploadWorkers = 8
	maxRetry      = time.Minute
)

// uploader brings sessions to the bucket: one worker a session, in any order of sessions, again and again until it is done.
type uploader struct {
	a      *Archive
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex // guards the fields below and the jobs
	cond     *sync.Cond
	jobs     map[*session]*job
	queue    []*session
	closed   bool
	progress chan struct{} // closed and made anew whenever a worker is done with a session
}

// job is what the uploader knows of a session.
type job struct {
	queued   bool
	busy     bool
	again    bool // something came while it was busy
	failures int
	err      error
	retryAt  time.Time
	flushTo  uint64 // seal up to here, however little it is
}

func newUploader(a *Archive) *uploader {
	u := &uploader{a: a, jobs: map[*session]*job{}, progress: make(chan struct{})}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	u.cond = sync.NewCond(&u.mu)
	return u
}

func (u *uploader) start() {
	for range uploadWorkers {
		u.wg.Go(u.work)
	}
	u.wg.Go(u.tick)
}

func (u *uploader) stop() {
	u.cancel()
	u.mu.Lock()
	u.closed = true
	u.cond.Broadcast()
	u.mu.Unlock()
	u.wg.Wait()
}

// note hears from the writer what was written.
func (u *uploader) note(entries []entry) {
	var due []*session
	var last *session // a call's events follow each other
	u.a.spool.stateMu.Lock()
	now := u.a.cfg.Now()
	for i := range entries {
		e := &entries[i]
		if e.kind != kindEvent || e.s == last {
			continue
		}
		if last = e.s; u.due(last, 0, now) {
			due = append(due, last)
		}
	}
	u.a.spool.stateMu.Unlock()
	for _, s := range due {
		u.schedule(s)
	}
}

// due reports whether there is something to do for a session. spool.stateMu is held.
func (u *uploader) due(s *session, flushTo uint64, now time.Time) bool {
	st := &s.state
	if !st.OpeningDone || st.Ended != "" || flushTo > st.Sealed {
		return true
	}
	old := st.unsealed() > 0 && now.Sub(s.oldest) >= u.a.cfg.PartAge
	return old || st.unsealed() >= u.a.cfg.PartBytes
}

// schedule has a session looked at, unless it waits for its next try.
func (u *uploader) schedule(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.scheduleLocked(s, false)
}

func (u *uploader) scheduleLocked(s *session, now bool) {
	j := u.jobs[s]
	if j == nil {
		j = &job{}
		u.jobs[s] = j
	}
	switch {
	case u.closed || j.queued:
	case j.busy:
		j.again = true
	case j.failures > 0 && !now && time.Now().Before(j.retryAt):
	default:
		j.queued = true
		u.queue = append(u.queue, s)
		u.cond.Signal()
	}
}

func (u *uploader) work() {
	for {
		s, j, flushTo := u.next()
		if s == nil {
			return
		}
		done, err := u.a.process(u.ctx, s, flushTo)
		u.finish(s, j, done, err)
	}
}

func (u *uploader) next() (*session, *job, uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.queue) == 0 && !u.closed {
		u.cond.Wait()
	}
	if u.closed {
		return nil, nil, 0
	}
	s := u.queue[0]
	u.queue = u.queue[1:]
	j := u.jobs[s]
	j.queued, j.busy, j.again = false, true, false
	return s, j, j.flushTo
}

func (u *uploader) finish(s *session, j *job, done bool, err error) {
	u.mu.Lock()
	was := j.err
	j.busy = false
	switch {
	case done && err == nil:
		delete(u.jobs, s)
	case err != nil:
		wait := min(u.a.cfg.Retry<<min(j.failures, 16), maxRetry)
		j.failures, j.err, j.retryAt = j.failures+1, err, time.Now().Add(wait)
	default:
		j.failures, j.err = 0, nil
		if j.again {
			u.scheduleLocked(s, true)
		}
	}
	close(u.progress)
	u.progress = make(chan struct{})
	u.mu.Unlock()
	u.tell(s, was, err)
}

// tell logs when a session's uploads begin to fail, when they fail for good, and when they succeed again.
func (u *uploader) tell(s *session, was, err error) {
	switch log := u.a.cfg.Log; {
	case u.ctx.Err() != nil:
	case err != nil && (was == nil || errors.Is(err, ErrConflict) && !errors.Is(was, ErrConflict)):
		log.Error("archive cannot be stored and is tried again", "session", s.id, "err", err)
	case err == nil && was != nil:
		log.Info("archive is stored again", "session", s.id)
	}
}

// tick looks for parts that have become old and for tries that are due again.
func (u *uploader) tick() {
	t := time.NewTicker(max(5*time.Millisecond, min(time.Second, u.a.cfg.PartAge/10, u.a.cfg.Retry)))
	defer t.Stop()
	for {
		select {
		case <-u.ctx.Done():
			return
		case <-t.C:
		}
		u.lookAt(u.a.all())
		u.retry()
		u.a.closeDay()
	}
}

// lookAt schedules those for which there is something to do.
func (u *uploader) lookAt(sessions []*session) {
	u.a.spool.stateMu.Lock()
	now := u.a.cfg.Now()
	sessions = slices.DeleteFunc(sessions, func(s *session) bool { return !u.due(s, 0, now) })
	u.a.spool.stateMu.Unlock()
	for _, s := range sessions {
		u.schedule(s)
	}
}

func (u *uploader) retry() {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	for s, j := range u.jobs {
		if j.failures > 0 && !now.Before(j.retryAt) {
			u.scheduleLocked(s, false)
		}
	}
}

// flush has everything stored that is written now, and waits for it.
func (u *uploader) flush(ctx context.Context) error {
	want := map[*session]uint64{}
	u.a.spool.stateMu.Lock()
	for _, s := range u.a.all() {
		if s.state.Seq > 0 {
			want[s] = s.state.Seq
		}
	}
	u.a.spool.stateMu.Unlock()
	u.mu.Lock()
	for s, seq := range want {
		u.scheduleLocked(s, true)
		u.jobs[s].flushTo = max(u.jobs[s].flushTo, seq)
	}
	u.mu.Unlock()
	for {
		u.mu.Lock()
		progress := u.progress
		u.mu.Unlock()
		left := u.unstored(want)
		if left == 0 {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return fmt.Errorf("flush archive: %d sessions are not stored yet: %w", left, errors.Join(ctx.Err(), u.anyFailure()))
		}
	}
}

func (u *uploader) unstored(want map[*session]uint64) int {
	u.a.spool.stateMu.Lock()
	defer u.a.spool.stateMu.Unlock()
	for s, seq := range want {
		if s.state.OpeningDone && s.state.Sealed >= seq && (s.state.Ended == "" || u.a.session(s.id) != s) {
			delete(want, s)
		}
	}
	return len(want)
}

func (u *uploader) anyFailure() error {
	for _, err := range u.failing() {
		return err
	}
	return nil
}

func (u *uploader) failing() map[string]error {
	u.mu.Lock()
	defer u.mu.Unlock()
	failing := map[string]error{}
	for s, j := range u.jobs {
		if j.err != nil {
			failing[s.id] = j.err
		}
	}
	return failing
}
