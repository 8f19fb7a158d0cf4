package federation_test

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
)

// foundry is what tokens of a CI system that nobody here knows are like.
func foundry(change ...func(*federation.Tokens)) *federation.Tokens {
	t := &federation.Tokens{
		Claims: map[string]string{
			"workshop": "int", "piece": "string", "attempt": "int", "by": "string", "mould": "string", "fork": "bool", "labels": "list", "extra": "object",
		},
		JobKey: []string{"piece", "attempt"}, Tenants: []string{"workshop"},
		Trusted: map[string]api.Values{"by": {"push", "timer"}, "fork": {false}},
		Shows:   federation.ShownClaims{Repository: "mould", Event: "by"},
	}
	for _, c := range change {
		c(t)
	}
	return t
}

func foundryIssuer(url string, change ...func(*federation.Tokens)) federation.Issuer {
	return federation.Issuer{Name: "foundry", Provider: "generic", URL: url, Tokens: foundry(change...)}
}

// TestGenericSchema refuses what is unsafe or makes no sense in what an issuer's tokens are said to be like, at its place.
func TestGenericSchema(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*federation.Tokens)
		path   string
		says   string
	}{
		"good":                  {func(*federation.Tokens) {}, "", ""},
		"sub in it":             {func(t *federation.Tokens) { t.Claims["sub"] = "string" }, "", ""},
		"no job key":            {func(t *federation.Tokens) { t.JobKey = nil }, "", ""},
		"job of the subject":    {func(t *federation.Tokens) { t.JobKey = []string{"sub"} }, "", ""},
		"one tenant":            {func(t *federation.Tokens) { t.Tenants, t.OneTenant = nil, true }, "", ""},
		"nothing trusted":       {func(t *federation.Tokens) { t.Trusted = nil }, "", ""},
		"iss":                   {func(t *federation.Tokens) { t.Claims["iss"] = "string" }, "tokens.claims.iss", "registered"},
		"exp":                   {func(t *federation.Tokens) { t.Claims["exp"] = "int" }, "tokens.claims.exp", "registered"},
		"jti":                   {func(t *federation.Tokens) { t.Claims["jti"] = "string" }, "tokens.claims.jti", "registered"},
		"sub as a number":       {func(t *federation.Tokens) { t.Claims["sub"] = "int" }, "tokens.claims.sub", "sub is a string"},
		"unknown type":          {func(t *federation.Tokens) { t.Claims["piece"] = "number" }, "tokens.claims.piece", "bool, int, list, object, string"},
		"no type":               {func(t *federation.Tokens) { t.Claims["piece"] = "" }, "tokens.claims.piece", "is no type"},
		"no name":               {func(t *federation.Tokens) { t.Claims[""] = "string" }, "tokens.claims", "is no name"},
		"a name to deceive":     {func(t *federation.Tokens) { t.Claims["workshop\u200b"] = "string" }, "tokens.claims", "is no name"},
		"a name with a space":   {func(t *federation.Tokens) { t.Claims["workshop "] = "string" }, "tokens.claims", "is no name"},
		"job key not in it":     {func(t *federation.Tokens) { t.JobKey = []string{"job"} }, "tokens.job_key[0]", "not in tokens.claims"},
		"job key twice":         {func(t *federation.Tokens) { t.JobKey = []string{"piece", "piece"} }, "tokens.job_key[1]", "twice"},
		"job key of a flag":     {func(t *federation.Tokens) { t.JobKey = []string{"fork"} }, "tokens.job_key[0]", "boolean"},
		"job key of the token":  {func(t *federation.Tokens) { t.JobKey = []string{"jti"} }, "tokens.job_key[0]", "registered"},
		"tenant is a list":      {func(t *federation.Tokens) { t.Tenants = []string{"labels"} }, "tokens.tenants[0]", "list"},
		"tenant is the issuer":  {func(t *federation.Tokens) { t.Tenants = []string{"iss"} }, "tokens.tenants[0]", "registered"},
		"no tenant":             {func(t *federation.Tokens) { t.Tenants = nil }, "tokens.tenants", "one_tenant: true"},
		"both":                  {func(t *federation.Tokens) { t.OneTenant = true }, "tokens.one_tenant", "one of them"},
		"trusted and not in it": {func(t *federation.Tokens) { t.Trusted = map[string]api.Values{"event": {"push"}} }, "tokens.trusted.event", "not in tokens.claims"},
		"trusted, other type":   {func(t *federation.Tokens) { t.Trusted["fork"] = api.Values{"false"} }, "tokens.trusted.fork", "without quotes"},
		"trusted, no value":     {func(t *federation.Tokens) { t.Trusted["by"] = nil }, "tokens.trusted.by", "no value"},
		"audience of another":   {func(t *federation.Tokens) { t.Audience = "https://api.anthropic.com/" }, "tokens.audience", "another service"},
		"shows a number":        {func(t *federation.Tokens) { t.Shows.Ref = "attempt" }, "tokens.shows.ref", "integer"},
	} {
		t.Run(name, func(t *testing.T) {
			err := foundryIssuer("https://ci.foundry.example", test.change).Check()
			var field *api.FieldError
			switch {
			case test.path == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.path == "":
			case !errors.As(err, &field) || field.Path != test.path || !strings.Contains(field.Error(), test.says):
				t.Errorf("error = %v, want one at %s that says %q", err, test.path, test.says)
			}
		})
	}
	fixed := foundryIssuer("https://ci.foundry.example", func(t *federation.Tokens) { t.Audience = "foundry" })
	if err := fixed.Check(); err == nil || !strings.Contains(err.Error(), "shared_audience: true") {
		t.Errorf("an audience that others have, too: %v", err)
	}
	fixed.SharedAudience, fixed.MaxAge = true, time.Minute
	if err := fixed.Check(); err != nil {
		t.Errorf("an audience that others have, too, accepted as such: %v", err)
	}
	if err := (federation.Issuer{Name: "x", Provider: "generic", URL: "https://ci.example"}).Check(); err == nil || !strings.Contains(err.Error(), "tokens") {
		t.Errorf("nothing said of the tokens: %v", err)
	}
	if err := (federation.Issuer{Name: "x", Provider: "gitlab", Tokens: foundry()}).Check(); err == nil || !strings.Contains(err.Error(), "is known") {
		t.Errorf("tokens of a provider that is known: %v", err)
	}
}

// foundryClaims are those of a job of workshop 42.
func foundryClaims(issuer, aud string, change map[string]any) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": issuer, "aud": aud, "sub": "piece/p-9", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"workshop": 42, "piece": "p-9", "attempt": 1, "by": "push", "mould": "bells/great-bell", "fork": false, "labels": []string{"a"},
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == noClaim })
	return claims
}

const noClaim = "\x00absent"

// TestGenericTokens verifies tokens of an issuer of which only the configuration knows anything.
func TestGenericTokens(t *testing.T) {
	issuer, err := testkit.NewIssuer(testkit.IssuerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	v, err := federation.NewVerifier(federation.VerifierConfig{Audience: audience, Issuers: []federation.Issuer{foundryIssuer(issuer.URL())}})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change map[string]any
		want   string
	}{
		"as it should be":        {nil, "ok"},
		"a claim of nobody":      {map[string]any{"more": []any{1, "x"}}, "ok"},
		"optional claim absent":  {map[string]any{"labels": noClaim}, "ok"},
		"no job":                 {map[string]any{"piece": noClaim}, "claim_missing"},
		"job is empty":           {map[string]any{"piece": ""}, "claim_missing"},
		"job is null":            {map[string]any{"piece": nil}, "claim_type"},
		"no attempt":             {map[string]any{"attempt": noClaim}, "claim_missing"},
		"attempt in quotes":      {map[string]any{"attempt": "1"}, "claim_type"},
		"attempt and a half":     {map[string]any{"attempt": json.Number("1.5")}, "claim_type"},
		"attempt in other words": {map[string]any{"attempt": json.Number("1e0")}, "claim_type"},
		"job of a list":          {map[string]any{"piece": []string{"p-9"}}, "claim_type"},
		"flag in quotes":         {map[string]any{"fork": "false"}, "claim_type"},
		"list of numbers":        {map[string]any{"labels": []int{1}}, "claim_type"},
		"no owner":               {map[string]any{"workshop": noClaim}, "claim_missing"},
		"owner in quotes":        {map[string]any{"workshop": "42"}, "claim_type"},
		"sub is a number":        {map[string]any{"sub": 5}, "malformed"},
		"another's audience":     {map[string]any{"aud": "https://other.example"}, "aud_mismatch"},
		"another's issuer":       {map[string]any{"iss": "https://ci.foundry.example"}, "unknown_issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := issuer.Mint(foundryClaims(issuer.URL(), audience, test.change), testkit.MintOptions{})
			if err != nil {
				t.Fatal(err)
			}
			id, err := v.Verify(t.Context(), token)
			if got := reasonOf(err); got != test.want {
				t.Fatalf("Verify = %s (%v), want %s", got, err, test.want)
			}
			if err != nil {
				return
			}
			if id.JobKey != "piece=p-9;attempt=1" || !strings.HasPrefix(id.TokenID, "sha256:") {
				t.Errorf("identity: job key %s, token %s", id.JobKey, id.TokenID)
			}
			if job := federation.Job(id); job.Repository != "bells/great-bell" || job.Event != "push" || job.Ref != "" {
				t.Errorf("people read %+v", job)
			}
		})
	}
}

func foundryMapping(t *testing.T, m api.Mapping, tokens *federation.Tokens) (*federation.Mapping, error) {
	t.Helper()
	m.Name, m.Issuer, m.Grants = "bells", "foundry", []api.Grant{{Connection: "deploys", Allow: []string{"GET /"}}}
	return federation.NewMapping(m, federation.MappingConfig{
		Issuers:     []federation.Issuer{{Name: "foundry", Provider: "generic", URL: "https://ci.foundry.example", Tokens: tokens}},
		Connections: map[string]string{"deploys": "http"},
	})
}

// TestGenericMappings holds mappings to what the configuration says of tokens.
func TestGenericMappings(t *testing.T) {
	off := false
	owner := map[string]api.Values{"workshop": {int64(42)}}
	for name, test := range map[string]struct {
		m      api.Mapping
		change func(*federation.Tokens)
		path   string
	}{
		"good":                     {api.Mapping{Match: owner}, nil, ""},
		"no owner":                 {api.Mapping{Match: map[string]api.Values{"mould": {"bells"}}}, nil, "match"},
		"owner in quotes":          {api.Mapping{Match: map[string]api.Values{"workshop": {"42"}}}, nil, "match.workshop"},
		"a claim that is not":      {api.Mapping{Match: map[string]api.Values{"workshop": {int64(42)}, "branch": {"main"}}}, nil, "match.branch"},
		"registered":               {api.Mapping{Match: map[string]api.Values{"workshop": {int64(42)}, "jti": {"x"}}}, nil, "match.jti"},
		"a claim that is not, CEL": {api.Mapping{Match: owner, When: `claims.branch == "main"`}, nil, "when"},
		"no job":                   {api.Mapping{Match: owner}, func(t *federation.Tokens) { t.JobKey = nil }, "job_bound"},
		"no job, and it says so":   {api.Mapping{Match: owner, Bound: &off}, func(t *federation.Tokens) { t.JobKey = nil }, ""},
		"a job, and it says not":   {api.Mapping{Match: owner, Bound: &off}, nil, "job_bound"},
		"by run":                   {api.Mapping{Match: owner, JobKey: "run"}, nil, "job_key"},
		"one tenant": {api.Mapping{Match: map[string]api.Values{"mould": {"bells"}}},
			func(t *federation.Tokens) { t.Tenants, t.OneTenant = nil, true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tokens := foundry()
			if test.change != nil {
				test.change(tokens)
			}
			_, err := foundryMapping(t, test.m, tokens)
			var field *api.FieldError
			if test.path == "" && err != nil || test.path != "" && (!errors.As(err, &field) || field.Path != test.path) {
				t.Errorf("error = %v, want one at %q", err, test.path)
			}
		})
	}
}

// TestGenericTriggers refuses what the issuer does not trust, unless a mapping names the claim.
func TestGenericTriggers(t *testing.T) {
	for name, test := range map[string]struct {
		change map[string]any
		match  map[string]api.Values
		want   string
	}{
		"trusted":              {nil, nil, "ok"},
		"started by a comment": {map[string]any{"by": "comment"}, nil, "untrusted_event"},
		"started by nobody":    {map[string]any{"by": noClaim}, nil, "untrusted_event"},
		"of a fork":            {map[string]any{"fork": true}, nil, "untrusted_event"},
		"named":                {map[string]any{"by": "comment"}, map[string]api.Values{"by": {"comment"}}, "ok"},
		"the other is named":   {map[string]any{"by": "comment"}, map[string]api.Values{"fork": {false}}, "untrusted_event"},
	} {
		t.Run(name, func(t *testing.T) {
			match := map[string]api.Values{"workshop": {int64(42)}}
			maps.Copy(match, test.match)
			m, err := foundryMapping(t, api.Mapping{Match: match}, foundry())
			if err != nil {
				t.Fatal(err)
			}
			claims := access.Claims{"workshop": json.Number("42"), "piece": "p-9", "attempt": json.Number("1"), "by": "push", "fork": false}
			for name, value := range test.change {
				claims[name] = value
				if value == noClaim {
					delete(claims, name)
				}
			}
			id := access.Identity{Issuer: "foundry", Provider: "generic", Claims: claims}
			if got := reasonOf(m.Match(id, start)); got != test.want {
				t.Errorf("Match = %s, want %s", got, test.want)
			}
			if !m.PinsTenant(id) {
				t.Error("the mapping's own tenant would not be told why")
			}
		})
	}
}

// TestGenericSuggestion pins the tenant by its id, and what people would forget.
func TestGenericSuggestion(t *testing.T) {
	claims := access.Claims{"workshop": json.Number("42"), "piece": "p-9", "attempt": json.Number("1"), "by": "comment", "mould": "bells/great-bell", "fork": false}
	id := access.Identity{Issuer: "foundry", Provider: "generic", Claims: claims, Job: access.Job{Repository: "bells/great-bell"}}
	issuers := []federation.Issuer{foundryIssuer("https://ci.foundry.example")}
	s, err := federation.Suggest(id, issuers, map[string]string{"deploys": "http"})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Mapping.Match["workshop"]; len(got) != 1 || got[0] != int64(42) || len(s.Warnings) == 0 || s.Mapping.Name != "great-bell" || s.Mapping.Match["piece"] != nil {
		t.Errorf("suggestion = %+v", s)
	}
	if _, err := federation.Suggest(id, nil, nil); err == nil {
		t.Error("a mapping was suggested for tokens of which nothing is known")
	}
}

// TestGenericLints finds triggers in a mapping that the issuer does not trust.
func TestGenericLints(t *testing.T) {
	tokens := foundry()
	m, err := foundryMapping(t, api.Mapping{Match: map[string]api.Values{"workshop": {int64(42)}, "by": {"push", "comment"}, "fork": {true}}}, tokens)
	if err != nil {
		t.Fatal(err)
	}
	c := federation.MappingConfig{Issuers: []federation.Issuer{{Name: "foundry", Provider: "generic", URL: "https://ci.foundry.example", Tokens: tokens}}}
	var open []string
	for _, f := range federation.Lint([]*federation.Mapping{m}, c) {
		if f.Lint == "open-trigger" {
			open = append(open, f.Path)
		}
	}
	if strings.Join(open, " ") != "match.by match.fork" {
		t.Errorf("open triggers at %v, want match.by and match.fork", open)
	}
}
