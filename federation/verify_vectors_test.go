package federation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// vector is one case of testdata/ci-token-vectors.json.
type vector struct {
	ID       string              `json:"id"`
	Provider string              `json:"provider"`
	Issuer   string              `json:"issuer"`
	Key      string              `json:"key"`
	Header   map[string]any      `json:"header"`
	Claims   map[string]any      `json:"claims"`
	Times    map[string]*float64 `json:"times"`
	TimesRaw map[string]any      `json:"times_raw"`

	RawJSON map[string]string `json:"raw"`
	Policy  policy            `json:"policy"`
	Setup   setup             `json:"setup"`
	Expect  struct {
		Accept     bool   `json:"accept"`
		Code       string `json:"code"`
		FetchesMax *int   `json:"fetches_max"`
	} `json:"expect"`
}

type policy struct {
	Issuer   string                `json:"issuer"`
	Audience string                `json:"audience"`
	Algs     []string              `json:"algs"`
	Require  map[string]api.Values `json:"require"`
	Deny     map[string]api.Values `json:"deny"`
	Present  []string              `json:"require_present"`
	Forbid   []string              `json:"forbid_present"`
	Equal    [][]string            `json:"equal"`
	Path     []api.PathCondition   `json:"require_path"`
	JobKey   []string              `json:"job_key"`
	JobBound *bool                 `json:"job_bound"`
	Lifetime int                   `json:"max_lifetime_s"`
	MaxAge   int                   `json:"max_age_s"`
	Live     bool                  `json:"require_liveness"`
	Shared   bool                  `json:"shared_audience"`
	Subject  string                `json:"subject_scheme"`
}

type setup struct {
	SeenBefore bool   `json:"seen_before"`
	JobState   string `json:"job_state"`
	JWKS       *struct {
		Cached      []string        `json:"cached"`
		Served      json.RawMessage `json:"served"`
		CacheAge    int             `json:"cache_age_s"`
		LastRefresh int             `json:"last_refresh_s_ago"`
		Discovery   string          `json:"discovery_issuer"`
	} `json:"jwks"`
	Repeat *struct {
		Count  int `json:"count"`
		Within int `json:"within_s"`
	} `json:"repeat"`
}

// refusedAtLoad are cases whose policy no mapping can have: it is refused before a token comes.
var refusedAtLoad = map[string]string{
	"gcb-job-bound-policy": "require[0]", // build_id, which no such token has
}

func TestTokenVectors(t *testing.T) {
	vectors := readVectors(t)
	known := federation.Providers()
	ran := map[string]int{}
	for _, v := range vectors {
		if !slices.Contains(known, v.Provider) {
			continue
		}
		ran[v.Provider]++
		t.Run(v.ID, v.run)
	}
	t.Logf("%d vectors, by provider: %v", len(vectors), ran)
	if ran["github-actions"] != 112 {
		t.Errorf("%d vectors of GitHub Actions, want 112", ran["github-actions"])
	}
}

func (v vector) run(t *testing.T) {
	clock := &clock{now: start}
	net := &network{issuer: v.Policy.Issuer, keys: v.published()}
	issuer := federation.Issuer{
		Name: "ci", Provider: v.Provider, URL: v.Policy.Issuer, Algorithms: v.Policy.Algs, SharedAudience: v.Policy.Shared && v.Policy.Audience != audience,
		MaxLifetime: time.Duration(v.Policy.Lifetime) * time.Second,
	}
	own := v.Policy.Audience
	if issuer.SharedAudience {
		issuer.MaxAge, own = time.Duration(v.Policy.MaxAge)*time.Second, "https://jobgate.example.test"
	}
	verifier, err := federation.NewVerifier(federation.VerifierConfig{
		Audience: own, Issuers: []federation.Issuer{issuer}, Transport: net, Now: clock.Now,
	})
	if err != nil {
		t.Fatalf("NewVerifier: %v", err)
	}
	mapping, err := federation.NewMapping(v.mapping(), federation.MappingConfig{
		Issuers: []federation.Issuer{issuer}, Connections: map[string]string{"anthropic": "anthropic"},
	})
	if path := refusedAtLoad[v.ID]; path != "" {
		var field *api.FieldError
		if !errors.As(err, &field) || field.Path != path {
			t.Errorf("NewMapping = %v, want a refusal of %s", err, path)
		}
		return
	}
	if err != nil {
		t.Fatalf("NewMapping: %v", err)
	}
	v.prime(t, verifier, net, clock)

	seen := map[string]bool{}
	exchange := func(token string) error {
		return v.exchange(t.Context(), verifier, mapping, token, clock.Now(), seen)
	}
	token := v.token()
	if v.Setup.SeenBefore {
		if err := exchange(token); err != nil {
			t.Fatalf("first use: %v", err)
		}
	}
	count := 1
	if v.Setup.Repeat != nil {
		count = v.Setup.Repeat.Count
	}
	for i := range count {
		if v.Setup.Repeat != nil {
			v.Header["kid"] = fmt.Sprintf("random-%d", i)
			token = v.token()
			clock.set(start.Add(time.Duration(i*v.Setup.Repeat.Within) * time.Second / time.Duration(count)))
		}
		v.judge(t, exchange(token))
	}
	if limit := v.Expect.FetchesMax; limit != nil && net.count() > *limit {
		t.Errorf("%d requests to the issuer, want at most %d", net.count(), *limit)
	}
}

func (v vector) judge(t *testing.T, err error) {
	t.Helper()
	got := "ok"
	var refused *access.Error
	if errors.As(err, &refused) {
		got = refused.Reason
	} else if err != nil {
		got = err.Error()
	}
	if got != v.Expect.Code {
		t.Errorf("outcome %q (%v), want %q", got, err, v.Expect.Code)
	}
	if err != nil && strings.Contains(err.Error(), v.token()) {
		t.Error("the error holds the token")
	}
}

// exchange is the order of an exchange: verify, match, liveness, replay.
func (v vector) exchange(ctx context.Context, verifier *federation.Verifier, m *federation.Mapping, token string, now time.Time, seen map[string]bool) error {
	id, err := verifier.Verify(ctx, token)
	if err != nil {
		return err
	}
	if err := m.Match(id, now); err != nil {
		return err
	}
	var live federation.Liveness = jobState(v.Setup.JobState)
	state, err := live.JobEnded(ctx, id)
	switch {
	case err != nil:
		return err
	case state == federation.LiveSuperseded:
		return &access.Error{Code: access.CodeGrant, Reason: "stale_attempt"}
	case state == federation.LiveEnded, state == federation.LiveUnknown && m.RequiresLiveness():
		return &access.Error{Code: access.CodeGrant, Reason: "job_ended"}
	}
	if seen[id.TokenID] {
		return &access.Error{Code: access.CodeGrant, Reason: "replayed"}
	}
	seen[id.TokenID] = true
	return nil
}

// jobState is a provider that says the same of every job.
type jobState string

func (s jobState) JobEnded(context.Context, access.Identity) (federation.LiveState, error) {
	return map[jobState]federation.LiveState{
		"running": federation.LiveRunning, "completed": federation.LiveEnded, "attempt_superseded": federation.LiveSuperseded,
		"unknown": federation.LiveUnknown, "": federation.LiveUnknown,
	}[s], nil
}

// mapping writes the policy as a mapping.
func (v vector) mapping() api.Mapping {
	p := v.Policy
	m := api.Mapping{
		Name: "vector", Issuer: "ci", Match: p.Require, Require: p.Present, Forbid: p.Forbid, Deny: p.Deny, Equal: p.Equal,
		Paths: p.Path, Subject: p.Subject, MaxAge: api.Duration(time.Duration(p.MaxAge) * time.Second), Bound: p.JobBound, Live: p.Live,
		Grants: []api.Grant{{Connection: "anthropic", Allow: []string{"POST /v1/messages"}}},
	}
	if v.Provider == "github-actions" && len(p.JobKey) == 2 {
		m.JobKey = "run"
	}
	return m
}

// published is what the issuer's key set holds where setup says nothing.
func (v vector) published() []map[string]any {
	kid, ok := v.Header["kid"].(string)
	if !ok || v.Key == "attacker" {
		kid = "key-1"
	}
	if v.Key == "ec_issuer" {
		return []map[string]any{rsaJWK("key-1", rsaKey("key-1")), ecJWK(kid)}
	}
	jwk := rsaJWK(kid, rsaKey("key-1"))
	delete(jwk, "alg")
	return []map[string]any{jwk}
}

// prime brings the key cache into the state that setup describes, and then the issuer into its.
func (v vector) prime(t *testing.T, verifier *federation.Verifier, net *network, clock *clock) {
	j := v.Setup.JWKS
	if j == nil {
		return
	}
	if len(j.Cached) > 0 {
		clock.set(start.Add(-time.Duration(max(j.CacheAge, j.LastRefresh)) * time.Second))
		net.set(func(n *network) { n.keys = namedKeys(j.Cached) })
		w := &rig{clock: clock}
		_, _ = verifier.Verify(t.Context(), w.signed("nobody's", rsaKey("attacker"), nil))
		if net.count() == 0 {
			t.Fatal("the cache was not filled")
		}
		clock.set(start)
	}
	net.set(func(n *network) {
		n.requests = 0
		n.discovery = j.Discovery
		serve(n, j.Served)
	})
}

// serve reads what setup says that the issuer serves.
func serve(n *network, served json.RawMessage) {
	var status string
	var moved struct{ Redirect string }
	var keys []any
	switch {
	case json.Unmarshal(served, &status) == nil:
		n.status = 503
	case json.Unmarshal(served, &moved) == nil:
		n.redirect = moved.Redirect
	case json.Unmarshal(served, &keys) == nil:
		n.keys = nil
		for _, k := range keys {
			if name, ok := k.(string); ok {
				n.keys = append(n.keys, namedKeys([]string{name})...)
				continue
			}
			n.keys = append(n.keys, describedKey(k.(map[string]any)))
		}
	}
}

// namedKeys returns keys by the names of the vectors: "key-1(old)" is another key under the kid key-1.
func namedKeys(names []string) []map[string]any {
	var out []map[string]any
	for _, name := range names {
		kid, _, _ := strings.Cut(name, "(")
		out = append(out, rsaJWK(kid, rsaKey(name)))
	}
	return out
}

func describedKey(about map[string]any) map[string]any {
	jwk := rsaJWK(about["kid"].(string), rsaKey("key-1"))
	switch {
	case about["kty"] == "oct":
		return map[string]any{"kty": "oct", "kid": about["kid"], "k": b64([]byte("0123456789abcdef0123456789abcdef"))}
	case about["use"] != nil:
		jwk["use"] = about["use"]
	case about["n_leading_zero"] == true:
		jwk["n"] = b64(append([]byte{0}, rsaKey("key-1").N.Bytes()...))
	}
	return jwk
}

func (v vector) token() string {
	header := maps.Clone(v.Header)
	var signer any
	switch v.Key {
	case "issuer":
		signer = rsaKey("key-1")
	case "attacker":
		signer = rsaKey("attacker")
	case "same_kid_rotated":
		signer = rsaKey("key-1(new)")
	case "ec_issuer":
		signer = ecKey()
	case "hmac_public_key":
		signer = publicPEM(rsaKey("key-1"))
	}
	return transform(sign(header, v.payload(), signer), v.RawJSON["transform"])
}

func (v vector) payload() []byte {
	if text := v.RawJSON["payload_json"]; text != "" {
		for _, name := range []string{"iat", "nbf", "exp"} {
			text = strings.ReplaceAll(text, "@"+strings.ToUpper(name)+"@", string(v.time(name)))
		}
		return []byte(text)
	}
	claims := maps.Clone(v.Claims)
	for _, name := range []string{"iat", "nbf", "exp"} {
		if at := v.time(name); at != "" {
			claims[name] = at
		}
	}
	maps.Copy(claims, v.TimesRaw)
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return text
}

func (v vector) time(name string) json.Number {
	offset := v.Times[name+"_offset_s"]
	if offset == nil {
		return ""
	}
	if *offset == math.Trunc(*offset) {
		return json.Number(fmt.Sprint(start.Unix() + int64(*offset)))
	}
	return json.Number(fmt.Sprintf("%.2f", float64(start.Unix())+*offset))
}

// transform damages a token in the ways that the vectors name.
func transform(token, how string) string {
	parts := strings.Split(token, ".")
	switch how {
	case "extra_dot":
		return token + "."
	case "padding":
		return parts[0] + "." + parts[1] + "." + parts[2] + "=="
	case "trailing_newline":
		return token + "\n"
	case "leading_space":
		return " " + token
	case "strip_signature":
		return parts[0] + "." + parts[1] + "."
	case "json_serialization":
		return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
	case "five_parts":
		return token + ".AAAA.AAAA"
	case "oversize_32k":
		return token + strings.Repeat("A", 32<<10)
	case "std_base64":
		return strings.NewReplacer("-", "+", "_", "/").Replace(token)
	case "truncate_signature":
		return parts[0] + "." + parts[1] + "." + cutByte(parts[2])
	case "flip_last_bit": // of a letter in the payload, so that it stays JSON
		return parts[0] + "." + flipLetter(parts[1]) + "." + parts[2]
	}
	return token
}
