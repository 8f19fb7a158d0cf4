package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/api"
)

const appliedMapping = `name: nightly
issuer: github
match: {repository_owner_id: "123456", repository_id: "456789", ref: refs/heads/main}
grants:
  - connection: anthropic
    allow: ["POST /v1/messages"]
    limits: {requests: 5}
`

// apply runs mappings apply with a file of this text on the standard input, or in the folder.
func (w *world) apply(text string, args ...string) (code int, out, errs string) {
	w.t.Helper()
	file := filepath.Join(w.folder, "mapping.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.command(append([]string{"mappings", "apply", "-f", file}, args...)...)
}

func TestApply(t *testing.T) {
	w := newWorld(t, worldConfig{})
	changed := strings.NewReplacer("requests: 5", "requests: 7", "heads/main", "heads/next").Replace(appliedMapping)
	opened := ""
	for _, step := range []struct {
		name string
		text string
		args []string
		code int
		out  []string
		errs string
	}{
		{"nobody can be asked", appliedMapping, nil, exitUsage, []string{"mapping nightly is new:\n", "  + name: nightly\n", "  +   ref: refs/heads/main\n"}, "nothing was changed"},
		{"shown only", appliedMapping, []string{"--dry-run"}, exitDone, []string{"mapping nightly is new:\n"}, ""},
		{"applied", appliedMapping, []string{"--yes"}, exitDone, []string{"mapping nightly: revision 1 is in force, 0 open sessions\n"}, ""},
		{"a change while nothing is open", strings.Replace(appliedMapping, "requests: 5", "requests: 6", 1), []string{"--dry-run"}, exitDone, []string{"no session of it is open\n"}, ""},
		{"the same again", appliedMapping, nil, exitDone, []string{"mapping nightly says this already: revision 1\n"}, ""},
		{"a change that ends a session", changed, []string{"--dry-run"}, exitDone, []string{"mapping nightly, revision 1, changes:\n",
			"  -   ref: refs/heads/main\n", "  +   ref: refs/heads/next\n", "  -       requests: 5\n", "  +       requests: 7\n",
			"ENDS 1 open session at once, open streams are cut; 0 go on:\n", "claim ref is 'refs/heads/main', wanted 'refs/heads/next'\n"}, ""},
		{"a change that ends none", strings.Replace(appliedMapping, "requests: 5", "requests: 9", 1), []string{"--yes"}, exitDone,
			[]string{"no open session ends; the new grants rule 1 open session from the next call on\n", "revision 2 is in force, 1 open session\n"}, ""},
		{"one that is refused", strings.Replace(appliedMapping, "issuer: github", "issuer: gitlab", 1), []string{"--yes"}, exitFailed, nil, "is no issuer of this deployment"},
		{"an unknown key", appliedMapping + "grant: {}\n", []string{"--yes"}, exitFailed, nil, "mapping.yaml:8: unknown key"},
		{"the file's own", strings.Replace(appliedMapping, "name: nightly", "name: agents", 1), []string{"--yes"}, exitFailed, nil, "jobgate.yaml; change it there"},
		{"both flags", appliedMapping, []string{"--yes", "--dry-run"}, exitUsage, nil, "take one of them"},
	} {
		if step.name == "a change that ends a session" {
			_, token, refusal := w.exchange(w.token(w.job(nil)), map[string][]string{"mapping": {"nightly"}})
			if opened = token.SessionID; opened == "" {
				t.Fatalf("no session: %+v", refusal)
			}
		}
		code, out, errs := w.apply(step.text, step.args...)
		if code != step.code || !strings.Contains(errs, step.errs) {
			t.Errorf("%s: exit code %d, want %d: %s", step.name, code, step.code, errs)
		}
		for _, want := range step.out {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in:\n%s", step.name, want, out)
			}
		}
		if strings.HasPrefix(step.name, "a change that ends a session") && !strings.Contains(out, opened) {
			t.Errorf("%s: no %s in:\n%s", step.name, opened, out)
		}
	}
	var m api.MappingView
	if err := json.Unmarshal([]byte(w.must("-o", "json", "mappings", "show", "nightly")), &m); err != nil || m.Revision != 2 || m.Spec.Grants[0].Limits[0].Requests != 9 {
		t.Errorf("in force: %+v, %v", m, err)
	}
	shown := w.must("mappings", "show", "nightly")
	if !strings.Contains(shown, "match:\n  ref: refs/heads/main\n  repository_id: \"456789\"\n") {
		t.Errorf("shown as nobody writes it:\n%s", shown)
	}
}

func TestApplyInJSON(t *testing.T) {
	w := newWorld(t, worldConfig{})
	code, out, _ := w.apply(appliedMapping, "-o", "json", "--dry-run")
	var p api.MappingPreview
	if err := json.Unmarshal([]byte(out), &p); err != nil || code != exitDone || !p.Changed || p.After.Name != "nightly" {
		t.Errorf("a dry run: exit code %d, %s, %v", code, out, err)
	}
	if code, out, _ = w.apply(appliedMapping, "-o", "json"); code != exitUsage || out != "" {
		t.Errorf("without --yes: exit code %d, %s", code, out)
	}
	for _, again := range []bool{false, true} {
		code, out, _ = w.apply(appliedMapping, "-o", "json", "-y")
		var m api.MappingView
		if err := json.Unmarshal([]byte(out), &m); err != nil || code != exitDone || m.Revision != 1 || m.Source != "api" {
			t.Errorf("applied, again %v: exit code %d, %s, %v", again, code, out, err)
		}
	}
}

// What suggest prints can be piped into apply, and the job that it was made of is served.
func TestSuggestAndApply(t *testing.T) {
	w := newWorld(t, worldConfig{})
	token := w.token(w.job(map[string]any{"repository_id": "99", "repository": "octo/new-tools", "ref": "refs/heads/dev"}))
	pipe := func(stdin string, args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(context.Background(), append([]string{"-c", w.file()}, args...), environment{Getenv: w.getenv, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr})
		return code, stdout.String(), stderr.String()
	}
	code, suggested, errs := pipe(token, "mappings", "suggest", "--from-token", "-")
	if code != exitDone || !strings.Contains(suggested, "name: new-tools\n") || !strings.Contains(errs, "not verified") || strings.Contains(errs, "issuers") {
		t.Fatalf("exit code %d, %s\n%s", code, suggested, errs)
	}
	if code, out, errs := pipe(suggested, "mappings", "apply", "-f", "-", "--yes"); code != exitDone {
		t.Fatalf("exit code %d, %s\n%s", code, out, errs)
	}
	if status, got, refusal := w.exchange(token, nil); status != 200 || got.Mapping != "new-tools" {
		t.Errorf("the job is not served: %d, %+v", status, refusal)
	}
}

func TestSuggestWithoutConfig(t *testing.T) {
	w := newWorld(t, worldConfig{})
	token := w.token(w.job(nil)) // of an issuer that no table has
	folder := t.TempDir()
	code, out, errs := commandIn(t, folder, token, nil, "mappings", "suggest", "--from-token", "-")
	if code != exitFailed || !strings.Contains(errs, "name its provider, one of") || out != "" {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	code, out, errs = commandIn(t, folder, token, nil, "mappings", "suggest", "--from-token", "-", "--provider", "github-actions", "--name", "mine")
	if code != exitDone || !strings.Contains(out, "name: mine\nissuer: github\n") || !strings.Contains(errs, "its issuer is not in jobgate.yaml") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	code, out, errs = commandIn(t, folder, "no token", nil, "mappings", "suggest", "--from-token", "-")
	if code != exitFailed || !strings.Contains(errs, "not three parts") || out != "" {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	if code, _, _ = commandIn(t, folder, "", nil, "mappings", "suggest"); code != exitUsage {
		t.Errorf("without a token: exit code %d", code)
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "Yes\n": true, "y": true, "\n": false, "": false, "no\n": false, "yeah\n": false} {
		var out bytes.Buffer
		if got, err := confirm(strings.NewReader(answer), &out, "apply? "); got != want || err != nil || out.String() != "apply? " {
			t.Errorf("%q: %v, %v, %q", answer, got, err, out.String())
		}
	}
}

func TestDiffLines(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{"", "a\nb\n", "+ a,+ b"},
		{"a\nb\n", "", "- a,- b"},
		{"a\nb\n", "a\nb\n", "..."},
		{"a\nb\nc\n", "a\nx\nc\n", "  a,- b,+ x,  c"},
		{"1\n2\n3\n4\n5\n6\n7\n8\n", "1\n2\n3\n4\nx\n6\n7\n8\n", "...,  3,  4,- 5,+ x,  6,  7,..."},
		{"a\nb\nc\nd\n", "b\nc\ne\nd\n", "- a,  b,  c,+ e,  d"},
		{"x\nx\nx\n", "x\nx\n", "  x,  x,- x"},
	} {
		if got := strings.Join(diffLines(c.before, c.after), ","); got != c.want {
			t.Errorf("diffLines(%q, %q) = %q, want %q", c.before, c.after, got, c.want)
		}
	}
	large := strings.Repeat("a\nb\n", 3000)
	if got := diffLines("1\n"+large+"2\n", "3\n"+strings.Repeat("b\na\n", 3000)+"4\n"); len(got) < 6000 {
		t.Errorf("a large change has %d lines", len(got))
	}
}
