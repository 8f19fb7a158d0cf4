package guard

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/cond"
)

// defaultTimeout is how long a question waits where its rule names no time.
const defaultTimeout = 15 * time.Minute

// keptRevisions is how many revisions of one mapping stay compiled: calls in flight may still hold the one before.
const keptRevisions = 2

// Guard keeps compiled policies by mapping, override and revision. It is safe for concurrent use.
type Guard struct {
	mu       sync.RWMutex // guards policies
	policies map[string][]*Policy
}

// New returns a guard that has compiled nothing yet.
func New() *Guard { return &Guard{policies: make(map[string][]*Policy)} }

// Policy is one compiled revision of a mapping.
type Policy struct {
	revision int64
	grants   map[string]*Grant
}

// Grant is a compiled grant.
type Grant struct {
	grant     *access.Grant
	mode      access.Mode
	mapping   string
	routes    []route
	callRules []rule
	toolRules []rule
	broken    error // the grant cannot be compiled: it refuses everything

	mu  sync.RWMutex // guards may
	may map[string]bool
}

type rule struct {
	*access.Rule
	cond    *cond.Condition
	observe bool
}

// Facts are what conditions speak of beside the call.
type Facts struct {
	Session *access.Session
	Call    *access.Call
	Now     time.Time
}

// Grant returns the compiled grant of a policy on a connection, nil where there is none.
func (g *Guard) Grant(p *access.Policy, connection string) *Grant {
	return g.policy(p).grants[connection]
}

func (g *Guard) policy(p *access.Policy) *Policy {
	name := p.Mapping
	if p.Override != "" {
		name += "/" + p.Override // a mapping's name has no slash
	}
	g.mu.RLock()
	found := revisionOf(g.policies[name], p.Revision)
	g.mu.RUnlock()
	if found != nil {
		return found
	}
	compiled := compile(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	if found := revisionOf(g.policies[name], p.Revision); found != nil {
		return found
	}
	kept := append(g.policies[name], compiled)
	if len(kept) > keptRevisions {
		kept = slices.Clone(kept[len(kept)-keptRevisions:])
	}
	g.policies[name] = kept
	return compiled
}

func revisionOf(kept []*Policy, revision int64) *Policy {
	for _, p := range kept {
		if p.revision == revision {
			return p
		}
	}
	return nil
}

func compile(p *access.Policy) *Policy {
	out := &Policy{revision: p.Revision, grants: make(map[string]*Grant, len(p.Grants))}
	for i := range p.Grants {
		out.grants[p.Grants[i].Connection] = compileGrant(p, &p.Grants[i])
	}
	return out
}

func compileGrant(p *access.Policy, grant *access.Grant) *Grant {
	g := &Grant{grant: grant, mode: p.Mode, mapping: p.Mapping, may: make(map[string]bool)}
	for _, entry := range grant.Allow {
		r, err := parseRoute(entry)
		if err != nil {
			g.broken = err
			return g
		}
		g.routes = append(g.routes, r)
	}
	for i := range grant.Rules {
		source := &grant.Rules[i]
		c, err := cond.Compile(source.When, cond.Rule)
		if err != nil {
			g.broken = fmt.Errorf("rule %q: %w", source.Name, err)
			return g
		}
		r := rule{Rule: source, cond: c, observe: source.Mode == access.Observe || p.Mode == access.Observe}
		if c.Mentions("tool") {
			g.toolRules = append(g.toolRules, r)
		} else {
			g.callRules = append(g.callRules, r)
		}
	}
	return g
}

// Enforces reports whether the grant's limits and allow list refuse.
func (g *Grant) Enforces() bool { return g.mode == access.Enforce }

// OnDeny returns what an agent gets in place of a denied tool use.
func (g *Grant) OnDeny() access.OnDeny { return g.grant.OnDeny }

// Limits returns the grant's limits.
func (g *Grant) Limits() access.Limits { return g.grant.Limits }

// MaskRequests reports whether what goes to the upstream is masked, too.
func (g *Grant) MaskRequests() bool { return g.grant.MaskRequests }

// MaskResponses reports whether the detectors work on what the job gets; kindDefault is what its kind does by itself.
func (g *Grant) MaskResponses(kindDefault bool) bool {
	if g.grant.MaskResponses != nil {
		return *g.grant.MaskResponses
	}
	return kindDefault
}

// AsksAboutCalls reports whether a rule may pause a whole call, so that it must be held in full.
func (g *Grant) AsksAboutCalls() bool {
	return slices.ContainsFunc(g.callRules, func(r rule) bool { return r.Effect == access.Ask && !r.observe })
}

// Call judges a call.
func (g *Grant) Call(ctx context.Context, f Facts) access.Decision {
	if g.broken != nil {
		return access.Decision{Rule: "config", Reason: "the grant cannot be evaluated: " + g.broken.Error()}
	}
	var observed []access.Observation
	for _, check := range []func(*access.Call) (string, string){g.allowed, g.features, g.models} {
		part, reason := check(f.Call)
		if part == "" {
			continue
		}
		if g.Enforces() {
			return access.Decision{Rule: part, Reason: reason, Observed: observed}
		}
		observed = append(observed, access.Observation{Rule: part, Effect: access.Deny, Reason: reason})
	}
	if len(g.callRules) == 0 {
		return access.Decision{Effect: access.Allow, Observed: observed}
	}
	d := judge(ctx, g.callRules, input(f, nil, g.grant.Connection))
	d.Observed = append(observed, d.Observed...)
	return d
}

// MayJudge reports whether some rule could speak about a use of the tool. Where none could, the use passes unheld.
func (g *Grant) MayJudge(tool string) bool {
	if g.broken != nil {
		return true
	}
	if len(g.toolRules) == 0 {
		return false
	}
	g.mu.RLock()
	may, known := g.may[tool]
	g.mu.RUnlock()
	if known {
		return may
	}
	may = slices.ContainsFunc(g.toolRules, func(r rule) bool { return r.cond.MayMatchTool(tool) })
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.may) < 1024 { // names come from the upstream
		g.may[strings.Clone(tool)] = may
	}
	return may
}

// JudgesTools reports whether there is any rule about tool uses.
func (g *Grant) JudgesTools() bool { return g.broken != nil || len(g.toolRules) > 0 }

// Tool judges one tool use.
func (g *Grant) Tool(ctx context.Context, f Facts, use access.ToolUse) access.Decision {
	if g.broken != nil {
		return access.Decision{Rule: "config", Reason: "the grant cannot be evaluated: " + g.broken.Error()}
	}
	return judge(ctx, g.toolRules, input(f, &use, g.grant.Connection))
}

func (r *rule) decision(reason string) access.Decision {
	d := access.Decision{Effect: r.Effect, Rule: r.Name, Reason: reason, Approvers: r.Approvers, Timeout: r.Timeout}
	if d.Timeout <= 0 {
		d.Timeout = defaultTimeout
	}
	return d
}

// judge evaluates all rules: deny beats approve beats nothing. Where several ask, all of them are heard.
func judge(ctx context.Context, rules []rule, in cond.Input) access.Decision {
	best := access.Decision{Effect: access.Allow}
	var observed []access.Observation
	for _, r := range rules {
		match, err := r.cond.Eval(ctx, in)
		reason := r.Reason
		if err != nil {
			match, reason = true, fmt.Sprintf("%s (its condition could not be evaluated: %v)", r.Reason, err)
		}
		switch {
		case !match:
		case r.observe:
			observed = append(observed, access.Observation{Rule: r.Name, Effect: r.Effect, Reason: reason})
		case r.Effect < best.Effect:
			overruled := best.Overruled
			for _, q := range best.Questions() {
				overruled = append(overruled, q.Rule)
			}
			best = r.decision(reason)
			best.Overruled = overruled
		case r.Effect == access.Ask && best.Effect == access.Ask:
			best.Also = append(best.Also, r.decision(reason))
		default:
			best.Overruled = append(best.Overruled, r.Name)
		}
	}
	best.Observed = observed
	return best
}

func (g *Grant) allowed(c *access.Call) (part, reason string) {
	for _, r := range g.routes {
		if r.matches(c.Method, c.Path) {
			return "", ""
		}
	}
	return "allow", fmt.Sprintf("%s %s is not in the allow list of the grant on %q; add \"%s %s\" to its allow: if the job may do that",
		c.Method, c.Path, g.grant.Connection, c.Method, c.Path)
}

func (g *Grant) features(c *access.Call) (part, reason string) {
	for _, f := range c.Features {
		if !slices.Contains(g.grant.Features, f) {
			return "features", fmt.Sprintf("the request uses %q, which runs at the provider where no tool use can be held; add %q to features: of the grant on %q if the job may do that",
				f, f, g.grant.Connection)
		}
	}
	return "", ""
}

func (g *Grant) models(c *access.Call) (part, reason string) {
	allowed := g.grant.Limits.Models
	if len(allowed) == 0 || c.Model == "" && !needsModel(c) {
		return "", ""
	}
	for _, want := range allowed {
		prefix, wild := strings.CutSuffix(want, "*")
		if c.Model == want || wild && c.Model != "" && strings.HasPrefix(c.Model, prefix) {
			return "", ""
		}
	}
	return "models", fmt.Sprintf("the model %q is not one of %s that the grant on %q allows", c.Model, strings.Join(allowed, ", "), g.grant.Connection)
}

// needsModel reports whether a call without a model must be refused where models are limited: one that has a body to
// a connection of a model.
func needsModel(c *access.Call) bool { return c.Kind != "http" && c.Method == "POST" }

// input is what a condition sees.
func input(f Facts, use *access.ToolUse, connection string) cond.Input {
	in := cond.Input{
		Claims: f.Session.Identity.Claims, Provider: f.Session.Identity.Provider, Issuer: f.Session.Identity.Issuer, Call: f.Call,
		Session: cond.Session{ID: f.Session.ID, Mapping: f.Session.Mapping, Age: f.Now.Sub(f.Session.Window.Opens)},
		Usage:   f.Session.CountsOf(connection),
	}
	if use != nil {
		in.Tool = cond.NewTool(*use)
	}
	return in
}
