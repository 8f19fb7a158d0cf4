package main

import (
	"fmt"
	"time"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy"
)

// buildLiveness takes up how each issuer's provider is asked about jobs, and whose webhooks are believed.
func (b *built) buildLiveness(found *problems, read func(path, ref string) access.Secret) {
	for i, c := range b.config.Issuers {
		if i >= len(b.issuers) {
			return
		}
		at, hold := fmt.Sprintf("issuers[%d]", i), func(name string, s access.Secret) {
			b.held = append(b.held, proxy.Held{Name: c.Name + "-" + name, Secret: s})
		}
		if c.API != nil {
			before := len(found.list)
			a := federation.JobAPI{
				Issuer: b.issuers[i], URL: c.API.URL, AppID: c.API.AppID, InstallationID: c.API.InstallationID, Every: time.Duration(c.API.Every),
				Token: read(at+".api.token", c.API.Token), PrivateKey: read(at+".api.private_key", c.API.PrivateKey),
			}
			hold("api-token", a.Token)
			if err := a.Check(); err != nil && len(found.list) == before {
				b.config.problem(found, at+".api", err)
			}
			b.apis = append(b.apis, a)
		}
		if c.Webhook != nil {
			before := len(found.list)
			h := federation.Hook{Issuer: b.issuers[i], Secret: read(at+".webhook.secret", c.Webhook.Secret)}
			hold("webhook-secret", h.Secret)
			if err := h.Check(); err != nil && len(found.list) == before {
				b.config.problem(found, at+".webhook.secret", err)
			}
			b.hooks = append(b.hooks, h)
		}
	}
}
