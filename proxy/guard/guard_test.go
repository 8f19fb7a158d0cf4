package guard_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/guard"
)

func TestParseAllow(t *testing.T) {
	for entry, good := range map[string]bool{
		"GET /": true, "POST /v1/messages": true, "GET /v1/files/{id}": true, "GET /a/{b}/c": true, "DELETE /a/": true,
		"": false, "GET": false, "/v1": false, "get /v1": false, "GET v1": false, "GET /a b": false, "GET /a?b": false, "GET /a#b": false,
		"GET /a%20b": false, "GET /*": false, "GET /a{b}": false, "GET /{}": false, "GET /{a{b}}": false, "GET /{a": false, " GET /a": false,
	} {
		if err := guard.ParseAllow(entry); (err == nil) != good {
			t.Errorf("ParseAllow(%q) = %v", entry, err)
		}
	}
}

// policy is a mapping with one grant on "c".
func policy(revision int64, change func(*access.Policy, *access.Grant)) *access.Policy {
	p := &access.Policy{Mapping: "m", Revision: revision, Grants: []access.Grant{{Connection: "c", Allow: []string{"GET /a/{x}", "POST /v1/messages", "GET /"}}}}
	if change != nil {
		change(p, &p.Grants[0])
	}
	return p
}

func facts(p *access.Policy, call access.Call) guard.Facts {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	s := access.NewSession(access.SessionConfig{ID: "s", Policy: p, Window: access.Window{Opens: now, Closes: now.Add(time.Hour)}, Asleep: now.Add(time.Hour),
		Identity: access.Identity{Provider: "github-actions", Claims: access.Claims{"ref": "refs/heads/main"}}})
	call.Connection = "c"
	return guard.Facts{Session: s, Call: &call, Now: now}
}

func TestAllowList(t *testing.T) {
	g := guard.New()
	p := policy(1, nil)
	for _, c := range []struct {
		method, path string
		allow        bool
	}{
		{"GET", "/a/b", true}, {"GET", "/a/b=c,d", true}, {"GET", "/", true}, {"POST", "/v1/messages", true},
		{"GET", "/a/", false}, {"GET", "/a", false}, {"GET", "/a/b/c", false}, {"GET", "/a/b/", false}, {"POST", "/a/b", false}, {"get", "/a/b", false},
		{"POST", "/v1/messages/", false}, {"POST", "/v1/Messages", false}, {"POST", "/v1/messages/batches", false}, {"GET", "", false}, {"GET", "a/b", false},
	} {
		d := g.Grant(p, "c").Call(context.Background(), facts(p, access.Call{Method: c.method, Path: c.path}))
		if (d.Effect == access.Allow) != c.allow {
			t.Errorf("%s %s: %+v", c.method, c.path, d)
		}
		if !c.allow && (d.Rule != "allow" || !strings.Contains(d.Reason, "allow list")) {
			t.Errorf("%s %s: refused as %+v", c.method, c.path, d)
		}
	}
	if g.Grant(p, "other") != nil {
		t.Error("a connection that is not granted has a grant")
	}
}

func TestRulesAreWeighed(t *testing.T) {
	yes := func(name string, e access.Effect) access.Rule {
		return access.Rule{Name: name, Effect: e, When: "true", Reason: "r"}
	}
	observed := func(r access.Rule) access.Rule { r.Mode = access.Observe; return r }
	never := func(r access.Rule) access.Rule { r.When = "false"; return r }
	for _, c := range []struct {
		name     string
		rules    []access.Rule
		mode     access.Mode
		effect   access.Effect
		rule     string
		observed int
	}{
		{"none", nil, access.Enforce, access.Allow, "", 0},
		{"deny beats approve", []access.Rule{yes("a", access.Ask), yes("d", access.Deny)}, access.Enforce, access.Deny, "d", 0},
		{"in any order", []access.Rule{yes("d", access.Deny), yes("a", access.Ask)}, access.Enforce, access.Deny, "d", 0},
		{"approve beats nothing", []access.Rule{never(yes("d", access.Deny)), yes("a", access.Ask)}, access.Enforce, access.Ask, "a", 0},
		{"approve both", []access.Rule{yes("a", access.Ask), yes("b", access.Ask)}, access.Enforce, access.Ask, "a", 0},
		{"deny beats two", []access.Rule{yes("a", access.Ask), yes("b", access.Ask), yes("d", access.Deny)}, access.Enforce, access.Deny, "d", 0},
		{"the first that denies", []access.Rule{yes("d1", access.Deny), yes("d2", access.Deny)}, access.Enforce, access.Deny, "d1", 0},
		{"observed rules refuse nothing", []access.Rule{observed(yes("d", access.Deny)), observed(yes("a", access.Ask))}, access.Enforce, access.Allow, "", 2},
		{"observed beside enforced", []access.Rule{observed(yes("d", access.Deny)), yes("a", access.Ask)}, access.Enforce, access.Ask, "a", 1},
		{"an observing mapping", []access.Rule{yes("d", access.Deny)}, access.Observe, access.Allow, "", 1},
		{"a failure is a match", []access.Rule{{Name: "f", Effect: access.Deny, When: `claims.nothing == "x"`, Reason: "r"}}, access.Enforce, access.Deny, "f", 0},
		{"what does not compile refuses", []access.Rule{{Name: "f", Effect: access.Ask, When: `call.`, Reason: "r"}}, access.Enforce, access.Deny, "config", 0},
		{"rules about tools are not asked", []access.Rule{{Name: "t", Effect: access.Deny, When: `tool.name != ""`, Reason: "r"}}, access.Enforce, access.Allow, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policy(1, func(p *access.Policy, g *access.Grant) { p.Mode, g.Rules = c.mode, c.rules })
			d := guard.New().Grant(p, "c").Call(context.Background(), facts(p, access.Call{Method: "GET", Path: "/a/b"}))
			if d.Effect != c.effect || d.Rule != c.rule || len(d.Observed) != c.observed {
				t.Errorf("decision = %+v", d)
			}
			if want := strings.Count(c.name, "approve both") + 1; d.Effect == access.Ask && len(d.Questions()) != want || d.Effect != access.Ask && d.Questions() != nil {
				t.Errorf("questions = %+v", d.Questions())
			}
			if d.Effect == access.Ask && d.Timeout != 15*time.Minute {
				t.Errorf("a question without a timeout waits %s", d.Timeout)
			}
		})
	}
}

func TestModels(t *testing.T) {
	p := policy(1, func(_ *access.Policy, g *access.Grant) { g.Limits.Models = []string{"claude-haiku-*", "claude-opus-5"} })
	for model, allow := range map[string]bool{
		"claude-haiku-4-5": true, "claude-haiku-": true, "claude-opus-5": true, "claude-opus-5-1": false, "Claude-haiku-4": false, "": false, "x claude-haiku-4": false,
	} {
		call := access.Call{Kind: "anthropic", Method: "POST", Path: "/v1/messages", Model: model}
		if d := guard.New().Grant(p, "c").Call(context.Background(), facts(p, call)); (d.Effect == access.Allow) != allow {
			t.Errorf("model %q: %+v", model, d)
		}
	}
	if d := guard.New().Grant(p, "c").Call(context.Background(), facts(p, access.Call{Kind: "anthropic", Method: "GET", Path: "/a/b"})); d.Effect != access.Allow {
		t.Errorf("a call without a body needs a model: %+v", d)
	}
}

func TestToolRules(t *testing.T) {
	p := policy(1, func(_ *access.Policy, g *access.Grant) {
		g.Rules = []access.Rule{
			{Name: "net", Effect: access.Deny, When: `tool.name in ["WebFetch", "WebSearch"]`, Reason: "no network"},
			{Name: "sh", Effect: access.Ask, When: `tool.name == "Bash" && !(tool.input.command in ["make test"])`, Reason: "ask"},
		}
	})
	g := guard.New().Grant(p, "c")
	if !g.JudgesTools() || g.AsksAboutCalls() {
		t.Errorf("JudgesTools = %t, AsksAboutCalls = %t", g.JudgesTools(), g.AsksAboutCalls())
	}
	for tool, may := range map[string]bool{"WebFetch": true, "Bash": true, "Read": false, "": false} {
		for range 2 { // computed, and remembered
			if g.MayJudge(tool) != may {
				t.Errorf("MayJudge(%q) = %t", tool, !may)
			}
		}
	}
	for _, c := range []struct {
		name, input string
		effect      access.Effect
	}{
		{"WebFetch", `{}`, access.Deny}, {"Read", `{}`, access.Allow}, {"Bash", `{"command":"make test"}`, access.Allow},
		{"Bash", `{"command":"make test; rm x"}`, access.Ask}, {"Bash", `{}`, access.Ask}, {"Bash", `[]`, access.Ask}, {"Bash", `{"command":7}`, access.Ask},
	} {
		d := g.Tool(context.Background(), facts(p, access.Call{Method: "POST", Path: "/v1/messages"}), access.ToolUse{Name: c.name, Input: []byte(c.input)})
		if d.Effect != c.effect {
			t.Errorf("%s %s: %+v", c.name, c.input, d)
		}
	}
	broken := policy(2, func(_ *access.Policy, g *access.Grant) { g.Rules = []access.Rule{{Name: "x", When: "tool."}} })
	b := guard.New().Grant(broken, "c")
	if !b.JudgesTools() || !b.MayJudge("Read") || b.Tool(context.Background(), facts(broken, access.Call{}), access.ToolUse{Name: "Read"}).Effect != access.Deny {
		t.Error("a grant that does not compile lets tool uses pass")
	}
}

func TestRevisionsAreCompiledOnceEach(t *testing.T) {
	g := guard.New()
	first, second := policy(1, nil), policy(2, func(_ *access.Policy, g *access.Grant) { g.Allow = nil })
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for _, p := range []*access.Policy{first, second} {
				if first, again := g.Grant(p, "c"), g.Grant(p, "c"); first != again {
					t.Error("a revision is compiled twice")
				}
			}
		})
	}
	wait.Wait()
	call := access.Call{Method: "GET", Path: "/a/b"}
	if d := g.Grant(first, "c").Call(context.Background(), facts(first, call)); d.Effect != access.Allow {
		t.Errorf("the first revision: %+v", d)
	}
	if d := g.Grant(second, "c").Call(context.Background(), facts(second, call)); d.Effect != access.Deny {
		t.Errorf("the second revision: %+v", d)
	}
}

func FuzzParseAllow(f *testing.F) {
	for _, seed := range []string{"GET /", "POST /v1/{x}/y", "GET /{", "get /a", "GET /a//b"} {
		f.Add(seed, "/v1/messages")
	}
	g := guard.New()
	revision := int64(0)
	f.Fuzz(func(t *testing.T, entry, path string) {
		if guard.ParseAllow(entry) != nil {
			return
		}
		revision++
		p := policy(revision, func(_ *access.Policy, g *access.Grant) { g.Allow = []string{entry} })
		method, want, _ := strings.Cut(entry, " ")
		d := g.Grant(p, "c").Call(context.Background(), facts(p, access.Call{Method: method, Path: path}))
		if !strings.ContainsAny(want, "{}") && (d.Effect == access.Allow) != (path == want) {
			t.Errorf("%q decides %+v about %q", entry, d, path)
		}
		if d.Effect == access.Allow && strings.Count(path, "/") != strings.Count(want, "/") {
			t.Errorf("%q allows %q: a template takes one segment", entry, path)
		}
	})
}

func TestOverruledRulesAreNamed(t *testing.T) {
	g := guard.New()
	rule := func(name string, effect access.Effect, mode access.Mode) access.Rule {
		return access.Rule{Name: name, Effect: effect, When: `call.method == "GET"`, Mode: mode}
	}
	for name, c := range map[string]struct {
		rules []access.Rule
		want  string // effect rule [overruled] [also]
	}{
		"one":            {[]access.Rule{rule("a", access.Deny, 0)}, "deny a [] 0"},
		"two deny":       {[]access.Rule{rule("a", access.Deny, 0), rule("b", access.Deny, 0)}, "deny a [b] 0"},
		"ask, then deny": {[]access.Rule{rule("a", access.Ask, 0), rule("b", access.Ask, 0), rule("c", access.Deny, 0)}, "deny c [a b] 0"},
		"deny, then ask": {[]access.Rule{rule("a", access.Deny, 0), rule("b", access.Ask, 0)}, "deny a [b] 0"},
		"two ask":        {[]access.Rule{rule("a", access.Ask, 0), rule("b", access.Ask, 0)}, "approve a [] 1"},
		"observed":       {[]access.Rule{rule("a", access.Deny, 0), rule("b", access.Deny, access.Observe)}, "deny a [] 0"},
	} {
		p := policy(1, func(p *access.Policy, grant *access.Grant) { p.Mapping, grant.Rules = name, c.rules })
		d := g.Grant(p, "c").Call(context.Background(), facts(p, access.Call{Method: "GET", Path: "/"}))
		if got := fmt.Sprintf("%s %s %v %d", d.Effect, d.Rule, d.Overruled, len(d.Also)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
