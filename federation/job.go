package federation

import "github.com/jobgate/jobgate/internal/access"

// Job returns what people read of an identity. Its URL is the run's page, where the issuer is of a server whose pages
// are known; the texts are as the token has them.
func Job(id access.Identity) access.Job {
	p := providerNamed(id.Provider)
	if p == nil {
		return access.Job{}
	}
	job := access.Job{
		Repository: id.Claims.Text(p.shows.repository), Workflow: id.Claims.Text(p.shows.workflow),
		Ref: id.Claims.Text(p.shows.ref), Commit: id.Claims.Text(p.shows.commit),
		Actor: id.Claims.Text(p.shows.actor), Event: id.Claims.Text(p.shows.event),
	}
	if p.run != nil {
		job.URL = p.run(id.IssuerURL, id.Claims)
	}
	return job
}
