package federation

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jobgate/jobgate/proxy/record"
)

// Classes of refusals. Each has a measure of its own, so that a flood of one hides nothing of another.
const (
	classUnverified = "unverified" // the token is nobody's
	classStranger   = "stranger"   // a job of an owner that no mapping names: anybody at a public provider
	classKnown      = "known"
	classTrial      = "trial" // no refusal, and nothing was given out either
)

// SumEvery is how often SumUp should be called.
const SumEvery = time.Minute

// refusalsWritten is how many refusals of a class are written one by one between two sums. At most 3 MB a minute come together so,
// before compression.
var refusalsWritten = map[string]int{classUnverified: 30, classStranger: 120, classKnown: 600, classTrial: 120}

// sumsKept bounds how many kinds of refusals are told apart in a sum: their issuers are what strangers wrote.
const sumsKept = 64

func (a *attempt) class() string {
	switch {
	case a.event.Identity.Issuer == "":
		return classUnverified
	case !a.known:
		return classStranger
	}
	return classKnown
}

type refusalKind struct{ class, issuer, reason string }

// refusalMeter decides which refusals are written one by one, and adds up the others.
type refusalMeter struct {
	now func() time.Time

	mu         sync.Mutex // guards all below
	since      time.Time  // of the sums; zero while there are none
	window     time.Time  // since when written counts
	written    map[string]int
	suppressed map[string]int64 // by class, since one was written
	sums       map[refusalKind]int64
}

func newRefusalMeter(now func() time.Time) refusalMeter {
	return refusalMeter{now: now, written: map[string]int{}, suppressed: map[string]int64{}, sums: map[refusalKind]int64{}}
}

// take reports whether a refusal is to be written, and how many of its class were not before it.
func (m *refusalMeter) take(e AuditEvent) (write bool, suppressed int64) {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if age := now.Sub(m.window); age >= SumEvery || age < 0 {
		m.window = now
		clear(m.written)
	}
	if m.written[e.Class] < refusalsWritten[e.Class] {
		m.written[e.Class]++
		suppressed, m.suppressed[e.Class] = m.suppressed[e.Class], 0
		return true, suppressed
	}
	m.suppressed[e.Class]++
	if m.since.IsZero() {
		m.since = now
	}
	m.addLocked(refusalKind{e.Class, cmp.Or(e.Identity.Issuer, e.Claimed), cmp.Or(e.Reason, string(e.Code), e.Outcome)}, 1)
	return false, 0
}

func (m *refusalMeter) addLocked(kind refusalKind, n int64) {
	if _, there := m.sums[kind]; !there && len(m.sums) >= sumsKept {
		kind = refusalKind{kind.class, "", "others"}
	}
	m.sums[kind] += n
}

// drain returns the sums and begins anew; false where there are none.
func (m *refusalMeter) drain() (record.Refusals, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.sums) == 0 {
		return record.Refusals{}, false
	}
	out := record.Refusals{Since: m.since.UTC(), Until: m.now().UTC()}
	for kind, n := range m.sums {
		out.Count += n
		out.By = append(out.By, record.RefusalCount{Class: kind.class, Issuer: kind.issuer, Reason: kind.reason, Count: n})
	}
	slices.SortFunc(out.By, func(a, b record.RefusalCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.Reason, b.Reason))
	})
	clear(m.sums)
	m.since = time.Time{}
	return out, true
}

// putBack adds sums again that could not be written.
func (m *refusalMeter) putBack(r record.Refusals) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since = r.Since
	for _, by := range r.By {
		m.addLocked(refusalKind{by.Class, by.Issuer, by.Reason}, by.Count)
	}
}

// SumUp writes down the sum of the refusals that were not written one by one. It is to be called every SumEvery, and once at the end.
func (x *Exchange) SumUp(ctx context.Context) {
	sum, there := x.meter.drain()
	if !there {
		return
	}
	if err := x.c.Refusals(ctx, sum); err != nil {
		x.c.Log.ErrorContext(ctx, "refusals could not be summed up in the audit stream and are tried again", "count", sum.Count, "err", err)
		x.meter.putBack(sum)
		return
	}
	x.c.Log.WarnContext(ctx, "exchanges were refused beside those that are logged", "count", sum.Count, "since", sum.Since)
}
