package federation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

func (w *world) failAudit(err error) {
	w.auditMu.Lock()
	defer w.auditMu.Unlock()
	w.auditFails = err
}

func (w *world) lastEvent() federation.AuditEvent {
	w.t.Helper()
	w.auditMu.Lock()
	defer w.auditMu.Unlock()
	if len(w.audit) == 0 {
		w.t.Fatal("nothing was written")
	}
	return w.audit[len(w.audit)-1]
}

// An exchange that cannot be written down gives out nothing, and takes nothing away from its job: the same token opens later.
func TestAnExchangeThatCannotBeAudited(t *testing.T) {
	w := newWorld(t, agents())
	w.failAudit(errors.New("disk is full"))
	_, err := w.open("1/a")
	wantRefused(t, err, access.CodeUnavailable, "unrecordable", "the exchange cannot be recorded (exchange x_")
	if list, err := w.sessions.List(t.Context(), false); err != nil || len(list) != 0 {
		t.Errorf("sessions %v, %v, want none", list, err)
	}
	if _, err := w.open("no token"); access.CodeOf(err) != access.CodeGrant {
		t.Errorf("a refusal that cannot be written = %v, want the refusal", err)
	}
	if events := strings.Join(w.record.all(), "\n"); !strings.Contains(events, "ended run_id=1 unrecorded by ") {
		t.Errorf("the record of the session that nobody got: %s", events)
	}
	w.failAudit(nil)
	opened := w.mustOpen("1/a")
	w.wantCall(opened, "")

	// A renewal and a join likewise, and the session stays.
	w.failAudit(errors.New("disk is full"))
	_, err = w.open("1/b")
	wantRefused(t, err, access.CodeUnavailable, "unrecordable")
	_, err = w.connect("1/a")
	wantRefused(t, err, access.CodeUnavailable, "unrecordable")
	w.wantCall(opened, "")
	w.failAudit(nil)
	if o := w.mustOpen("1/c"); !o.Renewed || o.Session.ID != opened.Session.ID {
		t.Errorf("later: %+v", o)
	}
}

// A refused job of a tenant that a mapping names is written with the conditions that failed; a stranger's is not told of any.
func TestAuditSaysWhichConditionFailed(t *testing.T) {
	next := func(m *api.Mapping) { m.Match["ref"] = api.Values{"refs/heads/next"} }
	far := func(m *api.Mapping) { next(m); m.Match["event_name"] = api.Values{"schedule"} }
	w := newWorld(t, agents(named("a-far"), far), agents(named("near"), next))
	_, err := w.open("1/a")
	var refused *access.Error
	if !errors.As(err, &refused) || refused.Exchange == "" || !strings.Contains(refused.Public, refused.Exchange) {
		t.Fatalf("error %#v, want the exchange's id in it", err)
	}
	e := w.lastEvent()
	if e.Exchange != refused.Exchange || e.Class != "known" || len(e.Failed) != 3 {
		t.Fatalf("event %+v", e)
	}
	if f := e.Failed[0]; f.Mapping != "near" || f.On != "ref" || f.Got != "'refs/heads/main'" || f.Wanted != "'refs/heads/next'" || f.Reason != "claim_mismatch" {
		t.Errorf("the nearest: %+v", f)
	}
	if _, err := w.open("!1/a"); err == nil {
		t.Fatal("a stranger was served")
	}
	if e := w.lastEvent(); e.Class != "stranger" || len(e.Failed) != 0 || e.Identity.Claims["repository_id"] != "1" {
		t.Errorf("a stranger's: %+v", e)
	}
	if _, err := w.exchange.Open(t.Context(), federation.OpenRequest{Token: "1/a", Mapping: "a-far", Scope: []string{"web"}}); err == nil {
		t.Fatal("it was served")
	}
	if e := w.lastEvent(); e.Asked.Mapping != "a-far" || e.Asked.Scope[0] != "web" || len(e.Failed) != 2 || e.Failed[1].Mapping != "a-far" {
		t.Errorf("with a mapping: %+v", e)
	}
}

// A flood is written in part and summed up, class by class: one hides nothing of another.
func TestFloodOfRefusals(t *testing.T) {
	w := newWorld(t, agents(func(m *api.Mapping) { m.Match["ref"] = api.Values{"refs/heads/next"} }))
	at := time.Now()
	w.config.Now = func() time.Time { return at }
	var err error
	w.exchange, err = federation.NewExchange(w.config)
	w.must(err)
	const flood = 1000
	for i := range flood {
		for _, token := range []string{"nonsense", fmt.Sprintf("!%d/a", i)} {
			if _, err := w.open(token); err == nil {
				t.Fatal("it opened")
			}
		}
	}
	if _, err := w.open("1/a"); err == nil {
		t.Fatal("it opened")
	}
	if e := w.lastEvent(); e.Class != "known" || len(w.audit) != 30+120+1 {
		t.Errorf("%d events, the last %+v, want 151 and the known job's at the end", len(w.audit), e)
	}
	w.failAudit(errors.New("disk is full"))
	w.exchange.SumUp(t.Context())
	w.failAudit(nil)
	w.exchange.SumUp(t.Context())
	w.exchange.SumUp(t.Context())
	if len(w.sums) != 1 || w.sums[0].Count != 2*flood-150 || len(w.sums[0].By) != 2 {
		t.Fatalf("sums %+v", w.sums)
	}
	if by := w.sums[0].By[0]; by.Class != "unverified" || by.Reason != "malformed" || by.Count != flood-30 || by.Issuer != "" {
		t.Errorf("sum %+v", by)
	}
	if by := w.sums[0].By[1]; by.Class != "stranger" || by.Reason != "no_mapping" || by.Count != flood-120 || by.Issuer != "github" {
		t.Errorf("sum %+v", by)
	}
	at = at.Add(time.Minute)
	if _, err := w.open("nonsense"); err == nil {
		t.Fatal("it opened")
	}
	if e := w.lastEvent(); e.Class != "unverified" || e.Suppressed != flood-30 {
		t.Errorf("a minute later: %+v", e)
	}
}

// What strangers name as their issuer is cut and escaped, and there are not arbitrarily many of them.
func TestFloodOfIssuers(t *testing.T) {
	w := newWorld(t, agents())
	rig := newRig(t, func(c *federation.VerifierConfig) { c.Now = time.Now })
	rig.clock.set(time.Now())
	var sums int
	for i := range 200 {
		token := rig.token(map[string]any{"iss": fmt.Sprintf("https://evil%d.example\n\x1b[2J\u202e%s", i, strings.Repeat("x", 4000))})
		if _, err := w.exchangeOf(rig).Open(t.Context(), federation.OpenRequest{Token: token}); err == nil {
			t.Fatal("it opened")
		}
	}
	w.exchangeOf(rig).SumUp(t.Context())
	for _, e := range w.audit {
		if len(e.Claimed) > 400 || strings.ContainsAny(e.Claimed+e.Detail(), "\n\x1b\u202e") || e.Claimed == "" || len(e.Identity.Claims) > 0 || e.Reason != "unknown_issuer" {
			t.Fatalf("event %+v", e)
		}
	}
	for _, s := range w.sums {
		sums += len(s.By)
	}
	if sums == 0 || sums > 65 || len(w.audit) > 30 {
		t.Errorf("%d kinds in the sums, %d events", sums, len(w.audit))
	}
}

// exchangeOf is an exchange over the rig's verifier that writes where the world's does.
func (w *world) exchangeOf(rig *rig) *federation.Exchange {
	w.t.Helper()
	if w.other == nil {
		c := w.config
		c.Verify = rig.Verify
		var err error
		w.other, err = federation.NewExchange(c)
		w.must(err)
	}
	return w.other
}

// An exchange is explained after a restart, as it was judged: a token that is old by now was fresh then.
func TestExplainAfterARestart(t *testing.T) {
	w := newWorld(t, agents(func(m *api.Mapping) {
		m.Match["ref"], m.MaxAge = api.Values{"refs/heads/main"}, api.Duration(time.Minute)
	}))
	opened := w.mustOpen("1/a")
	_, err := w.open("~2/b")
	var refused *access.Error
	if !errors.As(err, &refused) {
		t.Fatal(err)
	}
	_, err = w.open("no token")
	var nobody *access.Error
	if !errors.As(err, &nobody) {
		t.Fatal(err)
	}
	w.stop()
	w.offset.Add(int64(2 * time.Hour))
	w.start()
	x, err := federation.NewExplainer(federation.ExplainerConfig{Verifier: newRig(t).Verifier, Mappings: w.mappings.InForce, Exchange: w.exchange, Now: w.now})
	w.must(err)
	got, err := x.Explain(t.Context(), api.ExplainRequest{Exchange: refused.Exchange})
	w.must(err)
	if got.Then == nil || got.Then.Outcome != "refused" || !strings.Contains(got.Then.Detail, "claim repository_id is '1', wanted '456789'") || got.Claims["repository_id"] != "1" ||
		len(got.Mappings) != 1 || got.Mappings[0].Failed != 1 {
		t.Errorf("a refused one: %+v, %+v", got, got.Then)
	}
	if got, err = x.Explain(t.Context(), api.ExplainRequest{Exchange: opened.Exchange}); err != nil || got.Then.Session != opened.Session.ID || !got.Mappings[0].Serves {
		t.Errorf("an opened one: %+v, %v", got, err)
	}
	if got, err = x.Explain(t.Context(), api.ExplainRequest{Exchange: nobody.Exchange}); err != nil || got.Verified || got.Refusal.Reason != "malformed" {
		t.Errorf("one of nobody: %+v, %v", got, err)
	}
}
