package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/dial"
)

// keysFile is a JWK set in a file, for issuers that cannot be reached.
type keysFile string

func (path keysFile) load(context.Context) (map[string]publicKey, time.Duration, error) {
	f, err := os.Open(string(path))
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	document, err := readBounded(f)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", string(path), err)
	}
	keys, err := parseKeys(document)
	return keys, minFresh, err
}

// remoteKeys are the keys that an issuer publishes: OpenID Connect Discovery 1.0, sections 3 and 4. It is used by one
// refresh at a time.
type remoteKeys struct {
	issuer string
	client *http.Client
	now    func() time.Time

	place      string // jwks_uri, "" while it is not known
	discovered time.Time
}

func (r *remoteKeys) load(ctx context.Context) (map[string]publicKey, time.Duration, error) {
	if r.place == "" || r.now().Sub(r.discovered) >= freshDiscovery {
		place, err := r.discover(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("discovery: %w", err)
		}
		r.place, r.discovered = place, r.now()
	}
	document, header, err := r.get(ctx, r.place)
	if err == nil {
		var keys map[string]publicKey
		if keys, err = parseKeys(document); err == nil {
			return keys, maxAge(header.Get("Cache-Control")), nil
		}
	}
	r.place = "" // it may have moved
	return nil, 0, err
}

// discover returns where the issuer says that its keys are.
func (r *remoteKeys) discover(ctx context.Context) (string, error) {
	document, _, err := r.get(ctx, strings.TrimSuffix(r.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	about, err := decodeObject(document)
	if err != nil {
		return "", err
	}
	if name, _ := about["issuer"].(string); name != r.issuer {
		return "", fmt.Errorf("the document is of issuer %s, want %s", shown(name), r.issuer)
	}
	place, _ := about["jwks_uri"].(string)
	return place, r.checkPlace(place)
}

// checkPlace takes an https URL anywhere, and what is on the issuer's own origin. Where an https URL leads is the
// dialer's to check.
func (r *remoteKeys) checkPlace(place string) error {
	u, err := url.Parse(place)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return fmt.Errorf("jwks_uri %s is no URL", shown(place))
	}
	own, err := url.Parse(r.issuer)
	if err != nil {
		return err
	}
	if u.Scheme != "https" && (u.Scheme != own.Scheme || u.Host != own.Host) {
		return fmt.Errorf("jwks_uri %s is not https", shown(place))
	}
	return nil
}

func (r *remoteKeys) get(ctx context.Context, from string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s answers %d", from, resp.StatusCode)
	}
	document, err := readBounded(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", from, err)
	}
	return document, resp.Header, nil
}

func readBounded(from io.Reader) ([]byte, error) {
	document, err := io.ReadAll(io.LimitReader(from, maxDocument+1))
	if err == nil && len(document) > maxDocument {
		err = errors.New("more than 1 MiB")
	}
	return document, err
}

// maxAge returns the max-age of a Cache-Control header, RFC 9111 section 5.2.2.1, and zero where there is none. no-store
// and no-cache ask for as little as it gets.
func maxAge(header string) time.Duration {
	for directive := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return minFresh
		case "max-age":
			if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				return max(time.Duration(seconds)*time.Second, minFresh)
			}
		}
	}
	return 0
}

// transport returns a transport for the issuer's documents. It uses no proxy of the environment: the address that is
// checked is the one that is connected to. Documents are fetched once an hour, so no connection is kept.
func (i Issuer) transport(authorities *x509.CertPool) http.RoundTripper {
	u, err := url.Parse(i.URL)
	private := i.AllowPrivate || err == nil && dial.Literal(u.Hostname())
	return &http.Transport{
		DialContext:            dial.Dialer{Private: private, Timeout: fetchTimeout}.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: authorities},
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    fetchTimeout,
		ResponseHeaderTimeout:  fetchTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
	}
}
