package federation

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

const (
	planDays    = 7
	planMaxDays = 14
	// planExchanges bounds how many exchanges are judged again: some seconds of work.
	planExchanges = 50_000
	// planGroups bounds each list of an answer.
	planGroups = 200
)

// Planner says what other mappings would have made of the exchanges of the last days. It changes nothing.
type Planner struct {
	Mappings *Mappings
	Trail    ExchangeTrail
	Now      func() time.Time // nil takes time.Now
}

// Plan judges the exchanges again, each at its own time and by what it asked for. Errors are *api.FieldError of a mapping that does not
// fit the configuration, and *access.Error.
func (p Planner) Plan(ctx context.Context, r api.PlanRequest) (api.Plan, error) {
	if r.Days < 0 || r.Days > planMaxDays {
		return api.Plan{}, access.Refuse(access.CodeInvalid, fmt.Sprintf("days can be 1 to %d: exchanges are kept no longer", planMaxDays))
	}
	now := time.Now
	if p.Now != nil {
		now = p.Now
	}
	set, changes, err := p.Mappings.planned(r)
	if err != nil {
		return api.Plan{}, err
	}
	until := now()
	j := planning{set: set, seen: make(map[planJob]bool), out: api.Plan{Changes: changes, Until: until.UTC(), Since: until.AddDate(0, 0, -cmp.Or(r.Days, planDays)).UTC()}}
	n := 0
	err = p.Trail.EachExchange(ctx, j.out.Since, planExchanges+1, func(row access.ExchangeRow) error {
		if n++; n > planExchanges {
			j.out.Truncated = true
			return nil
		}
		j.oldest = row.At
		j.judge(row)
		return nil
	})
	if err != nil {
		return api.Plan{}, err
	}
	if j.out.Truncated {
		j.out.Since = j.oldest.UTC()
	}
	j.out.Lose, j.out.Gain, j.out.Elsewhere = j.lose.groups(), j.gain.groups(), j.elsewhere.groups()
	return j.out, nil
}

// planned is the set that would be in force, and how it differs from the one that is.
func (m *Mappings) planned(r api.PlanRequest) (*mappingSet, []api.PlanChange, error) {
	m.mu.Lock()
	rows, force := make(map[string]access.MappingRow, len(m.rows)), m.set.Load()
	for name, row := range m.rows {
		rows[name] = row
	}
	m.mu.Unlock()
	next := make(map[string]*mappingInForce, len(force.byName))
	for name, f := range force.byName {
		if !r.WholeFile || rows[name].Source != access.FromFile {
			next[name] = f
		}
	}
	var changes []api.PlanChange
	given := make(map[string]bool, len(r.Mappings))
	for i, spec := range r.Mappings {
		if given[spec.Name] {
			return nil, nil, &api.FieldError{Path: fmt.Sprintf("mappings[%d].name", i), Err: fmt.Errorf("two mappings are called %q; rename one", spec.Name)}
		}
		given[spec.Name] = true
		row, known := rows[spec.Name]
		if r.WholeFile && known && row.Source == access.FromFile && row.DeletedVia == access.FromAPI {
			continue // it stays deleted while the file names it
		}
		mapping, err := m.c.Build(spec)
		if err != nil {
			return nil, nil, inFile(i, err)
		}
		text, err := encodeMapping(spec)
		if err != nil {
			return nil, nil, err
		}
		next[spec.Name] = &mappingInForce{Mapping: mapping, policies: mapping.policies(row.Revision + 1)}
		switch {
		case force.byName[spec.Name] == nil:
			changes = append(changes, api.PlanChange{Name: spec.Name, Change: "new"})
		case !bytes.Equal(row.Spec, text):
			changes = append(changes, api.PlanChange{Name: spec.Name, Change: "changed"})
		}
	}
	for _, name := range r.Without {
		if next[name] == nil {
			return nil, nil, access.Refuse(access.CodeInvalid, "there would be no mapping "+quotedName(name)+" to delete")
		}
		delete(next, name)
	}
	for name := range force.byName {
		if next[name] == nil {
			changes = append(changes, api.PlanChange{Name: name, Change: "deleted"})
		}
	}
	changes = slices.DeleteFunc(changes, func(c api.PlanChange) bool { return c.Change != "deleted" && next[c.Name] == nil })
	slices.SortFunc(changes, func(a, b api.PlanChange) int { return cmp.Compare(a.Name, b.Name) })
	set := &mappingSet{byName: next}
	for _, f := range next {
		set.sorted = append(set.sorted, f)
	}
	sort.Slice(set.sorted, func(i, j int) bool { return set.sorted[i].Name() < set.sorted[j].Name() })
	if changes == nil {
		changes = []api.PlanChange{}
	}
	return set, changes, nil
}

// planJob is a job and what it asked for: of its exchanges the latest one counts.
type planJob struct {
	issuer, job, asked string
}

type planning struct {
	set                   *mappingSet
	seen                  map[planJob]bool
	oldest                time.Time
	out                   api.Plan
	lose, gain, elsewhere planList
}

func (j *planning) judge(row access.ExchangeRow) {
	id := row.Identity
	if id.Issuer == "" || row.Door == TryDoor || row.Outcome != access.ExchangeOpened && row.Outcome != access.ExchangeRefused {
		return // nobody's, or a trial, or of a session whose opening says the same
	}
	job := string(id.JobKey)
	if job == "" {
		job = id.TokenID
	}
	key := planJob{id.Issuer, job, row.Asked}
	if j.seen[key] {
		return
	}
	served := row.Outcome == access.ExchangeOpened
	if !served && !ofMappings(row.Code, row.Reason) {
		j.out.Other++
		return // an earlier exchange of the job may say more
	}
	j.seen[key] = true
	j.out.Jobs++
	m, err := j.set.wouldServe(row)
	switch {
	case served && err != nil:
		j.lose.add(row, "", err, j.set.failing(row, err))
	case !served && err == nil:
		j.gain.add(row, m.Name(), nil, nil)
	case served && m.Name() != row.Mapping:
		j.elsewhere.add(row, m.Name(), nil, nil)
	case served:
		j.out.Served++
	default:
		j.out.Refused++
	}
}

// wouldServe is what an exchange would be answered with by the set, as far as mappings decide.
func (set *mappingSet) wouldServe(row access.ExchangeRow) (*mappingInForce, error) {
	m, err := set.choose(row.Identity, row.Asked, row.At)
	if err != nil {
		return nil, err
	}
	if _, err := granted(m.policyOf(row.Identity), row.Scope); err != nil {
		return nil, err
	}
	if _, err := bound(row.Identity, m); err != nil {
		return nil, err
	}
	return m, nil
}

// failing are the conditions that a job fails at the mapping it named, at the one that served it, or at the nearest of its owner's.
func (set *mappingSet) failing(row access.ExchangeRow, err error) []api.MappingCondition {
	if reasonOf(err) == "scope" || reasonOf(err) == "ambiguous" {
		return nil
	}
	if m := set.byName[cmp.Or(row.Asked, row.Mapping)]; m != nil {
		return unheld(m.Examine(row.Identity, row.At))
	}
	if row.Asked != "" {
		return nil
	}
	var nearest []api.MappingCondition
	for _, m := range set.sorted {
		if m.Issuer() != row.Identity.Issuer || !m.PinsTenant(row.Identity) {
			continue
		}
		if failed := unheld(m.Examine(row.Identity, row.At)); nearest == nil || len(failed) < len(nearest) {
			nearest = failed
		}
	}
	return nearest
}

// planList gathers jobs into groups.
type planList struct {
	jobs  int
	byKey map[plannedKey]*api.PlanGroup
}

type plannedKey struct{ issuer, repository, then, thenReason, plan, reason string }

// add takes the latest job of a group first: rows come the newest first.
func (p *planList) add(row access.ExchangeRow, plan string, err error, failed []api.MappingCondition) {
	p.jobs++
	job := Job(row.Identity)
	key := plannedKey{issuer: row.Identity.Issuer, repository: cmp.Or(job.Repository, row.Identity.Subject), then: row.Mapping, plan: plan}
	if row.Outcome == access.ExchangeRefused {
		key.then, key.thenReason = "", cmp.Or(row.Detail, row.Reason)
	}
	if err != nil {
		key.reason = planText(err)
	}
	if p.byKey == nil {
		p.byKey = make(map[plannedKey]*api.PlanGroup)
	}
	g := p.byKey[key]
	if g == nil {
		g = &api.PlanGroup{Issuer: key.issuer, Repository: key.repository, Then: key.then, ThenReason: key.thenReason, Plan: key.plan, Reason: key.reason,
			Failed: failed, Exchange: row.ID, Job: job, Last: row.At.UTC()}
		p.byKey[key] = g
	}
	g.Jobs++
}

// planText is a refusal's text for operators.
func planText(err error) string {
	var e *access.Error
	if errors.As(err, &e) && e.Public != "" {
		return e.Public
	}
	return detailOf(err)
}

func (p *planList) groups() api.PlanGroups {
	out := api.PlanGroups{Jobs: p.jobs, Items: []api.PlanGroup{}}
	for _, g := range p.byKey {
		out.Items = append(out.Items, *g)
	}
	slices.SortFunc(out.Items, func(a, b api.PlanGroup) int {
		return cmp.Or(cmp.Compare(b.Jobs, a.Jobs), cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.ThenReason, b.ThenReason), b.Last.Compare(a.Last))
	})
	for len(out.Items) > planGroups {
		out.More += out.Items[len(out.Items)-1].Jobs
		out.Items = out.Items[:len(out.Items)-1]
	}
	return out
}
