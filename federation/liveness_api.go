package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/dial"
)

const (
	githubProvider    = "github-actions"
	gitlabProvider    = "gitlab"
	buildkiteProvider = "buildkite"

	// pollEvery is how often a provider is asked about a job that does something.
	pollEvery = 15 * time.Second
	// apiTimeout bounds one question.
	apiTimeout = 10 * time.Second
)

// JobAPI is how a provider is asked about the jobs of one of its issuers. Providers with a job API are github-actions,
// gitlab and buildkite.
type JobAPI struct {
	Issuer Issuer
	// URL is the API's base, such as https://api.github.com or https://gitlab.example.com; empty takes the one that
	// belongs to the issuer.
	URL string
	// Token is a token that may read jobs. GitHub: a personal access token with "actions: read", in place of an App.
	// GitLab: a token with read_api. Buildkite: a token with read_builds.
	Token access.Secret
	// AppID and PrivateKey are those of a GitHub App with "actions: read". InstallationID is where it is installed;
	// zero looks that up by the job's repository.
	AppID, InstallationID int64
	PrivateKey            access.Secret
	// Every is how often a job that does something is asked about; zero takes 15 s.
	Every time.Duration
}

// hasJobAPI reports whether a provider can be asked about jobs.
func hasJobAPI(provider string) bool {
	return provider == githubProvider || provider == gitlabProvider || provider == buildkiteProvider
}

// Check says what keeps an API from being of use.
func (a JobAPI) Check() error {
	_, err := a.build(time.Now)
	return err
}

// jobAPI asks one provider.
type jobAPI interface {
	state(ctx context.Context, c access.Claims) (LiveState, error)
	close()
}

func (a JobAPI) build(now func() time.Time) (jobAPI, error) {
	if a.Every < 0 || a.Every > 0 && a.Every < time.Second {
		return nil, errors.New("every is shorter than 1s")
	}
	if a.Issuer.Provider != githubProvider && (a.AppID != 0 || a.InstallationID != 0 || !a.PrivateKey.IsZero()) {
		return nil, fmt.Errorf("app_id, installation_id and private_key are of GitHub; provider %s takes a token", a.Issuer.Provider)
	}
	base, err := a.base()
	if err != nil {
		return nil, err
	}
	if _, err := a.Issuer.authorities(); err != nil {
		return nil, wrapped("ca_file", err)
	}
	switch a.Issuer.Provider {
	case githubProvider:
		return newGithubAPI(a, base, now)
	case gitlabProvider:
		return newGitlabAPI(a, base, now)
	}
	return newBuildkiteAPI(a, base, now)
}

// base returns the API's base URL without a slash at its end.
func (a JobAPI) base() (*url.URL, error) {
	text := a.URL
	if text == "" {
		issuer := a.Issuer.URL
		if row := providerNamed(a.Issuer.Provider); row != nil && issuer == "" {
			issuer = row.url
		}
		switch a.Issuer.Provider {
		case githubProvider:
			text = githubAPIURL(issuer)
		case gitlabProvider:
			text = issuer
		case buildkiteProvider:
			text = "https://api.buildkite.com"
		default:
			return nil, fmt.Errorf("provider %s has no job API that is known; %s, %s and %s have one", a.Issuer.Provider, githubProvider, gitlabProvider, buildkiteProvider)
		}
	}
	if text == "" {
		return nil, errors.New("url is missing: it cannot be told from the issuer's")
	}
	if err := checkIssuerURL(text); err != nil {
		return nil, err
	}
	return url.Parse(strings.TrimSuffix(text, "/"))
}

// transport returns a transport for the API. The issuer's authorities vouch for it where it is on the issuer's host.
func (a JobAPI) transport(base *url.URL) *http.Transport {
	var authorities *x509.CertPool
	if issuer, err := url.Parse(a.Issuer.URL); err == nil && issuer.Host == base.Host {
		if authorities, err = a.Issuer.authorities(); err != nil {
			authorities = x509.NewCertPool() // nobody vouches; build has said why
		}
	}
	return &http.Transport{
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: authorities},
		DialContext:            dial.Dialer{Private: a.Issuer.AllowPrivate || dial.Literal(base.Hostname()), Timeout: fetchTimeout}.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    fetchTimeout,
		ResponseHeaderTimeout:  apiTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        90 * time.Second,
	}
}

// JobAPIs ask the providers of all issuers that have an API. It is safe for concurrent use.
type JobAPIs struct {
	byIssuer map[string]jobAPI
	every    map[string]time.Duration
}

// NewJobAPIs returns what asks these APIs. now may be nil.
func NewJobAPIs(apis []JobAPI, now func() time.Time) (*JobAPIs, error) {
	if now == nil {
		now = time.Now
	}
	out := &JobAPIs{byIssuer: make(map[string]jobAPI), every: make(map[string]time.Duration)}
	for _, a := range apis {
		api, err := a.build(now)
		if err != nil {
			return nil, fmt.Errorf("job API of issuer %q: %w", a.Issuer.Name, err)
		}
		out.byIssuer[a.Issuer.Name] = api
		out.every[a.Issuer.Name] = a.Every
		if a.Every == 0 {
			out.every[a.Issuer.Name] = pollEvery
		}
	}
	return out, nil
}

// JobEnded asks the provider of the identity's issuer. LiveUnknown comes with an error that says why nobody can tell,
// and without one for an issuer that has no API.
func (a *JobAPIs) JobEnded(ctx context.Context, id access.Identity) (LiveState, error) {
	api := a.byIssuer[id.Issuer]
	if api == nil {
		return LiveUnknown, nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	state, err := api.state(ctx, id.Claims)
	if err != nil {
		return LiveUnknown, fmt.Errorf("ask the job API of issuer %q: %w", id.Issuer, err)
	}
	return state, nil
}

// Every returns how often an issuer's API is asked about a job, zero for an issuer without one.
func (a *JobAPIs) Every(issuer string) time.Duration { return a.every[issuer] }

// Close closes the connections that are kept open.
func (a *JobAPIs) Close() {
	for _, api := range a.byIssuer {
		api.close()
	}
}
