package cond_test

import (
	"slices"
	"testing"

	"github.com/jobgate/jobgate/internal/cond"
)

func TestLooseClaims(t *testing.T) {
	for _, test := range []struct {
		source string
		want   []string
	}{
		{`claims.ref.startsWith("refs/heads/main")`, []string{`startsWith("refs/heads/main")`}},
		{`claims.ref.startsWith("refs/heads/release/")`, nil},
		{`claims["repository"].startsWith("octo-org/") && claims.sub.startsWith("repo:")`, nil},
		{`claims.repository.endsWith("/tools") || claims.repository.contains("octo")`, []string{`contains("octo")`, `endsWith("/tools")`}},
		{`claims.ref.matches("refs/heads/v[0-9]+")`, []string{`matches("refs/heads/v[0-9]+")`}},
		{`claims.ref.matches("^refs/heads/v[0-9]+$")`, nil},
		{`claims.ref.matches("^refs/heads/main|refs/heads/next$")`, []string{`matches("^refs/heads/main|refs/heads/next$")`}},
		{`claims.ref.matches("^(refs/heads/main|refs/heads/next)$")`, nil},
		{`["refs/heads/a"].exists(p, claims.ref.startsWith(p))`, []string{"startsWith"}},
		{`claims.ref == "refs/heads/main" && !(claims.actor_id in ["1"])`, nil},
		{`"main next".contains(claims.ref)`, nil},
	} {
		if got := compile(t, test.source, cond.Mapping).LooseClaims(); !slices.Equal(got, test.want) {
			t.Errorf("%s: LooseClaims = %q, want %q", test.source, got, test.want)
		}
	}
}
