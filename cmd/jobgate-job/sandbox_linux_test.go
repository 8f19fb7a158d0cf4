package main_test

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
)

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
tr '\0' '\n' </proc/$PPID/environ | grep ACTIONS_ID
tr '\0' '\n' </proc/$SHELL_OUTSIDE/environ | grep CI_TOKEN
ls /proc/$SHELL_OUTSIDE/root/; readlink /proc/$SHELL_OUTSIDE/fd/0
grep CapEff /proc/self/status
exit 6`, "http://"+outside.Addr().String())
	for i, uid := range []uint32{0, 65534} {
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			if os.Getuid() != 0 && uid != 0 {
				t.Skip("the right to become another user is missing: run the tests as root")
			}
			env := w.githubJob(map[string]any{"check_run_id": fmt.Sprint(9000 + i)})
			cmd := w.program(env, "exec", "--sandbox", "--", "sh", "-c", script)
			cmd.Dir = readable
			cmd.Env = append(cmd.Env, "TMPDIR="+readable, "HOME="+readable)
			shell := exec.Command("sleep", "60")
			shell.Env = []string{"CI_TOKEN=in-the-shell-above"}
			if os.Getuid() == 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
				shell.SysProcAttr = cmd.SysProcAttr
			}
			if err := shell.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = shell.Process.Kill(); _ = shell.Wait() }()
			cmd.Env = append(cmd.Env, fmt.Sprintf("SHELL_OUTSIDE=%d", shell.Process.Pid))
			got := finish(t, cmd)
			if want := "200\nCapEff:\t0000000000000000\n"; got.code != 6 || got.stdout != want {
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

// TestSandboxName has a server with TLS under a name, which the command finds by that name, with the certificate checked.
// The test's own mount namespace gives the name to the program outside.
func TestSandboxName(t *testing.T) {
	needsNamespaces(t)
	w := newWorld(t, worldConfig{script: testkit.ScriptSay("hello"), host: "jobgate.test"})
	env := w.githubJob(nil)
	env["SSL_CERT_FILE"], env["CURL_CA_BUNDLE"] = filepath.Join(w.folder, "tls.pem"), filepath.Join(w.folder, "tls.pem")
	hosts := filepath.Join(t.TempDir(), "hosts")
	write(t, hosts, "127.0.0.1 localhost jobgate.test\n")
	named := func(args ...string) result {
		cmd := w.program(env)
		unshare, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = unshare
		cmd.Args = append([]string{"unshare", "--user", "--mount", "--map-root-user", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts, binaries.job}, args...)
		return finish(t, cmd)
	}
	got := named("exec", "--sandbox", "--", "sh", "-c", call+`; echo; grep -v localhost /etc/hosts`)
	if got.code != 0 || got.stdout != "200\n127.0.0.1 jobgate.test\n" {
		t.Errorf("exec = %d, stdout %q:\n%s", got.code, got.stdout, got.stderr)
	}
	if s := w.only(); s.EndReason != "closed" || s.Tally.Calls != 1 {
		t.Errorf("session is %s (%s) after %d calls, want closed after one", s.State, s.EndReason, s.Tally.Calls)
	}
	// The same place shows what doctor says of TLS, in a job whose window is not over.
	maps.Copy(env, w.githubJob(map[string]any{"check_run_id": "5"}))
	seen := named("doctor")
	if seen.code != 0 || !strings.Contains(seen.stdout, "warn  tls") || !strings.Contains(seen.stdout, "NODE_EXTRA_CA_CERTS is not") {
		t.Errorf("doctor = %d:\n%s", seen.code, seen.stdout)
	}
	delete(env, "SSL_CERT_FILE")
	unknown := named("doctor")
	if unknown.code != 1 || !strings.Contains(unknown.stdout, "authority that is not known here") {
		t.Errorf("doctor = %d:\n%s", unknown.code, unknown.stdout)
	}
}

// TestSandboxHidesTokenFile has a CI token in a file that the command's user can read.
func TestSandboxHidesTokenFile(t *testing.T) {
	needsNamespaces(t)
	w := newWorld(t, worldConfig{})
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, w.gitlabToken(nil))
	got := w.run(nil, "exec", "--sandbox", "--token-file", file, "--", "sh", "-c", `cat "$1"; echo ran`, "x", file)
	if got.code != 0 || got.stdout != "ran\n" {
		t.Errorf("exec = %d, stdout %q:\n%s", got.code, got.stdout, got.stderr)
	}
}

// TestSandboxRefuses has what a sandbox could not hold: the command is not run.
func TestSandboxRefuses(t *testing.T) {
	needsNamespaces(t)
	w := newWorld(t, worldConfig{})
	for i, c := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		says string
	}{
		{"not found", nil, []string{"no-such-program"}, 127, "not found"},
		{"not runnable", nil, []string{"/etc/passwd"}, 126, "permission denied"},
		{"a folder in /run", map[string]string{"TMPDIR": "/run"}, []string{"echo", "ran"}, 1, "hides /run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := w.githubJob(map[string]any{"check_run_id": fmt.Sprint(9100 + i)})
			cmd := w.program(env, append([]string{"exec", "--sandbox", "--"}, c.args...)...)
			for name, value := range c.env {
				cmd.Env = append(cmd.Env, name+"="+value)
			}
			got := finish(t, cmd)
			if got.code != c.code || got.stdout != "" || !strings.Contains(got.stderr, c.says) {
				t.Errorf("exec = %d, want %d and %q: %q\n%s", got.code, c.code, c.says, got.stdout, got.stderr)
			}
		})
	}
}

// TestSandboxAbsent has a machine that makes no namespaces: the command is not run without them.
func TestSandboxAbsent(t *testing.T) {
	w := newWorld(t, worldConfig{})
	cmd := w.program(w.githubJob(nil), "exec", "--sandbox", "--", "echo", "ran")
	if ok, _ := namespaces(t); ok { // take them away
		unshare, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = unshare
		cmd.Args = append([]string{"unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" "$@"`, binaries.job}, cmd.Args[1:]...)
	}
	got := finish(t, cmd)
	if got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, "echo is not run: --sandbox cannot be had here") {
		t.Errorf("exec = %d, stdout %q:\n%s", got.code, got.stdout, got.stderr)
	}
	if s := w.only(); s.EndReason != "closed" {
		t.Errorf("session is %s (%s), want closed", s.State, s.EndReason)
	}
}
