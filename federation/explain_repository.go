package federation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// RepositoryQuestion is a repository of GitHub for whose jobs a mapping is wanted.
type RepositoryQuestion struct {
	// Issuer is whose tokens its jobs have. Its server is asked.
	Issuer Issuer
	// API is the base of the server's REST API; empty takes the one that belongs to the issuer.
	API string
	// Name is "owner/name", as it is called now.
	Name string
	// Token may read the repository; the zero Secret asks as anybody does, which is enough for public ones.
	Token access.Secret
}

// SuggestForRepository looks a repository up and returns a mapping for pushes to its default branch, and for jobs that
// somebody with write access starts on it by hand.
func SuggestForRepository(ctx context.Context, q RepositoryQuestion, connections map[string]string) (Suggestion, error) {
	if q.Issuer.Provider != githubProvider {
		return Suggestion{}, fmt.Errorf("issuer %q is of provider %s; repositories are looked up for %s only, others need a token of a job", q.Issuer.Name, q.Issuer.Provider, githubProvider)
	}
	owner, name, _ := strings.Cut(q.Name, "/")
	if !githubName.MatchString(q.Name) || dots(owner) || dots(name) {
		return Suggestion{}, fmt.Errorf("%s is no repository; write owner/name", shown(q.Name))
	}
	claims, err := q.ask(ctx, owner, name)
	if err != nil {
		return Suggestion{}, fmt.Errorf("look up repository %s: %w", q.Name, err)
	}
	s, err := Suggest(access.Identity{Issuer: q.Issuer.Name, IssuerURL: q.Issuer.URL, Provider: q.Issuer.Provider, Claims: claims}, nil, connections)
	if err == nil {
		s.Mapping.Match["event_name"] = api.Values{"push", "workflow_dispatch"}
	}
	return s, err
}

// errMoved is a repository whose name leads to another: the name is somebody's to give away.
var errMoved = errors.New("it was renamed or moved; write what it is called now")

// ask returns the claims that a push to the repository's default branch would have, as far as the API tells them.
func (q RepositoryQuestion) ask(ctx context.Context, owner, name string) (access.Claims, error) {
	a := JobAPI{Issuer: q.Issuer, URL: q.API}
	base, err := a.base()
	if err != nil {
		return nil, err
	}
	transport := a.transport(base)
	defer transport.CloseIdleConnections()
	authorize := func(context.Context, http.Header) error { return nil }
	if !q.Token.IsZero() {
		authorize = bearer("Authorization", "Bearer "+q.Token.Reveal())
	}
	client := github.NewClient(&http.Client{
		Transport:     &politeTransport{base: transport, host: base.Scheme + "://" + base.Host, now: time.Now, authorize: authorize},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errMoved },
	})
	client.BaseURL = base.JoinPath("/")
	asking, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	repository, _, err := client.Repositories.Get(asking, owner, name)
	switch {
	case errors.Is(err, errMoved):
		return nil, errMoved
	case err != nil && errors.Is(githubError(err), errNotThere):
		return nil, errors.New("there is none that this token may read; a private one needs a token")
	case err != nil:
		return nil, githubError(err)
	case repository.GetID() <= 0 || repository.GetOwner().GetID() <= 0 || repository.GetDefaultBranch() == "":
		return nil, errors.New("the API's answer has no ids")
	case !strings.EqualFold(repository.GetFullName(), q.Name):
		return nil, fmt.Errorf("the API answers with repository %s", shown(repository.GetFullName()))
	}
	return access.Claims{
		"repository": repository.GetFullName(), "repository_id": strconv.FormatInt(repository.GetID(), 10),
		"repository_owner": repository.GetOwner().GetLogin(), "repository_owner_id": strconv.FormatInt(repository.GetOwner().GetID(), 10),
		"ref": "refs/heads/" + repository.GetDefaultBranch(), "event_name": "push",
		// A job will have one; which one makes no difference to its mapping.
		"run_id": "1", "run_attempt": "1", "check_run_id": "1",
	}, nil
}
