package archive_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"

	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/internal/signing"
	"github.com/jobgate/jobgate/proxy/record"
)

var at = time.Date(2026, 11, 24, 23, 59, 0, 0, time.UTC)

func newKey(t testing.TB) *signing.Key {
	t.Helper()
	k, err := signing.New(signing.Archive)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func config(t testing.TB, bucket *blob.Bucket) archive.Config {
	t.Helper()
	return archive.Config{Dir: filepath.Join(t.TempDir(), "spool"), Bucket: bucket, Signer: newKey(t), Retry: time.Millisecond, Now: func() time.Time { return at }}
}

func open(t testing.TB, cfg archive.Config) *archive.Archive {
	t.Helper()
	a, err := archive.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, a.Close(context.Background())) })
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func begin(t testing.TB, a *archive.Archive, session string) {
	t.Helper()
	must(t, a.Begin(context.Background(), session, openedEvent()))
}

func openedEvent() record.Event {
	return record.Event{Type: record.TypeSessionOpened, Time: at, Data: record.SessionOpened{
		Mapping: "release-agents", Revision: 2, Issuer: "github", JobKey: "1/1/1", Claims: map[string]any{"repository_id": int64(9007199254740993)},
		Connections: []string{"anthropic"}, Opens: at, Closes: at.Add(time.Hour), Mode: "enforce", Door: "oauth",
	}}
}

func started(call string) record.Event {
	return record.Event{Type: record.TypeCallStarted, Call: call, Time: at, Data: record.CallStarted{Connection: "anthropic", Method: "POST", Path: "/v1/messages"}}
}

func sent(call string, n int64) record.Event {
	return record.Event{Type: record.TypeCallSent, Call: call, Time: at, Data: record.CallSent{Upstream: "https://api", Counts: record.Counts{Requests: n}}}
}

func chunk(call, text string) record.Event {
	return record.Event{Type: record.TypeResponse, Call: call, Time: at, Data: record.Response{Text: text}}
}

func callEnded(call string, n int64) record.Event {
	return record.Event{Type: record.TypeCallEnded, Call: call, Time: at, Data: record.CallEnded{Reason: "done", Counts: record.Counts{Requests: n, OutputTokens: 7}}}
}

func endedEvent() record.Event {
	return record.Event{Type: record.TypeSessionEnded, Time: at.Add(2 * time.Minute), Data: record.SessionEnded{Reason: "closed", By: "job", Calls: 1}}
}

// call records one whole call.
func call(t testing.TB, a *archive.Archive, session, id string) {
	t.Helper()
	ctx := context.Background()
	must(t, a.Append(ctx, session, false, started(id)))
	must(t, a.Append(ctx, session, true, sent(id, 1)))
	must(t, a.Append(ctx, session, false, chunk(id, strings.Repeat("text of "+id, 100)), callEnded(id, 1)))
}

func end(t testing.TB, a *archive.Archive, session string) {
	t.Helper()
	must(t, a.End(context.Background(), session, endedEvent()))
}

func flush(t testing.TB, a *archive.Archive) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	must(t, a.Flush(ctx))
}

func verify(t testing.TB, cfg archive.Config, session string) archive.Report {
	t.Helper()
	r, err := archive.Verify(context.Background(), cfg.Bucket, cfg.Prefix, session, cfg.Signer.KeySet())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// whole fails the test unless the archive of a session is finished and in order, and returns its lines.
func whole(t testing.TB, cfg archive.Config, session string) []record.Line {
	t.Helper()
	e, err := archive.Find(context.Background(), cfg.Bucket, cfg.Prefix, session)
	must(t, err)
	return wholeEntry(t, cfg, e)
}

func wholeEntry(t testing.TB, cfg archive.Config, e archive.Entry) []record.Line {
	t.Helper()
	r, err := archive.VerifyEntry(context.Background(), cfg.Bucket, e, cfg.Signer.KeySet())
	must(t, err)
	if !r.OK() {
		t.Fatalf("session %s: finished %v, problems %v", e.Session, r.Finished, r.Problems)
	}
	var lines []record.Line
	for l, err := range archive.EntryEvents(context.Background(), cfg.Bucket, e) {
		must(t, err)
		lines = append(lines, l)
	}
	if uint64(len(lines)) != r.Events {
		t.Errorf("Events yields %d lines, Verify saw %d", len(lines), r.Events)
	}
	return lines
}

func types(lines []record.Line) string {
	var names []string
	for _, l := range lines {
		names = append(names, l.Type)
	}
	return strings.Join(names, " ")
}

func TestStory(t *testing.T) {
	for name, bucket := range map[string]func(*testing.T, *archive.Config){
		"mem": func(_ *testing.T, c *archive.Config) { c.Bucket = memblob.OpenBucket(nil) },
		"file": func(t *testing.T, c *archive.Config) {
			c.SyncDir = t.TempDir()
			var err error
			c.Bucket, err = fileblob.OpenBucket(c.SyncDir, &fileblob.Options{NoTempDir: true})
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			cfg := config(t, nil)
			bucket(t, &cfg)
			defer cfg.Bucket.Close()
			cfg.Prefix, cfg.Durability = "team/a", archive.DurabilityPower
			story(t, cfg)
		})
	}
}

func story(t *testing.T, cfg archive.Config) {
	ctx := context.Background()
	a, err := archive.Open(ctx, cfg)
	must(t, err)
	begin(t, a, "ses_1")
	call(t, a, "ses_1", "call_1")
	flush(t, a)
	if r := verify(t, cfg, "ses_1"); r.Finished || len(r.Problems) > 0 || r.Events != 5 || r.Opened.Mapping != "release-agents" {
		t.Errorf("while it is open, Verify says %+v", r)
	} else if r.Err(at) != nil || r.Err(at.Add(2*time.Hour)) == nil {
		t.Errorf("Err = %v inside the window and %v after it, want nil and an error", r.Err(at), r.Err(at.Add(2*time.Hour)))
	}
	call(t, a, "ses_1", "call_2")
	end(t, a, "ses_1")
	flush(t, a)
	if err := a.Append(ctx, "ses_1", true, started("call_3")); !errors.Is(err, archive.ErrUnknown) {
		t.Errorf("Append after the end: %v, want ErrUnknown", err)
	}
	must(t, a.Close(ctx))
	must(t, a.Close(ctx))

	want := "session.opened call.started call.sent response call.ended call.started call.sent response call.ended session.ended"
	if got := types(whole(t, cfg, "ses_1")); got != want {
		t.Errorf("events are %s, want %s", got, want)
	}
	for l, err := range archive.Events(ctx, cfg.Bucket, cfg.Prefix, "ses_1") {
		if err != nil || l.Type != record.TypeSessionOpened {
			t.Errorf("the first event is %s, %v", l.Type, err)
		}
		break
	}
	e, err := archive.Find(ctx, cfg.Bucket, cfg.Prefix, "ses_1")
	must(t, err)
	if want := "team/a/v1/sessions/dt=2026-11-24/ses_1/"; e.Location != want || a.Location("ses_1", at) != want || len(e.Parts) != 2 {
		t.Errorf("entry = %+v, Location = %s, want two parts in %s", e, a.Location("ses_1", at), want)
	}
	m, err := archive.ReadManifest(ctx, cfg.Bucket, e)
	must(t, err)
	if m.Mapping != "release-agents" || m.Reason != "closed" || m.Interrupted || m.Events != 10 || len(m.Parts) != 2 || fmt.Sprint(m.Claims["repository_id"]) == "" {
		t.Errorf("manifest = %+v", m)
	}
}

func TestList(t *testing.T) {
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	cfg := config(t, bucket)
	a := open(t, cfg)
	for i, id := range []string{"ses_b", "ses_a", "ses_c"} {
		e := openedEvent()
		e.Time = at.AddDate(0, 0, i/2)
		must(t, a.Begin(context.Background(), id, e))
	}
	end(t, a, "ses_a")
	flush(t, a)
	list := func(f archive.Filter) string {
		var got []string
		for e, err := range archive.List(context.Background(), bucket, "", f) {
			must(t, err)
			got = append(got, fmt.Sprintf("%s:%s:%v", e.Day.Format("02"), e.Session, e.Signed))
		}
		return strings.Join(got, " ")
	}
	if got, want := list(archive.Filter{}), "25:ses_c:false 24:ses_a:true 24:ses_b:false"; got != want {
		t.Errorf("List = %s, want %s", got, want)
	}
	if got, want := list(archive.Filter{Since: at.AddDate(0, 0, 1)}), "25:ses_c:false"; got != want {
		t.Errorf("List since the second day = %s, want %s", got, want)
	}
	if got, want := list(archive.Filter{Until: at}), "24:ses_a:true 24:ses_b:false"; got != want {
		t.Errorf("List until the first day = %s, want %s", got, want)
	}
	if _, err := archive.Find(context.Background(), bucket, "", "ses_x"); !errors.Is(err, archive.ErrUnknown) {
		t.Errorf("Find of nothing: %v, want ErrUnknown", err)
	}
}

func TestRefusals(t *testing.T) {
	_, bucket := newStore(t)
	a := open(t, config(t, bucket))
	ctx := context.Background()
	begin(t, a, "ses_1")
	for name, err := range map[string]error{
		"Begin twice":              a.Begin(ctx, "ses_1", openedEvent()),
		"Begin with another event": a.Begin(ctx, "ses_2", endedEvent()),
		"Begin with a path":        a.Begin(ctx, "../ses", openedEvent()),
		"Append of an opening":     a.Append(ctx, "ses_1", true, openedEvent()),
		"Append of an end":         a.Append(ctx, "ses_1", true, endedEvent()),
		"Append to nothing":        a.Append(ctx, "ses_2", true, started("c")),
		"Append of nonsense":       a.Append(ctx, "ses_1", true, record.Event{Type: "x y", Time: at}),
		"End of nothing":           a.End(ctx, "ses_2", endedEvent()),
		"End with another event":   a.End(ctx, "ses_1", openedEvent()),
	} {
		if err == nil {
			t.Errorf("%s went through", name)
		}
	}
	end(t, a, "ses_1")
	if err := a.End(ctx, "ses_1", endedEvent()); err == nil {
		t.Error("a second End went through")
	}
	for name, change := range map[string]func(*archive.Config){
		"no folder":       func(c *archive.Config) { c.Dir = "" },
		"no bucket":       func(c *archive.Config) { c.Bucket = nil },
		"no key":          func(c *archive.Config) { c.Signer = nil },
		"odd on_backlog":  func(c *archive.Config) { c.OnBacklog = "drop" },
		"odd durability":  func(c *archive.Config) { c.Durability = "none" },
		"folder is taken": func(c *archive.Config) { must(t, os.WriteFile(c.Dir, nil, 0o600)) },
	} {
		cfg := config(t, bucket)
		change(&cfg)
		if _, err := archive.Open(ctx, cfg); err == nil {
			t.Errorf("Open with %s went through", name)
		}
	}
}

func TestTwoProcesses(t *testing.T) {
	_, bucket := newStore(t)
	cfg := config(t, bucket)
	open(t, cfg)
	_, err := archive.Open(context.Background(), cfg)
	if !errors.Is(err, archive.ErrLocked) || !strings.Contains(err.Error(), cfg.Dir) {
		t.Errorf("second Open: %v, want ErrLocked and the folder", err)
	}
}

// Events of many sessions at once, in small parts and small segments: each record comes out whole and in order, and the spool empties.
func TestManyAtOnce(t *testing.T) {
	_, bucket := newStore(t)
	cfg := config(t, bucket).WithSegments(64 << 10)
	cfg.PartBytes = 10 << 10
	a := open(t, cfg)
	const sessions, workers, calls = 8, 4, 20
	var wg sync.WaitGroup
	for s := range sessions {
		id := fmt.Sprintf("ses_%d", s)
		begin(t, a, id)
		for w := range workers {
			wg.Go(func() {
				for c := range calls {
					call(t, a, id, fmt.Sprintf("call_%d_%d", w, c))
				}
			})
		}
	}
	wg.Wait()
	for s := range sessions {
		end(t, a, fmt.Sprintf("ses_%d", s))
	}
	flush(t, a)
	for s := range sessions {
		lines := whole(t, cfg, fmt.Sprintf("ses_%d", s))
		if want := 2 + workers*calls*4; len(lines) != want {
			t.Errorf("session %d has %d events, want %d", s, len(lines), want)
		}
		order := map[string]string{}
		for _, l := range lines {
			order[l.Call] += l.Type + " "
		}
		if got, want := order["call_3_7"], "call.started call.sent response call.ended "; got != want {
			t.Errorf("events of a call are %s, want %s", got, want)
		}
	}
	if st := a.Stats(); st.Sessions != 0 || st.Unsealed != 0 || len(st.Failing) != 0 {
		t.Errorf("Stats = %+v, want nothing left", st)
	}
	must(t, a.Close(context.Background()))
	a = open(t, cfg)
	if files, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.wal")); len(files) != 1 || len(a.Recovered()) != 0 {
		t.Errorf("after all is stored the spool has %v and %v", files, a.Recovered())
	}
}

func TestPartAge(t *testing.T) {
	st, bucket := newStore(t)
	cfg := config(t, bucket)
	cfg.PartAge, cfg.Now = 10*time.Millisecond, nil
	a := open(t, cfg)
	begin(t, a, "ses_1")
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		st.mu.Lock()
		n := len(st.objects)
		st.mu.Unlock()
		if n == 2 {
			return
		}
		must(t, a.Append(context.Background(), "ses_1", true, started("call_1")))
	}
	t.Error("no part, though its events are older than the limit")
}

func TestBucketAwayAndBack(t *testing.T) {
	st, bucket := newStore(t)
	cfg := config(t, bucket)
	cfg.PartBytes = 4 << 10
	a := open(t, cfg)
	st.set(away)
	begin(t, a, "ses_1")
	for i := range 20 {
		call(t, a, "ses_1", fmt.Sprintf("call_%d", i))
	}
	<-st.tried
	<-st.tried
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.Flush(ctx); err == nil {
		t.Error("Flush without a bucket went through")
	}
	end(t, a, "ses_1")
	if f := a.Stats().Failing["ses_1"]; !errors.Is(f, errAway) && !strings.Contains(fmt.Sprint(f), "away") {
		t.Errorf("Stats say %v, want why it fails", f)
	}
	st.set(fine)
	flush(t, a)
	if lines := whole(t, cfg, "ses_1"); len(lines) != 82 {
		t.Errorf("%d events, want 82", len(lines))
	}
}

// Uploads that succeed and answer an error are recognised: everything is there once.
func TestUploadThatSucceededButAnsweredAnError(t *testing.T) {
	st, bucket := newStore(t)
	cfg := config(t, bucket)
	cfg.PartBytes = 4 << 10
	a := open(t, cfg)
	st.set(doubly)
	begin(t, a, "ses_1")
	for i := range 10 {
		call(t, a, "ses_1", fmt.Sprintf("call_%d", i))
	}
	<-st.tried
	end(t, a, "ses_1")
	flush(t, a)
	whole(t, cfg, "ses_1")
	for key, n := range st.writes {
		if n != 1 {
			t.Errorf("%s was written %d times", key, n)
		}
	}
}

// A part that got through before a crash, cut elsewhere than it would be cut now, is taken as it is.
func TestPartFromBeforeIsAdopted(t *testing.T) {
	st, bucket := newStore(t)
	cfg := config(t, bucket)
	a := open(t, cfg)
	begin(t, a, "ses_1")
	call(t, a, "ses_1", "call_1")
	flush(t, a)
	// The spool as it was before the part is known: copied while the archive is away.
	st.mu.Lock()
	part := maps.Clone(st.objects)
	st.mu.Unlock()

	cfg2 := cfg
	cfg2.Dir = filepath.Join(t.TempDir(), "spool")
	st2, bucket2 := newStore(t)
	cfg2.Bucket = bucket2
	st2.set(away)
	a2 := open(t, cfg2)
	begin(t, a2, "ses_1")
	call(t, a2, "ses_1", "call_1")
	call(t, a2, "ses_1", "call_2")
	st2.mu.Lock()
	st2.objects = part
	st2.mu.Unlock()
	st2.set(fine)
	end(t, a2, "ses_1")
	flush(t, a2)
	whole(t, cfg2, "ses_1")
	if r := verify(t, cfg2, "ses_1"); len(r.Manifest.Parts) != 2 || r.Manifest.Parts[0].LastSeq != 5 {
		t.Errorf("parts = %+v, want the first to end with event 5", r.Manifest.Parts)
	}
}

// What a power cut leaves of an object in a folder is replaced from the spool; anything else in its place is not.
func TestTornObject(t *testing.T) {
	for name, left := range map[string]func(good []byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"zeros":     func(good []byte) []byte { return make([]byte, len(good)) },
		"beginning": func(good []byte) []byte { return append(slices.Clone(good[:9]), make([]byte, 99)...) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, nil)
			cfg.SyncDir = t.TempDir()
			var err error
			cfg.Bucket, err = fileblob.OpenBucket(cfg.SyncDir, &fileblob.Options{NoTempDir: true})
			must(t, err)
			defer cfg.Bucket.Close()
			a := open(t, cfg)
			begin(t, a, "ses_1")
			end(t, a, "ses_1")
			flush(t, a)
			files, err := filepath.Glob(filepath.Join(cfg.SyncDir, filepath.FromSlash(a.Location("ses_1", at)), "*"))
			must(t, err)
			files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, ".attrs") })
			for _, f := range files {
				good, err := os.ReadFile(f)
				must(t, err)
				must(t, os.WriteFile(f, left(good), 0o600))
				must(t, os.RemoveAll(f+".attrs"))
			}
			cfg.Dir = filepath.Join(t.TempDir(), "spool")
			b := open(t, cfg)
			begin(t, b, "ses_1")
			end(t, b, "ses_1")
			flush(t, b)
			whole(t, cfg, "ses_1")
		})
	}
}

func TestSomethingElseInTheBucket(t *testing.T) {
	st, bucket := newStore(t)
	cfg := config(t, bucket)
	logged := make(logSignal, 100)
	cfg.Log = slog.New(slog.NewTextHandler(logged, nil))
	st.objects["v1/sessions/dt=2026-11-24/ses_1/events-000001.jsonl.zst"] = []byte("something else")
	a := open(t, cfg)
	begin(t, a, "ses_1")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-logged
		cancel()
	}()
	if err := a.Flush(ctx); !errors.Is(err, archive.ErrConflict) {
		t.Errorf("Flush: %v, want ErrConflict", err)
	}
	if err := a.Stats().Failing["ses_1"]; !errors.Is(err, archive.ErrConflict) {
		t.Errorf("Stats say %v, want ErrConflict", err)
	}
}

// logSignal is a log that says only that something was logged.
type logSignal chan struct{}

func (l logSignal) Write(b []byte) (int, error) {
	l <- struct{}{}
	return len(b), nil
}

func Example() {
	ctx := context.Background()
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	key, _ := signing.New(signing.Archive)
	dir, _ := os.MkdirTemp("", "spool")
	defer os.RemoveAll(dir)

	a, err := archive.Open(ctx, archive.Config{Dir: dir, Bucket: bucket, Signer: key})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = a.Begin(ctx, "ses_1", openedEvent())
	_ = a.Append(ctx, "ses_1", true, started("call_1"))
	_ = a.End(ctx, "ses_1", endedEvent())
	_ = a.Flush(ctx)
	_ = a.Close(ctx)

	for l := range archive.Events(ctx, bucket, "", "ses_1") {
		fmt.Println(l.Seq, l.Type)
	}
	report, err := archive.Verify(ctx, bucket, "", "ses_1", key.KeySet())
	fmt.Println(report.OK(), err)
	// Output:
	// 1 session.opened
	// 2 call.started
	// 3 call.ended
	// 4 session.ended
	// true <nil>
}
