package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/guard"
	"github.com/jobgate/jobgate/proxy/record"
)

// filterConfig says how an answer of a model is judged and masked. The rules are looked up at each tool use: the
// mapping may change while the model writes.
func (f *flight) filterConfig() dialect.FilterConfig {
	cfg := dialect.FilterConfig{
		Text: f.masks.Held, Opaque: f.masks.Held, MaxHeld: int(f.p.c.Limits.Held),
		Judge: f.judgeTool, Unreadable: f.unreadableTool,
	}
	if f.grant.MaskResponses(false) {
		cfg.Text = f.masks.Full
	}
	f.unjudged.Store(true) // a change from here on cuts the call, one before is seen here
	if grant := f.p.c.Guard.Grant(f.s.Policy(), f.conn.Name); grant != nil && !grant.JudgesTools() {
		return cfg
	}
	f.unjudged.Store(false)
	cfg.MayJudge = func(tool string) bool {
		grant := f.p.c.Guard.Grant(f.s.Policy(), f.conn.Name)
		return grant == nil || grant.MayJudge(tool)
	}
	return cfg
}

// judgeTool decides on one tool use: the gate's second half. What it allows is on record before the agent sees it.
func (f *flight) judgeTool(use access.ToolUse) dialect.Verdict {
	policy := f.s.Policy()
	grant := f.p.c.Guard.Grant(policy, f.conn.Name)
	switch {
	case f.ctx.Err() != nil:
		return dialect.Verdict{Err: f.cause(f.ctx.Err())}
	case grant == nil:
		return dialect.Verdict{Err: f.grantsNothing()}
	}
	d := grant.Tool(f.ctx, f.facts(), use)
	f.noteDecision(use.ID, d)
	f.hits(d, "tool use "+use.Name)
	if d.Effect == access.Ask {
		var err error
		if d, err = f.askAboutTool(d, policy, use); err != nil {
			f.noteTool(use, d, "failed")
			_ = f.write(false)
			return dialect.Verdict{Err: f.cause(err)}
		}
	}
	return f.verdict(grant, use, d)
}

func (f *flight) verdict(grant *guard.Grant, use access.ToolUse, d access.Decision) dialect.Verdict {
	action := "passed"
	if d.Effect != access.Allow {
		action = map[access.OnDeny]string{access.Tell: "told", access.Stop: "stopped", access.Fail: "failed"}[grant.OnDeny()]
		f.countDenial(d, "tool use "+use.Name)
	}
	f.noteTool(use, d, action)
	if err := f.write(true); err != nil {
		return dialect.Verdict{Err: err}
	}
	if d.Effect == access.Allow {
		return dialect.Verdict{Allow: true}
	}
	return dialect.Verdict{OnDeny: grant.OnDeny(), Rule: d.Rule, Reason: fmt.Sprintf(
		"Jobgate: the tool use %s was denied by %s of mapping %q: %s. Do not try to get around this; choose another way or say that you cannot go on.",
		clip(use.Name, 64), part(d.Rule), f.s.Mapping, d.Reason)}
}

// unreadableTool denies a tool use that cannot be judged.
func (f *flight) unreadableTool(use access.ToolUse, problem string) dialect.Verdict {
	grant := f.p.c.Guard.Grant(f.s.Policy(), f.conn.Name)
	if grant == nil {
		grant = f.grant
	}
	d := access.Decision{Rule: "strict-json", Reason: problem}
	f.noteDecision(use.ID, d)
	f.hits(d, "tool use "+use.Name)
	return f.verdict(grant, use, d)
}

func (f *flight) noteTool(use access.ToolUse, d access.Decision, action string) {
	f.note(record.TypeToolUse, record.ToolUse{ID: use.ID, Name: f.masked(use.Name), Input: f.masked(string(use.Input)),
		Effect: d.Effect.String(), Rule: d.Rule, Reason: f.masked(d.Reason), Action: action})
}

// askAboutTool asks people about exactly this tool use, and looks afterwards again at what may have changed.
func (f *flight) askAboutTool(d access.Decision, policy *access.Policy, use access.ToolUse) (access.Decision, error) {
	text, masked := f.masks.Full.Mask(nil, use.Input)
	digest := toolDigest(f.s.ID, f.conn.Name, use)
	allowed := access.Decision{Effect: access.Allow, Rule: d.Rule}
	for _, q := range d.Questions() {
		a := f.question(q, digest, text, masked)
		a.ToolUse, a.Title, a.Revision = use.ID, f.masked(use.Name), policy.Revision
		settled, err := f.ask(a)
		if err != nil {
			return q, err
		}
		if settled.State != access.Approved {
			return access.Decision{Rule: q.Rule, Reason: q.Reason + ": " + answer(settled)}, nil
		}
		allowed.Reason = answer(settled)
	}
	if err := f.s.Usable(f.p.c.Now()); err != nil && access.CodeOf(err) == access.CodeEnded {
		return d, err
	}
	if f.s.Policy() == policy {
		return allowed, nil
	}
	grant := f.p.c.Guard.Grant(f.s.Policy(), f.conn.Name)
	if grant == nil {
		return d, f.grantsNothing()
	}
	again := grant.Tool(f.ctx, f.facts(), use)
	switch {
	case again.Effect == access.Deny:
		return again, nil
	case !answered(again, d):
		return access.Decision{Rule: again.Rule, Reason: again.Reason + ": the mapping was changed while people decided; try again to ask anew"}, nil
	}
	return allowed, nil
}

// toolDigest binds a decision to what would run. The input is taken in a canonical form, so that the same command in
// another order of keys is the same question.
func toolDigest(session, connection string, use access.ToolUse) string {
	input := use.Input
	decoder := json.NewDecoder(bytes.NewReader(input))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) == nil {
		if canonical, err := json.Marshal(value); err == nil {
			input = canonical
		}
	}
	h := sha256.New()
	for _, part := range []string{"tool", session, connection, use.Name, string(input)} {
		fmt.Fprintf(h, "%d:%s\n", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}
