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
