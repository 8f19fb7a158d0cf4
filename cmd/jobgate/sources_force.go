package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// sources puts in force what the configuration file and the sources beside it say. All of a source is taken, or nothing of
// it; what cannot be read, or is wrong, changes nothing.
type sources struct {
	mappings *federation.Mappings
	folder   string // where the last good content of each source is kept
	log      *slog.Logger
	now      func() time.Time

	mu      sync.Mutex // guards all below, and is held while a set is put in force
	b       *built
	list    []*source
	stop    map[*source]context.CancelFunc // of those that are watched
	refused string                         // the set that was refused last, so that it is not checked and logged again
	work    sync.WaitGroup
	ctx     context.Context // of the watchers, nil before run
}

func newSources(b *built, mappings *federation.Mappings, folder string, log *slog.Logger) (*sources, error) {
	s := &sources{b: b, mappings: mappings, folder: folder, log: log, now: time.Now, stop: make(map[*source]context.CancelFunc)}
	for _, c := range b.config.MappingsFrom {
		one, err := b.newSource(c)
		if err != nil {
			return nil, err
		}
		s.list = append(s.list, one)
	}
	return s, nil
}

// start puts in force what everything says now. A source that cannot be read, or is wrong, goes on with what it said when
// it was last in force here; one that never was is an error.
func (s *sources) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.list {
		one.inForce = s.recall(one)
	}
	if err := s.lookAll(ctx, s.list); err != nil {
		return err
	}
	return s.bringLocked(ctx, s.b, s.list)
}

// bringLocked puts a configuration in force with all its sources. Where what a source says now is refused, the
// configuration goes on with what that source said before: neither it nor the other sources are held up.
func (s *sources) bringLocked(ctx context.Context, b *built, list []*source) error {
	changed, fresh := changedOf(list)
	good, bad := b.divide(changed)
	for _, one := range fresh {
		if bad[one] != nil {
			return bad[one]
		}
	}
	err := s.takeLocked(ctx, b, list, good)
	if err != nil && (len(fresh) == len(good) || s.takeLocked(ctx, b, list, fresh) != nil) {
		return err
	}
	s.b, s.list, s.refused = b, list, ""
	s.evaluateLocked(ctx)
	return nil
}

// lookAll reads sources at once. It is an error where one that was never in force cannot be read.
func (s *sources) lookAll(ctx context.Context, list []*source) error {
	var looks errgroup.Group
	for _, one := range list {
		looks.Go(func() error {
			c, err := one.look(ctx)
			s.note(one, c, err)
			if err != nil && one.known() == nil {
				return fmt.Errorf("mappings_from: %s cannot be read, and nothing is known of what it said before: %w", one.name, err)
			}
			return nil
		})
	}
	return looks.Wait()
}

// note keeps what was read. What is away is logged once.
func (s *sources) note(one *source, c *content, err error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	before := one.away
	one.away = err
	switch {
	case err == nil:
		one.latest, one.looked = c, s.now()
		if before != nil {
			s.log.Info("a source of mappings can be read again", "source", one.name)
		}
	case before == nil || before.Error() != err.Error():
		if before == nil {
			one.since = s.now()
		}
		s.log.Error("a source of mappings cannot be read; what it said before stays in force", "source", one.name, "error", err)
	}
}

// run watches until ctx ends.
func (s *sources) run(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	s.watchLocked()
	s.mu.Unlock()
	<-ctx.Done()
	s.work.Wait()
}

// watchLocked watches the sources of the list and no other.
func (s *sources) watchLocked() {
	for one, stop := range s.stop {
		if !slices.Contains(s.list, one) {
			stop()
			delete(s.stop, one)
		}
	}
	if s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	for _, one := range s.list {
		if s.stop[one] != nil {
			continue
		}
		ctx, stop := context.WithCancel(s.ctx)
		s.stop[one] = stop
		s.work.Go(func() { one.watch(ctx, s.saw) })
	}
}

func (s *sources) saw(one *source, c *content, err error) {
	s.note(one, c, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.list, one) {
		s.evaluateLocked(context.WithoutCancel(s.ctx))
	}
}

// changedOf returns the sources that say something else than what is in force, and those of them of which nothing is.
func changedOf(list []*source) (changed, fresh []*source) {
	for _, one := range list {
		one.mu.Lock()
		if one.latest != nil && (one.inForce == nil || one.inForce.Digest != one.latest.Digest) {
			changed = append(changed, one)
			if one.inForce == nil {
				fresh = append(fresh, one)
			}
		}
		one.mu.Unlock()
	}
	return changed, fresh
}

// evaluateLocked puts in force what changed: all sources together, since a mapping can move from one to another; or, where
// that is refused, each that is good for itself, so that a mistake in one place does not hold up a revocation in another.
func (s *sources) evaluateLocked(ctx context.Context) {
	changed, _ := changedOf(s.list)
	s.clearLocked(changed)
	if len(changed) == 0 || s.setLocked() == s.refused {
		return
	}
	good, bad := s.b.divide(changed)
	for one, err := range bad {
		s.refuse(one, err)
	}
	var err error
	if len(good) > 0 {
		err = s.takeLocked(ctx, s.b, s.list, good)
	}
	for _, one := range good {
		alone := err
		if err != nil && len(good) > 1 {
			alone = s.takeLocked(ctx, s.b, s.list, []*source{one})
		}
		if alone != nil {
			s.refuse(one, alone)
		}
	}
	changed, _ = changedOf(s.list)
	s.clearLocked(changed)
	if !temporary(err) {
		s.refused = s.setLocked()
	}
}

// divide tells the sources that are good for themselves from those that no other can mend.
func (b *built) divide(changed []*source) (good []*source, bad map[*source]error) {
	bad = make(map[*source]error)
	for _, one := range changed {
		one.mu.Lock()
		c := one.latest
		one.mu.Unlock()
		found := &problems{file: one.name}
		alone := *b
		alone.declared = c.declared(found)
		alone.checkMappings(found)
		if bad[one] = found.or(); bad[one] == nil {
			delete(bad, one)
			good = append(good, one)
		}
	}
	return good, bad
}

// temporary errors are those of the store: the same set can be taken a moment later.
func temporary(err error) bool {
	code := access.CodeOf(err)
	return code == access.CodeUnavailable || code == access.CodeCanceled || code == access.CodeConflict
}

// setLocked names what is in force and what was read.
func (s *sources) setLocked() string {
	var set strings.Builder
	for _, one := range s.list {
		one.mu.Lock()
		for _, c := range []*content{one.inForce, one.latest} {
			if c != nil {
				set.WriteString(c.Digest)
			}
			set.WriteByte(' ')
		}
		one.mu.Unlock()
	}
	return set.String()
}

func (s *sources) refuse(one *source, err error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.refused == nil || one.refused.Error() != err.Error() {
		s.log.Error("a source of mappings is not taken; what was in force stays in force", "source", one.name, "revision", one.latest.Revision, "error", err)
	}
	if one.refused == nil && one.away == nil {
		one.since = s.now()
	}
	one.refused = err
}

// clearLocked forgets why sources were refused that say again what is in force.
func (s *sources) clearLocked(changed []*source) {
	for _, one := range s.list {
		if !slices.Contains(changed, one) {
			one.mu.Lock()
			one.refused = nil
			one.mu.Unlock()
		}
	}
}

// takeLocked puts in force what the configuration says, with the latest content of the sources that changed and with what
// is in force of the others.
func (s *sources) takeLocked(ctx context.Context, b *built, list, changed []*source) error {
	next := *b
	next.declared = b.config.declared()
	found := &problems{file: b.config.file}
	counts := make(map[*source]int)
	for _, one := range list {
		one.mu.Lock()
		c := one.inForce
		if slices.Contains(changed, one) {
			c = one.latest
		}
		one.mu.Unlock()
		if c == nil {
			continue
		}
		mappings := c.declared(found)
		counts[one] = len(mappings)
		next.declared = append(next.declared, mappings...)
	}
	next.checkMappings(found)
	if err := found.or(); err != nil {
		return err
	}
	if err := s.mappings.Reload(ctx, next.inFiles()); err != nil {
		return err
	}
	for _, one := range list {
		one.mu.Lock()
		one.count = counts[one]
		if slices.Contains(changed, one) {
			one.inForce = one.latest
		}
		one.mu.Unlock()
	}
	for _, one := range changed {
		s.log.Info("a source of mappings is in force", "source", one.name, "revision", one.inForce.Revision, "mappings", one.count)
		s.remember(one)
	}
	return nil
}

// reload puts a configuration that was read anew in force, and what its sources say now. While they are read, which can
// take its time, the others go on being watched.
func (s *sources) reload(ctx context.Context, cfg *config) error {
	next, list, err := s.prepare(cfg)
	if err != nil {
		return err
	}
	if err := s.lookAll(ctx, list); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.bringLocked(context.WithoutCancel(ctx), next, list); err != nil {
		return err
	}
	s.watchLocked()
	return nil
}

// prepare checks a configuration and makes its sources; those that stay keep what is known of them.
func (s *sources) prepare(cfg *config) (*built, []*source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.b
	next.config, next.declared = cfg, cfg.declared()
	found := &problems{file: cfg.file}
	next.checkSources(found)
	next.checkMappings(found)
	if err := found.or(); err != nil {
		return nil, nil, err
	}
	var list []*source
	for _, c := range next.config.MappingsFrom {
		i := slices.IndexFunc(s.list, func(one *source) bool { return one.config == c })
		if i >= 0 {
			list = append(list, s.list[i])
			continue
		}
		one, err := next.newSource(c)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, one)
	}
	return &next, list, nil
}

// views are the sources as the admin API shows them.
func (s *sources) views() []api.SourceView {
	s.mu.Lock()
	list := s.list
	s.mu.Unlock()
	out := []api.SourceView{}
	for _, one := range list {
		out = append(out, one.view())
	}
	return out
}

func (s *source) view() api.SourceView {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := api.SourceView{Source: s.name, Kind: s.config.kind(), Mappings: s.count, OK: true}
	if s.inForce != nil {
		v.Revision = s.inForce.Revision
	}
	if !s.looked.IsZero() {
		looked := s.looked.UTC()
		v.Read = &looked
	}
	if err := errors.Join(s.away, s.refused); err != nil {
		since := s.since.UTC()
		v.OK, v.Error, v.Since = false, err.Error(), &since
	}
	return v
}
