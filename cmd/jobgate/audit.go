package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/internal/store"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"
)

// auditor writes the deployment's own record: exchanges, and what people do that changes access. All of it is masked.
type auditor struct {
	archive *archive.Archive
	maskers *proxy.Maskers
	log     *slog.Logger
}

// masks are the same for all streams, so that equal values read equal over days.
func (a *auditor) masks() (proxy.Masks, error) { return a.maskers.For("audit") }

// exchange writes one exchange. A join repeats no claims: its session's record has them.
func (a *auditor) exchange(ctx context.Context, e federation.AuditEvent) error {
	m, err := a.masks()
	if err != nil {
		return err
	}
	id := e.Identity
	out := record.Exchange{
		Exchange: e.Exchange, Door: e.Door, Outcome: e.Outcome, Verified: id.Issuer != "", Issuer: id.Issuer,
		ClaimedIssuer: maskText(m, e.Claimed), IssuerURL: id.IssuerURL, Provider: id.Provider, Subject: maskText(m, id.Subject),
		JobKey: maskText(m, string(id.JobKey)), JobURL: maskText(m, federation.Job(id).URL), Token: maskText(m, id.TokenID),
		Mapping: maskText(m, e.Mapping), Revision: e.Revision, Session: e.Session, Connections: e.Connections,
		Code: string(e.Code), Reason: e.Reason, Detail: maskText(m, e.Detail()), Suppressed: e.Suppressed,
	}
	if e.Outcome != access.ExchangeJoined && out.Verified {
		out.Claims = maskClaims(m, id.Claims)
	}
	if e.Asked.Mapping != "" || len(e.Asked.Scope) > 0 {
		out.Asked = &record.Asked{Mapping: maskText(m, e.Asked.Mapping)}
		for _, s := range e.Asked.Scope {
			out.Asked.Scope = append(out.Asked.Scope, maskText(m, s))
		}
	}
	for _, f := range e.Failed {
		f.Got, f.Wanted = maskText(m, f.Got), maskText(m, f.Wanted)
		out.Failed = append(out.Failed, f)
	}
	return a.archive.Audit(ctx, record.TypeExchange, out)
}

// auditedTrail keeps exchanges for explanations, without the secrets that somebody may ask with. Claims stay as they are: they are judged
// again.
type auditedTrail struct {
	*store.DB
	audit *auditor
}

// SaveExchange keeps an exchange.
func (t auditedTrail) SaveExchange(ctx context.Context, r access.ExchangeRow) error {
	m, err := t.audit.masks()
	if err != nil {
		return err
	}
	r.Asked, r.Detail, r.Scope = maskText(m, r.Asked), maskText(m, r.Detail), slices.Clone(r.Scope)
	for i := range r.Scope {
		r.Scope[i] = maskText(m, r.Scope[i])
	}
	return t.DB.SaveExchange(ctx, r)
}

func (a *auditor) refusals(ctx context.Context, r record.Refusals) error {
	m, err := a.masks()
	if err != nil {
		return err
	}
	for i := range r.By {
		r.By[i].Issuer = maskText(m, r.By[i].Issuer)
	}
	return a.archive.Audit(ctx, record.TypeRefusals, r)
}

// act writes what a person did. What takes access away must not wait for the disk: such an act is logged where it cannot be written.
func (a *auditor) act(ctx context.Context, e record.Act) error {
	m, err := a.masks()
	if err == nil {
		e.Of, e.By, e.Reason = maskText(m, e.Of), maskText(m, e.By), maskText(m, e.Reason)
		err = a.archive.Audit(context.WithoutCancel(ctx), record.TypeAct, e)
	}
	if err != nil {
		a.log.ErrorContext(ctx, "an act could not be written to the audit stream", "act", e.Act, "of", e.Of, "by", e.By, "err", err)
		return &access.Error{Code: access.CodeUnavailable, Reason: "unrecordable", Public: "this cannot be recorded, so that it is not done; see the log", Err: err}
	}
	return nil
}

// auditedMappings writes every change of a mapping to the audit stream, whoever makes it and by whichever way: before it takes effect,
// where it gives access.
type auditedMappings struct {
	*store.DB
	audit *auditor
}

// SaveMappings makes all changes or none.
func (s auditedMappings) SaveMappings(ctx context.Context, changes []access.MappingChange) error {
	for _, c := range changes {
		if err := s.audit.act(ctx, mappingAct(c)); err != nil && c.Row.Live() {
			return err
		}
	}
	err := s.DB.SaveMappings(ctx, changes)
	if err != nil {
		for _, c := range changes {
			act := mappingAct(c)
			act.Outcome = "failed: " + string(access.CodeOf(err))
			_ = s.audit.act(ctx, act) // it is logged
		}
	}
	return err
}

func mappingAct(c access.MappingChange) record.Act {
	row := c.Row
	sum := sha256.Sum256(row.Spec)
	out := record.Act{Act: record.ActMappingPut, Of: row.Name, By: row.By, Via: viaOf(row.By), Revision: row.Revision, Mapping: row.Name, Digest: hex.EncodeToString(sum[:])}
	switch {
	case !row.Live():
		out.Act, out.Digest = record.ActMappingDelete, ""
	case c.Restored:
		out.Act = record.ActMappingRestore
	case row.Source == access.FromFile:
		out.Act = record.ActMappingReload
	}
	if row.Source == access.FromFile && (row.DeletedVia == access.FromFile || row.Live() && !c.Restored) {
		out.Via = "file"
	}
	return out
}

// viaOf is the way by which a caller came, as the people's side names callers.
func viaOf(by string) string {
	if by == "operator on the control socket" {
		return "socket"
	}
	return "api"
}

// auditedDocket writes every vote that settled a question. A yes that cannot be written is none.
type auditedDocket struct {
	*store.DB
	audit *auditor
}

// SettleApproval replaces a question if its version is still fromVersion.
func (d auditedDocket) SettleApproval(ctx context.Context, a access.Approval, fromVersion int64) error {
	if err := d.DB.SettleApproval(ctx, a, fromVersion); err != nil {
		return err
	}
	out := record.Act{Act: record.ActApprove, Of: a.ID, By: a.Vote.By, Via: a.Vote.Via, Mapping: a.Mapping, Session: a.Session, Digest: a.Digest, Rule: a.Rule, Reason: a.Vote.Reason}
	switch a.State {
	case access.Approved:
		return d.audit.act(ctx, out)
	case access.Denied:
		out.Act = record.ActDeny
		_ = d.audit.act(ctx, out) // it is logged
	}
	return nil
}

// auditedSessions writes who closes sessions by hand.
type auditedSessions struct {
	*federation.Sessions
	audit *auditor
}

// End ends a session. It does not wait for its audit event.
func (s auditedSessions) End(ctx context.Context, id string, reason access.EndReason, by string) error {
	if err := s.Sessions.End(ctx, id, reason, by); err != nil {
		return err
	}
	out := record.Act{Act: record.ActSessionClose, Of: id, By: by, Via: viaOf(by), Session: id}
	if info, err := s.Get(ctx, id); err == nil {
		out.Mapping = info.Mapping
	}
	_ = s.audit.act(ctx, out) // it is logged
	return nil
}

// auditedStops writes who pulls the kill switch and who lets it go. A stop does not wait for its event; what is resumed does.
type auditedStops struct {
	*federation.Stops
	audit *auditor
}

// Stop puts a stop in force.
func (s auditedStops) Stop(ctx context.Context, order access.StopOrder) (federation.StopChange, error) {
	change, err := s.Stops.Stop(ctx, order)
	if err == nil || access.CodeOf(err) == access.CodeUnavailable { // then it is in force all the same
		out := record.Act{Act: record.ActStop, Of: order.String(), By: order.By, Via: viaOf(order.By), Reason: order.Reason}
		if err != nil {
			out.Outcome = "failed in part: " + access.PublicText(err)
		}
		_ = s.audit.act(ctx, out) // it is logged
	}
	return change, err
}

// Resume lifts a stop, once that is written down.
func (s auditedStops) Resume(ctx context.Context, kind access.StopKind, name, by string) (federation.StopChange, error) {
	order := access.StopOrder{Kind: kind, Name: name}
	if !slices.ContainsFunc(s.InForce(), func(o access.StopOrder) bool { return o.Kind == kind && o.Name == name }) {
		return s.Stops.Resume(ctx, kind, name, by)
	}
	out := record.Act{Act: record.ActResume, Of: order.String(), By: by, Via: viaOf(by)}
	if err := s.audit.act(ctx, out); err != nil {
		return federation.StopChange{}, err
	}
	change, err := s.Stops.Resume(ctx, kind, name, by)
	if err != nil {
		out.Outcome = "failed: " + string(access.CodeOf(err))
		_ = s.audit.act(ctx, out) // it is logged
	}
	return change, err
}

// sumUp writes the sums of refusals until ctx ends.
func (s *server) sumUp(ctx context.Context) {
	tick := time.NewTicker(federation.SumEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.exchange.SumUp(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// endAudit closes the audit stream in order.
func (s *server) endAudit(ctx context.Context) {
	s.exchange.SumUp(ctx)
	if err := s.archive.EndAudit(ctx); err != nil {
		s.log.Error("the audit stream is not closed; the next start closes it", "error", fmt.Errorf("end audit: %w", err))
	}
}
