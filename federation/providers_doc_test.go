package federation

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/internal/api"
)

// Update says that generated files are written anew.
var Update = flag.Bool("update", false, "write generated files anew")

const pages = "../docs/providers"

// TestProviderPages holds docs/providers against the provider table, and what its pages show against what would be
// loaded.
func TestProviderPages(t *testing.T) {
	about, vectors := providerPages(), vectorCounts(t)
	want := map[string]string{"README.md": indexPage(about)}
	for _, p := range providers() {
		page, ok := about[p.name]
		if !ok {
			t.Errorf("provider %s has no page in providers_doc_about_test.go", p.name)
			continue
		}
		p = page.check(t, p)
		want[p.name+".md"] = page.render(p, vectors[p.name])
	}
	if len(about) != len(providers()) {
		t.Errorf("%d pages for %d providers", len(about), len(providers()))
	}
	if *Update {
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(pages, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(pages, "*"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got[filepath.Base(file)] = string(text)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("docs/providers is stale; run go test ./federation -run TestProviderPages -update (-want +got):\n%s", d)
	}
}

// vectorCounts returns how many of the test vectors are of each provider.
func vectorCounts(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile("testdata/ci-token-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Provider string `json:"provider"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, v := range vectors {
		counts[v.Provider]++
	}
	counts["github-actions"] = counts["github"]
	return counts
}

// aboutProvider is what a page says beside what the provider's row says.
type aboutProvider struct {
	title    string
	issuers  []string // where tokens come from
	url      string   // of the example's issuer; "" where the provider's own is taken
	match    string   // of the example's mapping, YAML lines without indentation
	more     string   // further lines of that mapping
	extra    string   // further lines of the example's issuer
	lifetime string
	renewal  string // whether a running job gets fresh tokens
	end      string // how the end of a job is learned
	job      string // what the job does, as a fenced block
	notes    []string
	proof    string // beside the vectors
}

// check builds what the page shows, as a configuration would be.
func (a aboutProvider) check(t *testing.T, p *provider) *provider {
	t.Helper()
	var shown struct {
		Issuers []struct {
			Name           string       `yaml:"name"`
			Provider       string       `yaml:"provider"`
			URL            string       `yaml:"url"`
			SharedAudience bool         `yaml:"shared_audience"`
			MaxAge         api.Duration `yaml:"max_age"`
			MaxLifetime    api.Duration `yaml:"max_lifetime"`
			Tokens         *struct {
				Claims  map[string]string     `yaml:"claims"`
				JobKey  []string              `yaml:"job_key"`
				Tenants []string              `yaml:"tenants"`
				Trusted map[string]api.Values `yaml:"trusted"`
				Shows   ShownClaims           `yaml:"shows"`
			} `yaml:"tokens"`
		} `yaml:"issuers"`
		Mappings []api.Mapping `yaml:"mappings"`
	}
	if err := yaml.Unmarshal([]byte(a.configuration(p)), &shown); err != nil {
		t.Fatalf("%s: the configuration is no YAML: %v", p.name, err)
	}
	i := shown.Issuers[0]
	issuer := Issuer{
		Name: i.Name, Provider: i.Provider, URL: i.URL, SharedAudience: i.SharedAudience, MaxAge: time.Duration(i.MaxAge), MaxLifetime: time.Duration(i.MaxLifetime),
	}
	if k := i.Tokens; k != nil {
		issuer.Tokens = &Tokens{Claims: k.Claims, JobKey: k.JobKey, Tenants: k.Tenants, Trusted: k.Trusted, Shows: k.Shows}
	}
	_, err := NewMapping(shown.Mappings[0], MappingConfig{Issuers: []Issuer{issuer}, Connections: map[string]string{"anthropic": "anthropic"}})
	if err = errors.Join(issuer.Check(), err); err != nil {
		t.Errorf("%s: the configuration that its page shows is refused: %v", p.name, err)
	}
	if block, isYAML := strings.CutPrefix(a.job, "```yaml\n"); isYAML {
		var any any
		if err := yaml.Unmarshal([]byte(strings.TrimSuffix(block, "```")), &any); err != nil {
			t.Errorf("%s: the job that its page shows is no YAML: %v", p.name, err)
		}
	}
	for _, d := range p.denials {
		if d.what == "" {
			t.Errorf("%s: a denial of %s does not say what it refuses", p.name, d.claim)
		}
	}
	row, err := issuer.row()
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	if says := strings.HasPrefix(a.renewal, "yes"); says != row.renewable && !row.configured {
		t.Errorf("%s: its page says of fresh tokens: %s; its row says %v", p.name, a.renewal, row.renewable)
	}
	return row
}

func (a aboutProvider) configuration(p *provider) string {
	var b strings.Builder
	fmt.Fprintf(&b, "issuers:\n  - name: ci\n    provider: %s\n", p.name)
	if a.url != "" {
		fmt.Fprintf(&b, "    url: %s\n", a.url)
	}
	b.WriteString(indented(a.extra, 4))
	b.WriteString("mappings:\n  - name: release-agents\n    issuer: ci\n    match:\n")
	b.WriteString(indented(a.match, 6))
	b.WriteString(indented(a.more, 4))
	b.WriteString("    grants:\n      - connection: anthropic\n        allow: [\"POST /v1/messages\", \"POST /v1/messages/count_tokens\"]\n")
	return b.String()
}

func indented(text string, by int) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		if strings.TrimSpace(line) != "" {
			b.WriteString(strings.Repeat(" ", by) + line)
		}
	}
	return b.String()
}

const generated = "<!-- Generated from the provider table. Do not edit: go test ./federation -run TestProviderPages -update -->\n\n"

func indexPage(about map[string]aboutProvider) string {
	var b strings.Builder
	b.WriteString(generated + "# CI providers\n\n")
	b.WriteString("What Jobgate knows of each provider's tokens, and how far that was tried. No page was tried with the provider's own\n" +
		"service: tokens follow its documentation, and are signed by the tests.\n\n")
	b.WriteString("| `provider` | | job key | fresh tokens in a job | tried, beside the test vectors |\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(about)) {
		p, a := providerNamed(name), about[name]
		fmt.Fprintf(&b, "| [`%s`](%s.md) | %s | %s | %s | %s |\n", name, name, a.title, keyShown(p), firstWord(a.renewal), or(a.proof, "nothing"))
	}
	return b.String()
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, ":")
	return word
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func (a aboutProvider) render(p *provider, vectors int) string {
	var b strings.Builder
	b.WriteString(generated)
	fmt.Fprintf(&b, "# %s\n\n`provider: %s`\n\n", a.title, p.name)
	b.WriteString("| | |\n|---|---|\n")
	row := func(name, text string) { fmt.Fprintf(&b, "| %s | %s |\n", name, text) }
	row("issuer", strings.Join(a.issuers, "<br>"))
	row("algorithms", "`RS256`, unless the issuer's `algorithms` say otherwise")
	row("audience", audienceShown(p, a))
	row("strangers get tokens of the issuer", sharedShown(p))
	row("tenant ids", tenantsShown(p))
	row("job key", keyShown(p))
	row("id of a token, against replay", map[bool]string{true: "`jti`, required", false: "the SHA-256 of what is signed: tokens have no `jti`"}[p.jti])
	row("lifetime of a token", a.lifetime)
	row("fresh tokens in a running job", a.renewal)
	row("end of the job", a.end)
	b.WriteString("\n## Refused by default\n\n")
	b.WriteString(denialsShown(p))
	b.WriteString("\n## Configuration\n\nIds are examples; the mapping names the tenant by an id, and what else the job must be.\n\n```yaml\n" + a.configuration(p) + "```\n")
	b.WriteString("\n## In the job\n\n" + a.job + "\n")
	if len(a.notes) > 0 {
		b.WriteString("\n## To know\n\n")
		for _, note := range a.notes {
			b.WriteString("- " + note + "\n")
		}
	}
	b.WriteString("\n## Claims\n\n" + claimsShown(p))
	if p.configured {
		fmt.Fprintf(&b, "\n## How far this was tried\n\nWith %s.\n", a.proof)
		return b.String()
	}
	fmt.Fprintf(&b, "\n## How far this was tried\n\n%d of the test vectors in `federation/testdata` are of this provider: their claims follow its documentation, their\n"+
		"signatures are the tests' own. Beside them: %s.\nNothing was tried with the provider's own service.\n", vectors, or(a.proof, "nothing"))
	return b.String()
}

func audienceShown(p *provider, a aboutProvider) string {
	if p.audience == nil {
		return "the job asks for it: exactly Jobgate's `public_url`, and no other beside it"
	}
	return fmt.Sprintf("fixed by the provider, here `%s`: **other services take the same token, and each can show it to the others.** "+
		"The issuer must say `shared_audience: true`, with a `max_age`", p.audience(a.url))
}

func sharedShown(p *provider) string {
	switch {
	case p.configured:
		return "where `tokens.tenants` names claims: a mapping must pin one. With `tokens.one_tenant: true`, no"
	case p.shared == nil:
		return "no: the issuer is of one owner"
	case p.shared("https://ci.example.test"):
		return "yes: a mapping must pin a tenant id"
	}
	return "of `" + p.url + "`, yes: a mapping must pin a tenant id. Of a server of your own, no"
}

func tenantsShown(p *provider) string {
	if p.configured {
		return "what `tokens.tenants` names, here `" + strings.Join(p.tenants, "`, `") + "`"
	}
	if len(p.tenants) == 0 {
		return "none must be pinned: the issuer is of one owner"
	}
	return "`" + strings.Join(p.tenants, "`, `") + "`"
}

func keyShown(p *provider) string {
	if p.configured {
		if len(p.jobKey) == 0 {
			return "what `tokens.job_key` names"
		}
		return "what `tokens.job_key` names, here `" + strings.Join(rolesNamed(p), "` + `") + "`; without it, the mapping must say `job_bound: false`"
	}
	if p.jobKey == nil {
		return "none: tokens name no job. The mapping must say `job_bound: false`"
	}
	var parts []string
	for _, part := range p.jobKey {
		text := "`" + strings.Join(part.path, "/") + "`"
		if part.optional {
			text += " (absent: `job_key: run` on the mapping)"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " + ")
}

func denialsShown(p *provider) string {
	if len(p.denials) == 0 {
		return "Nothing: no claim tells what an outsider started.\n"
	}
	var b strings.Builder
	if p.configured {
		b.WriteString("What `tokens.trusted` does not list; in the configuration below:\n\n")
	}
	b.WriteString("| claim | refused, unless the mapping's `match` names the claim |\n|---|---|\n")
	for _, d := range p.denials {
		fmt.Fprintf(&b, "| `%s` | %s |\n", d.claim, d.what)
	}
	return b.String()
}

func claimsShown(p *provider) string {
	var b strings.Builder
	b.WriteString("Types are as the provider issues them; a claim of another type is refused. ")
	if p.configured {
		b.WriteString("In the configuration above, mappings can\nname these and no others.\n\n")
	} else if p.open {
		b.WriteString("Customers add claims of their own, which mappings can name, too.\n\n")
	} else {
		b.WriteString("Mappings can name these and no others.\n\n")
	}
	b.WriteString("| claim | type | |\n|---|---|---|\n")
	for _, name := range sortedNames(p.claims) {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, p.claims[name], strings.Join(rolesOf(p, name), ", "))
	}
	for _, prefix := range sortedNames(p.prefixes) {
		fmt.Fprintf(&b, "| `%s...` | %s | the rest of its name is yours |\n", prefix, p.prefixes[prefix])
	}
	return b.String()
}

func rolesNamed(p *provider) (names []string) {
	for _, part := range p.jobKey {
		names = append(names, strings.Join(part.path, "/"))
	}
	return names
}

func rolesOf(p *provider, claim string) (roles []string) {
	if slices.Contains(p.tenants, claim) {
		roles = append(roles, "tenant id")
	}
	if slices.ContainsFunc(p.jobKey, func(part keyPart) bool { return part.path[0] == claim }) {
		roles = append(roles, "names the job")
	}
	if slices.Contains(p.kind, claim) {
		roles = append(roles, "required")
	}
	if slices.ContainsFunc(p.denials, func(d denial) bool { return d.claim == claim }) {
		roles = append(roles, "some values are refused by default")
	}
	return roles
}
