package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestWorkerAbove(t *testing.T) {
	self, found := processOf(os.Getpid())
	if !found || self.Start == "" || self.parent != os.Getppid() {
		t.Fatalf("processOf(self) = %+v, %v", self, found)
	}
	if got := workerAbove(os.Getpid(), self.Name); got.ID != os.Getpid() || got.Start != self.Start {
		t.Errorf("workerAbove finds %+v, want %+v", got, self)
	}
	if got := workerAbove(os.Getpid(), "no-such-worker"); got.ID != 0 {
		t.Errorf("workerAbove finds %+v, want none", got)
	}
}

// TestJobOver has a runner that ends, one whose id was given to another process, and a token file that is gone.
func TestJobOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a name (with) brackets")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	worker, found := processOf(cmd.Process.Pid)
	if !found {
		t.Fatal("the process is not found")
	}
	for _, c := range []struct {
		name string
		w    orders
		over bool
	}{
		{"running", orders{TokenFile: file, Worker: worker}, false},
		{"no runner in sight", orders{TokenFile: file}, false},
		{"another process", orders{TokenFile: file, Worker: process{ID: worker.ID, Start: worker.Start + "0"}}, true},
		{"no token file", orders{TokenFile: file + "x", Worker: worker}, true},
	} {
		if why := jobOver(c.w); (why != "") != c.over {
			t.Errorf("%s: jobOver = %q, over should be %v", c.name, why, c.over)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if why := jobOver(orders{TokenFile: file, Worker: worker}); why == "" {
		t.Error("jobOver does not see that the runner is gone")
	}
}
