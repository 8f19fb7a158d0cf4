package federation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/dial"
)

// Issuer is a CI provider's OIDC issuer that this deployment trusts.
type Issuer struct {
	// Name is what mappings call it.
	Name string
	// Provider names a row of the provider table, such as "github-actions".
	Provider string
	// Tokens says what tokens are like, for provider "generic" and for no other.
	Tokens *Tokens
	// URL is the issuer exactly as tokens carry it in "iss": compared byte by byte, a trailing slash included. Empty
	// takes the provider's, where it has only one.
	URL string
	// Algorithms are the JWS algorithms that are accepted; empty takes RS256. Symmetric ones and "none" are refused.
	Algorithms []string
	// KeysFile is a file with a JWK set that is used in place of the issuer's discovery document and keys.
	KeysFile string
	// CAFile is a file with the PEM certificates of the authorities that vouch for the issuer's host, in place of the
	// system's. It is read once.
	CAFile string
	// AllowPrivate lets the issuer's host resolve to internal addresses.
	AllowPrivate bool
	// SharedAudience accepts an audience that the provider fixes and other services accept, too. It needs MaxAge.
	SharedAudience bool
	// MaxAge bounds the time since "iat"; zero does not.
	MaxAge time.Duration
	// MaxLifetime bounds exp - iat; zero takes 24 h.
	MaxLifetime time.Duration
	// StaleKeys is how long keys are used while the issuer cannot be reached; zero takes 24 h.
	StaleKeys time.Duration
}

// Check says what keeps an issuer from being of use, for whoever reads a configuration. What it finds beyond
// NewVerifier is not unsafe: an issuer of which no token will ever be accepted.
func (i Issuer) Check() error {
	_, row, err := i.complete()
	switch {
	case err != nil:
		return err
	case row.audience != nil && !i.SharedAudience:
		return fmt.Errorf("provider %s fixes the audience of its tokens, so that other services take the same ones; write shared_audience: true and a max_age to accept that", row.name)
	case i.KeysFile != "":
		keys, _, err := keysFile(i.KeysFile).load(context.Background())
		if err == nil && len(keys) == 0 {
			err = fmt.Errorf("%s has no key that can be used: each needs a kid, and to be for signatures", i.KeysFile)
		}
		return wrapped("keys_file", err)
	}
	_, err = i.authorities()
	return wrapped("ca_file", err)
}

func wrapped(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", key, err)
}

// authorities returns those of the issuer's CAFile; nil, the system's, where there is none.
func (i Issuer) authorities() (*x509.CertPool, error) {
	if i.CAFile == "" {
		return nil, nil
	}
	f, err := os.Open(i.CAFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readBounded(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", i.CAFile, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no PEM certificate", i.CAFile)
	}
	return pool, nil
}

// complete checks an issuer, fills in what it leaves out, and returns its provider's row.
func (i Issuer) complete() (Issuer, *provider, error) {
	row, err := i.row()
	if err != nil {
		return i, nil, err
	}
	if i.Name == "" {
		return i, nil, errors.New("it has no name")
	}
	if i.URL == "" {
		i.URL = row.url
	}
	if i.URL == "" {
		return i, nil, fmt.Errorf("url is missing; provider %s has an issuer for each %s", row.name, row.each)
	}
	if err := checkIssuerURL(i.URL); err != nil {
		return i, nil, err
	}
	if len(i.Algorithms) == 0 {
		i.Algorithms = []string{"RS256"}
	}
	for _, alg := range i.Algorithms {
		if !slices.Contains(signatureAlgorithms, alg) {
			return i, nil, fmt.Errorf("algorithm %q is refused; write some of %s", alg, strings.Join(signatureAlgorithms, ", "))
		}
	}
	if i.KeysFile != "" && i.CAFile != "" {
		return i, nil, errors.New("keys_file is in place of what ca_file would be for; write one of them")
	}
	if i.SharedAudience && i.MaxAge <= 0 {
		return i, nil, errors.New("shared_audience needs a max_age, such as 10m")
	}
	if i.MaxAge < 0 || i.MaxLifetime < 0 || i.StaleKeys < 0 {
		return i, nil, errors.New("a duration is negative")
	}
	if i.MaxLifetime == 0 {
		i.MaxLifetime = maxLifetime
	}
	if i.StaleKeys == 0 {
		i.StaleKeys = staleKeys
	}
	return i, row, nil
}

func checkIssuerURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("url %q: %w", text, err)
	case u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return fmt.Errorf("url %q is no issuer; write https://host or https://host/path", text)
	case u.Scheme == "https", u.Scheme == "http" && dial.Loopback(u.Hostname()):
		return nil
	case u.Scheme == "http":
		return fmt.Errorf("url %q is plain http; write https, which only a loopback address may do without", text)
	}
	return fmt.Errorf("url %q is no https URL", text)
}
