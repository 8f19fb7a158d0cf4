package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// heapFloor is what the heap may grow to before it is collected, however little of it is alive. Calls leave some
	// 20 KiB of garbage each: with the few megabytes that a gateway has alive, the collector would run tens of times a second.
	heapFloor = 128 << 20
	// gcPause is the time between two looks at how much is alive.
	gcPause = 5 * time.Second
	// defaultGC is the growth, in percent of what is alive, at which Go collects: GOGC.
	defaultGC = 100
	maxGC     = 1600
)

// startTuneGC runs tuneGC until the function that it returns is called.
func startTuneGC(ctx context.Context, getenv func(string) string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { tuneGC(ctx, getenv) })
	return func() { cancel(); work.Wait() }
}

// tuneGC keeps the collector from running more often than it must, until ctx ends. Where the operator has set GOGC, that
// rules; GOMEMLIMIT holds in any case.
func tuneGC(ctx context.Context, getenv func(string) string) {
	if getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	now := defaultGC
	tick := time.NewTicker(gcPause)
	defer tick.Stop()
	for {
		metrics.Read(live)
		if next := gcPercent(live[0].Value.Uint64()); next != now {
			debug.SetGCPercent(next)
			now = next
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			debug.SetGCPercent(defaultGC)
			return
		}
	}
}

// gcPercent is the growth that brings so many live bytes to heapFloor, and never less than Go's own.
func gcPercent(live uint64) int {
	if live == 0 {
		return maxGC
	}
	return int(min(max(defaultGC, (heapFloor-min(live, heapFloor))*100/live), maxGC))
}
