package proxy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
)

// counter counts hits as "connection rule outcome", and keeps what they say.
type counter struct {
	mu    sync.Mutex
	n     map[string]int
	whats map[string]string
}

func (c *counter) add(h access.Hit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n, c.whats = map[string]int{}, map[string]string{}
	}
	key := fmt.Sprintf("%s %s %s", h.Connection, h.Rule, h.Outcome)
	c.n[key]++
	c.whats[key] = h.What
	if h.Mapping != "agents" || h.Session != "s_1" || !strings.HasPrefix(h.Call, "c_") {
		c.n[fmt.Sprintf("bad %+v", h)]++
	}
}

func (c *counter) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, key := range slices.Sorted(maps.Keys(c.n)) {
		out = append(out, fmt.Sprintf("%d %s", c.n[key], key))
	}
	return out
}

func TestHits(t *testing.T) {
	bash := testkit.ToolUse{Name: "Bash", Input: `{"command":"make"}`}
	rule := func(name string, effect access.Effect, when string, mode access.Mode) access.Rule {
		return access.Rule{Name: name, Effect: effect, When: when, Reason: "because", Mode: mode, Timeout: time.Minute}
	}
	const post = "/anthropic/v1/messages"
	for _, c := range []struct {
		name   string
		policy func(*access.Policy)
		calls  []string // paths of GET, or post
		votes  []access.ApprovalState
		want   []string
		what   map[string]string
	}{
		{name: "nothing speaks", calls: []string{post, post}, want: []string{"2 anthropic  call"}},
		{name: "allow list", calls: []string{"/anthropic/v1/other"}, want: []string{"1 anthropic  call", "1 anthropic allow denied"},
			what: map[string]string{"anthropic allow denied": "GET /v1/other"}},
		{name: "allow list, observed", policy: func(p *access.Policy) { p.Mode = access.Observe }, calls: []string{"/anthropic/v1/other"},
			want: []string{"1 anthropic  call", "1 anthropic  would_deny", "1 anthropic allow would_deny"}},
		{name: "limits", policy: func(p *access.Policy) { p.Grants[0].Limits.Requests = 1 }, calls: []string{post, post},
			want: []string{"2 anthropic  call", "1 anthropic limits denied"}},
		{name: "limits, observed", policy: func(p *access.Policy) { p.Mode = access.Observe; p.Grants[0].Limits.Requests = 1 }, calls: []string{post, post},
			want: []string{"2 anthropic  call", "1 anthropic  would_deny", "1 anthropic limits would_deny"}},
		{name: "models", policy: func(p *access.Policy) { p.Grants[0].Limits.Models = []string{"claude-haiku-*"} }, calls: []string{post},
			want: []string{"1 anthropic  call", "1 anthropic models denied"}},
		{name: "not granted", policy: func(p *access.Policy) { p.Grants = p.Grants[1:] }, calls: []string{post}, want: []string{}},
		{name: "a name that is no connection", calls: []string{"/made-up/v1"}, want: []string{}},
		{name: "call rules", policy: func(p *access.Policy) {
			p.Grants[0].Rules = []access.Rule{rule("no", access.Deny, "true", 0), rule("neither", access.Deny, "true", 0), rule("maybe", access.Ask, "true", access.Observe)}
		}, calls: []string{post}, want: []string{"1 anthropic  call", "1 anthropic maybe would_ask", "1 anthropic neither overruled", "1 anthropic no denied"}},
		{name: "tool rules", policy: func(p *access.Policy) {
			p.Grants[0].Rules = []access.Rule{rule("no-bash", access.Deny, `tool.name == "Bash"`, 0), rule("no-read", access.Deny, `tool.name == "Read"`, 0)}
		}, calls: []string{post}, want: []string{"1 anthropic  call", "1 anthropic no-bash denied"}, what: map[string]string{"anthropic no-bash denied": "tool use Bash"}},
		{name: "tool rules, observed", policy: func(p *access.Policy) {
			p.Grants[0].Rules = []access.Rule{rule("no-bash", access.Deny, `tool.name == "Bash"`, access.Observe), rule("ask", access.Ask, `tool.name == "Bash"`, access.Observe)}
		}, calls: []string{post}, want: []string{"1 anthropic  call", "1 anthropic  would_deny", "1 anthropic ask would_ask", "1 anthropic no-bash would_deny"}},
		{name: "people", policy: func(p *access.Policy) {
			p.Grants[0].Rules = []access.Rule{rule("ask", access.Ask, `tool.name == "Bash"`, 0)}
		}, calls: []string{post, post, post, post}, votes: []access.ApprovalState{access.Approved, access.Denied, access.Expired, access.Cancelled},
			want: []string{"4 anthropic  call", "1 anthropic ask approved", "4 anthropic ask asked", "1 anthropic ask cancelled", "1 anthropic ask expired", "1 anthropic ask refused"},
			what: map[string]string{"anthropic ask asked": "tool use Bash"}},
		{name: "people, about a call", policy: func(p *access.Policy) {
			p.Grants[0].Rules = []access.Rule{rule("ask", access.Ask, `call.method == "POST"`, 0)}
		}, calls: []string{post}, votes: []access.ApprovalState{access.Approved},
			want: []string{"1 anthropic  call", "1 anthropic ask approved", "1 anthropic ask asked"}, what: map[string]string{"anthropic ask asked": "POST /v1/messages"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var count counter
			w := newWorld(t, options{policy: c.policy, hit: count.add})
			if c.name == "not granted" { // the token was taken when it was
				_, w.token = w.session, w.sessions.add(t, w.session, "anthropic", "plain")
				c.want = []string{"1 anthropic grant denied"}
			}
			w.model.SetScript(func(testkit.Request) testkit.Response { return testkit.Response{Blocks: []testkit.Block{bash}} })
			for _, v := range c.votes {
				w.people.reply <- vote(v)
			}
			for _, path := range c.calls {
				method, body := "GET", ""
				if path == post {
					method, body = "POST", message(true, "")
				}
				_ = read(t, w.call(method, path, body))
			}
			w.settled(len(c.calls))
			if got := count.all(); !slices.Equal(got, c.want) {
				t.Errorf("hits = %q, want %q", got, c.want)
			}
			for key, want := range c.what {
				if got := count.whats[key]; got != want {
					t.Errorf("%s says %q, want %q", key, got, want)
				}
			}
		})
	}
}

// What hits say is masked: it is kept for people.
func TestHitsAreMasked(t *testing.T) {
	var count counter
	w := newWorld(t, options{hit: count.add})
	key := w.model.Key()
	w.call("GET", "/anthropic/v1/"+key, "")
	w.settled(1)
	if what := count.whats["anthropic allow denied"]; !strings.HasPrefix(what, "GET /v1/") || strings.Contains(what, key) {
		t.Errorf("the hit says %q", what)
	}
}
