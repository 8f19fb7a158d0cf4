package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

const lintedConfig = `public_url: https://jobgate.example.com
issuers: [{name: github, provider: github-actions}]
connections:
  - {name: anthropic, kind: anthropic, upstream: "https://api.anthropic.com", credential: {header: x-api-key, value: "env:KEY"}}
approvals:
  groups: {sre: {}, dev: {emails: [ana@example.com]}}
mappings:
  - name: agents
    issuer: github
    match:
      repository_owner_id: "123456"
      repository: octo/tools
      event_name: [push, issue_comment]
    window: {max: 12h}
    grants:
      - connection: anthropic
        allow: ["POST /v1/messages"]
        rules:
          - name: network
            effect: deny
            when: tool.name == "Bash" && tool.input.command.contains("curl")
          - name: commands
            effect: approve
            when: tool.name == "Bash"
            approvers: [sre, dev]
  - name: narrower
    issuer: github
    match: {repository_owner_id: "123456", repository: octo/tools, ref: refs/heads/main, event_name: push}
    grants:
      - connection: anthropic
        allow: ["POST /v1/messages"]
        limits: {requests: 500, output_tokens: 2000000}
`

func TestCheckWarns(t *testing.T) {
	folder := folderWith(t, lintedConfig)
	want := []string{
		"jobgate.yaml:12: mappings[0].match.repository: repository is a name",
		"jobgate.yaml:13: mappings[0].match.event_name: event 'issue_comment' can be started by people without write access",
		"jobgate.yaml:14: mappings[0].window.max: jobs on github-actions's own runners end after 6h",
		"jobgate.yaml:16: mappings[0].grants[0]: a job may spend without a bound",
		"jobgate.yaml:21: mappings[0].grants[0].rules[0].when: contains over what a tool is told",
		`jobgate.yaml:25: mappings[0].grants[0].rules[1].approvers[0]: group "sre" has nobody in it`,
		`jobgate.yaml:25: mappings[0].grants[0].rules[1].approvers[1]: the people of group "dev" are asked in Slack, which is not configured`,
		"jobgate.yaml:28: mappings[1].match.repository: repository is a name",
		`jobgate.yaml:28: mappings[1].match: mapping "agents" serves every job that this one does`,
		"jobgate.yaml: good; 1 connection, 2 mappings, 9 warnings",
	}
	for _, c := range []struct {
		args []string
		code int
		errs string
	}{
		{[]string{"check"}, exitDone, ""},
		{[]string{"check", "--strict"}, exitFailed, "jobgate: 9 warnings in jobgate.yaml\n"},
	} {
		code, out, errs := commandIn(t, folder, "", fakeEnv, c.args...)
		if code != c.code || errs != c.errs {
			t.Errorf("%v: exit code %d, %q; want %d, %q", c.args, code, errs, c.code, c.errs)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != len(want) {
			t.Fatalf("%v: %d lines, want %d:\n%s", c.args, len(lines), len(want), out)
		}
		for i, w := range want {
			if !strings.HasPrefix(lines[i], w) {
				t.Errorf("line %d: %q, want %q", i+1, lines[i], w)
			}
		}
	}
}

func TestCheckWarnsInJSON(t *testing.T) {
	code, out, _ := commandIn(t, folderWith(t, lintedConfig), "", fakeEnv, "check", "-o", "json")
	var got struct {
		OK       bool
		Warnings []warning
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone || !got.OK || len(got.Warnings) != 9 {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	if w := got.Warnings[0]; w.File != "jobgate.yaml" || w.Line != 12 || w.Path != "mappings[0].match.repository" || w.Lint != "name-not-id" || w.Text == "" {
		t.Errorf("first warning %+v", w)
	}
}

// What is shown to everybody has no warnings, but for the one job that comments start on purpose.
func TestShownConfigsAreClean(t *testing.T) {
	b, err := buildFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	found, err := lintConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	var lints []string
	for _, w := range found {
		lints = append(lints, w.Lint)
		t.Logf("%s:%d: %s: %s (%s)", w.File, w.Line, w.Path, w.Text, w.Lint)
	}
	if !slices.Equal(lints, []string{"open-trigger"}) {
		t.Errorf("warnings %q, want one open-trigger", lints)
	}
}

// The organization's mapping in the documentation is one that people copy: nothing in it is warned of.
func TestOrganizationExample(t *testing.T) {
	_, section, _ := strings.Cut(readText(t, "../../docs/mappings.md"), "## One mapping for an organization")
	block := yamlBlock.FindStringSubmatch(section)
	if block == nil {
		t.Fatal("docs/mappings.md has no example of it")
	}
	found, err := lintPart(t, block[1])
	if err != nil || len(found) != 0 {
		t.Errorf("%v, %+v", err, found)
	}
}

// lintPart lints a part of a configuration; what it leaves out is the example's.
func lintPart(t *testing.T, text string) ([]warning, error) {
	t.Helper()
	b, err := buildPart(t, text)
	if err != nil {
		return nil, err
	}
	return lintConfig(b)
}
