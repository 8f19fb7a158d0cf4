package federation

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// LifeSign says what kept a session awake last.
type LifeSign string

const (
	// LifeToken is a fresh CI token of the job.
	LifeToken LifeSign = "fresh token"
	// LifeAPI is the provider's job API, which says that the job runs.
	LifeAPI LifeSign = "job API"
	// LifeHook is a webhook that says so.
	LifeHook LifeSign = "webhook"
)

const (
	// toldKept is how many ended jobs are remembered, and toldFor how long: as long as a CI token may live.
	toldKept = 32768
	toldFor  = maxLifetime
)

// signal is what a provider says of a job without being asked.
type signal struct {
	issuer string // its name
	job    string // one of jobNames
	state  LiveState
	by     string // for people
}

// signal takes what a provider says. A job that is over ends its sessions and opens none afterwards, whatever is said
// later; one that runs renews their leases. It returns how many sessions were ended or renewed.
func (s *Sessions) signal(ctx context.Context, sig signal) int {
	told := toldName(sig.issuer, sig.job)
	named := func(e *sessionEntry) bool {
		return e.row.Identity.Issuer == sig.issuer && slices.Contains(e.names, sig.job)
	}
	switch sig.state {
	case LiveEnded, LiveSuperseded:
		// Remembered first: an exchange that is under way registers its session and then looks.
		s.told.keep(told, s.c.Now())
		return s.endWhere(ctx, access.EndJob, sig.by, named)
	case LiveRunning:
		if s.told.has(told, s.c.Now()) {
			return 0
		}
		return s.renewWhere(LifeHook, named)
	}
	return 0
}

// renewWhere takes a sign of life of open sessions and returns how many there were.
func (s *Sessions) renewWhere(sign LifeSign, match func(*sessionEntry) bool) int {
	renewed := 0
	for _, e := range s.all() {
		if match(e) && s.renew(e, sign, s.c.Now()) {
			renewed++
		}
	}
	return renewed
}

// renew gives a session another lease. It is written down with the counters: what a crash loses of it, the next sign
// of life brings back.
func (s *Sessions) renew(e *sessionEntry, sign LifeSign, now time.Time) bool {
	if _, open := e.session.Renew(now); !open {
		return false
	}
	e.lives(sign)
	return true
}

func (e *sessionEntry) lives(sign LifeSign) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sign = sign
}

// toldOver reports whether a provider has said that a job is over.
func (s *Sessions) toldOver(id access.Identity) bool {
	now := s.c.Now()
	return slices.ContainsFunc(jobNames(id), func(name string) bool { return s.told.has(toldName(id.Issuer, name), now) })
}

// jobNames returns all names by which a signal may speak of a job. A name holds every id that tells the job from
// others, its attempt among them.
func jobNames(id access.Identity) []string {
	names := []string{keyName(id.JobKey)}
	switch id.Provider {
	case githubProvider:
		names = append(names, githubNames(id.Claims)...)
	case gitlabProvider:
		names = append(names, gitlabName(id.Claims.Text("job_id"), id.Claims.Text("pipeline_id"), gitlabProject(id.Claims)))
	case buildkiteProvider:
		names = append(names, buildkiteName(id.Claims.Text("job_id")))
	}
	return names
}

func keyName(key access.JobKey) string { return "key " + string(key) }

// nameOf joins the parts of a name. Parts are ids without spaces, so that no two lists make the same name.
func nameOf(kind string, ids ...string) string { return kind + " " + strings.Join(ids, " ") }

func toldName(issuer, job string) string { return issuer + " " + job }

// toldJobs are the jobs that were said to be over. It is bounded: a full one forgets the oldest.
type toldJobs struct {
	mu    sync.Mutex // guards all below
	until map[string]time.Time
	order []string
	next  int // in order, where it is full
}

func (t *toldJobs) keep(name string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.until == nil {
		t.until = make(map[string]time.Time)
	}
	if _, have := t.until[name]; !have {
		if len(t.order) < toldKept {
			t.order = append(t.order, name)
		} else {
			delete(t.until, t.order[t.next])
			t.order[t.next] = name
			t.next = (t.next + 1) % toldKept
		}
	}
	t.until[name] = now.Add(toldFor)
}

func (t *toldJobs) has(name string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return now.Before(t.until[name])
}
