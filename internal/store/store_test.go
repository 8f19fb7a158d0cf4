package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/store"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childStore); path != "" {
		child(path)
	}
	goleak.VerifyTestMain(m)
}

var t0 = time.Date(2026, 11, 24, 10, 0, 0, 123, time.UTC)

func open(t testing.TB, path string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + path, Now: func() time.Time { return t0 }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func opened(t testing.TB) *store.DB {
	t.Helper()
	db := open(t, filepath.Join(t.TempDir(), "jobgate.db"))
	save(t, db, "m", 1)
	return db
}

func save(t testing.TB, db *store.DB, name string, revision int64) {
	t.Helper()
	row := access.MappingRow{Name: name, Revision: revision, Source: access.FromFile, Spec: []byte(`{"name":"` + name + `"}`), Changed: t0, By: "test"}
	if err := db.SaveMappings(t.Context(), []access.MappingChange{{Row: row, From: revision - 1}}); err != nil {
		t.Fatal(err)
	}
}

func hash(text string) access.TokenHash { return sha256.Sum256([]byte(text)) }

// opening is one of job "job-N" with CI token "jti:N" and access token "token-N".
func opening(n int) access.Opening {
	id := fmt.Sprint("ses_", n)
	return access.Opening{
		Session: access.SessionRow{
			ID: id, Mapping: "m", Revision: 1, Door: "/oauth/token",
			Identity: access.Identity{
				Issuer: "github", IssuerURL: "https://token.example.com", Provider: "github-actions", Subject: "repo:o/r:ref:x",
				Claims: access.Claims{"run_id": "1", "n": json.Number("12345678901234567890"), "b": true, "null": nil, "list": []any{"a"}},
				JobKey: access.JobKey(fmt.Sprint("job-", n)), TokenID: fmt.Sprint("jti:", n), IssuedAt: t0, Expires: t0.Add(5 * time.Minute),
			},
			Opened: t0, Closes: t0.Add(time.Hour), Asleep: t0.Add(15 * time.Minute),
		},
		Seen:  access.SeenToken{Issuer: "github", ID: fmt.Sprint("jti:", n), Mapping: "m", Session: id, Until: t0.Add(6 * time.Minute)},
		Token: token(id, fmt.Sprint("token-", n)),
	}
}

func token(session, text string) access.AccessToken {
	return access.AccessToken{Hash: hash(text), Session: session, Connections: []string{"anthropic", "api"}, Issued: t0, Expires: t0.Add(time.Hour), Assertion: true}
}

func wantReason(t testing.TB, err error, code access.Code, reason string) {
	t.Helper()
	var e *access.Error
	if !errors.As(err, &e) || e.Code != code || e.Reason != reason {
		t.Fatalf("error = %v, want code %q, reason %q", err, code, reason)
	}
}

func TestOpenSessionWritesAll(t *testing.T) {
	db, o := opened(t), opening(1)
	if err := db.OpenSession(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	want := o.Session
	want.Counts = map[string]access.Counts{}
	row, err := db.SessionRow(t.Context(), "ses_1")
	if diff := cmp.Diff(want, row); err != nil || diff != "" {
		t.Errorf("session: %v, diff (-want +got)\n%s", err, diff)
	}
	row, found, err := db.SessionOfJob(t.Context(), o.Session.Key())
	if diff := cmp.Diff(want, row); err != nil || !found || diff != "" {
		t.Errorf("session of the job: %v %v, diff (-want +got)\n%s", found, err, diff)
	}
	got, found, err := db.TokenByHash(t.Context(), o.Token.Hash)
	if diff := cmp.Diff(access.StoredToken{AccessToken: o.Token, LastUsed: t0}, got); err != nil || !found || diff != "" {
		t.Errorf("token: %v %v, diff (-want +got)\n%s", found, err, diff)
	}
	seen, found, err := db.SeenToken(t.Context(), "github", "jti:1")
	if diff := cmp.Diff(o.Seen, seen); err != nil || !found || diff != "" {
		t.Errorf("seen: %v %v, diff (-want +got)\n%s", found, err, diff)
	}
}

func TestOpenSessionLoses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*access.Opening)
		reason string
	}{
		"CI token used before":      {func(o *access.Opening) { o.Seen.ID = "jti:1" }, access.ReasonReplayed},
		"job has a session":         {func(o *access.Opening) { o.Session.Identity.JobKey = "job-1" }, access.ReasonOpened},
		"mapping changed":           {func(o *access.Opening) { o.Session.Revision = 2 }, access.ReasonRevision},
		"mapping never was":         {func(o *access.Opening) { o.Session.Mapping = "other" }, access.ReasonRevision},
		"mapping judged is old":     {func(o *access.Opening) { o.Session.Revision = 0 }, access.ReasonRevision},
		"replayed and job the same": {func(o *access.Opening) { *o = opening(1); o.Session.ID = "ses_2" }, access.ReasonReplayed},
	} {
		t.Run(name, func(t *testing.T) {
			db := opened(t)
			if err := db.OpenSession(t.Context(), opening(1)); err != nil {
				t.Fatal(err)
			}
			o := opening(2)
			tt.change(&o)
			wantReason(t, db.OpenSession(t.Context(), o), access.CodeConflict, tt.reason)
			if rows, err := db.SessionRows(t.Context(), false, 10); err != nil || len(rows) != 1 {
				t.Errorf("sessions = %d, %v, want the first only", len(rows), err)
			}
			if _, found, _ := db.TokenByHash(t.Context(), hash("token-2")); found {
				t.Error("a token of the loser was kept")
			}
			if _, found, _ := db.SeenToken(t.Context(), "github", "jti:2"); found {
				t.Error("the loser's CI token was marked")
			}
		})
	}
}

func TestDeletedMappingOpensNothing(t *testing.T) {
	db := opened(t)
	rows, err := db.MappingRows(t.Context())
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	gone := rows[0]
	gone.Revision, gone.Deleted, gone.DeletedVia = 2, t0, access.FromAPI
	if err := db.SaveMappings(t.Context(), []access.MappingChange{{Row: gone, From: 1}}); err != nil {
		t.Fatal(err)
	}
	o := opening(1)
	o.Session.Revision = 2
	wantReason(t, db.OpenSession(t.Context(), o), access.CodeConflict, access.ReasonRevision)
	if revision, err := db.MappingRevision(t.Context(), "m"); revision != 0 || err != nil {
		t.Errorf("revision = %d, %v, want 0", revision, err)
	}
	rows, err = db.MappingRows(t.Context())
	if diff := cmp.Diff([]access.MappingRow{gone}, rows); err != nil || diff != "" {
		t.Errorf("rows: %v, diff (-want +got)\n%s", err, diff)
	}
}

func TestSaveMappingsIsAllOrNothing(t *testing.T) {
	db := opened(t)
	row := func(name string) access.MappingRow {
		return access.MappingRow{Name: name, Revision: 1, Source: access.FromAPI, Spec: []byte("{}"), Changed: t0}
	}
	wantReason(t, db.SaveMappings(t.Context(), []access.MappingChange{{Row: row("a")}, {Row: row("m")}}), access.CodeConflict, access.ReasonRevision)
	wantReason(t, db.SaveMappings(t.Context(), []access.MappingChange{{Row: row("b")}, {Row: row("m"), From: 7}}), access.CodeConflict, access.ReasonRevision)
	if rows, err := db.MappingRows(t.Context()); err != nil || len(rows) != 1 {
		t.Errorf("mappings = %v, %v, want m only", rows, err)
	}
}

func TestUndoOpening(t *testing.T) {
	db := opened(t)
	for range 2 { // the second one finds nothing of the first
		if err := db.OpenSession(t.Context(), opening(1)); err != nil {
			t.Fatal(err)
		}
		if err := db.UndoOpening(t.Context(), "ses_1"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := db.SessionRow(t.Context(), "ses_1")
	wantReason(t, err, access.CodeNotFound, "")
	if _, found, _ := db.TokenByHash(t.Context(), hash("token-1")); found {
		t.Error("the token is still there")
	}
}

func TestRenewSession(t *testing.T) {
	db := opened(t)
	if err := db.OpenSession(t.Context(), opening(1)); err != nil {
		t.Fatal(err)
	}
	renewal := func(jti string) access.Renewal {
		return access.Renewal{
			Asleep: t0.Add(30 * time.Minute), Token: token("ses_1", jti), Dropped: []access.TokenHash{hash("token-1")},
			Seen: access.SeenToken{Issuer: "github", ID: jti, Mapping: "m", Session: "ses_1", Until: t0.Add(20 * time.Minute)},
		}
	}
	wantReason(t, db.RenewSession(t.Context(), renewal("jti:1")), access.CodeConflict, access.ReasonReplayed)
	if err := db.RenewSession(t.Context(), renewal("jti:2")); err != nil {
		t.Fatal(err)
	}
	row, err := db.SessionRow(t.Context(), "ses_1")
	if err != nil || !row.Asleep.Equal(t0.Add(30*time.Minute)) {
		t.Errorf("asleep = %v, %v", row.Asleep, err)
	}
	tokens, err := db.TokensOfSession(t.Context(), "ses_1")
	if err != nil || len(tokens) != 1 || tokens[0].Hash != hash("jti:2") {
		t.Errorf("tokens = %v, %v, want the new one only", tokens, err)
	}
	end(t, db, "ses_1", access.EndClosed)
	wantReason(t, db.RenewSession(t.Context(), renewal("jti:3")), access.CodeEnded, "")
	if _, found, _ := db.SeenToken(t.Context(), "github", "jti:3"); found {
		t.Error("the refused renewal marked its CI token")
	}
}

func end(t testing.TB, db *store.DB, session string, reason access.EndReason) {
	t.Helper()
	if err := db.EndSessions(t.Context(), []access.SessionEnd{{
		Session: session, Reason: reason, By: "somebody", At: t0.Add(time.Minute),
		Counts: map[string]access.Counts{"api": {Requests: 3}}, Tally: access.Tally{Calls: 3},
	}}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestJoinsAreCounted(t *testing.T) {
	db := opened(t)
	if err := db.OpenSession(t.Context(), opening(1)); err != nil {
		t.Fatal(err)
	}
	join := func(n int, tokenID string) error {
		return db.JoinSession(t.Context(), access.Joining{Issuer: "github", TokenID: tokenID, MaxJoins: 2, Token: token("ses_1", fmt.Sprint("join-", n))})
	}
	for n := range 2 {
		if err := join(n, "jti:1"); err != nil {
			t.Fatal(err)
		}
	}
	wantReason(t, join(2, "jti:1"), access.CodeConflict, access.ReasonJoins)
	wantReason(t, join(3, "jti:unknown"), access.CodeConflict, access.ReasonJoins)
	if err := join(4, ""); err != nil {
		t.Errorf("join by access token: %v", err)
	}
	if seen, _, err := db.SeenToken(t.Context(), "github", "jti:1"); err != nil || seen.Joins != 2 {
		t.Errorf("joins = %d, %v, want 2", seen.Joins, err)
	}
	end(t, db, "ses_1", access.EndClosed)
	wantReason(t, join(5, ""), access.CodeEnded, "")
}

func TestFirstEndStays(t *testing.T) {
	db := opened(t)
	if err := db.OpenSession(t.Context(), opening(1)); err != nil {
		t.Fatal(err)
	}
	end(t, db, "ses_1", access.EndDeleted)
	end(t, db, "ses_1", access.EndMax)
	row, err := db.SessionRow(t.Context(), "ses_1")
	if err != nil || row.Reason != access.EndDeleted || row.EndedBy != "somebody" || !row.Ended.Equal(t0.Add(time.Minute)) {
		t.Errorf("row = %+v, %v", row, err)
	}
	if row.Counts["api"].Requests != 3 || row.Tally.Calls != 3 {
		t.Errorf("ledger = %v %v", row.Counts, row.Tally)
	}
	if rows, err := db.SessionRows(t.Context(), true, 0); err != nil || len(rows) != 0 {
		t.Errorf("open sessions = %v, %v", rows, err)
	}
}

func TestUsage(t *testing.T) {
	db := opened(t)
	if err := db.OpenSession(t.Context(), opening(1)); err != nil {
		t.Fatal(err)
	}
	if err := db.SaveUsage(t.Context(), []access.Usage{{
		Session: "ses_1", Counts: map[string]access.Counts{"anthropic": {Requests: 1, InputTokens: 2, OutputTokens: 3}},
		Tally: access.Tally{Calls: 1, Denials: 1}, Tokens: []access.TokenUse{{Hash: hash("token-1"), Last: t0.Add(time.Second)}},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	row, err := db.SessionRow(t.Context(), "ses_1")
	if err != nil || row.Counts["anthropic"] != (access.Counts{Requests: 1, InputTokens: 2, OutputTokens: 3}) || row.Tally.Denials != 1 {
		t.Errorf("row = %+v, %v", row, err)
	}
	if tok, _, err := db.TokenByHash(t.Context(), hash("token-1")); err != nil || !tok.LastUsed.Equal(t0.Add(time.Second)) {
		t.Errorf("last use = %v, %v", tok.LastUsed, err)
	}
}

func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b%20?#.db")
	db := open(t, path)
	save(t, db, "m", 1)
	if err := db.OpenSession(t.Context(), opening(1)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.SessionRow(t.Context(), "ses_1"); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("read after Close = %v", err)
	}
	if err := db.UndoOpening(t.Context(), "ses_1"); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("write after Close = %v", err)
	}
	db = open(t, path)
	if rows, err := db.SessionRows(t.Context(), true, 0); err != nil || len(rows) != 1 {
		t.Errorf("open sessions = %v, %v, want one", rows, err)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOneProcessAStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobgate.db")
	open(t, path)
	_, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + path})
	if err == nil || !strings.Contains(err.Error(), "another process holds") {
		t.Errorf("second Open = %v", err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "jobgate.db"))
	save(t, db, "m", 1)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 3 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"":                               "sqlite:jobgate.db",
		"jobgate.db":                     "sqlite:jobgate.db",
		"sqlite:":                        "names no file",
		"sqlite::memory:":                "names no file",
		"postgres://u:hunter2@db/x":      "not in this build yet",
		"sqlite:/no/such/folder/of/it/x": "no such file",
	} {
		_, err := store.Open(t.Context(), store.Config{URL: url})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) = %v, want %q", url, err, want)
		}
	}
}

func TestNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobgate.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first one leaves no lock behind
		_, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + path})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "not a database") {
			t.Errorf("Open = %v", err)
		}
	}
}

func TestNewerTables(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobgate.db")
	db := open(t, path)
	if err := db.SetSchema("99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + path})
	if err == nil || !strings.Contains(err.Error(), "start a newer jobgate") {
		t.Errorf("Open = %v", err)
	}
}

func TestNoPlainTokenInTheFiles(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "jobgate.db"))
	save(t, db, "m", 1)
	if err := db.OpenSession(t.Context(), opening(1)); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || strings.Contains(string(data), "token-1") {
			t.Errorf("%s holds the token, %v", f, err)
		}
	}
}

// TestBatch holds that a change which is refused undoes itself only, though it shares a commit with others.
func TestBatch(t *testing.T) {
	db := opened(t)
	var wg sync.WaitGroup
	errs := make([]error, 200)
	for i := range errs {
		wg.Go(func() {
			o := opening(i)
			o.Seen.ID = fmt.Sprint("jti:", i/2) // of each pair, one is a replay
			errs[i] = db.OpenSession(context.Background(), o)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantReason(t, err, access.CodeConflict, access.ReasonReplayed)
	}
	if rows, err := db.SessionRows(t.Context(), true, 0); err != nil || won != 100 || len(rows) != 100 {
		t.Errorf("won = %d, sessions = %d, %v, want 100", won, len(rows), err)
	}
}

func TestCancelledChange(t *testing.T) {
	db := opened(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.OpenSession(ctx, opening(1)); access.CodeOf(err) != access.CodeCanceled {
		t.Errorf("error = %v, want canceled", err)
	}
	if rows, _ := db.SessionRows(t.Context(), true, 0); len(rows) != 0 {
		t.Error("a cancelled opening was written")
	}
}

func TestPrune(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobgate.db")
	now := t0
	db, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + path, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	save(t, db, "m", 1)
	for n := 1; n <= 3; n++ {
		o := opening(n)
		if n == 2 {
			o.Session.Closes = t0.Add(72 * time.Hour) // its tokens are remembered for three days
		}
		if err := db.OpenSession(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	end(t, db, "ses_1", access.EndClosed)
	end(t, db, "ses_2", access.EndClosed)
	state := func() (out []bool) {
		for n := 1; n <= 3; n++ {
			_, token, _ := db.TokenByHash(t.Context(), hash(fmt.Sprint("token-", n)))
			_, job, _ := db.SessionOfJob(t.Context(), opening(n).Session.Key())
			out = append(out, token, job)
		}
		return out
	}
	for _, step := range []struct {
		after time.Duration
		want  []bool // token and job of the three
	}{
		{23 * time.Hour, []bool{true, true, true, true, true, true}},
		{26 * time.Hour, []bool{false, true, true, true, false, true}},
		{80 * time.Hour, []bool{false, true, false, true, false, true}},
		{91 * 24 * time.Hour, []bool{false, false, false, false, false, true}},
	} {
		now = t0.Add(step.after)
		if err := db.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, state()); diff != "" {
			t.Errorf("after %v: diff (-want +got)\n%s", step.after, diff)
		}
	}
}

func BenchmarkOpenSession(b *testing.B) {
	db := opened(b)
	b.SetParallelism(16)
	n := make(chan int, 1)
	n <- 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := <-n
			n <- i + 1
			if err := db.OpenSession(context.Background(), opening(i)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sessions/s")
}

// TestFullDisk holds that a change which finds no room leaves nothing half done, takes no other change with it for
// good, and that writing goes on once there is room.
func TestFullDisk(t *testing.T) {
	db := opened(t)
	if err := db.Limit(1); err != nil { // what there is, and no page more
		t.Fatal(err)
	}
	written := 0
	for full := false; !full; {
		if written > 1000 {
			t.Fatal("the disk is never full")
		}
		err := db.OpenSession(t.Context(), opening(written))
		if full = err != nil; full && access.CodeOf(err) != access.CodeUnavailable {
			t.Fatalf("error = %v", err)
		}
		if !full {
			written++
		}
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := db.OpenSession(context.Background(), opening(written+i)); err == nil {
				t.Errorf("session %d was written on a full disk", written+i)
			}
		})
	}
	wg.Wait()
	if rows, err := db.SessionRows(t.Context(), true, 0); err != nil || len(rows) != written {
		t.Errorf("%d sessions, %v, want %d", len(rows), err, written)
	}
	if err := db.Limit(0); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if err := db.OpenSession(t.Context(), opening(written+i)); err != nil {
			t.Errorf("session %d with room again: %v", written+i, err)
		}
	}
}

// Counters are written over, with the usage and with the ends of sessions, and forgotten a day after their period.
func TestCounters(t *testing.T) {
	db := opened(t)
	row := func(value string, ends time.Time, requests int64) access.CounterRow {
		return access.CounterRow{CounterKey: access.CounterKey{Mapping: "agents", Connection: "api", Per: "repository_id", Value: value}, Ends: ends.UTC(),
			Counts: access.Counts{Requests: requests, InputTokens: 2, OutputTokens: 3}}
	}
	for _, write := range []func([]access.CounterRow) error{
		func(c []access.CounterRow) error { return db.SaveUsage(t.Context(), nil, c) },
		func(c []access.CounterRow) error { return db.EndSessions(t.Context(), nil, c) },
	} {
		if err := write([]access.CounterRow{row("1", t0, 1), row("2", t0, 1)}); err != nil {
			t.Fatal(err)
		}
		if err := write([]access.CounterRow{row("2", t0.Add(48*time.Hour), 9)}); err != nil {
			t.Fatal(err)
		}
		rows, err := db.CounterRows(t.Context())
		slices.SortFunc(rows, func(a, b access.CounterRow) int { return strings.Compare(a.Value, b.Value) })
		if diff := cmp.Diff([]access.CounterRow{row("1", t0, 1), row("2", t0.Add(48*time.Hour), 9)}, rows); err != nil || diff != "" {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	}
}
