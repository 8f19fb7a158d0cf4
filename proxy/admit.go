package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/guard"
	"github.com/jobgate/jobgate/proxy/record"
)

// permit lets one request leave. Only admit makes one.
type permit struct{ given bool }

// admit is the one gate: it judges the call, asks people where a rule wants that, and notes what was decided. A nil
// error is the only permission there is; what was noted is written down before the request leaves.
func (f *flight) admit() (permit, error) {
	f.hit("", access.OutcomeCall, "")
	d := f.grant.Call(f.ctx, f.facts())
	f.noteDecision("call", d)
	if d.Effect == access.Deny {
		return permit{}, f.refused(d)
	}
	if err := f.reserve(); err != nil {
		return permit{}, err
	}
	for _, q := range d.Questions() {
		if err := f.askAboutCall(q); err != nil {
			return permit{}, err
		}
	}
	if d.Effect == access.Ask {
		if err := f.stillAdmitted(d); err != nil {
			return permit{}, err
		}
	}
	return permit{given: true}, nil
}

func (f *flight) facts() guard.Facts {
	return guard.Facts{Session: f.s, Call: &f.call, Now: f.p.c.Now()}
}

// noteDecision notes what was said, and counts what would have been.
func (f *flight) noteDecision(subject string, d access.Decision) {
	e := record.Decision{Subject: subject, Effect: d.Effect.String(), Rule: d.Rule, Reason: f.masked(d.Reason)} // it may quote the path
	for _, o := range d.Observed {
		e.Observed = append(e.Observed, record.Observed{Rule: o.Rule, Effect: o.Effect.String(), Reason: f.masked(o.Reason)})
	}
	if len(d.Observed) > 0 {
		f.s.Count(func(t *access.Tally) { t.Observed += int64(len(d.Observed)) })
	}
	f.note(record.TypeDecision, e)
	if subject == "call" {
		f.hits(d, f.callText())
	}
}

// refused counts a denial and makes its error.
func (f *flight) refused(d access.Decision) error {
	f.countDenial(d, f.call.Method+" "+f.call.Path)
	return denial(f.s.Mapping, "", &f.call, d)
}

func (f *flight) countDenial(d access.Decision, what string) {
	f.denied = true
	f.s.Denied(access.Denial{Time: f.p.c.Now(), Connection: f.call.Connection, Rule: d.Rule,
		Reason: clip(f.masked(d.Reason), deniedText), What: clip(f.masked(what), deniedText)})
}

// reserve counts the call against the grant's limits.
func (f *flight) reserve() error {
	hold, err := f.s.Reserve(f.conn.Name, f.grant.Limits(), f.call.MaxTokens, f.grant.Enforces(), f.p.c.Now())
	if err != nil {
		d := access.Decision{Rule: "limits", Reason: access.PublicText(err)}
		if f.grant.Enforces() {
			f.noteDecision("call", d)
			f.countDenial(d, f.call.Method+" "+f.call.Path)
			return err
		}
		f.noteDecision("call", access.Decision{Effect: access.Allow,
			Observed: []access.Observation{{Rule: d.Rule, Effect: access.Deny, Reason: d.Reason}}})
	}
	f.counted, f.reserved, f.hold = true, f.call.MaxTokens, hold
	return nil
}

// askAboutCall asks people whether exactly this call may be sent.
func (f *flight) askAboutCall(d access.Decision) error {
	if f.body.rest != nil || int64(len(f.body.held)) > f.p.c.Limits.Held {
		f.hit(d.Rule, access.OutcomeDenied, f.callText())
		return f.refused(access.Decision{Rule: d.Rule, Reason: d.Reason + ": the request is longer than can be held for people; send a shorter one"})
	}
	f.call.Digest = f.digest()
	text, masked := f.masks.Full.Mask(nil, f.body.held)
	a := f.question(d, f.call.Digest, text, masked)
	title := f.call.Method + " " + f.call.Path
	if f.call.Query != "" {
		title += "?" + f.call.Query
	}
	hidden, n := f.masks.Full.Mask(nil, []byte(title))
	a.Title, a.Masked = string(hidden), a.Masked+n
	if f.call.Stream && !f.answering {
		f.beginStream()
	}
	settled, err := f.ask(a)
	if err != nil {
		return err
	}
	if settled.State != access.Approved {
		return f.refused(access.Decision{Rule: d.Rule, Reason: d.Reason + ": " + answer(settled)})
	}
	return nil
}

// question is what people are asked, bound to the digest of what would run.
func (f *flight) question(d access.Decision, digest string, text []byte, masked int) access.Approval {
	now := f.p.c.Now()
	a := access.Approval{
		Session: f.s.ID, Call: f.call.ID, Connection: f.conn.Name, Mapping: f.s.Mapping, Revision: f.policy.Revision,
		Rule: d.Rule, Reason: d.Reason, Approvers: d.Approvers, Job: f.s.Job, Digest: digest,
		Masked: masked, Asked: now, Expires: now.Add(d.Timeout), State: access.Pending,
	}
	if closes := f.s.Closes(); closes.Before(a.Expires) {
		a.Expires = closes
	}
	a.Text = string(text)
	return a
}

// ask waits for people. The record has the question before they do, and the answer before it takes effect. A stream is
// kept alive meanwhile.
func (f *flight) ask(a access.Approval) (access.Approval, error) {
	f.askHit(a)
	if f.p.c.Approver == nil {
		f.hit(a.Rule, access.OutcomeDenied, "")
		return a, access.Refuse(access.CodeDenied, fmt.Sprintf("Jobgate: rule %q of mapping %q asks people, and this deployment has nobody to ask", a.Rule, a.Mapping))
	}
	var err error
	if a.ID, err = newID("a_"); err != nil {
		return a, err
	}
	f.note(record.TypeApprovalAsked, record.ApprovalAsked{
		Approval: a.ID, ToolUse: a.ToolUse, Rule: a.Rule, Reason: a.Reason, Digest: a.Digest,
		Approvers: a.Approvers, Expires: a.Expires, Text: clip(a.Title+"\n"+a.Text, askedText),
	})
	if err := f.write(true); err != nil {
		return a, err
	}
	settled, err := f.awaitAnswer(a)
	if err != nil && (settled.State == access.Pending || settled.State == "") {
		settled = a
		settled.State = access.Cancelled
		settled.Vote = access.Vote{State: access.Cancelled, Reason: access.PublicText(f.cause(err))}
	}
	decided := record.ApprovalDecided{
		Approval: a.ID, State: string(settled.State), By: settled.Vote.By, Via: settled.Vote.Via, Reason: f.masked(settled.Vote.Reason),
	}
	if settled.ID != a.ID {
		decided.Reason = strings.TrimSpace("remembered from " + settled.ID + " " + decided.Reason)
	} else {
		f.countAnswer(settled)
	}
	f.answerHit(settled, a.Rule)
	f.note(record.TypeApprovalDecided, decided)
	if werr := f.write(true); werr != nil {
		return settled, werr
	}
	if err != nil {
		return settled, f.cause(err)
	}
	return settled, nil
}

// awaitAnswer is Ask with pings.
func (f *flight) awaitAnswer(a access.Approval) (access.Approval, error) {
	if !f.streaming {
		return f.p.c.Approver.Ask(f.ctx, a)
	}
	type result struct {
		a   access.Approval
		err error
	}
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	done := make(chan result, 1)
	go func() { // ends with Ask, which ends with ctx
		settled, err := f.p.c.Approver.Ask(ctx, a)
		done <- result{settled, err}
	}()
	tick := time.NewTicker(f.p.c.Limits.Ping)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			return r.a, r.err
		case <-tick.C:
			if err := f.ping(); err != nil {
				cancel(errors.New("the client left"))
				r := <-done
				return r.a, errors.Join(err, r.err)
			}
		}
	}
}

func (f *flight) countAnswer(a access.Approval) {
	f.s.Count(func(t *access.Tally) {
		t.Asked++
		switch a.State {
		case access.Approved:
			t.Approved++
		case access.Denied:
			t.Refused++
		case access.Expired:
			t.Expired++
		default:
			t.Cancelled++
		}
	})
}

// answer says in words what people answered.
func answer(a access.Approval) string {
	text := "the question " + a.ID + " was " + a.Outcome()
	switch a.State {
	case access.Expired:
		text = fmt.Sprintf("nobody answered the question %s in time; ask the approvers, and send it again after ten minutes", a.ID)
	case access.Denied:
		if a.Vote.Reason != "" {
			text += ", who says: " + a.Vote.Reason
		}
	}
	return text
}

// answered reports whether every question of a decision was asked before: the same rules, of the same people.
func answered(now, asked access.Decision) bool {
	for _, q := range now.Questions() {
		if !slices.ContainsFunc(asked.Questions(), func(a access.Decision) bool {
			return a.Rule == q.Rule && slices.Equal(a.Approvers, q.Approvers)
		}) {
			return false
		}
	}
	return true
}

// stillAdmitted looks again at what may have changed while people thought: the session, the mapping, its limits. A yes
// holds for the rule that asked; another rule that asks now wants a question of its own.
func (f *flight) stillAdmitted(asked access.Decision) error {
	if err := f.s.Usable(f.p.c.Now()); err != nil {
		return err
	}
	if f.s.Policy() == f.policy {
		return nil
	}
	if refusal := f.lookUpGrant(); refusal != nil {
		return refusal
	}
	d := f.grant.Call(f.ctx, f.facts())
	switch {
	case d.Effect == access.Deny:
		f.noteDecision("call", d)
		return f.refused(d)
	case !answered(d, asked):
		f.noteDecision("call", d)
		return f.refused(access.Decision{Rule: d.Rule, Reason: d.Reason + ": the mapping was changed while people decided; send it again to ask anew"})
	}
	f.s.Release(f.hold)
	f.counted = false
	return f.reserve()
}
