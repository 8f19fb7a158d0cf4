package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/jobgate/jobgate/internal/testkit"
)

// hostile moves cursors, changes colours, turns the direction of reading and fakes lines.
const hostile = "\x1b[2J\x1b[31mred\u202egnp.exe\u2066\r\nFAKE  approved by ana\u0007\u200b"

// cleanFor fails where a text could do something to a terminal.
func cleanFor(t *testing.T, where, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && r != '\t' && (!unicode.IsPrint(r) || r == '\u202e' || r == '\u2066' || r == '\u200b') {
			t.Errorf("%s holds %U:\n%q", where, r, tail(text, 800))
			return
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "FAKE") {
			t.Errorf("%s lets a job write a line of its own:\n%s", where, text)
		}
	}
}

// TestOperatorsDay does what an operator does, in order, while a job with a hostile branch and command runs.
func TestOperatorsDay(t *testing.T) {
	w := newWorld(t, worldConfig{match: `{repository_owner_id: "123456", repository_id: "456789"}`, script: func(r testkit.Request) testkit.Response {
		if strings.Contains(r.Body.Messages[len(r.Body.Messages)-1].Content.Text(), "release") {
			return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "I say " + hostile}, bash("make release # " + hostile)}}
		}
		return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "hello " + hostile}, bash("curl " + hostile)}}
	}})
	show := func(args ...string) string {
		t.Helper()
		out := w.must(args...)
		t.Logf("$ jobgate %s\n%s", strings.Join(args, " "), out)
		cleanFor(t, "jobgate "+strings.Join(args, " "), out)
		parsed := w.must(append([]string{"-o", "json"}, args...)...)
		var v any
		cleanFor(t, "jobgate -o json "+strings.Join(args, " "), parsed)
		if err := json.Unmarshal([]byte(parsed), &v); err != nil {
			t.Errorf("-o json of jobgate %s: %v\n%s", strings.Join(args, " "), err, parsed)
		}
		return out
	}
	has := func(out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
	}
	has(show("version"), "jobgate")
	has(show("check"), "good; 1 connection, 1 mapping")
	has(show("mappings", "ls"), "agents", "in force", "file")
	has(show("mappings", "show", "agents"), "repository_owner_id", "revision 1")
	has(show("sessions", "ls"), "no session is open")
	has(show("approvals", "ls"), "no question waits")

	_, token, bad := w.exchange(w.token(w.job(map[string]any{"ref": "refs/heads/" + hostile, "workflow": hostile})), nil)
	if token.SessionID == "" {
		t.Fatalf("%+v", bad)
	}
	w.ask(token.AccessToken, "hello")
	has(show("sessions", "ls"), token.SessionID, "awake", "agents")
	has(show("sessions", "show", token.SessionID), token.SessionID, "awake", "1 denied", "octo-org/octo-repo")

	w.slack.SetDown(true) // questions are answered here all the same
	var calls []*liveCall
	for i, verb := range []string{"approve", "deny"} {
		calls = append(calls, w.send(token.AccessToken, messageBody("release "+verb, true)))
		asked := w.question()
		has(show("approvals", "ls"), asked.ID, "releases", "make release", "octo-org/octo-repo")
		out := w.must("approvals", verb, asked.ID, "-r", "because "+hostile)
		t.Logf("$ jobgate approvals %s\n%s", verb, out)
		cleanFor(t, "approvals "+verb, out)
		body := w.wait(calls[i])
		if ran := strings.Contains(body, "input_json_delta") && strings.Contains(body, "make release"); ran != (verb == "approve") {
			t.Errorf("after %s the job gets\n%s", verb, body)
		}
		if code, _, errs := w.command("approvals", verb, asked.ID); code != exitFailed || !strings.Contains(errs, "already") {
			t.Errorf("a second vote = %d %s", code, errs)
		}
	}
	has(show("approvals", "ls", "-a"), "approved", "denied", "operator on the control socket")

	mapping := filepath.Join(t.TempDir(), "m.yaml")
	text := "name: extra\nissuer: github\nmatch: {repository_owner_id: \"123456\", repository_id: \"9\"}\ngrants: [{connection: anthropic, allow: [\"POST /v1/messages\"]}]\n"
	if err := os.WriteFile(mapping, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	once := func(args ...string) string {
		t.Helper()
		out := w.must(args...)
		t.Logf("$ jobgate %s\n%s", strings.Join(args, " "), out)
		return out
	}
	has(once("mappings", "apply", "-f", mapping, "--yes"), "extra", "in force")
	has(once("mappings", "delete", "extra"), "extra", "deleted")
	has(once("mappings", "delete", "agents"), "agents", "ended")
	has(show("mappings", "ls"), "deleted by operator on the control socket", "extra")
	has(once("mappings", "restore", "agents"), "agents", "in force again")
	has(show("sessions", "ls", "-a"), token.SessionID, "mapping_deleted")

	w.events(token.SessionID)
	has(show("archive", "ls"), token.SessionID, "finished")
	has(show("archive", "show", token.SessionID), "its mapping was deleted", "3")
	has(show("archive", "verify"), "good: signed, whole")
	replay := w.must("archive", "replay", token.SessionID)
	t.Logf("$ jobgate archive replay\n%s", replay)
	cleanFor(t, "archive replay", replay)
	has(replay, "DENIED", "no-network", "asks people", "approved", "denied", "hello", "session   ended")
	export := w.must("archive", "export", token.SessionID)
	for line := range strings.SplitSeq(strings.TrimSpace(export), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the export is no JSON: %s", line)
		}
	}

	// From another machine: the bucket and the pinned key are enough.
	resp, err := http.Get(w.base() + "/.well-known/jobgate-archive.json")
	if err != nil {
		t.Fatal(err)
	}
	pinned := filepath.Join(t.TempDir(), "pinned.json")
	raw := new(bytes.Buffer)
	_, _ = raw.ReadFrom(resp.Body)
	_ = resp.Body.Close()
	if err := os.WriteFile(pinned, raw.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	bucket := w.server.b.config.Archive.Bucket
	w.stop()
	elsewhere := func(args ...string) (int, string, string) {
		t.Helper()
		var stdout, stderr syncBuffer
		code := run(t.Context(), append(args, "--bucket", bucket, "-c", filepath.Join(t.TempDir(), "none.yaml")),
			environment{Getenv: func(string) string { return "" }, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr})
		return code, stdout.String(), stderr.String()
	}
	if code, out, errs := elsewhere("archive", "verify", "--key", pinned); code != exitDone || !strings.Contains(out, "good: signed, whole") {
		t.Errorf("verify elsewhere = %d %s %s", code, out, errs)
	}
	if code, _, errs := elsewhere("archive", "verify"); code != exitUsage || !strings.Contains(errs, "--key") {
		t.Errorf("verify without a key = %d %s", code, errs)
	}
	if code, out, errs := elsewhere("archive", "replay", token.SessionID); code != exitDone || !strings.Contains(out, "DENIED") {
		t.Errorf("replay elsewhere = %d %s %s", code, out, errs)
	}
	parts, err := filepath.Glob(filepath.Join(w.folder, "archive", "v1", "sessions", "*", token.SessionID, "events-*"))
	if err != nil || len(parts) == 0 {
		t.Fatalf("no parts: %v", err)
	}
	part, err := os.ReadFile(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	part[len(part)/2] ^= 1
	if err := os.WriteFile(parts[0], part, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := elsewhere("archive", "verify", "--key", pinned)
	t.Logf("$ jobgate archive verify (spoilt)\n%s%s", out, errs)
	if code != exitFailed || !strings.Contains(out, "BAD") {
		t.Errorf("verify of a spoilt archive = %d %s %s", code, out, errs)
	}
}

// TestWrongUse has one row for each way to get a command wrong, with its exit code.
func TestWrongUse(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte(w.config+"nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url := "http://" + w.server.control.Addr().String()
	for _, c := range []struct {
		args []string
		env  map[string]string
		code int
		says string
	}{
		{args: []string{"nonsense"}, code: exitUsage, says: "unknown command"},
		{args: []string{"sessions", "nonsense"}, code: exitUsage, says: "nonsense"},
		{args: []string{"sessions", "ls", "--nonsense"}, code: exitUsage, says: "unknown flag"},
		{args: []string{"sessions", "ls", "-z"}, code: exitUsage, says: "unknown shorthand"},
		{args: []string{"sessions", "show"}, code: exitUsage, says: "a session's id"},
		{args: []string{"-o", "xml", "version"}, code: exitUsage, says: "text or json"},
		{args: []string{"mappings", "apply"}, code: exitUsage, says: "-f"},
		{args: []string{"serve", "now"}, code: exitUsage, says: "now"},
		{args: []string{"archive", "ls", "now"}, code: exitUsage, says: "now"},
		{args: []string{"check", "-c", bad}, code: exitFailed, says: "nonsense"},
		{args: []string{"check", "-c", bad + ".not"}, code: exitFailed, says: "-c"},
		{args: []string{"sessions", "show", "ses_nothing"}, code: exitFailed, says: "ses_nothing"},
		{args: []string{"sessions", "close", "ses_nothing"}, code: exitFailed, says: "ses_nothing"},
		{args: []string{"mappings", "show", "nobody"}, code: exitFailed, says: "nobody"},
		{args: []string{"mappings", "delete", "nobody"}, code: exitFailed, says: "nobody"},
		{args: []string{"mappings", "restore", "agents"}, code: exitFailed, says: "agents"},
		{args: []string{"approvals", "approve", "a_nothing"}, code: exitFailed, says: "a_nothing"},
		{args: []string{"archive", "show", "ses_nothing"}, code: exitFailed, says: "ses_nothing"},
		{args: []string{"archive", "ls", "--bucket", "file:///nowhere/at/all"}, code: exitFailed, says: "/nowhere/at/all"},
		{args: []string{"sessions", "ls"}, env: map[string]string{"JOBGATE_URL": url, "JOBGATE_ADMIN_TOKEN": "wrong-token"}, code: exitDenied, says: "token"},
		{args: []string{"sessions", "ls"}, env: map[string]string{"JOBGATE_URL": url}, code: exitUsage, says: "JOBGATE_ADMIN_TOKEN"},
		{args: []string{"sessions", "ls"}, env: map[string]string{"JOBGATE_URL": "http://example.com", "JOBGATE_ADMIN_TOKEN": "x"}, code: exitUsage, says: "https"},
		{args: []string{"sessions", "ls"}, env: map[string]string{"JOBGATE_URL": "not a url", "JOBGATE_ADMIN_TOKEN": "x"}, code: exitUsage, says: "JOBGATE_URL"},
		{args: []string{"sessions", "ls"}, env: map[string]string{"JOBGATE_URL": url, "JOBGATE_ADMIN_TOKEN": worldAdmin}, code: exitDone},
		{args: []string{"sessions", "show", hostile}, code: exitFailed, says: "session"},
		{args: []string{hostile}, code: exitUsage, says: "unknown command"},
	} {
		code, out, errs := w.commandEnv(c.env, c.args...)
		t.Logf("$ jobgate %q = %d\n%s%s", c.args, code, out, errs)
		if code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("jobgate %q = %d %s, want %d and %q", c.args, code, errs, c.code, c.says)
		}
		if strings.Contains(errs, worldAdmin) || strings.Contains(errs, "wrong-token") {
			t.Errorf("jobgate %q shows a token: %s", c.args, errs)
		}
		cleanFor(t, strings.Join(c.args, " "), errs)
	}
	w.stop()
	if code, _, errs := w.command("sessions", "ls"); code != exitFailed || !strings.Contains(errs, "jobgate serve") {
		t.Errorf("without a server = %d %s", code, errs)
	}
}

// TestMaskCommand masks a stream with the configuration's secrets, and with the detectors alone.
func TestMaskCommand(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	in := "key " + worldKey + " and ghp_0123456789abcdefghijABCDEFGHIJ012345 end\n"
	for name, file := range map[string]string{"with the configuration": w.file(), "alone": ""} {
		args := []string{"mask"}
		if file != "" {
			args = append(args, "-c", file)
		} else {
			t.Chdir(t.TempDir())
		}
		var out, errs syncBuffer
		code := run(context.Background(), args, environment{Getenv: w.getenv, Stdin: strings.NewReader(in), Stdout: &out, Stderr: &errs})
		if got := out.String(); code != exitDone || strings.Contains(got, worldKey) || strings.Contains(got, "ghp_0123") || !strings.HasPrefix(got, "key [masked:") || !strings.HasSuffix(got, " end\n") {
			t.Errorf("%s: %d %q %s", name, code, got, errs.String())
		}
	}
}

// TestDemo runs the demo to its end, with nobody at a terminal.
func TestDemo(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var out, errs syncBuffer
	start := time.Now()
	code := run(t.Context(), []string{"demo"}, environment{Getenv: func(string) string { return "" }, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs})
	story := out.String()
	t.Logf("%s\n%s", story, errs.String())
	if code != exitDone || time.Since(start) > time.Minute {
		t.Errorf("demo = %d after %s", code, time.Since(start))
	}
	for _, want := range []string{"exchange", "reads the refusal and goes on", "approval", "jobgate mappings delete", "is cut", "good: signed, whole", "the key stands nowhere in it"} {
		if !strings.Contains(story, want) {
			t.Errorf("the story does not tell %q", want)
		}
	}
	if strings.Contains(story, demoKey) {
		t.Error("the story shows the key")
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
