package federation

import (
	"context"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// askPause is how long a provider's word about a job answers trials: they can be had for the asking, and the
	// provider counts what it is asked.
	askPause = 5 * time.Second
	// wordsKept bounds how many such words are kept.
	wordsKept = 1024
)

// words are what providers have just said of jobs.
type words struct {
	mu   sync.Mutex
	last map[jobName]word
}

type jobName struct {
	issuer string
	job    access.JobKey
}

type word struct {
	state LiveState
	err   error
	at    time.Time
}

func (a *words) get(name jobName, now time.Time) (word, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	said, known := a.last[name]
	return said, known && !now.Before(said.at) && now.Sub(said.at) < askPause
}

func (a *words) put(name jobName, said word) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil || len(a.last) >= wordsKept {
		a.last = make(map[jobName]word)
	}
	a.last[name] = said
}

// ask returns what the provider said before, where that was the job's end, or what it says now. A trial is content with
// what it said a moment ago.
func (x *Exchange) ask(ctx context.Context, id access.Identity, trial bool) (LiveState, error) {
	if x.c.Sessions.toldOver(id) {
		return LiveEnded, nil
	}
	name := jobName{id.Issuer, id.JobKey}
	if trial {
		if said, ok := x.words.get(name, x.c.Now()); ok {
			return said.state, said.err
		}
	}
	wait, cancel := context.WithTimeout(ctx, livenessWait)
	defer cancel()
	state, err := x.c.Liveness.JobEnded(wait, id)
	if ctx.Err() == nil { // else it is about who asked
		x.words.put(name, word{state, err, x.c.Now()})
	}
	return state, err
}

// unused refuses a CI token that was exchanged before, so that nobody is asked about it. What is decided here is decided
// again, and for good, where the token is noted as used.
func (x *Exchange) unused(ctx context.Context, id access.Identity) error {
	_, seen, err := x.c.Store.SeenToken(ctx, id.Issuer, id.TokenID)
	if err == nil && seen {
		err = replayed("the CI token was used before")
	}
	return err
}
