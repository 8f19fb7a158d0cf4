package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/proxy/record"
)

// team is a mapping of a source, for a repository of its own.
func team(name, repository string) string {
	return fmt.Sprintf(`name: %s
issuer: github
match: {repository_owner_id: "123456", repository_id: %q, ref: refs/heads/main}
grants:
  - connection: anthropic
    allow: ["POST /v1/messages"]
    limits: {requests: 5}
`, name, repository)
}

// sourceWorld has a folder of mappings beside its configuration.
type sourceWorld struct {
	*world
	dir string
}

func newSourceWorld(t *testing.T, files map[string]string) *sourceWorld {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mappings.d")
	s := &sourceWorld{dir: dir}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.world = newWorld(t, worldConfig{script: holding, extra: fmt.Sprintf("mappings_from: [{folder: %q}]", dir)})
	return s
}

func (s *sourceWorld) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// view returns a mapping as the admin API shows it.
func (w *world) view(name string) (m api.MappingView) {
	w.t.Helper()
	_ = w.admin("GET", "/v1/mappings/"+name, nil, &m)
	return m
}

func (w *world) inForce(name string) bool { m := w.view(name); return m.Revision > 0 && !m.Deleted }

// sourceViews returns the sources as the admin API shows them.
func (w *world) sourceViews() []api.SourceView {
	w.t.Helper()
	var list api.MappingList
	must(w, w.admin("GET", "/v1/mappings", nil, &list))
	return list.Sources
}

func (w *world) metric(line string) bool {
	w.t.Helper()
	resp, err := http.Get("http://" + w.server.control.Addr().String() + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := readAtMost(resp.Body, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Contains(string(raw), line)
}

func (w *world) openAt(repository, run string) api.Token {
	w.t.Helper()
	status, token, bad := w.exchange(w.token(w.job(map[string]any{"repository_id": repository, "run_id": run, "check_run_id": run})), nil)
	if status != http.StatusOK {
		w.t.Fatalf("exchange = %d %+v", status, bad)
	}
	return token
}

// TestFolder lives with a folder of mappings over the whole server: a file opens, an edit rules and matches again, a
// mistake changes nothing, a deletion cuts, and a folder that is gone deletes nothing.
func TestFolder(t *testing.T) {
	s := newSourceWorld(t, map[string]string{"README.md": "no mapping", ".hidden.yaml": "nonsense: ["})
	s.openFails(s.token(s.job(map[string]any{"repository_id": "1"})), "invalid_target")

	s.write("one.yaml", team("one", "1"))
	s.write("more.yml", "mappings:\n"+indented(team("two", "2"))+indented(team("three", "3")))
	s.eventually("the mappings are in force", func() bool { return s.inForce("one") && s.inForce("two") && s.inForce("three") })
	token, other := s.openAt("1", "11"), s.openAt("2", "12")
	opened := s.session(token.SessionID)
	view := s.sourceViews()[0]
	if opened.Origin == nil || opened.Origin.From != filepath.Join(s.dir, "one.yaml") || opened.Origin.Revision != view.Revision || !strings.HasPrefix(view.Revision, "sha256:") {
		t.Errorf("the session's origin is %+v, the source %+v", opened.Origin, view)
	}
	if m := s.view("three"); m.Source != "file" || m.Origin == nil || m.Origin.From != filepath.Join(s.dir, "more.yml") || m.By != m.Origin.From {
		t.Errorf("three is %+v of %+v", m, m.Origin)
	}

	// An edit rules the next call of an open session, and the source's new revision stands in it.
	s.write("one.yaml", strings.Replace(team("one", "1"), "requests: 5", "requests: 1", 1))
	s.eventually("the edit is in force", func() bool { return s.view("one").Revision == 2 })
	if got := s.session(token.SessionID); got.Revision != 2 || got.Origin.Revision == opened.Origin.Revision {
		t.Errorf("after the edit the session is ruled by %d of %+v", got.Revision, got.Origin)
	}
	if s.view("two").Revision != 1 {
		t.Errorf("two was not edited and is at revision %d", s.view("two").Revision)
	}

	// A mistake, in a file beside another that is deleted: neither happens, and the log says where, once.
	inForce := s.sourceViews()[0].Revision
	broken := strings.Replace(team("one", "1"), "limits:", "limit:", 1)
	must(s.world, os.Remove(filepath.Join(s.dir, "more.yml")))
	s.write("one.yaml", broken)
	s.eventually("the mistake is seen", func() bool { return !s.sourceViews()[0].OK })
	where := filepath.Join(s.dir, "one.yaml") + ":7: unknown key \\\"limit\\\""
	if log := s.log.String(); strings.Count(log, where) != 1 {
		t.Errorf("the log has not one %s:\n%s", where, tail(log, 2000))
	}
	s.lookAgain()
	if log := s.log.String(); strings.Count(log, where) != 1 {
		t.Errorf("the log repeats %s", where)
	}
	if got := s.session(other.SessionID); got.State != "awake" || s.view("one").Revision != 2 || !s.inForce("two") {
		t.Errorf("a mistake changed something: %+v", got)
	}
	if out := s.must("mappings", "ls"); !strings.Contains(out, "IN ERROR since") || !strings.Contains(out, "one.yaml:7: unknown key") || !strings.Contains(out, "folder "+s.dir) {
		t.Errorf("mappings ls says nothing of it:\n%s", out)
	}
	if v := s.sourceViews()[0]; v.Revision != inForce || v.Since == nil || v.Mappings != 3 {
		t.Errorf("the source is %+v", v)
	}
	if !s.metric(fmt.Sprintf("jobgate_mappings_source_ok{source=%q} 0", s.dir)) {
		t.Error("the metric says that all is well")
	}
	resp, err := http.Get(s.base() + "/readyz")
	must(s.world, err)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("a mistake in a mapping makes the server unready: %d", resp.StatusCode)
	}

	// Mended, with more.yml still gone: its sessions end, the stream is cut within a second.
	held := s.send(other.AccessToken, messageBody("hold", true))
	s.write("one.yaml", team("one", "1"))
	s.wait(held)
	held.cutWith(t, itsDelete)
	s.refused(other.AccessToken, itsDelete)
	s.eventually("all is well", func() bool { return s.sourceViews()[0].OK })
	if !s.metric(fmt.Sprintf("jobgate_mappings_source_ok{source=%q} 1", s.dir)) {
		t.Error("the metric does not say that all is well")
	}

	// The folder is gone: that is not an empty one.
	must(s.world, os.Rename(s.dir, s.dir+".away"))
	s.eventually("the loss is seen", func() bool { return !s.sourceViews()[0].OK })
	if got := s.session(token.SessionID); got.State != "awake" {
		t.Errorf("the folder is away and the session %s (%s)", got.State, got.EndReason)
	}
	// Nor is it after a restart: what was in force goes on.
	s.stop()
	s.start()
	if got := s.session(token.SessionID); got.State != "awake" || got.Origin == nil || got.Origin.From != filepath.Join(s.dir, "one.yaml") {
		t.Errorf("after a restart without the folder the session is %+v", got)
	}
	if status, body := s.ask(token.AccessToken, "still there?"); status != http.StatusOK {
		t.Errorf("a call = %d %s", status, body)
	}
	must(s.world, os.Rename(s.dir+".away", s.dir))
	s.eventually("it is back", func() bool { return s.sourceViews()[0].OK })

	held = s.send(token.AccessToken, messageBody("hold", true))
	start := time.Now()
	must(s.world, os.Remove(filepath.Join(s.dir, "one.yaml")))
	s.wait(held)
	held.cutWith(t, itsDelete)
	if took := held.ended.Sub(start); took > time.Second {
		t.Errorf("the stream was cut after %s", took)
	}
	if v := s.sourceViews()[0]; v.Mappings != 0 || !v.OK { // an emptied folder is an empty set
		t.Errorf("the source is %+v", v)
	}
	lines := s.events(token.SessionID)
	first, last := decode[record.SessionOpened](t, lines[0]), decode[record.SessionEnded](t, lines[len(lines)-1])
	if first.Origin == nil || *first.Origin != (record.Origin{From: opened.Origin.From, Revision: opened.Origin.Revision}) || first.Revision != 1 {
		t.Errorf("the record opens with %+v of %+v", first, first.Origin)
	}
	if last.By != filepath.Join(s.dir, "one.yaml") {
		t.Errorf("the record says that %q ended it", last.By)
	}
	if got := s.session(token.SessionID); got.Origin == nil || got.Origin.Revision != opened.Origin.Revision {
		t.Errorf("a session that is over tells of %+v, not of its opening", got.Origin)
	}
}

// lookAgain reads the first source once more, as a tick does.
func (w *world) lookAgain() {
	w.t.Helper()
	one := w.server.sources.list[0]
	c, err := one.look(w.t.Context())
	w.server.sources.saw(one, c, err)
}

func indented(text string) string {
	return "  - " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}
