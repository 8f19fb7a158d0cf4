package main

import (
	"net/http"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
)

// observedRules are what hitsOfWorld looks at: one observes, one asks, one never matches.
const observedRules = `
          - {name: no-network, effect: deny, mode: observe, reason: no network, when: 'tool.name == "Bash" && tool.input.command.contains("curl")'}
          - {name: no-rm, effect: deny, reason: no rm, when: 'tool.name == "Bash" && tool.input.command.contains("rm -rf")'}
          - {name: releases, effect: approve, approvers: [sre], timeout: 1m, reason: a yes, when: 'tool.name == "Bash" && tool.input.command.contains("release")'}
          - {name: never, effect: deny, reason: never, when: 'tool.name == "Nothing"'}
`

// TestHits counts what rules did over the whole server, restarts it, and reads it as people do.
func TestHits(t *testing.T) {
	w := newWorld(t, worldConfig{rules: observedRules, script: func(r testkit.Request) testkit.Response {
		prompt := r.Body.Messages[len(r.Body.Messages)-1].Content.Text()
		return testkit.Response{Blocks: []testkit.Block{bash(prompt)}}
	}})
	token := w.open()
	for _, command := range []string{"curl x", "curl y", "rm -rf /", "make"} {
		if status, body := w.ask(token.AccessToken, command); status != http.StatusOK {
			t.Fatalf("a call = %d %s", status, body)
		}
	}
	held := w.send(token.AccessToken, messageBody("release", true))
	must(w, w.admin("POST", "/v1/approvals/"+w.question().ID+"/approve", nil, nil))
	w.wait(held)
	check := func() {
		t.Helper()
		var hits api.MappingHits
		must(w, w.admin("GET", "/v1/mappings/agents/hits?days=2", nil, &hits))
		if hits.Exchange.Opened != 1 || hits.LastUsed == nil || hits.Enforce != (api.Enforcement{Observing: true, WouldDeny: 2}) {
			t.Errorf("hits = %+v", hits)
		}
		got := map[string]api.RuleHits{}
		for _, r := range hits.Rules {
			got[r.Part+" "+r.Rule] = r
		}
		for name, ok := range map[string]bool{
			"grant ":          got["grant "].Hits == 5,
			"allow ":          got["allow "].Hits == 0,
			"rule no-network": got["rule no-network"].WouldDeny == 2 && got["rule no-network"].Mode == "observe" && len(got["rule no-network"].Samples) == 2,
			"rule no-rm":      got["rule no-rm"].Denied == 1 && got["rule no-rm"].Samples[0].Session == token.SessionID && got["rule no-rm"].Samples[0].What == "tool use Bash",
			"rule releases":   got["rule releases"].Asked == 1 && got["rule releases"].Approved == 1,
			"rule never":      got["rule never"].Hits == 0 && got["rule never"].Last == nil && got["rule never"].Effect == "deny",
		} {
			if !ok {
				t.Errorf("%s: %+v", name, got[name])
			}
		}
	}
	check()
	w.stop()
	w.start()
	check()

	show := w.must("mappings", "show", "agents")
	t.Logf("$ jobgate mappings show agents\n%s", show)
	for _, want := range []string{"1 session opened", "no-network", "observe", "denied 2", "1: 1 yes, 0 no, 0 late", "never",
		"# enforce instead of observe would have refused 2 and asked people about 0 of the calls and tool uses of the last 7 days\n"} {
		if !strings.Contains(show, want) {
			t.Errorf("mappings show does not say %q", want)
		}
	}
	var spec api.Mapping
	if err := yaml.Unmarshal([]byte(show), &spec); err != nil || spec.Name != "agents" || len(spec.Grants[0].Rules) != 4 {
		t.Errorf("what mappings show prints cannot be applied: %v", err)
	}
	one := w.must("mappings", "hits", "agents", "--days", "1")
	t.Logf("$ jobgate mappings hits agents --days 1\n%s", one)
	if !strings.Contains(one, "latest of no-rm on anthropic") || !strings.Contains(one, "tool use Bash") {
		t.Error("mappings hits NAME shows no samples")
	}
	all := w.must("mappings", "hits")
	t.Logf("$ jobgate mappings hits\n%s", all)
	if !strings.Contains(all, "agents") || !strings.Contains(w.must("mappings", "hits", "-o", "json"), `"would_deny": 2`) {
		t.Error("mappings hits shows no mapping")
	}
	if code, _, errs := w.command("mappings", "hits", "agents", "--days", "99"); code != exitFailed || !strings.Contains(errs, "from 1 to 30") {
		t.Errorf("99 days = %d %s", code, errs)
	}
	w.ask(token.AccessToken, "rm -rf /")
	if _, metrics := w.get(t, "/metrics"); !strings.Contains(metrics, `jobgate_rule_matches_total{mapping="agents",outcome="denied",rule="no-rm"} 1`) {
		t.Error("the metrics do not count the rule")
	}
}
