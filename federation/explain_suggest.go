package federation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// ReadUnverified returns the identity that a token claims, of which nothing was verified: to read it, and to decide
// nothing by it. Where its issuer is none of these, it is one of the named provider or, without a name, one of the
// table's, and known is false. No network is used.
func ReadUnverified(raw string, issuers []Issuer, provider string) (id access.Identity, known bool, err error) {
	t, err := parse(raw)
	if err != nil {
		return id, false, readable(err)
	}
	url, _ := t.claims["iss"].(string)
	known = slices.ContainsFunc(issuers, func(i Issuer) bool { whole, _, err := i.complete(); return err == nil && whole.URL == url })
	if !known {
		row := providerOf(url, provider)
		if row == nil {
			return id, false, fmt.Errorf("the token's issuer %s is none of the configuration file's; name its provider, one of %s", shown(url), strings.Join(Providers(), ", "))
		}
		name, _, _ := strings.Cut(row.name, "-")
		issuers = []Issuer{{Name: name, Provider: row.name, URL: url}}
	}
	v, err := NewVerifier(VerifierConfig{Audience: "nobody reads it here", Issuers: issuers})
	if err != nil {
		return id, known, err
	}
	if id, err = v.unverified(raw); err != nil {
		return id, known, readable(err)
	}
	return id, known, nil
}

// readable returns a refusal whose text says what was wrong.
func readable(err error) error { return errors.New("the token cannot be read: " + detailOf(err)) }

// providerOf returns the row of that name, or without one that of a provider with this one issuer; nil for none.
func providerOf(issuer, name string) *provider {
	for _, p := range providers() {
		if p.name == name || name == "" && p.url != "" && p.url == issuer {
			return p
		}
	}
	return nil
}

// Suggestion is a mapping that serves one kind of job and no other, for people to look at and complete.
type Suggestion struct {
	Mapping api.Mapping
	// About says whose job it was made of, with the names that the ids stand for. Escaped.
	About string
	// Warnings say what is dangerous about serving such jobs at all.
	Warnings []string
}

// What a suggestion grants: enough for an agent's job, and a bound on what a runaway one costs.
const (
	suggestedRequests     = 200
	suggestedOutputTokens = 500_000
)

// Suggest returns a mapping for jobs like this one: the owner's immutable ids, ref, event and environment are those of
// its token. The issuers are those of the configuration, the connections names with their kinds; what is granted on the
// first is for people to change.
func Suggest(id access.Identity, issuers []Issuer, connections map[string]string) (Suggestion, error) {
	p, err := rowOf(id, issuers)
	if err != nil {
		return Suggestion{}, err
	}
	return suggest(id, p, connections)
}

// rowOf returns the row of the provider table of an identity's issuer.
func rowOf(id access.Identity, issuers []Issuer) (*provider, error) {
	for _, issuer := range issuers {
		if issuer.Name == id.Issuer && issuer.Provider == id.Provider {
			return issuer.row()
		}
	}
	return Issuer{Provider: id.Provider}.row()
}

func suggest(id access.Identity, p *provider, connections map[string]string) (Suggestion, error) {
	s := suggesting{p: p, id: id, match: make(map[string]api.Values)}
	if !s.owner() {
		return Suggestion{}, fmt.Errorf("the token has no claim of provider %s that says whose job it is and that a mapping could pin", p.name)
	}
	s.trigger()
	m := api.Mapping{Name: s.name(), Issuer: id.Issuer, Match: s.match, Grants: []api.Grant{suggestedGrant(connections)}}
	s.key(&m)
	probe := &Mapping{spec: m, provider: p, claims: matchOrder(m.Match, p)}
	if err := probe.Match(id, id.IssuedAt); err != nil {
		return Suggestion{}, fmt.Errorf("no mapping can be suggested for this job: %w", err)
	}
	var about []string
	for _, field := range Job(id).Fields() {
		if field[0] != "Run" && field[0] != "Commit" {
			about = append(about, strings.ToLower(field[0])+" "+shown(field[1]))
		}
	}
	return Suggestion{Mapping: m, About: strings.Join(about, ", "), Warnings: s.warnings}, nil
}

// YAML returns the suggestion as an entry of mappings or a file for mappings apply, its warnings as comments.
func (s Suggestion) YAML() (string, error) {
	text, err := api.EncodeYAML(s.Mapping)
	if err != nil {
		return "", err
	}
	var head strings.Builder
	if s.About != "" {
		head.WriteString("# for jobs like this one: " + s.About + "\n")
	}
	for _, w := range s.Warnings {
		head.WriteString("# WARNING: " + w + "\n")
	}
	return head.String() + text, nil
}

type suggesting struct {
	p        *provider
	id       access.Identity
	match    map[string]api.Values
	warnings []string
}

// pin takes a claim's value into match where the mapping can name it and people can read it.
func (s *suggesting) pin(claim string) bool {
	value, ok := written(s.id.Claims[claim])
	if !ok || claim == "" || checkValues("", claim, api.Values{value}, s.p) != nil {
		return false
	}
	s.match[claim] = api.Values{value}
	return true
}

// owner pins whose job it is: by ids where the provider has some. Where strangers get no tokens, what names it will do.
func (s *suggesting) owner() bool {
	pinned := false
	for _, claim := range s.p.tenants {
		if !strings.HasPrefix(claim, "job_") && s.pin(claim) {
			pinned = true
		}
	}
	if s.p.configured { // an owner may have many, and only the configuration knows what tells them apart
		s.pin(s.p.shows.repository)
	}
	if pinned || s.p.shared != nil && s.p.shared(s.id.IssuerURL) {
		return pinned
	}
	s.warnings = append(s.warnings, "whose job it is is told by a name, which can be given to others")
	return s.pin(s.p.shows.repository) || s.pin("sub")
}

// trigger pins what started the job, where a claim says so in a way that comes again.
func (s *suggesting) trigger() {
	part := func(claim string) bool {
		return slices.ContainsFunc(s.p.jobKey, func(k keyPart) bool { return k.path[0] == claim })
	}
	ref := s.id.Claims.Text(s.p.shows.ref)
	if !strings.HasPrefix(ref, "refs/pull/") && !strings.HasPrefix(ref, "refs/merge-requests/") {
		if !s.pin(s.p.shows.ref) && ref != "" {
			s.warnings = append(s.warnings, "the ref "+shown(ref)+" is not pinned, for it cannot be written down: jobs of every ref match")
		}
	}
	if event := s.p.shows.event; event != "" && !part(event) {
		s.pin(event)
	}
	if _, there := s.id.Claims["environment"]; there {
		s.pin("environment")
	}
	for _, d := range s.p.denials {
		why := d.why(s.id.Claims)
		if why == "" {
			continue
		}
		if !part(d.claim) && !slices.Contains(s.p.tenants, d.claim) {
			s.pin(d.claim)
		}
		s.warnings = append(s.warnings, why+": what the agent reads is theirs; grant little")
	}
}

// key makes the mapping take tokens that name no job, where this one does not.
func (s *suggesting) key(m *api.Mapping) {
	if s.p.jobKey == nil {
		unbound := false
		m.Bound = &unbound
		s.warnings = append(s.warnings, "the provider's tokens name no job: a session ends with its lease and its window only")
	}
	for _, part := range s.p.jobKey {
		if _, ok := keyText(nested(s.id.Claims, part.path)); !ok && part.optional {
			m.JobKey = jobKeyRun
			s.warnings = append(s.warnings, "the token names the run and not the job: all jobs of a run share one session")
		}
	}
}

// longestName bounds a mapping's name: validName.
const longestName = 63

// name makes a mapping's name of the repository's.
func (s *suggesting) name() string {
	text := strings.TrimSuffix(Job(s.id).Repository, ".git")
	text = strings.ToLower(text[strings.LastIndex(text, "/")+1:])
	text = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, text)
	text = strings.Trim(text, "-")
	if text == "" || text[0] < 'a' {
		text = "jobs-" + text
	}
	if len(text) > longestName {
		text = text[:longestName]
	}
	return strings.TrimRight(text, "-")
}

// suggestedGrant grants little on the first connection of a model API, or else on the first of all.
func suggestedGrant(connections map[string]string) api.Grant {
	for _, name := range sortedNames(connections) {
		if connections[name] == "anthropic" {
			return modelGrant(name)
		}
	}
	for _, name := range sortedNames(connections) {
		return api.Grant{Connection: name, Allow: []string{"GET /"}, Limits: api.LimitsList{{Requests: suggestedRequests}}}
	}
	return modelGrant("anthropic")
}

func modelGrant(name string) api.Grant {
	return api.Grant{
		Connection: name, Allow: []string{"POST /v1/messages", "POST /v1/messages/count_tokens"},
		Limits: api.LimitsList{{Requests: suggestedRequests, OutputTokens: suggestedOutputTokens}},
	}
}
