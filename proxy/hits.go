package proxy

import "github.com/jobgate/jobgate/internal/access"

// hit tells of one outcome. A name that is no connection of ours is the job's own word and is not counted.
func (f *flight) hit(rule string, outcome access.Outcome, what string) {
	if f.p.c.Hit == nil || f.conn == nil {
		return
	}
	if what != "" {
		what = clip(f.masked(what), deniedText)
	}
	f.p.c.Hit(access.Hit{Mapping: f.s.Mapping, Connection: f.conn.Name, Rule: rule, Outcome: outcome, Session: f.s.ID, Call: f.call.ID, What: what})
}

// hits tells of what a decision says, and of what would have been: once for every rule, and once for the call or tool use.
// Questions are told of when they are asked.
func (f *flight) hits(d access.Decision, what string) {
	if d.Effect == access.Deny && d.Rule != "" {
		f.hit(d.Rule, access.OutcomeDenied, what)
	}
	for _, rule := range d.Overruled {
		f.hit(rule, access.OutcomeOverruled, what)
	}
	would := access.OutcomeWouldAsk
	for _, o := range d.Observed {
		outcome := access.OutcomeWouldAsk
		if o.Effect == access.Deny {
			outcome, would = access.OutcomeWouldDeny, access.OutcomeWouldDeny
		}
		f.hit(o.Rule, outcome, what)
	}
	if len(d.Observed) > 0 && d.Effect != access.Deny {
		f.hit("", would, "")
	}
}

// callText is what people read of a call in one line.
func (f *flight) callText() string { return f.call.Method + " " + f.call.Path }

// askHit tells that people are asked.
func (f *flight) askHit(a access.Approval) {
	if a.ToolUse != "" {
		f.hit(a.Rule, access.OutcomeAsked, "tool use "+a.Title)
		return
	}
	f.hit(a.Rule, access.OutcomeAsked, f.callText())
}

// answerHit tells how a question ended.
func (f *flight) answerHit(a access.Approval, rule string) {
	outcome := access.OutcomeCancelled
	switch a.State {
	case access.Approved:
		outcome = access.OutcomeApproved
	case access.Denied:
		outcome = access.OutcomeRefused
	case access.Expired:
		outcome = access.OutcomeExpired
	}
	f.hit(rule, outcome, "")
}
