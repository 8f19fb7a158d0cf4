package federation_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/store"
)

// hitsWorld is counts over a real store, with a clock of its own.
type hitsWorld struct {
	t    *testing.T
	path string
	now  atomic.Int64 // nanoseconds since 1970
	db   *faultyHits
	hits *federation.Hits
	stop func()
}

type faultyHits struct {
	*store.DB
	fail atomic.Bool
}

func (f *faultyHits) SaveHits(ctx context.Context, counts []access.HitCount, samples []access.HitSamples) error {
	if f.fail.Load() {
		return errors.New("disk is full")
	}
	return f.DB.SaveHits(ctx, counts, samples)
}

func newHitsWorld(t *testing.T) *hitsWorld {
	w := &hitsWorld{t: t, path: filepath.Join(t.TempDir(), "jobgate.db")}
	w.now.Store(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).UnixNano())
	w.start()
	return w
}

func (w *hitsWorld) start() {
	w.t.Helper()
	db, err := store.Open(context.Background(), store.Config{URL: "sqlite:" + w.path})
	if err != nil {
		w.t.Fatal(err)
	}
	w.db = &faultyHits{DB: db}
	w.hits, err = federation.NewHits(context.Background(), federation.HitsConfig{Store: w.db, Days: 3, Now: func() time.Time { return time.Unix(0, w.now.Load()) }})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.hits.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		if err := db.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(w.stop)
}

func (w *hitsWorld) add(rule string, outcome access.Outcome, what string) {
	w.hits.Add(access.Hit{Mapping: "agents", Connection: "anthropic", Rule: rule, Outcome: outcome, Session: "ses_1", Call: "c_1", What: what})
}

// of returns the counts of the last days by rule and outcome, and the samples' texts by rule.
func (w *hitsWorld) of(days int) (map[string]int64, map[string]string) {
	w.t.Helper()
	counts, samples, err := w.hits.Of(context.Background(), "agents", days)
	if err != nil {
		w.t.Fatal(err)
	}
	sums, texts := map[string]int64{}, map[string]string{}
	for _, c := range counts {
		sums[c.Rule+" "+string(c.Outcome)] += c.N
	}
	for _, s := range samples {
		for _, one := range s.Samples {
			texts[s.Rule] += one.What + ";"
		}
	}
	return sums, texts
}

func TestHitsByDay(t *testing.T) {
	w := newHitsWorld(t)
	w.add("r", access.OutcomeDenied, "first")
	w.now.Add(int64(24 * time.Hour))
	for i := range 7 {
		w.add("r", access.OutcomeDenied, fmt.Sprint("call ", i))
	}
	w.add("", access.OutcomeCall, "")
	for _, restarted := range []bool{false, true} {
		if restarted {
			w.stop()
			w.start()
			w.add("r", access.OutcomeDenied, "after")
		}
		after := int64(0)
		if restarted {
			after = 1
		}
		if sums, _ := w.of(1); sums["r denied"] != 7+after || sums[" call"] != 1 {
			t.Errorf("restarted %v: today %v", restarted, sums)
		}
		sums, texts := w.of(2)
		if sums["r denied"] != 8+after {
			t.Errorf("restarted %v: two days %v", restarted, sums)
		}
		want := "call 2;call 3;call 4;call 5;call 6;"
		if restarted {
			want = "call 3;call 4;call 5;call 6;after;"
		}
		if texts["r"] != want || len(texts) != 1 {
			t.Errorf("restarted %v: samples %q", restarted, texts)
		}
	}
}

func TestHitsWithoutStore(t *testing.T) {
	w := newHitsWorld(t)
	w.db.fail.Store(true)
	w.add("r", access.OutcomeDenied, "kept")
	w.stop() // writes, and fails
	if sums, texts := countsOnly(t, w); sums != 1 || texts != 1 {
		t.Errorf("after a write that failed: %d counts, %d samples", sums, texts)
	}
}

// countsOnly looks at what is in memory; the store is closed.
func countsOnly(t *testing.T, w *hitsWorld) (counts, samples int) {
	t.Helper()
	db, err := store.Open(context.Background(), store.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "other.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	w.db.DB = db
	sums, texts := w.of(1)
	return len(sums), len(texts)
}

func TestHitsForget(t *testing.T) {
	w := newHitsWorld(t)
	w.add("old", access.OutcomeDenied, "old")
	w.stop()
	w.now.Add(int64(3 * 24 * time.Hour))
	w.start()
	w.add("new", access.OutcomeDenied, strings.Repeat("é", 200))
	deadline := time.Now().Add(20 * time.Second)
	for {
		sums, texts := w.of(30)
		if sums["old denied"] == 0 && texts["old"] == "" {
			if sums["new denied"] != 1 || len(texts["new"]) > 170 {
				t.Errorf("left: %v %v", sums, texts)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the old day is still there: %v %v", sums, texts)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestHitsTogether(t *testing.T) {
	w := newHitsWorld(t)
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 500 {
				w.add("r", access.OutcomeDenied, "x")
				_, _ = w.of(1)
			}
		})
	}
	work.Wait()
	if sums, _ := w.of(1); sums["r denied"] != 4000 {
		t.Errorf("counted %v, want 4000", sums)
	}
}

// TestExchangesAreCounted counts the exchanges that found a mapping, by what became of them.
func TestExchangesAreCounted(t *testing.T) {
	w := newWorld(t, agents())
	w.mustOpen("1/a")
	w.mustOpen("1/b")
	w.mustConnect("2/c")
	w.mustConnect("2/c")
	_, _ = w.open("1/a") // replayed
	_, _ = w.open("!3/d")
	counts, _, err := w.hits.Of(t.Context(), "agents", 1)
	w.must(err)
	got := map[access.Outcome]int64{}
	for _, c := range counts {
		got[c.Outcome] += c.N
	}
	want := map[access.Outcome]int64{access.OutcomeOpened: 2, access.OutcomeRenewed: 1, access.OutcomeJoined: 1, access.OutcomeTurnedAway: 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("exchanges = %v, want %v", got, want)
	}
}

func BenchmarkHit(b *testing.B) {
	db, err := store.Open(b.Context(), store.Config{URL: "sqlite:" + filepath.Join(b.TempDir(), "jobgate.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	hits, err := federation.NewHits(b.Context(), federation.HitsConfig{Store: db})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			hits.Add(access.Hit{Mapping: "agents", Connection: "anthropic", Outcome: access.OutcomeCall})
		}
	})
}
