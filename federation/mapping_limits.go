package federation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

const (
	// perJob is what limits are of where per is left out.
	perJob = "job"
	// A period is a part of a day, or whole days.
	shortestPeriod = time.Minute
	day            = 24 * time.Hour
	longestPeriod  = 31 * day
)

// checkLimits checks the limits of a grant, and returns them as the rest of Jobgate reads them.
func checkLimits(path string, list api.LimitsList, p *provider) (access.Limits, error) {
	var out access.Limits
	seen := map[string]bool{}
	for i, l := range list {
		at := path
		if len(list) > 1 {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		per := l.Per
		if per == "" {
			per = perJob
		}
		if seen[per] {
			return out, wrong(at, "limits per %s stand there twice; put both into one", per)
		}
		seen[per] = true
		if err := checkCounts(at, l); err != nil {
			return out, err
		}
		if len(l.Models) > 0 && len(out.Models) > 0 {
			return out, wrong(at+".models", "they are the grant's, and stand in another of its limits; write them once")
		}
		out.Models = append(out.Models, l.Models...)
		if per == perJob {
			if l.Period != 0 {
				return out, wrong(at+".period", "what one job uses is counted as long as its window is open; leave it out, or write per")
			}
			out.Requests, out.InputTokens, out.OutputTokens = l.Requests, l.InputTokens, l.OutputTokens
			continue
		}
		shared, err := checkShared(at, l, p)
		if err != nil {
			return out, err
		}
		out.Shared = append(out.Shared, shared)
	}
	return out, nil
}

func checkCounts(at string, l api.Limits) error {
	for _, limit := range []struct {
		name string
		n    int64
	}{{"requests", l.Requests}, {"input_tokens", l.InputTokens}, {"output_tokens", l.OutputTokens}} {
		if limit.n < 0 {
			return wrong(at+"."+limit.name, "%d is negative; leave it out for no limit", limit.n)
		}
	}
	for i, model := range l.Models {
		if model == "" || strings.Contains(strings.TrimSuffix(model, "*"), "*") {
			return wrong(fmt.Sprintf("%s.models[%d]", at, i), "%q is no model; write a name, or a prefix that ends in *", model)
		}
	}
	return nil
}

// checkShared checks limits that are counted over several jobs.
func checkShared(at string, l api.Limits, p *provider) (access.SharedLimit, error) {
	out := access.SharedLimit{Per: l.Per, Period: time.Duration(l.Period), Requests: l.Requests, InputTokens: l.InputTokens, OutputTokens: l.OutputTokens}
	if err := knownClaim(at+".per", l.Per, p); err != nil {
		return out, err
	}
	if kind, known := p.typeOf(l.Per); known && slices.Contains([]claimType{typeBoolean, typeList, typeObject}, kind&^nullable) {
		return out, wrong(at+".per", "the claim is a %s, and jobs are counted by a string or an integer", kind&^nullable)
	}
	if out.Requests+out.InputTokens+out.OutputTokens == 0 {
		return out, wrong(at, "per %s limits nothing; write requests, input_tokens or output_tokens", l.Per)
	}
	if out.Period == 0 {
		out.Period = access.DefaultPeriod
	}
	if out.Period < shortestPeriod || out.Period > longestPeriod || out.Period < day && day%out.Period != 0 || out.Period > day && out.Period%day != 0 {
		return out, wrong(at+".period", "%s is no period; write a part of a day, such as 1h, 6h or 24h, or whole days up to 744h", out.Period)
	}
	return out, nil
}

// countedBy returns the claims by which what a job uses is counted together with other jobs.
func (m *Mapping) countedBy(id access.Identity) []string {
	var out []string
	for _, g := range m.PolicyFor(id, 0).Grants {
		for _, l := range g.Limits.Shared {
			if !slices.Contains(out, l.Per) {
				out = append(out, l.Per)
			}
		}
	}
	return out
}

// counted writes down the claims by which limits are counted, where the token does not have them.
func (e *examination) counted() {
	for _, name := range e.m.countedBy(e.id) {
		if _, ok := e.id.Claims.Value(name); !ok {
			got, _ := e.claim(name)
			e.add("limits", name, got, "present: the job is counted by it", reasonMissing)
		}
	}
}

// counted finds limits that are counted by what does not stay with whom it is to bound.
func (l *linting) counted(at string, g api.Grant) {
	ids := immutable(l.m.provider)
	for i, limits := range g.Limits {
		if limits.Per == "" || limits.Per == perJob || len(ids) == 0 || slices.Contains(ids, limits.Per) || keyClaim(l.m.provider, limits.Per) {
			continue
		}
		path := at + ".limits.per"
		if len(g.Limits) > 1 {
			path = fmt.Sprintf("%s.limits[%d].per", at, i)
		}
		l.find("per-not-id", path, "%s can be chosen or changed, and whoever changes it is counted anew; count per one of %s", limits.Per, strings.Join(ids, ", "))
	}
}

// keyClaim reports whether a claim is a part of the job key: an id of a run or a job, which nobody chooses.
func keyClaim(p *provider, claim string) bool {
	return slices.ContainsFunc(p.jobKey, func(k keyPart) bool { return k.path[0] == claim })
}
