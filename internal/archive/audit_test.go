package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gocloud.dev/blob"

	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/proxy/record"
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

func exchanged(t testing.TB, a *archive.Archive, id, outcome string) {
	t.Helper()
	must(t, a.Audit(context.Background(), record.TypeExchange, record.Exchange{Exchange: id, Door: "/oauth/token", Outcome: outcome, Verified: true, Issuer: "github"}))
}

func auditEntries(t testing.TB, bucket *blob.Bucket) []archive.Entry {
	t.Helper()
	var out []archive.Entry
	for e, err := range archive.ListAudit(context.Background(), bucket, "", archive.Filter{}) {
		must(t, err)
		out = append(out, e)
	}
	return out
}

// verifyAudit verifies all streams, the oldest first.
func verifyAudit(t testing.TB, cfg archive.Config, now time.Time) []archive.AuditReport {
	t.Helper()
	reports, err := archive.VerifyAudit(context.Background(), cfg.Bucket, "", auditEntries(t, cfg.Bucket), cfg.Signer.KeySet(), now)
	must(t, err)
	slices.SortFunc(reports, func(a, b archive.AuditReport) int { return strings.Compare(a.Stream, b.Stream) })
	return reports
}

// TestAuditStreams writes over midnight and over a restart: a stream for each day and each start, each naming the one before.
func TestAuditStreams(t *testing.T) {
	_, bucket := newStore(t)
	cfg := config(t, bucket)
	c := &clock{now: at}
	cfg.Now, cfg.Version = c.Now, "v1"
	a, err := archive.Open(context.Background(), cfg)
	must(t, err)
	exchanged(t, a, "x_1", "opened")
	must(t, a.Audit(context.Background(), record.TypeAct, record.Act{Act: record.ActMappingDelete, Of: "m", By: "ana"}))
	c.set(at.Add(2 * time.Minute)) // past midnight
	exchanged(t, a, "x_2", "refused")
	must(t, a.Audit(context.Background(), record.TypeRefusals, record.Refusals{Count: 7, By: []record.RefusalCount{{Class: "unverified", Reason: "malformed", Count: 7}}}))
	must(t, a.EndAudit(context.Background()))
	flush(t, a)
	must(t, a.Close(context.Background()))
	c.set(at.Add(3 * time.Minute))
	a = open(t, cfg)
	if len(a.Recovered()) != 0 {
		t.Errorf("audit streams are taken for sessions: %v", a.Recovered())
	}
	exchanged(t, a, "x_3", "joined")
	flush(t, a)

	reports := verifyAudit(t, cfg, c.Now())
	if len(reports) != 3 {
		t.Fatalf("streams %v, want 3", reports)
	}
	for i, want := range []struct {
		day      string
		finished bool
		events   uint64
		totals   archive.AuditTotals
	}{
		{"2026-11-24", true, 4, archive.AuditTotals{Opened: 1, Acts: 1}},
		{"2026-11-25", true, 4, archive.AuditTotals{Refused: 1, Suppressed: 7}},
		{"2026-11-25", false, 2, archive.AuditTotals{}},
	} {
		r := reports[i]
		if r.Err(c.Now()) != nil || r.Opened.Day != want.day || r.Finished != want.finished || r.Events != want.events || r.Manifest.Totals != want.totals || r.Opened.Version != "v1" {
			t.Errorf("stream %d = %+v, want %+v", i, r, want)
		}
		if !strings.HasPrefix(r.Location, "v1/audit/dt="+want.day+"/"+r.Stream+"/") {
			t.Errorf("stream %d lies at %s", i, r.Location)
		}
		if i > 0 && (r.Opened.After == nil || r.Opened.After.Stream != reports[i-1].Stream || r.Opened.After.Head != reports[i-1].Head) {
			t.Errorf("stream %d follows %+v, want %s", i, r.Opened.After, reports[i-1].Stream)
		}
	}
	if reports[0].First == "" || reports[1].First != "" {
		t.Errorf("first: %q, %q", reports[0].First, reports[1].First)
	}
	if err := reports[2].Err(at.AddDate(0, 0, 3)); err == nil {
		t.Error("a stream without end is fine two days later")
	}
	// Every line is JSON with schema_version first, says which stream it is of, and can speak of a session.
	for l, err := range archive.EntryEvents(context.Background(), bucket, auditEntries(t, bucket)[2]) {
		must(t, err)
		if !bytes.HasPrefix(l.Raw, []byte(`{"schema_version":1,"stream":"aud_20261124t235900`)) {
			t.Errorf("line %s", l.Raw)
		}
	}
}

// A day ends without an event of the next one.
func TestAuditDayEndsByItself(t *testing.T) {
	_, bucket := newStore(t)
	cfg := config(t, bucket)
	c := &clock{now: at}
	cfg.Now = c.Now
	a := open(t, cfg)
	exchanged(t, a, "x_1", "opened")
	c.set(at.Add(time.Hour))
	deadline := time.Now().Add(10 * time.Second)
	for reports := verifyAudit(t, cfg, c.Now()); len(reports) != 1 || !reports[0].OK(); reports = verifyAudit(t, cfg, c.Now()) {
		if time.Now().After(deadline) {
			t.Fatalf("the stream of yesterday is not finished: %+v", reports)
		}
		time.Sleep(time.Millisecond) // a pause between looks
	}
}

// TestAuditAfterAKill begins again on what a process left that ended without a word.
func TestAuditAfterAKill(t *testing.T) {
	_, bucket := newStore(t)
	cfg := config(t, bucket)
	a, err := archive.Open(context.Background(), cfg)
	must(t, err)
	exchanged(t, a, "x_1", "opened")
	killed := filepath.Join(t.TempDir(), "spool")
	must(t, os.CopyFS(killed, os.DirFS(cfg.Dir))) // as the disk is at this moment
	must(t, a.Close(context.Background()))
	cfg.Dir, cfg.Now = killed, func() time.Time { return at.Add(time.Second) }
	again := open(t, cfg)
	exchanged(t, again, "x_2", "opened")
	must(t, again.EndAudit(context.Background()))
	flush(t, again)
	reports := verifyAudit(t, cfg, at)
	if len(reports) != 2 || !reports[0].OK() || !reports[1].OK() {
		t.Fatalf("reports %+v", reports)
	}
	if m := reports[0].Manifest; m.Reason != "interrupted" || !m.Interrupted || m.Totals.Opened != 1 {
		t.Errorf("the killed process's stream: %+v", m)
	}
	if after := reports[1].Opened.After; after == nil || after.Stream != reports[0].Stream {
		t.Errorf("the next stream follows %+v", after)
	}
}

// What cannot be written down is an error, and no event of it is left: who asked must not go on.
func TestAuditOnABrokenDisk(t *testing.T) {
	_, bucket := newStore(t)
	var disk archive.FaultyDisk
	cfg := disk.Under(config(t, bucket))
	a := open(t, cfg)
	exchanged(t, a, "x_1", "opened")
	disk.Break(syscall.EIO)
	if err := a.Audit(context.Background(), record.TypeExchange, record.Exchange{Exchange: "x_2"}); !errors.Is(err, syscall.EIO) {
		t.Errorf("Audit = %v", err)
	}
	disk.Break(nil)
	exchanged(t, a, "x_3", "opened")
	must(t, a.EndAudit(context.Background()))
	flush(t, a)
	if r := verifyAudit(t, cfg, at); len(r) != 1 || !r[0].OK() || r[0].Events != 4 || r[0].Manifest.Totals.Opened != 2 {
		t.Errorf("report %+v", r)
	}
}

// A spool that is full refuses exchanges, and takes what people do.
func TestAuditOnAFullSpool(t *testing.T) {
	_, bucket := newStore(t)
	cfg := config(t, bucket)
	cfg.SpoolMax = 1
	a := open(t, cfg)
	if err := a.Audit(context.Background(), record.TypeExchange, record.Exchange{Exchange: "x_1"}); !errors.Is(err, archive.ErrFull) {
		t.Errorf("an exchange: %v, want ErrFull", err)
	}
	must(t, a.Audit(context.Background(), record.TypeAct, record.Act{Act: record.ActMappingDelete, Of: "m", By: "ana"}))
}

// auditFinished archives two streams, the first in two parts.
func auditFinished(t testing.TB) (*store, archive.Config) {
	t.Helper()
	st, bucket := newStore(t)
	cfg := config(t, bucket)
	c := &clock{now: at}
	cfg.Now = c.Now
	a := open(t, cfg)
	for day := range 2 {
		c.set(at.AddDate(0, 0, day))
		for i := range 4 {
			exchanged(t, a, fmt.Sprintf("x_%d%d", day, i), "opened")
			if i == 1 {
				flush(t, a)
			}
		}
		must(t, a.EndAudit(context.Background()))
		flush(t, a)
	}
	for _, r := range verifyAudit(t, cfg, c.Now()) {
		if !r.OK() || r.Parts != 2 {
			t.Fatalf("not whole: %+v", r)
		}
	}
	return st, cfg
}

func TestVerifyAuditNamesWhatIsWrong(t *testing.T) {
	st, cfg := auditFinished(t)
	good := maps.Clone(st.objects)
	list := auditEntries(t, cfg.Bucket)
	second, first := list[0].Location, list[1].Location
	part1, part2 := "events-000001.jsonl.zst", "events-000002.jsonl.zst"
	later := at.AddDate(0, 0, 10)
	for name, c := range map[string]struct {
		change func(o map[string][]byte)
		in     string // location of the stream that is blamed
		want   string
	}{
		"part missing":      {func(o map[string][]byte) { delete(o, first+part1) }, first, part1 + ": is missing"},
		"last part missing": {func(o map[string][]byte) { delete(o, first+part2) }, first, part2 + ": is missing"},
		"part of another":   {func(o map[string][]byte) { o[first+part1] = o[second+part1] }, first, part1 + ": "},
		"word changed": {func(o map[string][]byte) {
			o[first+part1] = repack(t, o[first+part1], func(l [][]byte) [][]byte {
				l[1] = bytes.Replace(l[1], []byte("opened"), []byte("joined"), 1)
				return l
			})
		}, first, part1 + ": the chain is broken: event 2 was changed"},
		"event removed": {func(o map[string][]byte) {
			o[first+part1] = repack(t, o[first+part1], func(l [][]byte) [][]byte { return slices.Delete(l, 1, 2) })
		}, first, part1 + ": the chain is broken: event 3 stands where 2 belongs"},
		"events reordered": {func(o map[string][]byte) {
			o[first+part1] = repack(t, o[first+part1], func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l })
		}, first, part1 + ": the chain is broken: event 3 stands where 2 belongs"},
		"end dropped": {func(o map[string][]byte) {
			o[first+part2] = repack(t, o[first+part2], func(l [][]byte) [][]byte { return l[:len(l)-1] })
		}, first, part2 + ": ends with event 5, the manifest says 6"},
		"manifest changed": {func(o map[string][]byte) {
			o[first+"manifest.json"] = bytes.Replace(o[first+"manifest.json"], []byte(`"opened": 4`), []byte(`"opened": 3`), 1)
		}, first, "manifest.json: the signature does not hold"},
		"opening missing": {func(o map[string][]byte) { delete(o, first+"open.jws") }, first, "open.jws: is missing"},
		"another's manifest": {func(o map[string][]byte) {
			o[first+"manifest.json"], o[first+"manifest.jws"] = o[second+"manifest.json"], o[second+"manifest.jws"]
		}, first, "manifest.json: is that of audit stream aud_"},
		"manifest gone": {func(o map[string][]byte) { delete(o, first+"manifest.json"); delete(o, first+"manifest.jws") }, second, "open.jws: follows stream aud_"},
		"a stream gone, its day not": {func(o map[string][]byte) {
			maps.DeleteFunc(o, func(k string, _ []byte) bool { return strings.HasPrefix(k, first) })
			o[strings.Replace(first, "/aud_", "/aud_x", 1)+"open.jws"] = o[second+"open.jws"]
		}, second, "open.jws: follows stream aud_"},
		"another day": {func(o map[string][]byte) {
			for k, v := range good {
				if n, ok := strings.CutPrefix(k, first); ok {
					o[strings.Replace(first, "-24/", "-23/", 1)+n] = v
				}
			}
		}, strings.Replace(first, "-24/", "-23/", 1), "open.jws: the audit stream was opened on 2026-11-24 and lies under another day"},
	} {
		t.Run(name, func(t *testing.T) {
			st.objects = maps.Clone(good)
			c.change(st.objects)
			for _, r := range verifyAudit(t, cfg, later) {
				if r.Location != c.in {
					continue
				}
				if r.Err(later) == nil || !slices.ContainsFunc(r.Problems, func(p archive.Problem) bool { return strings.HasPrefix(p.String(), c.want) }) {
					t.Errorf("problems are %q, want one that begins %q", r.Problems, c.want)
				}
				return
			}
			t.Error("no report of the stream")
		})
	}
	// What lies before everything in the bucket may be gone by its owner's rules; it is said.
	st.objects = maps.Clone(good)
	maps.DeleteFunc(st.objects, func(k string, _ []byte) bool { return strings.HasPrefix(k, first) })
	if r := verifyAudit(t, cfg, later); len(r) != 1 || !r[0].OK() || !strings.Contains(r[0].First, "older than everything here") {
		t.Errorf("without the oldest day: %+v", r)
	}
	// A session's verifier finds a stream by its id, too, and one day of them by itself.
	st.objects = maps.Clone(good)
	if e, err := archive.Find(context.Background(), cfg.Bucket, "", list[0].Session); err != nil || e.Location != second {
		t.Errorf("Find = %+v, %v", e, err)
	}
}

// A bit changed anywhere in any object of a stream is seen.
func TestVerifyAuditSeesEveryBit(t *testing.T) {
	st, cfg := auditFinished(t)
	const step = 17
	e := auditEntries(t, cfg.Bucket)[1]
	for name, data := range st.objects {
		if !strings.HasPrefix(name, e.Location) {
			continue
		}
		good := bytes.Clone(data)
		for i := 0; i < len(good)*8; i += step {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			st.objects[name] = bad
			r, err := archive.VerifyAudit(context.Background(), cfg.Bucket, "", []archive.Entry{e}, cfg.Signer.KeySet(), at)
			if err != nil || r[0].OK() {
				t.Fatalf("%s: bit %d of byte %d changed: %+v, error %v", name, i%8, i/8, r, err)
			}
		}
		st.objects[name] = good
	}
}
