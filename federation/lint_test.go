package federation_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/api"
)

// clean is a mapping in which no lint finds anything.
func clean(m *api.Mapping) {
	m.Grants[1].Limits = api.LimitsList{{Requests: 10}}
}

func lint(t *testing.T, specs ...api.Mapping) []federation.Finding {
	t.Helper()
	var all []*federation.Mapping
	for _, s := range specs {
		m, err := federation.NewMapping(s, deployment())
		if err != nil {
			t.Fatalf("NewMapping: %v", err)
		}
		all = append(all, m)
	}
	return federation.Lint(all, deployment())
}

func TestLint(t *testing.T) {
	match := func(name string, values ...any) func(*api.Mapping) {
		return func(m *api.Mapping) { m.Match[name] = values }
	}
	unmatch := func(names ...string) func(*api.Mapping) {
		return func(m *api.Mapping) {
			for _, n := range names {
				delete(m.Match, n)
			}
		}
	}
	grant := func(change func(*api.Grant)) func(*api.Mapping) {
		return func(m *api.Mapping) { change(&m.Grants[0]) }
	}
	web := func(rules ...api.Rule) func(*api.Mapping) {
		return func(m *api.Mapping) {
			m.Grants[1].Allow, m.Grants[1].Rules = []string{"GET /v1/deploys", "POST /v1/deploys"}, rules
		}
	}
	rule := func(rules ...api.Rule) func(*api.Mapping) {
		return grant(func(g *api.Grant) { g.Rules = rules })
	}
	window := func(d time.Duration) func(*api.Mapping) {
		return func(m *api.Mapping) { m.Window.Max = api.Duration(d) }
	}
	asGitLab := func(m *api.Mapping) {
		m.Issuer, m.When, m.Match = "gitlab", "", map[string]api.Values{"namespace_id": {"1"}, "project_id": {"2"}}
	}
	asBuildkite := func(m *api.Mapping) {
		m.Issuer, m.When, m.Match = "buildkite", "", map[string]api.Values{"organization_id": {"o"}, "pipeline_id": {"p"}}
	}
	for _, test := range []struct {
		name    string
		changes []func(*api.Mapping)
		want    []string // "lint path", and after " | " a part of the text
	}{
		{"nothing", nil, nil},
		{"a name alone", []func(*api.Mapping){unmatch("repository_id"), match("repository", "o/r")}, []string{"name-not-id match.repository | match repository_id"}},
		{"a name beside its id", []func(*api.Mapping){match("repository", "o/r")}, nil},
		{"an actor by name", []func(*api.Mapping){match("actor", "ana")}, []string{"name-not-id match.actor | match actor_id"}},
		{"a name in when", []func(*api.Mapping){func(m *api.Mapping) { m.When = `claims.actor != "mallory"` }}, []string{"name-not-id when | actor_id"}},
		{"a workflow of a repository that is named by its id", []func(*api.Mapping){match("workflow_ref", "o/r/.github/workflows/x.yml@refs/heads/main")}, nil},
		{"GitLab's paths", []func(*api.Mapping){asGitLab, unmatch("project_id"), match("project_path", "g/p")}, []string{"name-not-id match.project_path | project_id"}},
		{"comments", []func(*api.Mapping){match("event_name", "issue_comment", "push")}, []string{"open-trigger match.event_name | 'issue_comment' can be started by people without write access"}},
		{"two such events", []func(*api.Mapping){match("event_name", "pull_request_target", "pull_request")}, []string{"open-trigger match.event_name | pull_request_target", "open-trigger match.event_name | pull_request"}},
		{"merge requests", []func(*api.Mapping){asGitLab, match("pipeline_source", "merge_request_event")}, []string{"open-trigger match.pipeline_source | merge_request_event"}},
		{"an environment alone", []func(*api.Mapping){match("environment", "prod"), unmatch("ref", "event_name")}, []string{"environment-alone match.environment | ref, event_name, ref_protected"}},
		{"an environment with a ref", []func(*api.Mapping){match("environment", "prod"), unmatch("event_name")}, nil},
		{"an environment of GitLab", []func(*api.Mapping){asGitLab, match("environment", "prod")}, []string{"environment-alone match.environment | environment_protected"}},
		{"a protected environment of GitLab", []func(*api.Mapping){asGitLab, match("environment", "prod"), match("environment_protected", "true")}, nil},
		{"a workflow at a branch", []func(*api.Mapping){match("job_workflow_ref", "octo/shared/.github/workflows/x.yml@refs/heads/main")}, []string{"moving-workflow match.job_workflow_ref | whatever lies at refs/heads/main"}},
		{"a workflow at a tag", []func(*api.Mapping){match("job_workflow_ref", "octo/shared/.github/workflows/x.yml@refs/tags/v1")}, []string{"moving-workflow match.job_workflow_ref | refs/tags/v1"}},
		{"a workflow at a commit", []func(*api.Mapping){match("job_workflow_ref", "octo/shared/.github/workflows/x.yml@"+strings.Repeat("a", 40))}, nil},
		{"a workflow at a branch, and its commit", []func(*api.Mapping){match("job_workflow_ref", "octo/shared/.github/workflows/x.yml@refs/heads/main"), match("job_workflow_sha", strings.Repeat("a", 40))}, nil},
		{"one's own workflow at a protected branch", []func(*api.Mapping){match("job_workflow_ref", "octo/tools/.github/workflows/x.yml@refs/heads/main"), match("repository", "octo/tools"), match("ref_protected", "true")}, nil},
		{"one's own workflow at a branch", []func(*api.Mapping){match("job_workflow_ref", "octo/tools/.github/workflows/x.yml@refs/heads/main"), match("repository", "octo/tools")}, []string{"moving-workflow match.job_workflow_ref | job_workflow_sha"}},
		{"another's workflow beside a protected branch", []func(*api.Mapping){match("job_workflow_ref", "octo/tools-2/.github/workflows/x.yml@refs/heads/main"), match("repository", "octo/tools"), match("ref_protected", "true")}, []string{"moving-workflow match.job_workflow_ref"}},
		{"a workflow in when", []func(*api.Mapping){func(m *api.Mapping) {
			m.When = `claims.job_workflow_ref == "octo/shared/.github/workflows/x.yml@refs/heads/main"`
		}}, []string{"moving-workflow when | job_workflow_sha"}},
		{"a workflow at a commit in when", []func(*api.Mapping){func(m *api.Mapping) {
			m.When = `claims.job_workflow_ref == "octo/shared/.github/workflows/x.yml@` + strings.Repeat("a", 40) + `"`
		}}, nil},
		{"a prefix of a branch", []func(*api.Mapping){func(m *api.Mapping) { m.When = `claims.ref.startsWith("refs/heads/main")` }}, []string{`claim-pattern when | startsWith("refs/heads/main") takes more names`}},
		{"branches below a name", []func(*api.Mapping){func(m *api.Mapping) { m.When = `claims.ref.startsWith("refs/heads/release/")` }}, nil},
		{"nobody's server", []func(*api.Mapping){func(m *api.Mapping) { m.Issuer = "ghes" }, unmatch("repository_id", "repository_owner_id")}, []string{"no-tenant match | whose jobs these are"}},
		{"an owner of a server", []func(*api.Mapping){func(m *api.Mapping) { m.Issuer = "ghes" }, unmatch("repository_id")}, nil},
		{"Buildkite", []func(*api.Mapping){asBuildkite}, []string{"forks-untold match | cluster_id, queue_id"}},
		{"agents of Buildkite that build no forks", []func(*api.Mapping){asBuildkite, match("queue_id", "q-1")}, nil},
		{"forbidden and wanted", []func(*api.Mapping){func(m *api.Mapping) { m.Forbid = []string{"ref"} }}, []string{"unreachable forbid[0] | serves nobody"}},
		{"denied and wanted", []func(*api.Mapping){func(m *api.Mapping) { m.Deny = map[string]api.Values{"ref": {"refs/heads/main"}} }}, []string{"unreachable deny.ref | serves nobody"}},
		{"one of two denied", []func(*api.Mapping){func(m *api.Mapping) { m.Deny = map[string]api.Values{"event_name": {"push"}} }}, nil},
		{"when that is never true", []func(*api.Mapping){func(m *api.Mapping) { m.When = "1 > 2" }}, []string{"unreachable when | never true"}},
		{"when that is always true", []func(*api.Mapping){func(m *api.Mapping) { m.When = "true" }}, []string{"unreachable when | leave it out"}},
		{"a window of seven hours", []func(*api.Mapping){window(7 * time.Hour)}, []string{"long-window window.max | end after 6h"}},
		{"a window of seven hours on machines of one's own", []func(*api.Mapping){window(7 * time.Hour), match("runner_environment", "self-hosted")}, nil},
		{"a window of a week", []func(*api.Mapping){window(7 * 24 * time.Hour), match("runner_environment", "self-hosted")}, []string{"long-window window.max | longer than 120h"}},
		{"a window of four hours at GitLab", []func(*api.Mapping){asGitLab, window(4 * time.Hour)}, []string{"long-window window.max | 3h"}},
		{"no limits", []func(*api.Mapping){grant(func(g *api.Grant) { g.Limits = nil })}, []string{"no-limit grants[0] | output_tokens: 2000000"}},
		{"requests only", []func(*api.Mapping){grant(func(g *api.Grant) { g.Limits = api.LimitsList{{Requests: 5}} })}, []string{"no-limit grants[0].limits | add output_tokens"}},
		{"no limit of a web service", []func(*api.Mapping){func(m *api.Mapping) { m.Grants[1].Limits = nil }}, []string{"no-limit grants[1] | any number"}},
		{"nothing allowed", []func(*api.Mapping){grant(func(g *api.Grant) { g.Allow = nil })}, []string{"unreachable grants[0].allow | every call is refused"}},
		{"no messages", []func(*api.Mapping){grant(func(g *api.Grant) { g.Allow = []string{"POST /v1/messages/count_tokens"} })}, []string{"unreachable grants[0].allow | no agent can work"}},
		{"twice", []func(*api.Mapping){grant(func(g *api.Grant) { g.Allow = append(g.Allow, g.Allow[0]) })}, []string{"unreachable grants[0].allow[2] | twice"}},
		{"files without the feature", []func(*api.Mapping){grant(func(g *api.Grant) { g.Allow = append(g.Allow, "GET /v1/files/{id}") })}, []string{"unreachable grants[0].allow[2] | features: [files]"}},
		{"files with it", []func(*api.Mapping){grant(func(g *api.Grant) { g.Allow, g.Features = append(g.Allow, "GET /v1/files/{id}"), []string{"files"} })}, nil},
		{"text of a command", []func(*api.Mapping){rule(api.Rule{Name: "a", Effect: "deny", When: `tool.name == "Bash" && tool.input.command.contains("curl")`})},
			[]string{"text-pattern grants[0].rules[0].when | contains over what a tool is told"}},
		{"a list of commands", []func(*api.Mapping){rule(api.Rule{Name: "a", Effect: "deny", When: `tool.name == "Bash" && !(tool.input.command in ["make"])`})}, nil},
		{"a rule that is never true", []func(*api.Mapping){rule(api.Rule{Name: "a", Effect: "deny", When: "false"})}, []string{"unreachable grants[0].rules[0].when | never true"}},
		{"a rule that refuses all", []func(*api.Mapping){rule(api.Rule{Name: "a", Effect: "deny", When: "true"})}, []string{"unreachable grants[0].rules[0].when | always true"}},
		{"approval for everything", []func(*api.Mapping){rule(api.Rule{Name: "a", Effect: "approve", When: "true", Approvers: []string{"sre"}})}, nil},
		{"a question after a no", []func(*api.Mapping){rule(api.Rule{Name: "a", Effect: "deny", When: `tool.name == "X"`}, api.Rule{Name: "b", Effect: "approve", When: `tool.name  ==  "X"`, Approvers: []string{"sre"}})},
			[]string{"unreachable grants[0].rules[1] | nobody is ever asked"}},
		{"the same twice", []func(*api.Mapping){rule(api.Rule{Name: "a", Effect: "deny", When: `tool.name == "X"`}, api.Rule{Name: "b", Effect: "deny", When: `tool.name == "X"`})},
			[]string{"unreachable grants[0].rules[1] | take one out"}},
		{"a path that is not allowed", []func(*api.Mapping){web(api.Rule{Name: "a", Effect: "deny", When: `call.path == "/v1/others"`})}, []string{"unreachable grants[1].rules[0].when | no call that allow lets through"}},
		{"a path that is allowed", []func(*api.Mapping){web(api.Rule{Name: "a", Effect: "deny", When: `call.path == "/v1/deploys" && call.bytes > 10`})}, nil},
		{"a rule on the token", []func(*api.Mapping){web(api.Rule{Name: "a", Effect: "deny", When: `claims.ref != "refs/heads/main"`})}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := spec(t, clean)
			for _, change := range test.changes {
				change(&s)
			}
			findings := lint(t, s)
			ok := len(findings) == len(test.want)
			for i := 0; ok && i < len(findings); i++ {
				head, text, _ := strings.Cut(test.want[i], " | ")
				ok = findings[i].Lint+" "+findings[i].Path == head && strings.Contains(findings[i].Text, text) && findings[i].Mapping == 0
			}
			if !ok {
				t.Errorf("got %+v\nwant %q", findings, test.want)
			}
		})
	}
}

func TestLintShadows(t *testing.T) {
	named := func(name string, change func(*api.Mapping)) api.Mapping {
		return spec(t, func(m *api.Mapping) {
			clean(m)
			m.Name = name
			if change != nil {
				change(m)
			}
		})
	}
	wider := func(m *api.Mapping) { delete(m.Match, "ref") }
	for _, test := range []struct {
		name string
		a, b func(*api.Mapping)
		want []int // places of the shadowed
	}{
		{"the same", nil, nil, []int{1}},
		{"one is wider", nil, wider, []int{0}},
		{"the first is wider", wider, nil, []int{1}},
		{"other values", nil, func(m *api.Mapping) { m.Match["ref"] = api.Values{"refs/heads/next"} }, nil},
		{"more values", nil, func(m *api.Mapping) { m.Match["ref"] = api.Values{"refs/heads/next", "refs/heads/main"} }, []int{0}},
		{"another issuer", nil, func(m *api.Mapping) { m.Issuer = "ghes" }, nil},
		{"wider, but for its when", nil, func(m *api.Mapping) { wider(m); m.When = `claims.ref_type == "branch"` }, nil},
		{"wider without a when", nil, func(m *api.Mapping) { wider(m); m.When = "" }, []int{0}},
		{"wider, but for what it forbids", nil, func(m *api.Mapping) { wider(m); m.Forbid = []string{"base_ref"} }, nil},
		{"an event that the wider refuses by default", func(m *api.Mapping) { m.Match["event_name"] = api.Values{"issue_comment"} }, func(m *api.Mapping) { delete(m.Match, "event_name") }, nil},
		{"an event that it takes", nil, func(m *api.Mapping) { delete(m.Match, "event_name") }, []int{0}},
		{"tokens without the job", func(m *api.Mapping) { m.JobKey = "run" }, wider, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []int
			for _, f := range lint(t, named("a", test.a), named("b", test.b)) {
				if f.Lint == "shadowed" {
					got = append(got, f.Mapping)
					if !strings.Contains(f.Text, "mapping: "+string(rune('a'+f.Mapping))) {
						t.Errorf("text %q", f.Text)
					}
				} else if f.Lint != "open-trigger" {
					t.Errorf("found %+v", f)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("shadowed %v, want %v", got, test.want)
			}
		})
	}
}

// TestLintLife finds mappings that nobody's word keeps alive, or opens at all.
func TestLintLife(t *testing.T) {
	for name, test := range map[string]struct {
		issuer  string
		signals federation.Signals
		change  func(*api.Mapping)
		want    string
	}{
		"GitHub renews":                     {"github", federation.Signals{}, func(*api.Mapping) {}, ""},
		"GitHub must say, and is not asked": {"github", federation.Signals{Webhook: true}, func(m *api.Mapping) { m.Live = true }, "no-liveness require_liveness | has no api"},
		"GitHub must say, and is asked":     {"github", federation.Signals{API: true}, func(m *api.Mapping) { m.Live = true }, ""},
		"Jenkins must say":                  {"jenkins", federation.Signals{}, func(m *api.Mapping) { m.Live = true }, "no-liveness require_liveness | no job API that is known"},
		"GitLab, a short lease":             {"gitlab", federation.Signals{}, func(*api.Mapping) {}, "short-lease window | write lease: 2h"},
		"GitLab is asked":                   {"gitlab", federation.Signals{API: true}, func(*api.Mapping) {}, ""},
		"GitLab, a lease as the window":     {"gitlab", federation.Signals{}, func(m *api.Mapping) { m.Window.Lease = m.Window.Max }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := spec(t, clean)
			m.Issuer = test.issuer
			switch test.issuer {
			case "gitlab":
				m.When, m.Match = "", map[string]api.Values{"namespace_id": {"1"}, "project_id": {"2"}}
			case "jenkins":
				m.When, m.Match = "", map[string]api.Values{"sub": {"https://jenkins.example.test/job/a/"}}
			}
			test.change(&m)
			c := deployment()
			c.Signals = map[string]federation.Signals{test.issuer: test.signals}
			built, err := federation.NewMapping(m, c)
			if err != nil {
				t.Fatal(err)
			}
			found := federation.Lint([]*federation.Mapping{built}, c)
			head, text, _ := strings.Cut(test.want, " | ")
			switch {
			case test.want == "" && len(found) > 0, test.want != "" && len(found) != 1:
				t.Errorf("found %+v, want %q", found, test.want)
			case test.want != "" && (found[0].Lint+" "+found[0].Path != head || !strings.Contains(found[0].Text, text)):
				t.Errorf("found %+v, want %q", found[0], test.want)
			}
		})
	}
}
