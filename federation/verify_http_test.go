package federation_test

import (
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/testkit"
)

// TestEmulatedIssuer takes a job's token as a job gets it, over real connections.
func TestEmulatedIssuer(t *testing.T) {
	issuer, err := testkit.NewIssuer(testkit.IssuerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	clock := &clock{now: time.Now()}
	v, err := federation.NewVerifier(federation.VerifierConfig{
		Audience: audience, Now: clock.Now,
		Issuers: []federation.Issuer{{Name: "github", Provider: "github-actions", URL: issuer.URL()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	job := issuer.StartJob(issuer.GitHubClaims(nil))
	fetch := func() string {
		t.Helper()
		token, err := job.Token(t.Context(), audience)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	want := func(token, reason string) {
		t.Helper()
		id, err := v.Verify(t.Context(), token)
		if got := reasonOf(err); got != reason {
			t.Errorf("Verify = %s (%v), want %s", got, err, reason)
		}
		if err == nil && (id.JobKey == "" || federation.Job(id).Repository == "") {
			t.Errorf("identity %+v", id)
		}
	}
	want(fetch(), "ok")
	if err := issuer.Rotate(); err != nil {
		t.Fatal(err)
	}
	issuer.Retire()
	token := fetch()
	want(token, "unknown_kid")
	clock.add(time.Minute)
	want(token, "ok")
	issuer.SetDown(true)
	want(token, "ok")
}
