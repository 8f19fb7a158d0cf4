package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/api"
)

const explainConfig = `
public_url: https://jobgate.example.com
issuers: [{name: github, provider: github-actions}]
connections:
  - {name: anthropic, kind: anthropic, upstream: "https://api.anthropic.com", credential: {header: x-api-key, value: "env:NOT_HERE"}}
approvals: {groups: {sre: {emails: [ana@example.com]}}}
mappings:
  - name: release-agents
    issuer: github
    match: {repository_owner_id: "123456", repository_id: "456789", ref: refs/heads/main, event_name: [push, workflow_dispatch]}
    grants:
      - connection: anthropic
        allow: ["POST /v1/messages"]
        limits: {requests: 500, output_tokens: 1000}
        rules: [{name: commands, effect: approve, when: 'tool.name == "Bash"', approvers: [sre]}]
    overrides: [{name: by-hand, match: {event_name: workflow_dispatch}, deny: true}]
`

const mainPush = `{"repository_owner_id":"123456","repository_id":"456789","repository":"octo/tools","ref":"refs/heads/main",
	"event_name":"push","run_id":"1","run_attempt":"1","check_run_id":"2"}`

// commandIn runs jobgate in a folder with one configuration file.
func commandIn(t *testing.T, folder, stdin string, env func(string) string, args ...string) (code int, out, errs string) {
	t.Helper()
	t.Chdir(folder)
	var stdout, stderr bytes.Buffer
	if env == nil {
		env = func(string) string { return "" }
	}
	code = run(context.Background(), args, environment{Getenv: env, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr})
	return code, stdout.String(), stderr.String()
}

func folderWith(t *testing.T, config string) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "jobgate.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// Without a server the file's mappings are asked, and no secret of it is read.
func TestExplainOffline(t *testing.T) {
	folder := folderWith(t, explainConfig)
	for _, c := range []struct {
		name, claims string
		code         int
		has          []string
	}{
		{"served", mainPush, exitDone, []string{"granted: a session under mapping release-agents\n", "job   octo/tools refs/heads/main\n", "holds   ref: 'refs/heads/main'\n",
			"window  1h, asleep after 15m", "grants  anthropic: POST /v1/messages; 500 requests; 1000 output tokens\n", `approve commands when tool.name == "Bash"`}},
		{"another branch", strings.Replace(mainPush, "heads/main", "heads/next", 1), exitDenied, []string{"refused: no mapping serves this job\n",
			"release-agents does not: 1 of 5 conditions fails\n", "FAILS   ref: it is 'refs/heads/next', wanted 'refs/heads/main'\n",
			"      match:\n        ref: [refs/heads/main, refs/heads/next]\n", "    name: tools\n"}},
		{"a comment", strings.Replace(mainPush, `"push"`, `"issue_comment"`, 1), exitDenied, []string{"WARNING event 'issue_comment' can be started by people without write access"}},
		{"taken out", strings.Replace(mainPush, `"push"`, `"workflow_dispatch"`, 1), exitDenied, []string{"FAILS   override by-hand: it takes out jobs with event_name 'workflow_dispatch'\n"}},
		{"a stranger", strings.Replace(mainPush, `"123456"`, `"666"`, 1), exitDenied, []string{"do      repository_owner_id says whose job it is"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := commandIn(t, folder, c.claims, nil, "explain", "--claims", "-")
			if code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, errs)
			}
			for _, want := range c.has {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
}

// What a job wrote moves no cursor and begins no line of its own.
func TestExplainEscapes(t *testing.T) {
	folder := folderWith(t, explainConfig)
	hostile := strings.NewReplacer("octo/tools", `octo/\u001b[2Jtools\ngranted: all\u202e`, "refs/heads/main", `refs/heads/\u001b]0;x\u0007\r\ngranted: all`, `"1"`, `"1\u009b"`).Replace(mainPush)
	for _, args := range [][]string{{"explain", "--claims", "-"}, {"explain", "--claims", "-", "-o", "json"}} {
		code, out, _ := commandIn(t, folder, hostile, nil, args...)
		if code != exitDenied {
			t.Errorf("exit code %d of %v", code, args)
		}
		for _, r := range out {
			if r != '\n' && (r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e) {
				t.Errorf("%v prints the character %q:\n%q", args, r, out)
				break
			}
		}
		for l := range strings.SplitSeq(out, "\n") {
			if strings.HasPrefix(l, "granted") {
				t.Errorf("%v prints a line of the job's: %q", args, l)
			}
		}
	}
}

func TestExplainUse(t *testing.T) {
	folder := folderWith(t, explainConfig)
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"nothing", nil, exitUsage, "takes one of"},
		{"two", []string{"--claims", "-", "x_1"}, exitUsage, "takes one of"},
		{"an issuer with a token", []string{"--token", "-", "--issuer", "github"}, exitUsage, "names its issuer itself"},
		{"a mapping with an exchange", []string{"x_1", "--mapping", "a"}, exitUsage, "--mapping goes with"},
		{"a token as an argument", []string{"eyJhbGciOiJSUzI1NiJ9.e30.c2ln"}, exitUsage, "never as an argument"},
		{"an exchange without a server", []string{"x_123"}, exitFailed, "only a running server"},
		{"an empty token", []string{"--token", "-"}, exitFailed, "has no token in it"},
		{"no claims", []string{"--claims", "-"}, exitFailed, "is no JSON"},
		{"a file that is not there", []string{"--claims", "nothing.json"}, exitFailed, "nothing.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := commandIn(t, folder, "", nil, append([]string{"explain"}, c.args...)...)
			if code != c.code || !strings.Contains(errs, c.says) || out != "" {
				t.Errorf("exit code %d, want %d; said %q, want in it %q; printed %q", code, c.code, errs, c.says, out)
			}
			if strings.Contains(errs, "eyJ") {
				t.Errorf("the token is printed: %s", errs)
			}
		})
	}
}

// With a server, a token of a real job is explained, is not used up, and the id in the job's log leads to why it was refused.
func TestExplainByTheServer(t *testing.T) {
	w := newWorld(t, worldConfig{})
	explain := func(stdin string, args ...string) (int, api.Explanation, string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"-c", w.file(), "-o", "json", "explain"}, args...),
			environment{Getenv: w.getenv, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr})
		var e api.Explanation
		if stdout.Len() > 0 {
			if err := json.Unmarshal(stdout.Bytes(), &e); err != nil {
				t.Fatal(err)
			}
		}
		return code, e, stderr.String()
	}
	token := w.token(w.job(nil))
	if code, e, errs := explain(token, "--token", "-"); code != exitDone || !e.Verified || e.Mapping != "agents" {
		t.Errorf("a token: exit code %d, %+v, %s", code, e, errs)
	}
	if status, _, refusal := w.exchange(token, nil); status != 200 {
		t.Errorf("the explained token does not open: %+v", refusal)
	}
	if code, e, _ := explain(token, "--token", "-"); code != exitDenied || e.Refusal == nil || e.Refusal.Reason != "replayed" {
		t.Errorf("a used token: exit code %d, %+v", code, e)
	}
	_, _, refusal := w.exchange(w.token(w.job(map[string]any{"ref": "refs/heads/next"})), nil)
	code, e, errs := explain("", regexp.MustCompile(`x_[a-z0-9]+`).FindString(refusal.Description))
	if code != exitDenied || e.Then == nil || e.Then.Reason != "claim_mismatch" || len(e.Mappings) != 1 || e.Mappings[0].Change == nil {
		t.Errorf("an exchange: exit code %d, %+v, %s", code, e, errs)
	}
	if code, _, errs = explain("", "x_unknown"); code != exitFailed || !strings.Contains(errs, "the audit stream of its day") {
		t.Errorf("an unknown exchange: exit code %d, %s", code, errs)
	}
	signature := token[strings.LastIndex(token, ".")+1:]
	if strings.Contains(w.log.String(), signature) {
		t.Error("the log holds a token's signature")
	}
}
