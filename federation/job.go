package federation

import "github.com/jobgate/jobgate/internal/access"

// Job returns what people read of an identity. Its URL is the run's page, where the issuer is of a server whose pages
// are known; the texts are as the token has them.
func Job(id access.Identity) access.Job {
	p := providerNamed(id.Provider)
	if p == nil || p.configured {
		return id.Job
	}
	job := p.job(id.Claims)
	if p.run != nil {
		job.URL = p.run(id.IssuerURL, id.Claims)
	}
	return job
}

func (p *provider) job(c access.Claims) access.Job {
	return access.Job{
		Repository: c.Text(p.shows.repository), Workflow: c.Text(p.shows.workflow),
		Ref: c.Text(p.shows.ref), Commit: c.Text(p.shows.commit),
		Actor: c.Text(p.shows.actor), Event: c.Text(p.shows.event),
	}
}

// configuredJob returns the job where only the configuration says which claims people read: the identity keeps it.
func (p *provider) configuredJob(c access.Claims) access.Job {
	if !p.configured {
		return access.Job{}
	}
	return p.job(c)
}
