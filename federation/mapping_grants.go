package federation

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/cond"
)

// ownRules are the names under which decisions of a grant's other parts are recorded.
var ownRules = []string{"allow", "features", "models", "limits"}

var (
	allowShape   = regexp.MustCompile(`\A[A-Z]+ /[^ ?#%]*\z`)
	featureShape = regexp.MustCompile(`\A[a-z][a-z0-9_]*\z`)
)

// grants checks the grants at a path, and returns them as the rest of Jobgate reads them.
func (c mappingCheck) grants(path string, grants []api.Grant, p *provider) ([]access.Grant, error) {
	if len(grants) == 0 {
		return nil, wrong(path, "there are none, so that its sessions could do nothing; name a connection")
	}
	var out []access.Grant
	seen := map[string]bool{}
	for i, g := range grants {
		at := fmt.Sprintf("%s[%d]", path, i)
		kind, known := c.config.Connections[g.Connection]
		switch {
		case !known:
			return nil, wrong(at+".connection", "%q is no connection of this deployment; write one of: %s", g.Connection, strings.Join(sortedNames(c.config.Connections), ", "))
		case seen[g.Connection]:
			return nil, wrong(at+".connection", "%q is granted twice; put both into one grant", g.Connection)
		}
		seen[g.Connection] = true
		grant, err := c.grant(at, g, kind, p)
		if err != nil {
			return nil, err
		}
		out = append(out, grant)
	}
	return out, nil
}

func (c mappingCheck) grant(at string, g api.Grant, kind string, p *provider) (access.Grant, error) {
	var none access.Grant
	for i, entry := range g.Allow {
		if err := c.allow(entry); err != nil {
			return none, wrong(fmt.Sprintf("%s.allow[%d]", at, i), "%w", err)
		}
	}
	limits, err := checkLimits(at+".limits", g.Limits, p)
	if err != nil {
		return none, err
	}
	for i, feature := range g.Features {
		names, listed := c.config.Features[kind]
		if !featureShape.MatchString(feature) || listed && !slices.Contains(names, feature) {
			return none, wrong(fmt.Sprintf("%s.features[%d]", at, i), "%q is no feature of connections of kind %s%s", feature, kind, oneOf(names))
		}
	}
	onDeny, ok := onDenys[g.OnDeny]
	if !ok {
		return none, wrong(at+".on_deny", "%q is not known; write tell, stop or fail", g.OnDeny)
	}
	rules, err := c.rules(at, g.Rules, kind, p)
	if err != nil {
		return none, err
	}
	out := access.Grant{
		Connection: g.Connection, Allow: g.Allow, Rules: rules, Features: g.Features, OnDeny: onDeny,
		Limits: limits,
	}
	if g.Mask != nil {
		out.MaskRequests, out.MaskResponses = g.Mask.Requests, g.Mask.Responses
	}
	return out, nil
}

func oneOf(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "; write one of: " + strings.Join(names, ", ")
}

func (c mappingCheck) allow(entry string) error {
	if c.config.CheckAllow != nil {
		return c.config.CheckAllow(entry)
	}
	if !allowShape.MatchString(entry) {
		return fmt.Errorf("%q is no entry; write METHOD /path/{template}, such as POST /v1/messages", entry)
	}
	return nil
}

func (c mappingCheck) rules(at string, rules []api.Rule, kind string, p *provider) ([]access.Rule, error) {
	var out []access.Rule
	seen := map[string]bool{}
	for i, r := range rules {
		path := fmt.Sprintf("%s.rules[%d]", at, i)
		switch {
		case !validName.MatchString(r.Name):
			return nil, wrong(path+".name", "%q is no name; %s", r.Name, nameRule)
		case slices.Contains(ownRules, r.Name):
			return nil, wrong(path+".name", "%q is what records call a part of the grant; write another", r.Name)
		case seen[r.Name]:
			return nil, wrong(path+".name", "%q is another rule's, too", r.Name)
		}
		seen[r.Name] = true
		rule, err := c.rule(path, r, kind, p)
		if err != nil {
			return nil, err
		}
		out = append(out, rule)
	}
	return out, nil
}

func (c mappingCheck) rule(path string, r api.Rule, kind string, p *provider) (access.Rule, error) {
	out := access.Rule{Name: r.Name, When: r.When, Reason: r.Reason, Approvers: r.Approvers, Timeout: time.Duration(r.Timeout)}
	mode, ok := modes[r.Mode]
	if !ok {
		return out, wrong(path+".mode", "%q is no mode; write enforce or observe", r.Mode)
	}
	out.Mode = mode
	condition, err := compileWhen(path+".when", r.When, cond.Rule, p)
	if err != nil {
		return out, err
	}
	if err := speaks(path+".when", condition, kind); err != nil {
		return out, err
	}
	switch r.Effect {
	case "deny":
		if len(r.Approvers) > 0 || r.Timeout != 0 {
			return out, wrong(path, "approvers and timeout belong to effect: approve; a deny asks nobody")
		}
		return out, nil // the zero Effect denies
	case "approve":
		out.Effect = access.Ask
		return out, c.approvers(path, r, &out)
	case "allow":
		return out, wrong(path+".effect", "what no rule refuses passes, so there is no allow; write deny or approve, and say in when what does not pass")
	}
	return out, wrong(path+".effect", "%q is no effect; write deny or approve", r.Effect)
}

// approvers checks who is asked and how long.
func (c mappingCheck) approvers(path string, r api.Rule, out *access.Rule) error {
	if len(r.Approvers) == 0 {
		return wrong(path+".approvers", "there are none; name a group of approvals.groups%s", oneOf(c.config.Groups))
	}
	for i, group := range r.Approvers {
		if !slices.Contains(c.config.Groups, group) {
			return wrong(fmt.Sprintf("%s.approvers[%d]", path, i), "%q is no group of approvals.groups%s", group, oneOf(c.config.Groups))
		}
	}
	if out.Timeout == 0 {
		out.Timeout = defaultTimeout
	}
	return atLeastSecond(path+".timeout", r.Timeout)
}

// speaks refuses conditions on what connections of a kind never have: such a rule would look like a protection and
// never speak.
func speaks(path string, c *cond.Condition, kind string) error {
	absent := map[string][]string{
		"http": {"model", "tools", "tool", "mcp"}, "anthropic": {"mcp"}, "openai": {"mcp"}, "mcp": {"model"},
	}[kind]
	for _, name := range absent {
		if c.Mentions(name) {
			return wrong(path, "connections of kind %s have no %s", kind, name)
		}
	}
	return nil
}
