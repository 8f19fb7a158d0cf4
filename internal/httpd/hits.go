package httpd

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// defaultHitDays is what is shown where nobody says how many days.
const defaultHitDays = 7

// Hits counts what mappings are used for.
type Hits interface {
	Of(ctx context.Context, mapping string, days int) ([]access.HitCount, []access.HitSamples, error)
	Days() int
}

func (p *People) mappingHits(g *gin.Context) error {
	days := min(defaultHitDays, p.c.Hits.Days())
	if text := g.Query("days"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > p.c.Hits.Days() {
			return access.Refuse(access.CodeInvalid, fmt.Sprintf("days is a number from 1 to %d: so many are kept", p.c.Hits.Days()))
		}
		days = n
	}
	m, err := p.c.Mappings.Get(g.Param("name"))
	if err != nil {
		return err
	}
	counts, samples, err := p.c.Hits.Of(g.Request.Context(), m.Row.Name, days)
	if err != nil {
		return err
	}
	writeJSON(g.Writer, http.StatusOK, hitsView(m, days, counts, samples))
	return nil
}

// hitsView puts counts beside what the mapping says now: what never spoke is there with zeros, and what spoke and is gone.
func hitsView(m federation.MappingInfo, days int, counts []access.HitCount, samples []access.HitSamples) api.MappingHits {
	t := hitTable{places: make(map[string]int), out: api.MappingHits{
		Mapping: m.Row.Name, Days: days, Since: time.Now().UTC().AddDate(0, 0, 1-days).Format(time.DateOnly), Rules: []api.RuleHits{},
	}}
	for _, grant := range m.Spec.Grants {
		t.declareGrant(grant, m.Spec.Mode)
	}
	for _, o := range m.Spec.Overrides { // counts are by name: a rule that an override repeats has one line
		mode := m.Spec.Mode
		if o.Mode != "" {
			mode = o.Mode
		}
		for _, grant := range o.Grants {
			t.declareGrant(grant, mode)
		}
		t.out.Enforce.Observing = t.out.Enforce.Observing || o.Mode == "observe"
	}
	for _, c := range counts {
		t.add(c)
	}
	for _, s := range samples {
		t.addSamples(s)
	}
	return t.out
}

type hitTable struct {
	out    api.MappingHits
	places map[string]int // in out.Rules, by connection and rule
}

// parts are what of a grant speaks without being a rule, in the order in which they are looked at.
var parts = []string{"allow", "features", "models", "limits"}

func (t *hitTable) declareGrant(grant api.Grant, mode string) {
	mode = orEnforce(mode)
	t.declare(api.RuleHits{Connection: grant.Connection, Part: "grant", Mode: mode}, "")
	for _, part := range parts {
		models := slices.ContainsFunc(grant.Limits, func(l api.Limits) bool { return len(l.Models) > 0 })
		counts := slices.ContainsFunc(grant.Limits, func(l api.Limits) bool { return l.Requests > 0 || l.InputTokens > 0 || l.OutputTokens > 0 })
		switch {
		case part == "models" && !models,
			part == "limits" && !counts,
			part == "features" && len(grant.Features) == 0:
			continue // it cannot speak, or is looked at only where it does
		}
		t.declare(api.RuleHits{Connection: grant.Connection, Part: part, Effect: "deny", Mode: mode}, part)
	}
	for _, rule := range grant.Rules {
		own := orEnforce(rule.Mode)
		if mode == "observe" {
			own = mode
		}
		t.declare(api.RuleHits{Connection: grant.Connection, Part: "rule", Rule: rule.Name, Effect: rule.Effect, Mode: own}, rule.Name)
	}
}

func orEnforce(mode string) string {
	if mode == "" {
		return "enforce"
	}
	return mode
}

// declare adds a line unless it is there.
func (t *hitTable) declare(r api.RuleHits, name string) *api.RuleHits {
	key := r.Connection + " " + name
	if at, there := t.places[key]; there {
		return &t.out.Rules[at]
	}
	if r.Mode == "observe" {
		t.out.Enforce.Observing = true
	}
	t.places[key] = len(t.out.Rules)
	t.out.Rules = append(t.out.Rules, r)
	return &t.out.Rules[len(t.out.Rules)-1]
}

// line returns the line of what was counted; of what the mapping does not have, one that says so.
func (t *hitTable) line(connection, name string) *api.RuleHits {
	r := api.RuleHits{Connection: connection, Part: "rule", Rule: name, Gone: true}
	switch {
	case name == "":
		r.Part, r.Rule = "grant", ""
	case slices.Contains(parts, name):
		_, granted := t.places[connection+" "]
		r.Part, r.Rule, r.Effect, r.Gone = name, "", "deny", !granted || t.out.Rules[t.places[connection+" "]].Gone
	case name == "grant": // calls on a connection that is there and not granted
		r.Part, r.Rule, r.Effect, r.Gone = "not granted", "", "deny", false
	case name == "config", name == "strict-json":
		r.Part, r.Rule, r.Effect, r.Gone = name, "", "deny", false
	}
	return t.declare(r, name)
}

func (t *hitTable) add(c access.HitCount) {
	if t.out.LastUsed == nil || c.Last.After(*t.out.LastUsed) {
		last := c.Last.UTC()
		t.out.LastUsed = &last
	}
	switch c.Outcome {
	case access.OutcomeOpened:
		t.out.Exchange.Opened += c.N
		return
	case access.OutcomeRenewed:
		t.out.Exchange.Renewed += c.N
		return
	case access.OutcomeJoined:
		t.out.Exchange.Joined += c.N
		return
	case access.OutcomeTurnedAway:
		t.out.Exchange.Refused += c.N
		return
	}
	if c.Rule == "" && c.Outcome == access.OutcomeWouldDeny {
		t.out.Enforce.WouldDeny += c.N
	}
	if c.Rule == "" && c.Outcome == access.OutcomeWouldAsk {
		t.out.Enforce.WouldAsk += c.N
	}
	r := t.line(c.Connection, c.Rule)
	if r.Last == nil || c.Last.After(*r.Last) {
		last := c.Last.UTC()
		r.Last = &last
	}
	tally(r, c.Outcome, c.N)
}

func tally(r *api.RuleHits, outcome access.Outcome, n int64) {
	matched := n // outcomes of a question are no further match, nor is what would become of a whole call
	switch outcome {
	case access.OutcomeCall:
	case access.OutcomeDenied:
		r.Denied += n
	case access.OutcomeOverruled:
		r.Overruled += n
	case access.OutcomeAsked:
		r.Asked += n
	case access.OutcomeWouldDeny:
		r.WouldDeny += n
	case access.OutcomeWouldAsk:
		r.WouldAsk += n
	case access.OutcomeApproved:
		r.Approved, matched = r.Approved+n, 0
	case access.OutcomeRefused:
		r.Refused, matched = r.Refused+n, 0
	case access.OutcomeExpired:
		r.Expired, matched = r.Expired+n, 0
	case access.OutcomeCancelled:
		r.Cancelled, matched = r.Cancelled+n, 0
	}
	if r.Part != "grant" || outcome == access.OutcomeCall {
		r.Hits += matched
	}
}

// addSamples shows the latest hits of a rule that is shown, however old they are.
func (t *hitTable) addSamples(s access.HitSamples) {
	at, shown := t.places[s.Connection+" "+s.Rule]
	if !shown {
		return
	}
	for _, sample := range s.Samples {
		t.out.Rules[at].Samples = append(t.out.Rules[at].Samples, api.HitSample{
			Time: sample.Time.UTC(), Session: sample.Session, Call: sample.Call, Outcome: string(sample.Outcome), What: strings.ToValidUTF8(sample.What, "?"),
		})
	}
}
