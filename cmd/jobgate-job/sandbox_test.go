package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
)

// needsNamespaces skips a test where this machine makes no user namespaces.
func needsNamespaces(t *testing.T) {
	t.Helper()
	needs(t, "curl", "apt-get install curl")
	needs(t, "unshare", "apt-get install util-linux")
	if out, err := exec.Command("unshare", "--user", "--net", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "tmpfs", "/run").CombinedOutput(); err != nil {
		t.Skipf("this machine makes no user namespaces (%s): run the tests where `unshare --user --net true` works", strings.TrimSpace(string(out)))
	}
}

// TestSandbox runs a command that reaches Jobgate and nothing else, as root and as another user.
func TestSandbox(t *testing.T) {
	needsNamespaces(t)
	w := newWorld(t, worldConfig{script: testkit.ScriptSay("hello")})
	outside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	readable := t.TempDir()
	for dir := readable; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(binaries.job), 0o755); err != nil {
		t.Fatal(err)
	}
	script := call + fmt.Sprintf(`
echo
curl -sS --max-time 5 %s && echo reached outside
curl -sS --max-time 5 http://192.0.2.1/ && echo reached the network
ls -A /run; ls -A /var/run/
umount /run 2>/dev/null && echo unmounted
unshare --user --mount --map-root-user umount /run 2>/dev/null && echo unmounted in a namespace
grep -c . /proc/$PPID/environ 2>/dev/null
tr '\0' '\n' </proc/$PPID/environ 2>/dev/null | grep ACTIONS_ID
grep CapEff /proc/self/status
exit 6`, "http://"+outside.Addr().String())
	for i, uid := range []uint32{0, 65534} {
		if os.Getuid() != 0 && uid != 0 {
			continue
		}
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			env := w.githubJob(map[string]any{"check_run_id": fmt.Sprint(9000 + i)})
			cmd := w.program(env, "exec", "--sandbox", "--", "sh", "-c", script)
			cmd.Dir = readable
			cmd.Env = append(cmd.Env, "TMPDIR="+readable, "HOME="+readable)
			if os.Getuid() == 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			}
			got := finish(t, cmd)
			if want := "200\nCapEff:\t0000000000000000\n"; got.code != 6 || strings.ReplaceAll(got.stdout, "\n0\n", "\n") != want {
				t.Errorf("exec = %d, want 6 and %q: %q\n%s", got.code, want, got.stdout, got.stderr)
			}
			_ = os.Remove(filepath.Join(readable, "answer.json"))
		})
	}
	for _, s := range w.sessions() {
		if s.EndReason != "closed" || s.Tally.Calls != 1 {
			t.Errorf("session is %s (%s) after %d calls, want closed after one", s.State, s.EndReason, s.Tally.Calls)
		}
	}
}
