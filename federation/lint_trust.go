package federation

import (
	"regexp"
	"slices"
	"strings"

	"github.com/jobgate/jobgate/internal/api"
)

// trust looks for what a mapping takes on trust: an owner of a server that has several, code that can change under a
// name, jobs of forks.
func (l *linting) trust() {
	l.tenant()
	l.looseClaims()
	l.reusable()
	l.forks()
}

// tenant finds a mapping that serves all owners of a server of one's own. Of an issuer that strangers get tokens of,
// such a mapping is refused.
func (l *linting) tenant() {
	tenants := l.m.provider.tenants
	if len(tenants) > 0 && !slices.ContainsFunc(tenants, l.named) {
		l.find("no-tenant", "match", "nothing says whose jobs these are: everybody with a repository on this server is served who meets the rest; match one of %s",
			strings.Join(tenants, ", "))
	}
}

// looseClaims finds looks into claims that take more than they seem to.
func (l *linting) looseClaims() {
	if l.m.when == nil {
		return
	}
	if loose := l.m.when.LooseClaims(); len(loose) > 0 {
		l.find("claim-pattern", "when", "%s takes more names than it seems to: a branch main-2, or another's repository, is one of them. List whole values in match, "+
			"or end a prefix with its separator: startsWith(\"refs/heads/release/\")", strings.Join(loose, ", "))
	}
}

const calledWorkflow = "job_workflow_ref"

var (
	pinnedInWhen = regexp.MustCompile(`job_workflow_ref[^&|]*@(?:[0-9a-f]{40}|[0-9a-f]{64})\b`)
	atCommit     = regexp.MustCompile(`@(?:[0-9a-f]{40}|[0-9a-f]{64})\z`)
)

// reusable finds a called workflow that is named by a branch or a tag: what it does is whatever lies there when the job
// runs, in a repository that no claim has the id of.
func (l *linting) reusable() {
	if l.named("job_workflow_sha") || slices.Contains(l.whenFields(), "job_workflow_sha") {
		return
	}
	for _, value := range l.m.spec.Match[calledWorkflow] {
		text, _ := value.(string)
		if atCommit.MatchString(text) || l.ownProtected(text) {
			continue
		}
		_, ref, _ := strings.Cut(text, "@")
		l.find("moving-workflow", "match."+calledWorkflow, "the workflow is whatever lies at %s when the job runs, in a repository that is named, and has no id here: whoever can "+
			"push there, or takes over its name, decides; match job_workflow_sha, too, or write the commit's whole hash behind the @", ref)
	}
	if slices.Contains(l.whenFields(), calledWorkflow) && !pinnedInWhen.MatchString(l.m.when.String()) {
		l.find("moving-workflow", "when", "it looks at job_workflow_ref, and nothing pins the commit: whoever can push to the workflow's repository decides; match job_workflow_sha")
	}
}

// ownProtected reports whether a workflow is one of the caller's own repository, pinned by its id, and of a protected
// ref.
func (l *linting) ownProtected(workflow string) bool {
	owned := slices.ContainsFunc(l.m.spec.Match["repository"], func(v any) bool {
		name, _ := v.(string)
		return name != "" && strings.HasPrefix(workflow, name+"/")
	})
	_, ref, _ := strings.Cut(workflow, "@")
	refs := l.m.spec.Match["ref"]
	return owned && l.named("repository_id") && slices.Equal(l.m.spec.Match["ref_protected"], api.Values{"true"}) && slices.Equal(refs, api.Values{ref})
}

func (l *linting) whenFields() []string {
	if l.m.when == nil {
		return nil
	}
	return l.m.when.Fields("claims")
}

// forks finds mappings of providers whose tokens do not tell a fork's job from the repository's own.
func (l *linting) forks() {
	instead, untold := forksApart(l.m.provider.name)
	if untold && !slices.ContainsFunc(instead, l.named) {
		l.find("forks-untold", "match", "no claim of %s tells a fork's job from the repository's own, and a fork's branch has the name that its author gave it; match one of %s, "+
			"of what builds no forks, and leave pipelines that build forks out", l.m.provider.name, strings.Join(instead, ", "))
	}
}

// life finds what cannot be, or ends too early, for nobody tells whether a job runs.
func (l *linting) life(c MappingConfig) {
	if c.Signals == nil {
		return
	}
	signals, p := c.Signals[l.m.spec.Issuer], l.m.provider
	w := l.m.policy.Window
	switch {
	case l.m.spec.Live && !signals.API && !hasJobAPI(p.name):
		l.find("no-liveness", "require_liveness", "provider %s has no job API that is known, so that nobody says that a job runs: every exchange is refused; leave it out", p.name)
	case l.m.spec.Live && !signals.API:
		l.find("no-liveness", "require_liveness", "issuer %q has no api, so that nobody says that a job runs: every exchange is refused; write issuers[].api, or leave it out", l.m.spec.Issuer)
	case !p.renewable && p.jobKey != nil && w.Lease < w.Max && !signals.API && !signals.Webhook:
		l.find("short-lease", "window", "tokens of provider %s are made once for a job, so that nothing renews the lease: a session sleeps after %s, and its window is %s; "+
			"give the issuer an api, or write lease: %s", p.name, hours(w.Lease), hours(w.Max), hours(w.Max))
	}
}
