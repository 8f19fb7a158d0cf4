package federation_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// FuzzNewMapping holds what is refused of mappings, whatever they look like: one on a shared issuer names a tenant, one
// that is taken serves nobody without claims, and means the same after it went over the API.
func FuzzNewMapping(f *testing.F) {
	f.Add([]byte(releaseAgents))
	for _, seed := range []string{
		"{name: a, issuer: jenkins, match: {team: a, build_number: [1, 2]}, grants: [{connection: deploys, allow: [\"GET /\"]}]}",
		"{name: a, issuer: gitlab, match: {project_id: \"5\", user_id: null}, equal: [[project_id, job_project_id]], grants: [{connection: anthropic}]}",
		"{name: a, issuer: buildkite, match: {pipeline_id: x}, require: [organization_id], forbid: [build_tag], deny: {build_source: [ui]}, grants: []}",
		"{name: a, issuer: google, match: {sub: \"1\"}, job_bound: false, max_age: 10m, grants: [{connection: deploys}]}",
		"{name: a, issuer: circleci, match: {oidc.circleci.com/org-id: o}, when: 'claims[\"oidc.circleci.com/ssh-rerun\"] == false', grants: [{connection: deploys}]}",
		"{name: a, issuer: ghes, match: {ref: main}, job_key: run, paths: [{path: [a, b], present: true}], grants: [{connection: deploys}]}",
		"{name: A, issuer: none}", "{match: {repository_id: [[]]}}", "[]", "name: \xff",
	} {
		f.Add([]byte(seed))
	}
	c := deployment()
	shared := map[string][]string{ // issuer to its tenants
		"github": {"enterprise_id", "repository_owner_id", "repository_id"}, "google": {"sub"},
		"gitlab":    {"namespace_id", "project_id", "job_namespace_id", "job_project_id"},
		"buildkite": {"organization_id", "cluster_id", "queue_id", "pipeline_id"},
		"circleci":  {"oidc.circleci.com/org-id", "oidc.circleci.com/project-id"},
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var spec api.Mapping
		if yaml.Unmarshal(text, &spec) != nil {
			return
		}
		m, err := federation.NewMapping(spec, c)
		if err != nil {
			var field *api.FieldError
			if !errors.As(err, &field) || field.Path == "" {
				t.Errorf("an error without a place: %v", err)
			}
			return
		}
		if tenants := shared[spec.Issuer]; tenants != nil && !slices.ContainsFunc(tenants, func(name string) bool { return len(spec.Match[name]) > 0 }) {
			t.Errorf("on a shared issuer without a tenant: %+v", spec.Match)
		}
		for _, issuer := range c.Issuers {
			id := access.Identity{Issuer: issuer.Name, Provider: issuer.Provider, Claims: access.Claims{}}
			if m.Match(id, start) == nil {
				t.Error("it serves a job without claims")
			}
		}
		wire, err := json.Marshal(spec)
		if err != nil {
			t.Fatalf("it cannot be sent: %v", err)
		}
		var again api.Mapping
		if err := json.Unmarshal(wire, &again); err != nil {
			t.Fatalf("it cannot be read again: %v\n%s", err, wire)
		}
		if _, err := federation.NewMapping(again, c); err != nil {
			t.Errorf("sent over the API it is refused: %v\n%s", err, wire)
		}
		if second, err := json.Marshal(again); err != nil || !bytes.Equal(wire, second) {
			t.Errorf("it changes on its way: %s, then %s, %v", wire, second, err)
		}
	})
}
