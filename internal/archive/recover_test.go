package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/proxy/record"
)

// crash returns a configuration that is left as if the process of a had gone away now: a copy of its spool.
func crash(t *testing.T, cfg archive.Config) archive.Config {
	t.Helper()
	after := cfg
	after.Dir = filepath.Join(t.TempDir(), "spool")
	must(t, os.CopyFS(after.Dir, os.DirFS(cfg.Dir)))
	return after
}

func segments(t *testing.T, cfg archive.Config) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "spool-*.wal"))
	must(t, err)
	slices.Sort(files)
	return files
}

func TestCrash(t *testing.T) {
	st, bucket := newStore(t)
	cfg := config(t, bucket)
	a := open(t, cfg)
	ctx := context.Background()
	begin(t, a, "ses_open")
	call(t, a, "ses_open", "call_1")
	flush(t, a)
	must(t, a.Append(ctx, "ses_open", true, started("call_3"), sent("call_3", 3), started("call_2")))
	st.set(away)
	begin(t, a, "ses_over")
	end(t, a, "ses_over")
	begin(t, a, "ses_idle")

	after := crash(t, cfg)
	st.set(fine)
	b := open(t, after)
	got := b.Recovered()
	for i := range got {
		if got[i].Opened.Mapping != "release-agents" || fmt.Sprint(got[i].Opened.Claims["repository_id"]) != "9007199254740993" {
			t.Errorf("recovered opening of %s = %+v", got[i].Session, got[i].Opened)
		}
		got[i].Opened = record.SessionOpened{}
	}
	want := []archive.RecoveredSession{
		{Session: "ses_idle"},
		{Session: "ses_open", InFlight: []string{"call_2", "call_3"}, Counts: map[string]record.Counts{"anthropic": {Requests: 3}}, Totals: archive.Totals{Calls: 3}},
		{Session: "ses_over", Ended: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Recovered (-want +got):\n%s", diff)
	}
	call(t, b, "ses_open", "call_4")
	end(t, b, "ses_open")
	end(t, b, "ses_idle")
	flush(t, b)

	lines := whole(t, after, "ses_open")
	const wantTypes = "session.opened call.started call.sent response call.ended call.started call.sent call.started call.ended call.ended call.started call.sent response call.ended session.ended"
	if got := types(lines); got != wantTypes {
		t.Errorf("events are %s, want %s", got, wantTypes)
	}
	var e record.CallEnded
	must(t, lines[9].Decode(&e))
	if lines[9].Call != "call_3" || e.Reason != record.ReasonInterrupted || e.Counts.Requests != 3 || e.Connection != "anthropic" {
		t.Errorf("end of the call in flight = %s", lines[9].Raw)
	}
	for session, interrupted := range map[string]bool{"ses_open": true, "ses_idle": true, "ses_over": false} {
		whole(t, after, session)
		if r := verify(t, after, session); r.Manifest.Interrupted != interrupted {
			t.Errorf("manifest of %s says interrupted: %v", session, r.Manifest.Interrupted)
		}
	}
}

func TestRestartInOrder(t *testing.T) {
	_, bucket := newStore(t)
	cfg := config(t, bucket)
	ctx := context.Background()
	for i := range 3 {
		a, err := archive.Open(ctx, cfg)
		must(t, err)
		if i == 0 {
			begin(t, a, "ses_1")
		}
		call(t, a, "ses_1", fmt.Sprintf("call_%d", i))
		if i == 2 {
			end(t, a, "ses_1")
		}
		flush(t, a)
		must(t, a.Close(ctx))
	}
	if lines := whole(t, cfg, "ses_1"); len(lines) != 14 {
		t.Errorf("%d events, want 14", len(lines))
	}
	if verify(t, cfg, "ses_1").Manifest.Interrupted {
		t.Error("interrupted, though each process ended in order")
	}
}

// A spool that is cut anywhere is taken up to the last whole frame, and what is left is archived.
func TestTornTail(t *testing.T) {
	st, bucket := newStore(t)
	st.set(away)
	cfg := config(t, bucket)
	a := open(t, cfg)
	begin(t, a, "ses_1")
	call(t, a, "ses_1", "call_1")
	must(t, a.Append(context.Background(), "ses_1", true, started("call_2")))
	files := segments(t, cfg)
	spool, err := os.ReadFile(files[len(files)-1])
	must(t, err)
	for cut := 0; cut < len(spool); cut += 53 {
		for name, tail := range map[string][]byte{"cut": nil, "zeros": make([]byte, 100), "junk": bytes.Repeat([]byte{0xa5}, 100)} {
			st, bucket := newStore(t)
			after := crash(t, cfg)
			after.Bucket = bucket
			must(t, os.WriteFile(segments(t, after)[len(files)-1], append(slices.Clone(spool[:cut]), tail...), 0o600))
			b, err := archive.Open(context.Background(), after)
			if err != nil {
				t.Fatalf("%s at %d: %v", name, cut, err)
			}
			if len(b.Recovered()) > 0 {
				end(t, b, "ses_1")
				flush(t, b)
				whole(t, after, "ses_1")
			}
			must(t, b.Close(context.Background()))
			if len(b.Recovered()) == 0 && len(st.objects) > 0 {
				t.Errorf("%s at %d: objects of nothing: %v", name, cut, st.objects)
			}
		}
	}
}

// Damage that a crash cannot have done is not passed over in silence.
func TestDamagedSpool(t *testing.T) {
	st, bucket := newStore(t)
	st.set(away)
	cfg := config(t, bucket).WithSegments(2 << 10)
	a := open(t, cfg)
	begin(t, a, "ses_1")
	for i := range 5 {
		call(t, a, "ses_1", fmt.Sprintf("call_%d", i))
	}
	for name, damage := range map[string]func([]string){
		"a bit": func(files []string) {
			data, err := os.ReadFile(files[1])
			must(t, err)
			data[len(data)-100] ^= 1
			must(t, os.WriteFile(files[1], data, 0o600))
		},
		"a segment that is gone": func(files []string) { must(t, os.Remove(files[1])) },
		"an empty segment":       func(files []string) { must(t, os.Truncate(files[1], 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			after := crash(t, cfg)
			damage(segments(t, after))
			b, err := archive.Open(context.Background(), after)
			if err == nil {
				b.Close(context.Background())
				t.Fatal("Open went through")
			}
			if !strings.Contains(err.Error(), after.Dir) {
				t.Errorf("%v does not name the place", err)
			}
		})
	}
}

// Segments in the middle go as soon as nothing in them is needed, and the others still tell everything.
func TestSegmentsInTheMiddleGo(t *testing.T) {
	st, bucket := newStore(t)
	cfg := config(t, bucket).WithSegments(4 << 10)
	st.objects["v1/sessions/dt=2026-11-24/ses_stuck/open.jws"] = []byte("something else")
	a := open(t, cfg)
	begin(t, a, "ses_stuck")
	call(t, a, "ses_stuck", "call_1")
	ctx := context.Background()
	for i := range 10 {
		id := fmt.Sprintf("ses_%d", i)
		begin(t, a, id)
		for c := range 5 {
			call(t, a, id, fmt.Sprintf("call_%d", c))
		}
		end(t, a, id)
	}
	begin(t, a, "ses_last")
	call(t, a, "ses_last", "call_1")
	c, cancel := context.WithCancel(ctx)
	for range 10 * 4 {
		// Everything but the one that is stuck.
		if st := a.Stats(); st.Sessions == 2 {
			break
		}
		c2, stop := context.WithTimeout(c, 50*time.Millisecond)
		_ = a.Flush(c2)
		stop()
	}
	cancel()
	must(t, a.Close(ctx))
	delete(st.objects, "v1/sessions/dt=2026-11-24/ses_stuck/open.jws")
	b := open(t, cfg)
	if n := len(segments(t, cfg)); n > 3 {
		t.Errorf("%d segments, want the first, the last ones and not those between", n)
	}
	if r := b.Recovered(); len(r) != 2 || r[0].Session != "ses_last" || r[1].Session != "ses_stuck" {
		t.Errorf("Recovered = %+v", r)
	}
	end(t, b, "ses_stuck")
	end(t, b, "ses_last")
	flush(t, b)
	for _, id := range []string{"ses_stuck", "ses_last", "ses_3"} {
		whole(t, cfg, id)
	}
}
