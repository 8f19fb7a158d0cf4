package federation

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// hitDays is how many days counts are kept.
	hitDays = 30
	// hitsEvery is how often they are written down: what a kill loses of them.
	hitsEvery = 5 * time.Second
	// hitSamples is how many of the latest hits of a rule are kept.
	hitSamples = 5
	// hitWhat bounds what a sample says of a call, in bytes.
	hitWhat = 160
)

// HitStore keeps counts by day, and the latest hits of each rule.
type HitStore interface {
	SaveHits(ctx context.Context, counts []access.HitCount, samples []access.HitSamples) error
	Hits(ctx context.Context, mapping string, from int64) ([]access.HitCount, error)
	HitSamples(ctx context.Context) ([]access.HitSamples, error)
	PruneHits(ctx context.Context, before int64) error
}

// HitsConfig is what counts are made of.
type HitsConfig struct {
	Store HitStore         // required
	Days  int              // kept; zero takes 30
	Now   func() time.Time // nil takes time.Now
	Log   *slog.Logger     // nil discards
}

// Hits counts what mappings are used for: exchanges, calls, and every time a rule or a part of a grant spoke. Counts belong
// to a mapping's name, whatever its revision. They are gathered in memory and written down by [Hits.Run], which must run.
// It is safe for concurrent use.
type Hits struct {
	c HitsConfig

	saving sync.Mutex // held while counts are on their way to the store, so that a reader misses none
	pruned int64      // the day of the last pruning; by Run only

	mu      sync.Mutex // guards all below
	counts  map[hitKey]*hitCount
	samples map[ruleKey]*samplesKept
}

type ruleKey struct{ mapping, connection, rule string }

type hitKey struct {
	ruleKey
	outcome access.Outcome
	day     int64
}

type hitCount struct {
	n    int64
	last time.Time
}

type samplesKept struct {
	list    []access.HitSample
	unsaved bool
}

// NewHits reads the samples that the store has.
func NewHits(ctx context.Context, c HitsConfig) (*Hits, error) {
	if c.Store == nil {
		return nil, errors.New("federation: HitsConfig needs Store")
	}
	if c.Days <= 0 {
		c.Days = hitDays
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	rows, err := c.Store.HitSamples(ctx)
	if err != nil {
		return nil, err
	}
	h := &Hits{c: c, counts: make(map[hitKey]*hitCount), samples: make(map[ruleKey]*samplesKept, len(rows))}
	for _, row := range rows {
		h.samples[ruleKey{row.Mapping, row.Connection, row.Rule}] = &samplesKept{list: row.Samples}
	}
	return h, nil
}

func dayOf(t time.Time) int64 { return t.Unix() / (24 * 3600) }

// Add counts a hit. A nil Hits counts nothing.
func (h *Hits) Add(hit access.Hit) {
	if h == nil {
		return
	}
	now := h.c.Now()
	key := ruleKey{hit.Mapping, hit.Connection, hit.Rule}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.countLocked(hitKey{key, hit.Outcome, dayOf(now)}, 1, now)
	if hit.What == "" || hit.Rule == "" {
		return
	}
	kept := h.samples[key]
	if kept == nil {
		kept = &samplesKept{}
		h.samples[key] = kept
	}
	if len(kept.list) >= hitSamples {
		kept.list = append(kept.list[:0:0], kept.list[len(kept.list)-hitSamples+1:]...)
	}
	kept.list = append(kept.list, access.HitSample{Time: now.UTC(), Session: hit.Session, Call: hit.Call, Outcome: hit.Outcome, What: cutText(hit.What, hitWhat)})
	kept.unsaved = true
}

func (h *Hits) countLocked(key hitKey, n int64, last time.Time) {
	c := h.counts[key]
	if c == nil {
		c = &hitCount{}
		h.counts[key] = c
	}
	c.n += n
	if last.After(c.last) {
		c.last = last
	}
}

// exchanged counts an exchange that found its mapping.
func (h *Hits) exchanged(e AuditEvent) {
	outcome, counted := map[string]access.Outcome{"opened": access.OutcomeOpened, "renewed": access.OutcomeRenewed,
		"joined": access.OutcomeJoined, "refused": access.OutcomeTurnedAway}[e.Outcome]
	if h == nil || e.Mapping == "" || e.Door == TryDoor || !counted {
		return
	}
	h.Add(access.Hit{Mapping: e.Mapping, Outcome: outcome})
}

// Run writes counts down every few seconds, and a last time when ctx ends. It must run once.
func (h *Hits) Run(ctx context.Context) {
	tick := time.NewTicker(hitsEvery)
	defer tick.Stop()
	h.prune(ctx)
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrites)
			defer cancel()
			h.flush(last)
			return
		case <-tick.C:
			h.flush(ctx)
			h.prune(ctx)
		}
	}
}

// flush writes what was gathered. What fails is gathered further.
func (h *Hits) flush(ctx context.Context) {
	h.saving.Lock()
	defer h.saving.Unlock()
	counts, samples := h.take()
	if len(counts) == 0 && len(samples) == 0 {
		return
	}
	err := h.c.Store.SaveHits(ctx, counts, samples)
	if err == nil {
		return
	}
	h.c.Log.Warn("hit counts could not be written down and are tried again", "counts", len(counts), "err", err)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range counts {
		h.countLocked(hitKey{ruleKey{c.Mapping, c.Connection, c.Rule}, c.Outcome, c.Day}, c.N, c.Last)
	}
	for _, s := range samples {
		h.samples[ruleKey{s.Mapping, s.Connection, s.Rule}].unsaved = true
	}
}

func (h *Hits) take() (counts []access.HitCount, samples []access.HitSamples) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, c := range h.counts {
		counts = append(counts, access.HitCount{Mapping: key.mapping, Connection: key.connection, Rule: key.rule,
			Outcome: key.outcome, Day: key.day, N: c.n, Last: c.last})
	}
	clear(h.counts)
	for key, s := range h.samples {
		if s.unsaved {
			samples = append(samples, access.HitSamples{Mapping: key.mapping, Connection: key.connection, Rule: key.rule, Samples: s.list})
			s.unsaved = false
		}
	}
	return counts, samples
}

// prune forgets old days, once a day.
func (h *Hits) prune(ctx context.Context) {
	today := dayOf(h.c.Now())
	if today == h.pruned {
		return
	}
	oldest := today - int64(h.c.Days) + 1
	if err := h.c.Store.PruneHits(ctx, oldest); err != nil {
		h.c.Log.Warn("old hit counts could not be deleted", "err", err)
		return
	}
	h.pruned = today
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, s := range h.samples {
		if n := len(s.list); n > 0 && dayOf(s.list[n-1].Time) < oldest {
			delete(h.samples, key)
		}
	}
}

// Days is how many days are kept.
func (h *Hits) Days() int { return h.c.Days }

// Of returns what was counted for a mapping on the last days, today among them, and the latest hits of its rules. What was
// not written down yet is among it.
func (h *Hits) Of(ctx context.Context, mapping string, days int) ([]access.HitCount, []access.HitSamples, error) {
	h.saving.Lock()
	defer h.saving.Unlock()
	from := dayOf(h.c.Now()) - int64(days) + 1
	counts, err := h.c.Store.Hits(ctx, mapping, from)
	if err != nil {
		return nil, nil, err
	}
	var samples []access.HitSamples
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, c := range h.counts {
		if key.mapping == mapping && key.day >= from {
			counts = append(counts, access.HitCount{Mapping: mapping, Connection: key.connection, Rule: key.rule,
				Outcome: key.outcome, Day: key.day, N: c.n, Last: c.last})
		}
	}
	for key, s := range h.samples {
		if key.mapping == mapping {
			samples = append(samples, access.HitSamples{Mapping: mapping, Connection: key.connection, Rule: key.rule, Samples: s.list})
		}
	}
	return counts, samples, nil
}

// cutText shortens a text between two characters.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n] + "..."
}
