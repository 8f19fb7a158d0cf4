package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// generation writes a generation of a ConfigMap as the kubelet does, and turns the link to it.
func generation(t *testing.T, dir, name string, files map[string]string) {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	fail(os.Mkdir(filepath.Join(dir, name), 0o700))
	for file, text := range files {
		fail(os.WriteFile(filepath.Join(dir, name, file), []byte(text), 0o600))
	}
	fail(os.Symlink(name, filepath.Join(dir, "..data_tmp")))
	fail(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, generations)))
	// Only now the names that one sees are made, and old ones taken away.
	for file := range files {
		if _, err := os.Lstat(filepath.Join(dir, file)); err != nil {
			fail(os.Symlink(filepath.Join(generations, file), filepath.Join(dir, file)))
		}
	}
	links, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	fail(err)
	for _, link := range links {
		if _, kept := files[filepath.Base(link)]; !kept {
			fail(os.Remove(link))
		}
	}
}

func TestConfigMap(t *testing.T) {
	s := newSourceWorld(t, nil)
	generation(t, s.dir, "..2026_11_24_1", map[string]string{"one.yaml": team("one", "1"), "two.yaml": team("two", "2")})
	s.eventually("the first generation is in force", func() bool { return s.inForce("one") && s.inForce("two") })
	token := s.openAt("2", "21")
	// The second moves a mapping to another file, renames the other, and is swapped at once.
	generation(t, s.dir, "..2026_11_24_2", map[string]string{"both.yaml": "mappings:\n" + indented(team("two", "2")) + indented(team("three", "3"))})
	must(s.world, os.RemoveAll(filepath.Join(s.dir, "..2026_11_24_1")))
	s.eventually("the second generation is in force", func() bool { return s.inForce("three") && !s.inForce("one") })
	if got := s.session(token.SessionID); got.State != "awake" || s.view("two").Revision != 1 {
		t.Errorf("a mapping that moved lost its session: %+v", got)
	}
	if strings.Contains(s.log.String(), "not taken") || strings.Contains(s.log.String(), "cannot be read") {
		t.Errorf("a swap was seen half:\n%s", tail(s.log.String(), 2000))
	}
}

// TestTurnedLink names a link to a folder, as git-sync makes it.
func TestTurnedLink(t *testing.T) {
	base := t.TempDir()
	turn := func(to string) error {
		_ = os.Remove(filepath.Join(base, "next"))
		if err := os.Symlink(to, filepath.Join(base, "next")); err != nil {
			return err
		}
		return os.Rename(filepath.Join(base, "next"), filepath.Join(base, "current"))
	}
	for name, text := range map[string]string{"a": team("one", "1"), "b": team("two", "2")} {
		if err := os.MkdirAll(filepath.Join(base, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, name, "m.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := turn("a"); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, worldConfig{script: holding, extra: fmt.Sprintf("mappings_from: [{folder: %q, every: 1h}]", filepath.Join(base, "current"))})
	token := w.openAt("1", "11")
	held := w.send(token.AccessToken, messageBody("hold", true))
	must(w, turn("b"))
	w.wait(held)
	held.cutWith(t, itsDelete)
	w.openAt("2", "22")
}

// TestCheckout lives in a git checkout: the commit stands in the revision, and a checkout that is under way is waited for.
func TestCheckout(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is missing: run `apt-get install git`")
	}
	s := newSourceWorld(t, nil)
	run := func(args ...string) string {
		t.Helper()
		c := exec.Command(git, append([]string{"-C", filepath.Dir(s.dir), "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("init", "-q", "-b", "main")
	s.write("one.yaml", team("one", "1"))
	run("add", ".")
	run("commit", "-q", "-m", "one")
	lock := filepath.Join(filepath.Dir(s.dir), ".git", "index.lock")
	for range 2 { // the branch as a file, and packed
		s.write("two.yaml", team("two", "2"))
		s.eventually("two is in force", func() bool { return s.inForce("two") })
		if token := s.openAt("1", fmt.Sprint(len(s.sessions(""))+1)); !strings.HasSuffix(s.session(token.SessionID).Origin.Revision, " git:"+run("rev-parse", "HEAD")) {
			t.Errorf("the revision is %q", s.session(token.SessionID).Origin.Revision)
		}
		must(s.world, os.Remove(filepath.Join(s.dir, "two.yaml")))
		s.eventually("two is out", func() bool { return !s.inForce("two") })
		run("pack-refs", "--all")
	}
	must(s.world, os.WriteFile(lock, nil, 0o600))
	must(s.world, os.Remove(filepath.Join(s.dir, "one.yaml")))
	one := s.server.sources.list[0]
	if !one.reader.(sourceBusy).busy() {
		t.Error("a checkout under way is not seen")
	}
	if s.view("one").Deleted {
		t.Error("half a checkout was taken")
	}
	s.write("one.yaml", team("one", "1"))
	must(s.world, os.Remove(lock))
	s.write("three.yaml", team("three", "3"))
	s.eventually("three is in force", func() bool { return s.inForce("three") })
	if s.view("one").Revision != 1 {
		t.Errorf("one went and came back: revision %d", s.view("one").Revision)
	}
}

// TestBucket lives with the objects of a bucket.
func TestBucket(t *testing.T) {
	folder := t.TempDir()
	put := func(key, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(folder, key)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, key), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("jobgate/one.yaml", team("one", "1"))
	put("jobgate/drafts/two.yaml", team("two", "2")) // deeper
	put("other/three.yaml", team("three", "3"))
	put("jobgate/notes.txt", "no mapping")
	w := newWorld(t, worldConfig{script: holding, extra: fmt.Sprintf("mappings_from: [{bucket: %q, prefix: jobgate/, every: 1s}]", "file://"+folder)})
	token := w.openAt("1", "11")
	if o := w.session(token.SessionID).Origin; o == nil || o.From != "file://"+folder+"/jobgate/one.yaml" {
		t.Errorf("the origin is %+v", o)
	}
	if w.inForce("two") || w.inForce("three") {
		t.Error("objects beyond the prefix are taken")
	}
	put("jobgate/four.yaml", team("one", "4"))
	w.eventually("the name that is there twice is refused", func() bool { return !w.sourceViews()[0].OK })
	if why := w.sourceViews()[0].Error; !strings.Contains(why, `jobgate/one.yaml:1: name: there are two mappings "one": the other is at file://`+folder+`/jobgate/four.yaml:1`) {
		t.Errorf("why: %s", why)
	}
	must(w, os.Remove(filepath.Join(folder, "jobgate/four.yaml")))
	w.eventually("it is good again", func() bool { return w.sourceViews()[0].OK })

	// Away: first as a folder that its driver would pass over, then as a bucket.
	must(w, os.Rename(filepath.Join(folder, "jobgate"), filepath.Join(folder, "away")))
	w.eventually("the loss is seen", func() bool { return !w.sourceViews()[0].OK })
	if got := w.session(token.SessionID); got.State != "awake" {
		t.Errorf("the bucket is away and the session %+v", got)
	}
	must(w, os.Rename(filepath.Join(folder, "away"), filepath.Join(folder, "jobgate")))
	w.eventually("it is back", func() bool { return w.sourceViews()[0].OK })
	held := w.send(token.AccessToken, messageBody("hold", true))
	must(w, os.Remove(filepath.Join(folder, "jobgate/one.yaml")))
	w.wait(held)
	held.cutWith(t, itsDelete)
}

// TestURL reads one file over HTTP.
func TestURL(t *testing.T) {
	var answer atomic.Pointer[func(http.ResponseWriter)]
	say := func(f func(http.ResponseWriter)) { answer.Store(&f) }
	text := func(s string) func(http.ResponseWriter) {
		return func(rw http.ResponseWriter) { _, _ = io.WriteString(rw, s) }
	}
	say(text(team("one", "1")))
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/m.yaml" && r.URL.Query().Get("sig") == "confidential" {
			(*answer.Load())(rw)
			return
		}
		_, _ = io.WriteString(rw, team("elsewhere", "9"))
	}))
	defer server.Close()
	w := newWorld(t, worldConfig{script: holding, extra: fmt.Sprintf("mappings_from: [{url: %q, every: 1s}]", server.URL+"/m.yaml?sig=confidential")})
	token := w.openAt("1", "11")
	if o := w.session(token.SessionID).Origin; o == nil || o.From != server.URL+"/m.yaml" {
		t.Errorf("the origin is %+v", o)
	}
	for _, bad := range []struct {
		name string
		say  func(http.ResponseWriter)
		why  string
	}{
		{"an error", func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusInternalServerError) }, "the answer is 500 Internal Server Error"},
		{"none", func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusNotFound) }, "the answer is 404 Not Found"},
		{"a redirect", func(rw http.ResponseWriter) {
			rw.Header().Set("Location", server.URL+"/other?sig=confidential")
			rw.WriteHeader(http.StatusFound)
		}, "is a redirect to " + server.URL + "/other, which is not followed"},
		{"too much", text(strings.Repeat("# more\n", maxSourceFile/6)), "too large"},
		{"nothing", text(""), "the file is empty"},
		{"half", text("mappings:\n  - name: one\n    iss"), "m.yaml:"},
		{"a list", text("- name: one\n"), "a section of keys is wanted here"},
		{"two documents", text(team("one", "1") + "---\n" + team("two", "2")), "a second document begins here"},
		{"aliases that blow up", text(bomb), "excessive aliasing"},
	} {
		say(bad.say)
		w.eventually(bad.name+" is an error", func() bool { v := w.sourceViews()[0]; return !v.OK && strings.Contains(v.Error, bad.why) })
		if got := w.session(token.SessionID); got.State != "awake" {
			t.Errorf("%s: the session is %s (%s)", bad.name, got.State, got.EndReason)
		}
	}
	if strings.Contains(w.log.String(), "confidential") || strings.Contains(w.must("mappings", "ls"), "confidential") {
		t.Error("the URL's query is shown")
	}
	say(text("mappings: []\n"))
	w.eventually("an empty list revokes", func() bool { return w.session(token.SessionID).State == "ended" })
}

const bomb = `mappings: &a [x, x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]
g: [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]
`

// TestFileURL watches one file by the driver of its URL.
func TestFileURL(t *testing.T) {
	file := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(file, []byte(team("one", "1")), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, worldConfig{extra: fmt.Sprintf("mappings_from: [{url: %q, every: 1h}]", "file://"+file)})
	token := w.openAt("1", "11")
	must(w, os.WriteFile(file, []byte(strings.Replace(team("one", "1"), "heads/main", "heads/next", 1)), 0o600))
	w.eventually("the session is matched again", func() bool { return w.session(token.SessionID).EndReason == "mapping_changed" })
	must(w, os.WriteFile(file, []byte(team("two", "2")), 0o600))
	w.eventually("the change is in force", func() bool { return w.inForce("two") && !w.inForce("one") })
}

// TestFoldersThatAreRefused reads folders that are not what they seem.
func TestFoldersThatAreRefused(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "outside.yaml")
	if err := os.WriteFile(secret, []byte(team("outside", "1")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make func(dir string) error
		why  string
	}{
		"none":              {func(dir string) error { return os.Remove(dir) }, "no such file"},
		"a file":            {func(dir string) error { _ = os.Remove(dir); return os.WriteFile(dir, nil, 0o600) }, "not a directory"},
		"a link out":        {func(dir string) error { return os.Symlink(secret, filepath.Join(dir, "a.yaml")) }, "a.yaml: statat a.yaml: path escapes"},
		"a generation out":  {func(dir string) error { return os.Symlink(filepath.Dir(secret), filepath.Join(dir, generations)) }, "path escapes"},
		"a link to nothing": {func(dir string) error { return os.Symlink("b", filepath.Join(dir, "a.yaml")) }, "no such file"},
		"a pipe":            {func(dir string) error { return exec.Command("mkfifo", filepath.Join(dir, "a.yaml")).Run() }, "no regular file"},
		"too large": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "a.yaml"), make([]byte, maxSourceFile+1), 0o600)
		}, "more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "m")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			s := &source{name: dir, reader: &folderReader{path: dir}}
			if got, err := s.read(context.Background()); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("read = %+v, %v; want an error with %q", got, err, c.why)
			}
		})
	}
}

// TestSourcesIndependent has a mistake in one source and a revocation in another.
func TestSourcesIndependent(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "two.yaml"), []byte(team("two", "2")), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSourceWorld(t, map[string]string{"one.yaml": team("one", "1")})
	// A source that is added, by SIGHUP.
	s.config = strings.Replace(s.config, "mappings_from: [", fmt.Sprintf("mappings_from: [{folder: %q}, ", other), 1)
	s.writeConfig(s.config)
	s.hangUp(reloaded)
	token := s.openAt("2", "22")
	s.write("one.yaml", "nonsense\n")
	s.eventually("the mistake is seen", func() bool { return !s.sourceViews()[1].OK })
	must(s.world, os.Remove(filepath.Join(other, "two.yaml")))
	s.refusedSoon(token.AccessToken)
	if !s.inForce("one") {
		t.Error("the source with the mistake lost its mapping")
	}
	// The configuration file is not held up by it, and a mapping moves from it to a source without a gap.
	agents := s.open()
	s.writeConfig(s.without())
	must(s.world, os.WriteFile(filepath.Join(other, "agents.yaml"), []byte("mappings:"+strings.SplitN(s.config, "\nmappings:", 2)[1]), 0o600))
	s.hangUp(reloaded)
	if got := s.session(agents.SessionID); got.State != "awake" || got.Revision != 1 {
		t.Errorf("a mapping that moved to a source lost its session: %+v", got)
	}
	// A restart with the mistake still there goes on with what was in force.
	s.stop()
	s.start()
	if v := s.sourceViews(); v[1].OK || !s.inForce("one") || !s.inForce("agents") {
		t.Errorf("after a restart: %+v", v)
	}
	// Taken out of the configuration, a source's mappings are revoked.
	s.writeConfig(strings.Replace(s.without(), fmt.Sprintf(", {folder: %q}", s.dir), "", 1))
	s.hangUp(reloaded)
	if s.inForce("one") || !s.inForce("agents") {
		t.Error("a source that is no source any more is still in force")
	}
}

// refusedSoon waits until a token's session is over.
func (w *world) refusedSoon(token string) {
	w.t.Helper()
	w.eventually("the session is over", func() bool {
		return len(w.sessions("?state=open")) == 0
	})
	w.refused(token, itsDelete)
}

// TestFirstStart needs every source.
func TestFirstStart(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string)
		why     string
	}{
		"away": {func(dir string) { _ = os.Remove(dir) }, "cannot be read, and nothing is known of what it said before"},
		"wrong": {func(dir string) {
			_ = os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("name: a\nissuer: gitlab\n"), 0o600)
		}, "a.yaml:2: issuer: "},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSourceWorld(t, nil)
			s.stop()
			must(s.world, os.RemoveAll(filepath.Join(s.folder, "sources")))
			c.prepare(s.dir)
			cfg, err := loadConfig(s.file())
			must(s.world, err)
			_, err = newServer(t.Context(), cfg, environment{Getenv: s.getenv, Stdout: io.Discard, Stderr: io.Discard}, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("start = %v, want %q", err, c.why)
			}
			if code, _, errs := s.command("check"); code != exitFailed || !strings.Contains(errs, "mappings_from[0]") && !strings.Contains(errs, c.why) {
				t.Errorf("check = %d %s", code, errs)
			}
		})
	}
}

// TestCheckSources lints what sources say, with their files and lines.
func TestCheckSources(t *testing.T) {
	s := newSourceWorld(t, map[string]string{"named.yaml": strings.Replace(team("named", "1"), "ref:", "actor: mona, ref:", 1)})
	out := s.must("check")
	if !strings.Contains(out, filepath.Join(s.dir, "named.yaml")+":3: match.actor: ") || !strings.Contains(out, "2 mappings") {
		t.Errorf("check says\n%s", out)
	}
	empty := strings.Replace(s.config, fmt.Sprintf("{folder: %q}", s.dir), fmt.Sprintf("{folder: %q}, {folder: %q}", s.dir, t.TempDir()), 1)
	s.writeConfig(empty)
	if out := s.must("check"); !strings.Contains(out, "(empty-source)") {
		t.Errorf("check says\n%s", out)
	}
	s.writeConfig(s.config)
	code, _, errs := s.apply(team("named", "1"), "--yes")
	if code != exitFailed || !strings.Contains(errs, `mapping "named" is from `+filepath.Join(s.dir, "named.yaml")+"; change it there") {
		t.Errorf("apply over a source's mapping = %d %s", code, errs)
	}
	shown := s.must("mappings", "show", "named")
	if !strings.Contains(shown, "# revision 1 from "+filepath.Join(s.dir, "named.yaml")+" at sha256:") {
		t.Errorf("shown as\n%s", shown)
	}
	// A tombstone holds against the file, until the mapping is restored.
	s.must("mappings", "delete", "named")
	s.write("more.yaml", team("more", "2"))
	s.eventually("more is in force", func() bool { return s.inForce("more") })
	if s.inForce("named") {
		t.Error("a change beside it brought a deleted mapping back")
	}
	s.must("mappings", "restore", "named")
	if !s.inForce("named") {
		t.Error("it is not restored")
	}
	t.Log(s.must("mappings", "ls"))
	t.Log(s.must("sessions", "show", s.openAt("2", "33").SessionID))
}
