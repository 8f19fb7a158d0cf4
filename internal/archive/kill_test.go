package archive_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob/fileblob"

	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/internal/signing"
	"github.com/jobgate/jobgate/proxy/record"
)

// childEnv makes the test binary the process that is killed; its value is the data folder.
const childEnv = "JOBGATE_ARCHIVE_TEST_CHILD"

var kills = flag.Int("kills", 30, "how often TestKill kills its child")

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// dataConfig is the archive in a data folder, with everything small so that a kill meets all kinds of work.
func dataConfig(dir string) (archive.Config, error) {
	bucket, err := fileblob.OpenBucket(filepath.Join(dir, "bucket"), &fileblob.Options{CreateDir: true, NoTempDir: true})
	if err != nil {
		return archive.Config{}, err
	}
	key, err := signing.Load(filepath.Join(dir, "keys"), signing.Archive)
	return archive.Config{
		Dir: filepath.Join(dir, "spool"), Bucket: bucket, SyncDir: filepath.Join(dir, "bucket"), Signer: key,
		PartBytes: 3 << 10, PartAge: 30 * time.Millisecond, Retry: time.Millisecond,
	}.WithSegments(16 << 10), err
}

// child works until it is killed, and says on its standard output what was acknowledged.
func child(dir string) error {
	fmt.Println("started")
	cfg, err := dataConfig(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	a, err := archive.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer a.Close(ctx)
	errs := make(chan error, 4)
	for w := range 4 {
		var mine []string
		for i, r := range a.Recovered() {
			if i%4 == w && !r.Ended {
				mine = append(mine, r.Session)
			}
		}
		go func() { errs <- work(ctx, a, mine) }()
	}
	return <-errs
}

func work(ctx context.Context, a *archive.Archive, sessions []string) error {
	name := func(kind string) string { return fmt.Sprintf("%s_%016x", kind, rand.Uint64()) }
	for {
		for _, s := range sessions {
			for range rand.IntN(6) {
				c := name("call")
				if err := a.Append(ctx, s, true, started(c), sent(c, 1)); err != nil {
					return err
				}
				fmt.Println("call", s, c)
				if err := a.Append(ctx, s, rand.IntN(2) == 0, chunk(c, name("text")), callEnded(c, 1)); err != nil {
					return err
				}
			}
			if rand.IntN(3) > 0 {
				continue
			}
			if err := a.End(ctx, s, endedEvent()); err != nil {
				return err
			}
			fmt.Println("end", s)
		}
		s := name("ses")
		if err := a.Begin(ctx, s, openedEvent()); err != nil {
			return err
		}
		fmt.Println("begin", s)
		sessions = []string{s}
	}
}

// What was acknowledged before a kill -9 at any moment is archived, once, in records that verify.
func TestKill(t *testing.T) {
	rounds := *kills
	dir := t.TempDir()
	acked := map[string]string{} // call or session to what was said of it
	for range rounds {
		killOnce(t, dir, rand.IntN(100), acked)
	}

	cfg, err := dataConfig(dir)
	must(t, err)
	defer cfg.Bucket.Close()
	a := open(t, cfg)
	for _, r := range a.Recovered() {
		if !r.Ended {
			end(t, a, r.Session)
		}
	}
	flush(t, a)
	seen := map[string]int{}
	for e, err := range archive.List(context.Background(), cfg.Bucket, "", archive.Filter{}) {
		must(t, err)
		seen[e.Session]++
		calls := map[string]int{}
		for _, l := range wholeEntry(t, cfg, e) {
			switch l.Type {
			case record.TypeCallStarted:
				seen[l.Call]++
				calls[l.Call]++
			case record.TypeCallEnded:
				calls[l.Call]--
			}
		}
		for c, n := range calls {
			if n != 0 {
				t.Errorf("%s has %d ends too few", c, n)
			}
		}
	}
	if len(acked) < rounds {
		t.Fatalf("only %d acknowledgements in %d rounds", len(acked), rounds)
	}
	for id, what := range acked {
		if seen[id] != 1 {
			t.Errorf("%s was acknowledged (%s) and is archived %d times", id, what, seen[id])
		}
	}
	if st := a.Stats(); st.Sessions != 0 {
		t.Errorf("Stats = %+v, want nothing left", st)
	}
	t.Logf("%d acknowledgements, %d sessions and calls archived", len(acked), len(seen))
}

// killOnce runs the child, kills it after so many acknowledgements, and notes all that it gave.
func killOnce(t *testing.T, dir string, after int, acked map[string]string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var kill sync.Once
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if n >= after {
			kill.Do(func() { must(t, cmd.Process.Kill()) })
		}
		f := strings.Fields(lines.Text())
		switch {
		case f[0] == "failed":
			t.Errorf("the child says: %s", lines.Text())
		case f[0] == "call" && len(f) == 3:
			acked[f[2]] = lines.Text()
		case f[0] == "begin" && len(f) == 2:
			acked[f[1]] = lines.Text()
		}
	}
	_ = cmd.Wait()
}
