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
	// pollAway is how many questions in a row an API leaves without an answer before it counts as away.
	pollAway = 8
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
	c    PollConfig
	jobs map[polledJob]*polled
	// By issuer: until when it is not asked, and how many questions in a row its API did not answer.
	pause map[string]time.Time
	away  map[string]int
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
	return &Poller{c: c, jobs: make(map[polledJob]*polled), pause: make(map[string]time.Time), away: make(map[string]int)}, nil
}

// polledJob is a job, whatever mappings opened sessions for it.
type polledJob struct {
	issuer string
	job    access.JobKey
}

// polled is what the poller knows of a job.
type polled struct {
	identity access.Identity
	sessions []*sessionEntry // the open ones
	lease    time.Duration   // the shortest
	every    time.Duration
	next     time.Time

	asked    uint64 // changes at the last question
	failures int
}

// changes grow with what the job does.
func (j *polled) changes() (n uint64) {
	for _, e := range j.sessions {
		n += e.session.Changes()
	}
	return n
}

// Run polls until ctx ends. It must run once.
func (p *Poller) Run(ctx context.Context) {
	for ctx.Err() == nil {
		timer := time.NewTimer(p.round(ctx))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-p.c.Sessions.hurried: // its lease may run out before the timer does
			timer.Reset(pollFloor)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
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
			seen[key].sessions = append(seen[key].sessions, e)
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
		j.identity, j.sessions, j.lease = id, []*sessionEntry{e}, lease
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
	if a.err == nil {
		p.away[id.Issuer] = 0
	}
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
		p.fails(j, a.err)
	}
}

// lives renews the leases of a job that runs, and spaces the questions by what it does.
func (p *Poller) lives(j *polled) {
	every := p.c.Every(j.identity.Issuer)
	if j.every = min(j.every*2, every*pollSlower); j.changes() != j.asked {
		j.every = every
	}
	now := p.c.Now()
	for _, e := range j.sessions {
		p.c.Sessions.renew(e, LifeAPI, now)
	}
	j.asked, j.failures = j.changes(), 0 // a renewal is a change, too
	j.next = now.Add(p.spaced(j.every, j.lease))
}

// fails spaces the questions about a job of which nobody can tell, and stops asking an API that is away: a question
// to it takes its time, and the other providers' jobs wait.
func (p *Poller) fails(j *polled, err error) {
	issuer := j.identity.Issuer
	every, now := p.c.Every(issuer), p.c.Now()
	wait := min(every<<min(j.failures, 8), pollFailing)
	if j.failures++; j.failures == 1 {
		p.c.Log.Warn("a job API does not tell of a job; its lease runs out without another sign of life", "issuer", issuer, "job", j.identity.JobKey, "err", err)
	}
	j.next = now.Add(wait + p.c.Jitter(wait))
	if err == nil || errors.Is(err, errNotThere) {
		return
	}
	if p.away[issuer]++; p.away[issuer] >= pollAway {
		p.pause[issuer] = now.Add(min(every<<min(p.away[issuer]-pollAway, 8), pollFailing/2))
	}
}
