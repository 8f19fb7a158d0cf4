package archive_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/proxy/record"
)

// BenchmarkAppend measures one event of some 500 bytes, as the way of a call adds it.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name     string
		wait     bool
		parallel int
		power    bool
	}{
		{"queued", false, 0, false},
		{"written", true, 0, false},
		{"written-32", true, 16, false}, // times two cores
		{"queued-32", false, 16, false},
		{"power-32", true, 16, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			bucket := memblob.OpenBucket(nil)
			defer bucket.Close()
			cfg := config(b, bucket)
			cfg.Now = time.Now
			if c.power {
				cfg.Durability = archive.DurabilityPower
			}
			a := open(b, cfg)
			ctx := context.Background()
			e := chunk("call_1", strings.Repeat("x", 250))
			var n atomic.Int64
			loop := func(next func() bool) {
				id := fmt.Sprintf("ses_%d", n.Add(1))
				begin(b, a, id)
				for next() {
					if err := a.Append(ctx, id, c.wait, e); err != nil {
						b.Error(err)
						return
					}
				}
			}
			b.ReportAllocs()
			if c.parallel == 0 {
				loop(b.Loop)
				return
			}
			b.SetParallelism(c.parallel)
			b.RunParallel(func(pb *testing.PB) { loop(pb.Next) })
		})
	}
}

// BenchmarkSeal measures how 8 MiB of events get from the spool into a part, one session after another and many of them mixed.
func BenchmarkSeal(b *testing.B) {
	for _, sessions := range []int{1, 32} {
		b.Run(fmt.Sprintf("sessions-%d", sessions), func(b *testing.B) {
			ctx := context.Background()
			for range b.N {
				b.StopTimer()
				bucket := memblob.OpenBucket(nil)
				cfg := config(b, bucket)
				cfg.PartBytes = 1 << 30 // nothing is sealed before it is asked for
				a := open(b, cfg)
				fillSpool(b, a, sessions)
				b.SetBytes(a.Stats().Unsealed)
				b.StartTimer()
				if err := a.Flush(ctx); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := a.Close(ctx); err != nil {
					b.Fatal(err)
				}
				bucket.Close()
			}
		})
	}
}

// BenchmarkOpen measures a start with a spool of 8 MiB that no part holds yet.
func BenchmarkOpen(b *testing.B) {
	ctx := context.Background()
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	cfg := config(b, bucket)
	cfg.PartBytes = 1 << 30
	a := open(b, cfg)
	fillSpool(b, a, 32)
	b.SetBytes(a.Stats().Unsealed)
	for b.Loop() {
		if err := a.Close(ctx); err != nil {
			b.Fatal(err)
		}
		a = open(b, cfg)
	}
}

// fillSpool writes 8 MiB of events as calls write them, the sessions in turns.
func fillSpool(b *testing.B, a *archive.Archive, sessions int) {
	ids := make([]string, sessions)
	for i := range ids {
		ids[i] = fmt.Sprintf("ses_%d", i)
		begin(b, a, ids[i])
	}
	text := strings.Repeat("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\" a word\"}}\n\n", 20)
	for i := 0; a.Stats().Unsealed < 8<<20; i++ {
		events := []record.Event{
			chunk("call_1", fmt.Sprint(i)), chunk("call_1", strings.Repeat("x", 250)), chunk("call_1", text), chunk("call_1", "end"),
		}
		if err := a.Append(context.Background(), ids[i%sessions], true, events...); err != nil {
			b.Fatal(err)
		}
	}
}
