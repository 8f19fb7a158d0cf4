package federation

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// pollAtOnce is how many questions are under way at most.
	pollAtOnce = 4
	// pollSlower is how many times the spacing a job that does nothing is asked about at last.
	pollSlower = 4
	// pollFailing bounds the pause after questions that were not answered.
	pollFailing = 5 * time.Minute
	// pollLook is how long a new session waits to be seen at most.
	pollLook = 5 * time.Second
	// pollFloor is how long a round waits for the next at least.
	pollFloor = 50 * time.Millisecond
	// pollLease is how often a job is asked about within its lease at least.
	pollLease = 3
)

// PollConfig is what a poller is made of.
type PollConfig struct {
	Sessions *Sessions // required
	// Liveness says whether a job runs. Required.
	Liveness Liveness
	// Every returns how often a job of an issuer is asked about while it does something, zero for never. Required.
	Every func(issuer string) time.Duration
	Now   func() time.Time // nil takes time.Now
	Log   *slog.Logger     // nil discards
	// Jitter returns a part of d to wait longer, so that jobs that began together are not asked about together. nil
	// takes up to a tenth, at random.
	Jitter func(d time.Duration) time.Duration
}

// Poller asks providers about the jobs of open sessions: a job that is over ends its sessions, one that runs renews
// their leases. It asks less often of a job that makes no calls, after questions that failed, and not at all while an
// API's rate limit is used up; then leases run out as they do without it.
type Poller struct {
	c     PollConfig
	jobs  map[polledJob]*polled
	pause map[string]time.Time // by issuer
}

// NewPoller returns a poller; Run does its work.
func NewPoller(c PollConfig) (*Poller, error) {
	if c.Sessions == nil || c.Liveness == nil || c.Every == nil {
		return nil, errors.New("federation: PollConfig needs Sessions, Liveness and Every")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Jitter == nil {
		c.Jitter = func(d time.Duration) time.Duration { return rand.N(d/10 + 1) }
	}
	return &Poller{c: c, jobs: make(map[polledJob]*polled), pause: make(map[string]time.Time)}, nil
}

// polledJob is a job, whatever mappings opened sessions for it.
type polledJob struct {
	issuer string
	job    access.JobKey
}

// polled is what the poller knows of a job.
type polled struct {
	identity access.Identity
	changes  uint64        // of its sessions
	lease    time.Duration // the shortest
	every    time.Duration
	next     time.Time

	asked    uint64 // changes at the last question
	failures int
}

// Run polls until ctx ends. It must run once.
func (p *Poller) Run(ctx context.Context) {
	for ctx.Err() == nil {
		timer := time.NewTimer(p.round(ctx))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// round asks what is due and returns how long there is nothing to do.
func (p *Poller) round(ctx context.Context) time.Duration {
	p.look()
	now := p.c.Now()
	var due []*polled
	for _, j := range p.jobs {
		if !now.Before(j.next) && !now.Before(p.pause[j.identity.Issuer]) {
			due = append(due, j)
		}
	}
	slices.SortFunc(due, func(a, b *polled) int { return a.next.Compare(b.next) })
	for batch := range slices.Chunk(due, pollAtOnce) {
		p.ask(ctx, batch)
	}
	wait := pollLook
	now = p.c.Now()
	for _, j := range p.jobs {
		next := j.next
		if pause := p.pause[j.identity.Issuer]; next.Before(pause) {
			next = pause
		}
		wait = min(wait, next.Sub(now))
	}
	return max(wait, pollFloor)
}

// look takes up the jobs of sessions that were opened, and forgets those of which none is open.
func (p *Poller) look() {
	now := p.c.Now()
	seen := make(map[polledJob]*polled)
	for _, e := range p.c.Sessions.all() {
		id := e.row.Identity
		every := p.c.Every(id.Issuer)
		if every <= 0 || e.session.State(now) == access.Ended {
			continue
		}
		key := polledJob{id.Issuer, id.JobKey}
		j, lease := p.jobs[key], e.session.Policy().Window.Lease
		switch {
		case seen[key] != nil:
			j.changes += e.session.Changes()
			j.lease = min(j.lease, lease)
			continue
		case j == nil:
			j = &polled{every: every}
			p.jobs[key] = j
			j.next = now // a job that sleeps waits for this
			if e.session.State(now) == access.Awake {
				j.next = now.Add(p.spaced(every, lease))
			}
		}
		j.identity, j.changes, j.lease = id, e.session.Changes(), lease
		seen[key] = j
	}
	p.jobs = seen
}

// spaced adds jitter, and asks several times within a lease.
func (p *Poller) spaced(d, lease time.Duration) time.Duration {
	if lease > 0 {
		d = min(d, lease/pollLease)
	}
	return max(d+p.c.Jitter(d), time.Second/2)
}

type polledAnswer struct {
	state LiveState
	err   error
}

// ask asks about some jobs at once, and takes the answers.
func (p *Poller) ask(ctx context.Context, batch []*polled) {
	answers := make([]polledAnswer, len(batch))
	var waiting sync.WaitGroup
	for i, j := range batch {
		if p.c.Now().Before(p.pause[j.identity.Issuer]) {
			answers[i].err = errPaused
			continue
		}
		waiting.Go(func() { answers[i].state, answers[i].err = p.c.Liveness.JobEnded(ctx, j.identity) })
	}
	waiting.Wait()
	if ctx.Err() != nil {
		return
	}
	for i, j := range batch {
		if !errors.Is(answers[i].err, errPaused) {
			p.take(ctx, j, answers[i])
		}
	}
}

// errPaused is of a question that was not asked.
var errPaused = errors.New("the API is not asked now")

func (p *Poller) take(ctx context.Context, j *polled, a polledAnswer) {
	id := j.identity
	var limited *LimitedError
	switch {
	case errors.As(a.err, &limited):
		if p.pause[id.Issuer].Before(limited.Until) {
			p.pause[id.Issuer] = limited.Until
			p.c.Log.Warn("a job API is not asked for a while: its rate limit is used up", "issuer", id.Issuer, "until", limited.Until)
		}
	case a.err == nil && (a.state == LiveEnded || a.state == LiveSuperseded):
		p.c.Sessions.EndJob(ctx, id.Issuer, id.JobKey, "the job API of issuer "+id.Issuer)
	case a.err == nil && a.state == LiveRunning:
		p.lives(j)
	default:
		wait := min(p.c.Every(id.Issuer)<<min(j.failures, 8), pollFailing)
		if j.failures++; j.failures == 1 {
			p.c.Log.Warn("a job API does not tell of a job; its lease runs out without another sign of life", "issuer", id.Issuer, "job", id.JobKey, "err", a.err)
		}
		j.next = p.c.Now().Add(wait + p.c.Jitter(wait))
	}
}

// lives renews the leases of a job that runs, and spaces the questions by what it does.
func (p *Poller) lives(j *polled) {
	id := j.identity
	p.c.Sessions.renewWhere(LifeAPI, func(e *sessionEntry) bool {
		return e.row.Identity.Issuer == id.Issuer && e.row.Identity.JobKey == id.JobKey
	})
	every := p.c.Every(id.Issuer)
	if j.every = min(j.every*2, every*pollSlower); j.changes != j.asked {
		j.every = every
	}
	// The renewal itself is a change of each session.
	j.asked, j.failures = p.changesOf(id), 0
	j.next = p.c.Now().Add(p.spaced(j.every, j.lease))
}

func (p *Poller) changesOf(id access.Identity) (n uint64) {
	now := p.c.Now()
	for _, e := range p.c.Sessions.all() {
		if e.row.Identity.Issuer == id.Issuer && e.row.Identity.JobKey == id.JobKey && e.session.State(now) != access.Ended {
			n += e.session.Changes()
		}
	}
	return n
}
