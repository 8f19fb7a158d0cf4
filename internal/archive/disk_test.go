package archive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/proxy/record"
)

func TestDiskFull(t *testing.T) {
	st, bucket := newStore(t)
	disk := &archive.FaultyDisk{}
	cfg := disk.Under(config(t, bucket))
	a := open(t, cfg)
	ctx := context.Background()
	begin(t, a, "ses_1")
	begin(t, a, "ses_2")
	call(t, a, "ses_1", "call_1")
	must(t, a.Append(ctx, "ses_1", true, started("call_2"), sent("call_2", 2)))

	disk.Break(syscall.ENOSPC)
	if err := a.Append(ctx, "ses_1", true, started("call_3")); !errors.Is(err, archive.ErrSpool) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Append: %v, want ErrSpool and ENOSPC", err)
	}
	if err := a.Begin(ctx, "ses_3", openedEvent()); !errors.Is(err, archive.ErrSpool) {
		t.Errorf("Begin: %v, want ErrSpool", err)
	}
	if a.Stats().SpoolError == nil {
		t.Error("Stats do not tell")
	}
	// A stream notices at the latest with its second event.
	err := a.Append(ctx, "ses_1", false, chunk("call_2", "lost"))
	for range 3 {
		if err == nil {
			must(t, ignore(a.Append(ctx, "ses_2", true, started("probe"))))
			err = a.Append(ctx, "ses_1", false, chunk("call_2", "lost"))
		}
	}
	if !errors.Is(err, archive.ErrSpool) {
		t.Errorf("a stream's Append: %v, want ErrSpool", err)
	}

	disk.Break(nil)
	call(t, a, "ses_1", "call_4")
	begin(t, a, "ses_3")
	for _, id := range []string{"ses_1", "ses_2", "ses_3"} {
		end(t, a, id)
	}
	flush(t, a)
	lines := whole(t, cfg, "ses_1")
	got := types(lines)
	want := "session.opened call.started call.sent response call.ended call.started call.sent gap call.started call.sent response call.ended call.ended session.ended"
	if got != want {
		t.Errorf("events are %s, want %s", got, want)
	}
	var last record.SessionEnded
	must(t, lines[len(lines)-1].Decode(&last))
	if !last.Interrupted {
		t.Error("a call was left without its end, and session.ended does not say interrupted")
	}
	if r := verify(t, cfg, "ses_1"); r.Manifest.Missing == 0 {
		t.Error("the manifest does not say how much is missing")
	}
	whole(t, cfg, "ses_2")
	whole(t, cfg, "ses_3")
	if st.weather != fine {
		t.Error("the bucket was not to blame")
	}
}

// A disk that the spool itself has filled gets its space back: what says that a part is stored has room kept for it.
func TestDiskFullOfSpool(t *testing.T) {
	st, bucket := newStore(t)
	disk := &archive.FaultyDisk{}
	cfg := disk.Under(config(t, bucket)).WithSegments(8 << 10)
	st.set(away)
	a := open(t, cfg)
	begin(t, a, "ses_1")
	for i := range 20 {
		call(t, a, "ses_1", fmt.Sprintf("call_%d", i))
	}
	before := len(segments(t, cfg))
	reserve := filepath.Join(cfg.Dir, archive.ReserveName)
	disk.BreakWhile(syscall.ENOSPC, func() bool {
		_, err := os.Stat(reserve)
		return err == nil && len(segments(t, cfg)) >= before
	})
	if err := a.Append(context.Background(), "ses_1", true, started("call_x")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Append: %v, want ENOSPC", err)
	}
	st.set(fine)
	flush(t, a)
	for err := error(syscall.ENOSPC); errors.Is(err, syscall.ENOSPC); {
		// Segments are deleted by the goroutine that syncs.
		err = a.Append(context.Background(), "ses_1", true, started("call_y"), callEnded("call_y", 1))
	}
	end(t, a, "ses_1")
	flush(t, a)
	whole(t, cfg, "ses_1")
}

// A full queue makes callers wait; one that gives up has added nothing.
func TestQueueBlocksAndNeverDrops(t *testing.T) {
	_, bucket := newStore(t)
	disk := &archive.FaultyDisk{}
	cfg := disk.Under(config(t, bucket))
	a := open(t, cfg)
	begin(t, a, "ses_1")
	flush(t, a)
	release := disk.Hold()
	big := chunk("call_1", strings.Repeat("x", 5<<20))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n := 0
	for ; n < 10; n++ {
		if err := a.Append(ctx, "ses_1", false, big); err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Append to a full queue: %v, want Canceled", err)
			}
			break
		}
	}
	if n < 2 || n > 4 {
		t.Errorf("the queue took %d events of 5 MiB, its bound is 8 MiB beside what is being written", n)
	}
	release()
	must(t, a.Append(context.Background(), "ses_1", true, big))
	end(t, a, "ses_1")
	flush(t, a)
	if lines := whole(t, cfg, "ses_1"); len(lines) != n+3 {
		t.Errorf("%d events, want %d", len(lines), n+3)
	}
}

func ignore(error) error { return nil }

func TestBacklogRefuse(t *testing.T) {
	st, bucket := newStore(t)
	cfg := config(t, bucket).WithSegments(8 << 10)
	cfg.SpoolMax = 32 << 10
	st.set(away)
	a := open(t, cfg)
	ctx := context.Background()
	begin(t, a, "ses_1")
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = a.Append(ctx, "ses_1", true, started("call_1"), chunk("call_1", strings.Repeat("x", 1000)))
	}
	if !errors.Is(err, archive.ErrFull) {
		t.Fatalf("Append: %v, want ErrFull", err)
	}
	must(t, a.Append(ctx, "ses_1", false, chunk("call_1", "a stream goes on for a while")))
	must(t, a.Append(ctx, "ses_1", true, callEnded("call_1", 1)))
	if err := a.Begin(ctx, "ses_2", openedEvent()); !errors.Is(err, archive.ErrFull) {
		t.Errorf("Begin: %v, want ErrFull", err)
	}
	end(t, a, "ses_1")
	st.set(fine)
	flush(t, a)
	whole(t, cfg, "ses_1")
	for err = archive.ErrFull; errors.Is(err, archive.ErrFull); {
		// The spool is given back by the goroutine that syncs it.
		err = a.Begin(ctx, "ses_2", openedEvent())
	}
	must(t, err)
}

func TestBacklogContinue(t *testing.T) {
	st, bucket := newStore(t)
	cfg := config(t, bucket).WithSegments(8 << 10)
	cfg.SpoolMax, cfg.OnBacklog = 32<<10, archive.BacklogContinue
	st.set(away)
	a := open(t, cfg)
	ctx := context.Background()
	begin(t, a, "ses_1")
	for range 100 {
		must(t, a.Append(ctx, "ses_1", true, chunk("call_1", strings.Repeat("x", 1000))))
	}
	if used := a.Stats().SpoolBytes; used > 40<<10 {
		t.Errorf("the spool has %d bytes, its limit is %d", used, cfg.SpoolMax)
	}
	begin(t, a, "ses_2")
	end(t, a, "ses_1")
	st.set(fine)
	flush(t, a)
	var gap record.Gap
	lines := whole(t, cfg, "ses_1")
	i := slices.IndexFunc(lines, func(l record.Line) bool { return l.Type == record.TypeGap })
	if i < 0 {
		t.Fatalf("no gap among %s", types(lines))
	}
	must(t, lines[i].Decode(&gap))
	if got := int(gap.Missing) + len(lines) - 3; got != 100 {
		t.Errorf("%d events are there or missing, want 100", got)
	}
}
