package federation_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// TestDenials holds what each provider's jobs are refused for under a mapping that names only their owner, and that
// naming the claim leaves the decision to the mapping.
func TestDenials(t *testing.T) {
	const in = "oidc.circleci.com/"
	off := false
	for _, test := range []struct {
		provider, url string
		pin           map[string]api.Values
		claims        access.Claims // of a job that is accepted
		claim         string        // that makes it another
		bad           any
	}{
		{"gitlab", "", map[string]api.Values{"namespace_id": {"72"}},
			access.Claims{"namespace_id": "72", "project_id": "20", "job_project_id": "20", "pipeline_source": "push", "job_id": "1"}, "pipeline_source", "merge_request_event"},
		{"circleci", "https://oidc.circleci.com", map[string]api.Values{in + "org-id": {"o"}},
			access.Claims{in + "org-id": "o", in + "ssh-rerun": false, in + "job-id": "j"}, in + "ssh-rerun", true},
		{"circleci", "https://oidc.circleci.com", map[string]api.Values{in + "org-id": {"o"}},
			access.Claims{in + "org-id": "o", in + "vcs-ref": "refs/heads/main", in + "job-id": "j"}, in + "vcs-ref", "refs/pull/5/head"},
		{"azure-devops", "https://vstoken.dev.azure.com/o", map[string]api.Values{"org_id": {"o"}},
			access.Claims{"org_id": "o", "rpo_ref": "refs/heads/main", "run_id": "5"}, "rpo_ref", "refs/pull/5/merge"},
		{"hcp-terraform", "", map[string]api.Values{"terraform_organization_id": {"o"}},
			access.Claims{"terraform_organization_id": "o", "terraform_run_phase": "apply", "terraform_run_id": "r"}, "terraform_run_phase", "plan"},
		{"codefresh", "", map[string]api.Values{"account_id": {"a"}},
			access.Claims{"account_id": "a", "workflow_id": "w"}, "scm_pull_request_target_branch", "main"},
		{"spacelift", "https://acme.app.spacelift.io", map[string]api.Values{"spaceId": {"s"}},
			access.Claims{"spaceId": "s", "runType": "TRACKED", "runId": "r"}, "runType", "PROPOSED"},
		{"harness", "https://app.harness.io/x", map[string]api.Values{"account_id": {"a"}},
			access.Claims{"account_id": "a", "organization_id": "o", "project_id": "p", "pipeline_id": "l", "context": "triggerType:manual/triggerEvent:null/sequenceId:1"},
			"context", "triggerType:Webhook/triggerEvent:PR/sequenceId:1"},
		{"jenkins", "https://jenkins.example.test/oidc", map[string]api.Values{"team": {"a"}},
			access.Claims{"team": "a", "sub": "https://jenkins.example.test/job/app/job/main/", "build_number": json.Number("5")},
			"sub", "https://jenkins.example.test/job/app/job/PR-12/"},
		{"semaphore", "https://acme.semaphoreci.com", map[string]api.Values{"org_id": {"o"}},
			access.Claims{"org_id": "o", "job_type": "pipeline_job", "ref_type": "branch", "job_id": "j"}, "ref_type", "pull-request"},
		{"semaphore", "https://acme.semaphoreci.com", map[string]api.Values{"org_id": {"o"}},
			access.Claims{"org_id": "o", "job_type": "pipeline_job", "ref_type": "branch", "job_id": "j"}, "job_type", "debug_job"},
		{"google-cloud-build", "", map[string]api.Values{"sub": {"1"}}, access.Claims{"sub": "1", "email_verified": true}, "", nil},
	} {
		t.Run(test.provider+" "+test.claim, func(t *testing.T) {
			m := api.Mapping{Name: "m", Issuer: "ci", Match: test.pin, Grants: []api.Grant{{Connection: "deploys"}}}
			if test.provider == "google-cloud-build" {
				m.Bound = &off
			}
			match := func() string {
				built, err := federation.NewMapping(m, federation.MappingConfig{
					Issuers: []federation.Issuer{{Name: "ci", Provider: test.provider, URL: test.url}}, Connections: map[string]string{"deploys": "http"},
				})
				if err != nil {
					t.Fatal(err)
				}
				return reasonOf(built.Match(access.Identity{Issuer: "ci", Provider: test.provider, Claims: test.claims}, start))
			}
			if got := match(); got != "ok" {
				t.Errorf("an ordinary job: %s", got)
			}
			if test.claim == "" {
				return
			}
			test.claims[test.claim] = test.bad
			if got := match(); got != "untrusted_event" {
				t.Errorf("%s %v: %s, want untrusted_event", test.claim, test.bad, got)
			}
			m.Match[test.claim] = api.Values{test.bad}
			if got := match(); got != "ok" {
				t.Errorf("%s %v, named by the mapping: %s, want ok", test.claim, test.bad, got)
			}
		})
	}
}

func TestTypedValues(t *testing.T) {
	m, err := federation.NewMapping(api.Mapping{
		Name: "m", Issuer: "jenkins", Grants: []api.Grant{{Connection: "deploys"}},
		Match: map[string]api.Values{"release": {true}, "build_number": {int64(5), int64(6), int64(7), int64(8), int64(9), int64(10), int64(11), int64(12), int64(13)}},
	}, deployment())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		release, number any
		want            string
	}{
		{true, json.Number("5"), "ok"},
		{true, json.Number("13"), "ok"},
		{false, json.Number("5"), "claim_mismatch"},
		{"true", json.Number("5"), "claim_type"},
		{true, "5", "claim_type"},
		{true, json.Number("5.0"), "claim_mismatch"},
		{true, json.Number("99999999999999999999"), "claim_mismatch"},
	} {
		err := m.Match(access.Identity{Issuer: "jenkins", Provider: "jenkins",
			Claims: access.Claims{"sub": "https://jenkins.example.test/job/a/", "release": test.release, "build_number": test.number}}, start)
		got := reasonOf(err)
		if got != test.want {
			t.Errorf("release %v, number %v: %s (%v), want %s", test.release, test.number, got, err, test.want)
		}
		if got != "ok" && strings.Contains(err.Error(), "13") {
			t.Errorf("a long list is shown whole: %v", err)
		}
	}
}
