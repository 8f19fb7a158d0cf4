package federation

import "testing"

// The lints' tables speak of claims that the providers' tokens have.
func TestLintTables(t *testing.T) {
	environments := 0
	for _, p := range providers() {
		for name, id := range idOf(p.name) {
			for _, claim := range []string{name, id} {
				if _, known := p.typeOf(claim); !known {
					t.Errorf("provider %s has no claim %s", p.name, claim)
				}
			}
		}
		if _, has := p.typeOf("environment"); has {
			environments++
		}
		if limit := jobLimitOf(p.name, p.url); limit.self != "" {
			if _, known := p.typeOf("runner_environment"); !known {
				t.Errorf("provider %s does not say where a job runs", p.name)
			}
		}
	}
	if environments == 0 {
		t.Error("no provider has an environment")
	}
}
