package main

import (
	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/api"
)

// tokensConfig says what tokens of an issuer of provider generic are like.
type tokensConfig struct {
	Claims    map[string]string     `yaml:"claims"` // name: string, int, bool, list or object
	JobKey    []string              `yaml:"job_key"`
	Tenants   []string              `yaml:"tenants"`
	OneTenant bool                  `yaml:"one_tenant"`
	Trusted   map[string]api.Values `yaml:"trusted"`
	Audience  string                `yaml:"audience"` // where a job cannot choose it
	Renewable bool                  `yaml:"renewable"`
	Shows     showsConfig           `yaml:"shows"`
}

// showsConfig names the claims that people read.
type showsConfig struct {
	Repository string `yaml:"repository"`
	Workflow   string `yaml:"workflow"`
	Ref        string `yaml:"ref"`
	Commit     string `yaml:"commit"`
	Actor      string `yaml:"actor"`
	Event      string `yaml:"event"`
}

// tokens returns what the issuer's tokens are like, nil where the provider says.
func (c issuerConfig) tokens() *federation.Tokens {
	t := c.Tokens
	if t == nil {
		return nil
	}
	return &federation.Tokens{
		Claims: t.Claims, JobKey: t.JobKey, Tenants: t.Tenants, OneTenant: t.OneTenant, Trusted: t.Trusted, Audience: t.Audience,
		Renewable: t.Renewable,
		Shows:     federation.ShownClaims(t.Shows),
	}
}
