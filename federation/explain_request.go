package federation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// ExplainerConfig is what an explainer looks at.
type ExplainerConfig struct {
	Verifier *Verifier         // required
	Mappings func() []*Mapping // those in force; required
	// Connections are names with their kinds, for the mapping that is suggested to a job that none serves.
	Connections map[string]string
	// Exchange knows the latest exchanges, the jobs' sessions and the tokens that were used. nil: there is no server.
	Exchange *Exchange
	Now      func() time.Time // nil takes time.Now
}

// Explainer says what mappings make of a token, of claims, or of an exchange that was. It changes nothing: a token
// opens no session and is not used up. Its answers hold no token.
type Explainer struct{ c ExplainerConfig }

// NewExplainer returns a ready explainer.
func NewExplainer(c ExplainerConfig) (*Explainer, error) {
	if c.Verifier == nil || c.Mappings == nil {
		return nil, errors.New("federation: ExplainerConfig needs Verifier and Mappings")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Explainer{c: c}, nil
}

// Explain answers a request. A job that would be refused is an answer; errors are *access.Error of questions that
// cannot be answered: CodeInvalid, CodeNotFound.
func (x *Explainer) Explain(ctx context.Context, r api.ExplainRequest) (api.Explanation, error) {
	switch {
	case r.Exchange != "":
		return x.exchange(ctx, r.Exchange)
	case len(r.Claims) > 0:
		return x.claims(r)
	}
	return x.token(ctx, r)
}

func (x *Explainer) token(ctx context.Context, r api.ExplainRequest) (api.Explanation, error) {
	raw := strings.TrimSpace(r.Token)
	out := api.Explanation{Source: "token", Mappings: []api.MappingExplanation{}}
	id, err := x.c.Verifier.Verify(ctx, raw)
	if err == nil {
		out.Verified = true
		x.judge(&out, id, r.Mapping, x.c.Now())
		for _, check := range []func(context.Context, *api.Explanation, access.Identity) error{x.stopped, x.window, x.seen, x.alive} {
			if err := check(ctx, &out, id); err != nil {
				return out, err
			}
		}
		return out, nil
	}
	refusal := x.refusal(err)
	if id, unread := x.c.Verifier.unverified(raw); unread == nil && slices.Contains(innocent, refusal.Reason) {
		out.Notes = append(out.Notes, "the token did not verify: what follows is what mappings would say to its claims, if they were true")
		x.judge(&out, id, r.Mapping, x.c.Now())
	}
	out.Refusal, out.Outcome, out.Mapping, out.Suggestion = refusal, "refused", "", ""
	return out, nil
}

// innocent are refusals of tokens that are most often real: old ones, or ones that were made for somebody else. Of
// others the claims are not worth a look.
var innocent = []string{reasonAudience, reasonExpired, reasonEarly, reasonLifetime, reasonAge, reasonKeysUnavailable, reasonKeyID}

func (x *Explainer) claims(r api.ExplainRequest) (api.Explanation, error) {
	out := api.Explanation{Source: "claims", Mappings: []api.MappingExplanation{},
		Notes: []string{"claims are nobody's word: signature, audience and times were not looked at"}}
	id, wrong, err := x.c.Verifier.ofClaims(r.Claims, r.Issuer)
	if err != nil {
		return out, err
	}
	x.judge(&out, id, r.Mapping, x.c.Now())
	if err := x.stopped(context.Background(), &out, id); err != nil {
		return out, err
	}
	for i, err := range wrong {
		refusal := x.refusal(err)
		if i == 0 {
			out.Refusal, out.Outcome, out.Mapping = refusal, "refused", ""
			continue
		}
		out.Notes = append(out.Notes, refusal.Detail)
	}
	return out, nil
}

// exchange explains one that was, over the mappings as they are now.
func (x *Explainer) exchange(ctx context.Context, id string) (api.Explanation, error) {
	out := api.Explanation{Source: "exchange", Mappings: []api.MappingExplanation{}}
	if x.c.Exchange == nil {
		return out, access.Refuse(access.CodeInvalid, "only a running server knows exchanges; show a token or claims")
	}
	e, found, err := x.c.Exchange.find(ctx, id)
	if err != nil {
		return out, err
	}
	if !found {
		return out, access.Refuse(access.CodeNotFound, fmt.Sprintf(
			"exchange %s is not among those of the last days, or was one of a flood of refusals, of which only the sum is kept; the log, and the audit stream of its day, have it by that id if anybody has", shown(id)))
	}
	then := api.ExchangeView{ID: e.ID, Time: e.At.UTC(), Door: e.Door, Outcome: e.Outcome, Mapping: e.Mapping, Session: e.Session,
		Code: string(e.Code), Reason: e.Reason, Detail: e.Detail}
	out.Then, out.Verified = &then, e.Identity.Issuer != ""
	if !out.Verified {
		out.Outcome, out.Refusal = "refused", x.advised(cmp.Or(e.Reason, string(e.Code)), e.Detail)
		return out, nil
	}
	// As it was then: a token that is old by now was not.
	x.judge(&out, e.Identity, e.Asked, e.At)
	if err := x.stopped(ctx, &out, e.Identity); err != nil {
		return out, err
	}
	if err := x.window(ctx, &out, e.Identity); err != nil {
		return out, err
	}
	if then.Outcome == "refused" && out.Outcome == "granted" {
		out.Notes = append(out.Notes, "the mappings serve the job as they are now; it was refused for "+then.Reason)
	}
	return out, nil
}

// judge explains what the mappings say to an identity, and which of them an exchange would take.
// An exchange that names its mapping is answered by that one alone.
func (x *Explainer) judge(out *api.Explanation, id access.Identity, named string, at time.Time) {
	out.Issuer, out.Provider, out.Subject, out.JobKey = id.Issuer, id.Provider, id.Subject, string(id.JobKey)
	out.Job, out.Claims = Job(id), id.Claims
	others := 0
	var serving []string
	owned := make(map[string]bool)
	for _, m := range x.c.Mappings() {
		switch {
		case named != "" && m.Name() != named:
			continue
		case named == "" && m.Issuer() != id.Issuer:
			others++
			continue
		}
		one := m.explain(id, at)
		if one.Serves {
			serving = append(serving, m.Name())
		}
		owned[m.Name()] = m.PinsTenant(id)
		out.Mappings = append(out.Mappings, one)
	}
	slices.SortStableFunc(out.Mappings, func(a, b api.MappingExplanation) int {
		if owned[a.Name] != owned[b.Name] && !a.Serves && !b.Serves {
			if owned[a.Name] {
				return -1
			}
			return 1
		}
		return a.Failed - b.Failed
	})
	if others > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("of mappings of other issuers, %d are not shown", others))
	}
	x.outcome(out, id, serving)
	if named != "" && len(out.Mappings) == 0 {
		out.Refusal = &api.ExplainRefusal{Reason: "unknown_mapping", Detail: fmt.Sprintf("there is no mapping %s in force", shown(named))}
	}
}

func (x *Explainer) outcome(out *api.Explanation, id access.Identity, serving []string) {
	out.Outcome = "refused"
	switch len(serving) {
	case 1:
		out.Outcome, out.Mapping = "granted", serving[0]
	case 0:
		out.Refusal = &api.ExplainRefusal{Reason: "no_mapping", Detail: "no mapping serves this job"}
		if s, err := x.suggest(id); err == nil {
			out.Suggestion, _ = s.YAML()
		}
	default:
		out.Refusal = &api.ExplainRefusal{Reason: "ambiguous", Detail: "several mappings serve this job: " + strings.Join(serving, ", "),
			Advice: "let the exchange name one of them, with mapping; or make them exclude one another"}
	}
}

func (x *Explainer) suggest(id access.Identity) (Suggestion, error) {
	issuer := x.c.Verifier.issuers[id.IssuerURL]
	if issuer == nil {
		return Suggestion{}, fmt.Errorf("issuer %s is not trusted", shown(id.IssuerURL))
	}
	return suggest(id, issuer.provider, x.c.Connections)
}

// stopped says whether an operator holds the mapping back.
func (x *Explainer) stopped(_ context.Context, out *api.Explanation, _ access.Identity) error {
	if x.c.Exchange == nil || out.Outcome != "granted" {
		return nil
	}
	if stop, held := x.c.Exchange.c.Stops.OfMapping(out.Mapping); held {
		refused(out, access.ReasonStopped, access.PublicText(stop.RefuseExchange()), "jobgate stop ls shows who stopped what; jobgate resume lifts it")
	}
	return nil
}

// window says whether the job's session under its mapping is over already. Nothing is written.
func (x *Explainer) window(ctx context.Context, out *api.Explanation, id access.Identity) error {
	if x.c.Exchange == nil || out.Outcome != "granted" {
		return nil
	}
	job := id.JobKey
	if job == "" {
		job = access.JobKey("token=" + id.TokenID)
	}
	row, found, err := x.c.Exchange.c.Sessions.ofKey(ctx, access.LedgerKey{Issuer: id.Issuer, Job: job, Mapping: out.Mapping})
	switch {
	case err != nil || !found:
		return err
	case row.Reason == "":
		out.Notes = append(out.Notes, fmt.Sprintf("the job has session %s under mapping %s", row.ID, out.Mapping))
		return nil
	}
	refused(out, "window_over", fmt.Sprintf("session %s of this job is over: %s", row.ID, row.Reason.Text()), "a job has one window under a mapping; start the job again")
	return nil
}

// seen says whether the token was used.
func (x *Explainer) seen(ctx context.Context, out *api.Explanation, id access.Identity) error {
	if x.c.Exchange == nil || out.Outcome != "granted" {
		return nil
	}
	used, found, err := x.c.Exchange.c.Store.SeenToken(ctx, id.Issuer, id.TokenID)
	if err != nil || !found {
		return err
	}
	refused(out, access.ReasonReplayed, fmt.Sprintf("the token was used for session %s under mapping %s", used.Session, used.Mapping),
		"a CI token opens once: let the job fetch a fresh one")
	return nil
}

// alive asks the provider, as an exchange does, whether the job still runs.
func (x *Explainer) alive(ctx context.Context, out *api.Explanation, id access.Identity) error {
	if x.c.Exchange == nil || out.Outcome != "granted" {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, livenessWait)
	defer cancel()
	state, err := x.c.Exchange.c.Liveness.JobEnded(asking, id)
	switch {
	case err == nil && (state == LiveEnded || state == LiveSuperseded):
		refused(out, "job_ended", fmt.Sprintf("the CI provider says of the job: %s", state), "a job that is over opens nothing; start it again")
	case (err != nil || state != LiveRunning) && x.requiresLiveness(out.Mapping):
		refused(out, "job_ended", "the CI provider does not say that the job still runs, and the mapping requires it",
			"configure the provider's job API at the issuer, or leave require_liveness out")
	}
	return nil
}

func (x *Explainer) requiresLiveness(name string) bool {
	return slices.ContainsFunc(x.c.Mappings(), func(m *Mapping) bool { return m.Name() == name && m.RequiresLiveness() })
}

func refused(out *api.Explanation, reason, detail, advice string) {
	out.Outcome, out.Refusal = "refused", &api.ExplainRefusal{Reason: reason, Detail: detail, Advice: advice}
}

// ofKey returns a job's session under a mapping, open or over, without taking it into memory.
func (s *Sessions) ofKey(ctx context.Context, key access.LedgerKey) (access.SessionRow, bool, error) {
	s.mu.RLock()
	e := s.byJob[key]
	s.mu.RUnlock()
	if e != nil {
		return e.snapshot(s.c.Now()), true, nil
	}
	return s.c.Store.SessionOfJob(ctx, key)
}

// refusal says why a token was refused: to people who may know, so that all of it is shown.
func (x *Explainer) refusal(err error) *api.ExplainRefusal {
	return x.advised(cmp.Or(reasonOf(err), string(access.CodeOf(err))), detailOf(err))
}

func (x *Explainer) advised(reason, detail string) *api.ExplainRefusal {
	out := &api.ExplainRefusal{Reason: reason, Detail: detail}
	switch reason {
	case reasonAudience:
		out.Advice = "let the job ask for a token with the audience that is wanted; it is public_url"
	case reasonIssuer:
		out.Advice = "the issuers are " + x.c.Verifier.names() + "; the URL is compared byte by byte"
	default:
		out.Advice = tokenAdvice[out.Reason]
	}
	return out
}

// detailOf returns an error's cause where its public text is the bare code.
func detailOf(err error) string {
	var e *access.Error
	if errors.As(err, &e) && e.Err != nil {
		return printableLong(e.Err.Error())
	}
	return printableLong(access.PublicText(err))
}

// tokenAdvice says what helps against a refusal of a token.
var tokenAdvice = map[string]string{
	reasonMalformed:       "show the token as the CI provider gave it: three parts, nothing before, between or after them",
	reasonAlgorithm:       "name the algorithm in the issuer's algorithms, if the provider signs with it",
	reasonHeader:          "no provider writes such a header: ask where the token comes from",
	reasonKeyID:           "the issuer's key set has no such key: the token is of another issuer, or of a key that is gone",
	reasonSignature:       "the token was changed, or is signed by somebody else: do not trust it",
	reasonExpired:         "let the job fetch a token right before the exchange; tokens last minutes",
	reasonEarly:           "compare the clocks of this machine and of the issuer",
	reasonLifetime:        "the issuer's max_lifetime can allow more",
	reasonAge:             "let the job fetch a token right before the exchange, or change the issuer's max_age",
	reasonMissing:         "the token is no job's, or of a server that does not write this claim",
	reasonType:            "the issuer's provider, or with provider generic its tokens.claims, says another type than its tokens have: correct it in the configuration",
	reasonKind:            "show the OIDC token of a job, and not that of a login or a service",
	reasonKeysUnavailable: "see whether this machine reaches the issuer; keys_file does without",
}

// longText bounds what is shown of an error.
const longText = 1000

// printableLong is printable for texts of several claims.
func printableLong(s string) string {
	var out strings.Builder
	for len(s) > 0 && out.Len() < longText {
		n := min(len(s), shownBytes)
		out.WriteString(printable(s[:n]))
		s = s[n:]
	}
	return out.String()
}
