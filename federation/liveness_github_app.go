package federation

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-github/v60/github"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// appTokenLife is how long an App's own token is good; GitHub takes ten minutes at most. It is dated back, for
	// clocks that differ.
	appTokenLife = 8 * time.Minute
	appTokenBack = time.Minute
	// installationEarly is how long before its end an installation's token is replaced.
	installationEarly = 5 * time.Minute
	// installationKnown is how long it is remembered where the App is installed.
	installationKnown = time.Hour
)

// githubApp gives out clients of an App's installations.
// https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
type githubApp struct {
	id           int64
	signer       jose.Signer
	now          func() time.Time
	own          *github.Client // as the App itself
	make         func(func(context.Context, http.Header) error) *github.Client
	installation int64 // 0: looked up

	mu      sync.Mutex // guards all below
	owners  map[int64]installedAt
	clients map[int64]*githubInstallation
}

type installedAt struct {
	installation int64
	until        time.Time
}

func newGithubApp(a JobAPI, client func(func(context.Context, http.Header) error) *github.Client, now func() time.Time) (*githubApp, error) {
	if a.AppID <= 0 || a.PrivateKey.IsZero() {
		return nil, errors.New("a GitHub App needs app_id and private_key")
	}
	key, err := parseRSA(a.PrivateKey)
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("private_key: %w", err)
	}
	app := &githubApp{
		id: a.AppID, signer: signer, now: now, make: client, installation: a.InstallationID,
		owners: make(map[int64]installedAt), clients: make(map[int64]*githubInstallation),
	}
	app.own = client(app.authorize)
	return app, nil
}

// parseRSA reads the PEM file that GitHub gives for an App. An error says nothing of its content.
func parseRSA(secret access.Secret) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(secret.Reveal()))
	if block == nil {
		return nil, errors.New("private_key is no PEM file: take the one that GitHub gives for the App")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if rsaKey, ok := key.(*rsa.PrivateKey); err == nil && ok {
		return rsaKey, nil
	}
	return nil, errors.New("private_key is no RSA private key: take the file that GitHub gives for the App")
}

// authorize signs a token of the App itself.
func (a *githubApp) authorize(_ context.Context, h http.Header) error {
	now := a.now()
	claims, err := json.Marshal(map[string]any{
		"iss": strconv.FormatInt(a.id, 10), "iat": now.Add(-appTokenBack).Unix(), "exp": now.Add(appTokenLife).Unix(),
	})
	if err != nil {
		return err
	}
	signed, err := a.signer.Sign(claims)
	if err != nil {
		return fmt.Errorf("sign the App's token: %w", err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		return fmt.Errorf("sign the App's token: %w", err)
	}
	h.Set("Authorization", "Bearer "+token)
	return nil
}

// client returns a client that may read the job's repository.
func (a *githubApp) client(ctx context.Context, j githubJob) (*github.Client, error) {
	id := a.installation
	if id == 0 {
		var err error
		if id, err = a.installedFor(ctx, j); err != nil {
			return nil, err
		}
	}
	a.mu.Lock()
	in := a.clients[id]
	if in == nil {
		in = &githubInstallation{app: a, id: id, turn: make(chan struct{}, 1)}
		in.client = a.make(in.authorize)
		a.clients[id] = in
	}
	a.mu.Unlock()
	return in.client, nil
}

// installedFor returns the installation of the job's owner.
func (a *githubApp) installedFor(ctx context.Context, j githubJob) (int64, error) {
	a.mu.Lock()
	at, have := a.owners[j.ownerID]
	a.mu.Unlock()
	if have && a.now().Before(at.until) {
		return at.installation, nil
	}
	in, _, err := a.own.Apps.FindRepositoryInstallation(ctx, j.owner, j.repo)
	if err != nil {
		return 0, fmt.Errorf("look up where the App is installed: %w", githubError(err))
	}
	if in.GetAccount().GetID() != j.ownerID {
		return 0, fmt.Errorf("%s is another account now than the token's owner", j.owner)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owners[j.ownerID] = installedAt{in.GetID(), a.now().Add(installationKnown)}
	return in.GetID(), nil
}

// githubInstallation is where the App is installed, with a token that reads actions and nothing else.
type githubInstallation struct {
	app    *githubApp
	id     int64
	client *github.Client

	turn  chan struct{} // one place; holds all below
	token access.Secret
	until time.Time
}

func (in *githubInstallation) authorize(ctx context.Context, h http.Header) error {
	select {
	case in.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-in.turn }()
	if in.token.IsZero() || !in.app.now().Before(in.until) {
		if err := in.renew(ctx); err != nil {
			return err
		}
	}
	h.Set("Authorization", "Bearer "+in.token.Reveal())
	return nil
}

func (in *githubInstallation) renew(ctx context.Context) error {
	read := "read"
	token, _, err := in.app.own.Apps.CreateInstallationToken(ctx, in.id, &github.InstallationTokenOptions{
		Permissions: &github.InstallationPermissions{Actions: &read},
	})
	if err != nil {
		return fmt.Errorf("get a token of installation %d: %w", in.id, githubError(err))
	}
	if token.GetToken() == "" {
		return fmt.Errorf("get a token of installation %d: the answer has none", in.id)
	}
	in.token, in.until = access.NewSecret(token.GetToken()), token.GetExpiresAt().Add(-installationEarly)
	return nil
}
