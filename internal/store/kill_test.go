package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/jobgate/jobgate/internal/store"
)

// childStore names, in the environment of this test's child processes, the store that they write to until they are
// killed.
const childStore = "JOBGATE_TEST_STORE"

// child opens sessions from four goroutines and says of each when it was told that it is written.
func child(path string) {
	db, err := store.Open(context.Background(), store.Config{URL: "sqlite:" + path})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	from, _ := strconv.Atoi(os.Getenv(childStore + "_FROM"))
	for worker := range 4 {
		go func() {
			for n := from + worker; ; n += 4 {
				if err := db.OpenSession(context.Background(), opening(n)); err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
				fmt.Println(n)
			}
		}()
	}
	select {}
}

// TestKill kills a process that writes, and holds that what it was told is written is there.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobgate.db")
	db := open(t, path)
	save(t, db, "m", 1)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		acknowledged := killed(t, path, round*1_000_000, 10+round*17)
		db := open(t, path) // the lock went with the process
		for _, n := range acknowledged {
			if _, err := db.SessionRow(t.Context(), fmt.Sprint("ses_", n)); err != nil {
				t.Errorf("round %d: session %d was acknowledged: %v", round, n, err)
			}
			if _, found, err := db.TokenByHash(t.Context(), hash(fmt.Sprint("token-", n))); !found {
				t.Errorf("round %d: token %d is missing, %v", round, n, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killed runs a child until it has acknowledged so many sessions, and returns all that it acknowledged.
func killed(t *testing.T, path string, from, many int) (acknowledged []int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childStore+"="+path, childStore+"_FROM="+strconv.Itoa(from))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Errorf("the child says %q", lines.Text())
			break
		}
		if acknowledged = append(acknowledged, n); len(acknowledged) == many {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	return acknowledged
}
