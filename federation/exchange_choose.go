package federation

import (
	"context"
	"encoding/base32"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// choose finds the one mapping that serves the identity: the one that is named, or the only one that matches. Where none
// does, the refusal is that of the mapping that fails least: most likely the one that was meant for the job.
func (x *Exchange) choose(a *attempt, name string) (*mappingInForce, error) {
	m, err := x.c.Mappings.set.Load().choose(a.event.Identity, name, x.c.Now())
	if m != nil {
		a.matched(m)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// choose returns a mapping with an error where several serve the identity: one of them.
func (set *mappingSet) choose(id access.Identity, name string, now time.Time) (*mappingInForce, error) {
	if name != "" {
		m := set.byName[name]
		if m == nil {
			return nil, refusal(access.CodeTarget, "unknown_mapping", "there is no mapping "+quotedName(name))
		}
		if err := m.serves(id, now); err != nil {
			return nil, err
		}
		return m, nil
	}
	var matching []*mappingInForce
	var nearest error
	fewest := 0
	for _, m := range set.sorted {
		if m.Issuer() != id.Issuer {
			continue
		}
		err := m.Match(id, now)
		switch {
		case err == nil:
			matching = append(matching, m)
		case m.PinsTenant(id):
			if failed := len(m.Explain(id, now)); nearest == nil || failed < fewest {
				nearest, fewest = err, failed
			}
		}
	}
	switch {
	case len(matching) == 1:
		return matching[0], nil
	case len(matching) > 1:
		return matching[0], refusal(access.CodeTarget, "ambiguous", "several mappings serve this job; name one of them: "+strings.Join(names(matching), ", "))
	case nearest != nil:
		return nil, nearest
	}
	return nil, refusal(access.CodeTarget, "no_mapping", "no mapping serves this job")
}

func (m *mappingInForce) serves(id access.Identity, now time.Time) error {
	if m.Issuer() != id.Issuer {
		return refusal(access.CodeTarget, "issuer_mismatch", fmt.Sprintf("mapping %q serves jobs of issuer %q, and this one is of %q", m.Name(), m.Issuer(), id.Issuer))
	}
	return m.Match(id, now)
}

func names(mappings []*mappingInForce) []string {
	out := make([]string, 0, len(mappings))
	for _, m := range mappings {
		out = append(out, m.Name())
	}
	return out
}

// granted narrows what a policy grants to what was asked for; nothing asked for is all of it.
func granted(p *access.Policy, scope []string) ([]string, error) {
	if len(scope) == 0 {
		return p.Connections(), nil
	}
	var out []string
	for _, name := range scope {
		if _, ok := p.Grant(name); !ok {
			return nil, refusal(access.CodeScope, "scope", fmt.Sprintf("mapping %q grants no connection %s; it grants %s", p.Mapping, quotedName(name), strings.Join(p.Connections(), ", ")))
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// bound gives an identity whose provider names no job its token as job key, where the mapping says so: each token is a
// job of its own then.
func bound(id access.Identity, m *mappingInForce) (access.Identity, error) {
	if id.JobKey != "" {
		return id, nil
	}
	if b := m.Spec().Bound; b == nil || *b {
		return id, refusal(access.CodeGrant, "no_job_key", fmt.Sprintf("the token names no job; mapping %q can accept that with job_bound: false", m.Name()))
	}
	id.JobKey = access.JobKey("token=" + id.TokenID)
	return id, nil
}

// newID makes an id of 130 random bits.
func newID(random io.Reader, prefix string) (string, error) {
	var raw [17]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", fmt.Errorf("read random bytes for an id: %w", err)
	}
	return prefix + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:]))[:26], nil
}

// jobLocks are locks by job, there only while somebody holds or wants one.
type jobLocks struct {
	mu   sync.Mutex // guards held
	held map[access.LedgerKey]*jobLock
}

type jobLock struct {
	turn  chan struct{} // one place
	users int
}

// lock waits for the job's turn, or for the end of ctx.
func (l *jobLocks) lock(ctx context.Context, key access.LedgerKey) (unlock func(), err error) {
	l.mu.Lock()
	k := l.held[key]
	if k == nil {
		k = &jobLock{turn: make(chan struct{}, 1)}
		l.held[key] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		if k.users--; k.users == 0 {
			delete(l.held, key)
		}
		l.mu.Unlock()
	}
	select {
	case k.turn <- struct{}{}:
		return func() { <-k.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, &access.Error{Code: access.CodeCanceled, Public: "the client left", Err: ctx.Err()}
	}
}
