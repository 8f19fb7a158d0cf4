package main

import (
	"context"
	"sync"
	"time"
)

const (
	// settle is the pause after which a source must hold the same as before, to be taken: a change is seldom one file.
	settle = 200 * time.Millisecond
	// settleLimit is how long a source is waited for that does not come to rest.
	settleLimit = 10 * time.Second
)

// source is one place of mappings beside the configuration file, and what it said.
type source struct {
	config sourceConfig
	name   string // as people read it
	every  time.Duration
	reader sourceReader

	reading sync.Mutex // one reading at a time

	mu      sync.Mutex // guards all below
	latest  *content   // what was read last, nil before
	away    error      // why the last reading failed
	looked  time.Time  // of the last reading that did not
	inForce *content   // nil before anything was
	count   int        // mappings in it
	refused error      // why latest is not in force
	since   time.Time  // of away or refused
}

// read reads the source once, within a time.
func (s *source) read(ctx context.Context) (*content, error) {
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	files, commit, err := s.reader.read(ctx)
	if err != nil {
		return nil, err
	}
	return newContent(files, commit)
}

// look reads the source until two readings agree, or agree with what is in force already.
func (s *source) look(ctx context.Context) (*content, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	known := s.known()
	limit := time.NewTimer(settleLimit)
	defer limit.Stop()
	c, err := s.read(ctx)
	for !same(c, err, known, nil) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limit.C:
			return c, err
		case <-time.After(settle):
		}
		again, errAgain := s.read(ctx)
		busy, _ := s.reader.(sourceBusy)
		if same(c, err, again, errAgain) && (busy == nil || !busy.busy()) {
			return again, errAgain
		}
		c, err = again, errAgain
	}
	return c, err
}

func same(a *content, errA error, b *content, errB error) bool {
	if errA != nil || errB != nil {
		return errA != nil && errB != nil && errA.Error() == errB.Error()
	}
	return a != nil && b != nil && a.Digest == b.Digest
}

// known is what needs no second look.
func (s *source) known() *content {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest != nil {
		return s.latest
	}
	return s.inForce
}

// watch looks whenever something may have changed, and tells what it saw, until ctx ends.
func (s *source) watch(ctx context.Context, saw func(*source, *content, error)) {
	var work sync.WaitGroup
	defer work.Wait()
	wake := make(chan struct{}, 1)
	if w, ok := s.reader.(sourceWatcher); ok {
		work.Go(func() {
			w.watch(ctx, func() {
				select {
				case wake <- struct{}{}:
				default:
				}
			})
		})
	}
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-tick.C:
		}
		c, err := s.look(ctx)
		if ctx.Err() != nil {
			return
		}
		saw(s, c, err)
	}
}
