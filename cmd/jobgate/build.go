package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/guard"
	"github.com/jobgate/jobgate/proxy/inject"
)

// built is a configuration of which every value was understood: what check stops at and serve begins with.
type built struct {
	config      *config
	declared    []declared // mappings: the file's own, and those of its sources once they were read
	empty       []int      // of config.MappingsFrom, those that were read and hold no file
	proxies     []netip.Prefix
	issuers     []federation.Issuer
	connections []proxy.Connection
	kinds       map[string]string
	groups      []string
	verifier    *federation.Verifier
	held        []proxy.Held
	adminToken  access.Secret
	slackToken  access.Secret
	slackSecret access.Secret
	apis        []federation.JobAPI
	hooks       []federation.Hook
	variables   []*variable // secrets that are followed; close ends that
}

// buildConfig turns the file's values into the program's parts, and reports all that is wrong with file and line.
func buildConfig(c *config, env environment, log *slog.Logger) (*built, error) {
	found := &problems{file: c.file}
	b := &built{config: c, declared: c.declared(), kinds: make(map[string]string)}
	b.checkListeners(found)
	b.checkChoices(found)
	if b.buildIssuers(found) {
		b.buildVerifier(found, log)
	}
	b.buildConnections(found, env)
	b.buildSecrets(found, env)
	for name := range c.Approvals.Groups {
		b.groups = append(b.groups, name)
	}
	b.checkSources(found)
	b.checkMappings(found)
	if err := found.or(); err != nil {
		b.close()
		return b, err
	}
	return b, nil
}

func (b *built) checkListeners(found *problems) {
	c := b.config
	u, err := url.Parse(c.PublicURL)
	switch {
	case c.PublicURL == "":
		c.problem(found, "public_url", errors.New("public_url is missing: the jobs' side's base URL, and the audience that CI tokens must carry"))
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		c.problem(found, "public_url", fmt.Errorf("%q is no base URL such as https://jobgate.example.com", c.PublicURL))
	case u.Scheme == "http" && !loopbackHost(u.Hostname()):
		c.problem(found, "public_url", fmt.Errorf("%q: plain http is for a loopback address; clients refuse it elsewhere", c.PublicURL))
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		c.problem(found, "tls", errors.New("tls needs cert and key, both as file:PATH"))
	}
	for path, value := range map[string]string{"tls.cert": c.TLS.Cert, "tls.key": c.TLS.Key} {
		if value != "" && !strings.HasPrefix(value, "file:") {
			c.problem(found, path, errors.New("write file:PATH"))
		}
	}
	for i, text := range c.TrustedProxies {
		p, err := parsePrefix(text)
		if err != nil {
			c.problem(found, fmt.Sprintf("trusted_proxies[%d]", i), err)
		}
		b.proxies = append(b.proxies, p)
	}
	if c.Control.Token != "" && c.Control.Listen == "" {
		c.problem(found, "control.token", errors.New("a token is for control.listen, which is missing; without both, the admin API is on the Unix socket"))
	}
	if c.Control.Listen != "" && c.Control.Listen == c.Listen {
		c.problem(found, "control.listen", errors.New("the people's side needs a listener of its own, another than listen"))
	}
}

// checkChoices checks values that stand for themselves.
func (b *built) checkChoices(found *problems) {
	c := b.config
	if c.Archive.SpoolMax < 0 {
		c.problem(found, "archive.spool_max_bytes", fmt.Errorf("%d is negative; leave it out for 4 GiB", c.Archive.SpoolMax))
	}
	if c.Archive.PartAge < 0 {
		c.problem(found, "archive.part_age", errors.New("it is negative; leave it out for 10m"))
	}
	switch c.Log.Format {
	case "text", "json":
	default:
		c.problem(found, "log.format", fmt.Errorf("%q: write text or json", c.Log.Format))
	}
	if _, err := logLevel(c.Log.Level); err != nil {
		c.problem(found, "log.level", err)
	}
	if c.Archive.OnBacklog != "refuse" && c.Archive.OnBacklog != "continue" {
		c.problem(found, "archive.on_backlog", fmt.Errorf("%q: write refuse or continue", c.Archive.OnBacklog))
	}
	if c.Archive.Durability != "process" && c.Archive.Durability != "power" {
		c.problem(found, "archive.durability", fmt.Errorf("%q: write process or power", c.Archive.Durability))
	}
	if !strings.HasPrefix(c.Store, "sqlite:") {
		// The value is not shown: a database's URL may hold a password.
		c.problem(found, "store", errors.New("this build stores in SQLite only; write sqlite:jobgate.db"))
	}
}

func (b *built) buildIssuers(found *problems) (good bool) {
	good = true
	for i, c := range b.config.Issuers {
		issuer := federation.Issuer{
			Name: c.Name, Provider: c.Provider, URL: c.URL, Tokens: c.tokens(), Algorithms: c.Algorithms, KeysFile: b.path(c.KeysFile), CAFile: b.path(c.CAFile),
			AllowPrivate: c.Private, SharedAudience: c.SharedAudience, MaxAge: time.Duration(c.MaxAge), MaxLifetime: time.Duration(c.MaxLifetime), StaleKeys: time.Duration(c.StaleKeys),
		}
		if err := issuer.Check(); err != nil {
			at, field := fmt.Sprintf("issuers[%d]", i), (*api.FieldError)(nil)
			if errors.As(err, &field) {
				at, err = at+"."+field.Path, field.Err
			}
			b.config.problem(found, at, err)
			good = false
		}
		b.issuers = append(b.issuers, issuer)
	}
	return good
}

func (b *built) buildVerifier(found *problems, log *slog.Logger) {
	if len(b.issuers) == 0 {
		b.config.problem(found, "issuers", errors.New("there is no issuer: name the CI provider whose tokens are trusted"))
		return
	}
	v, err := federation.NewVerifier(federation.VerifierConfig{Audience: b.config.PublicURL, Issuers: b.issuers, Log: log})
	if err != nil {
		var field *api.FieldError
		if errors.As(err, &field) {
			b.config.problem(found, field.Path, field.Err)
			return
		}
		b.config.problem(found, "issuers", err)
		return
	}
	b.verifier = v
}

func (b *built) buildConnections(found *problems, env environment) {
	if len(b.config.Connections) == 0 {
		b.config.problem(found, "connections", errors.New("there is no connection: name what jobs may call"))
	}
	for i, c := range b.config.Connections {
		at := fmt.Sprintf("connections[%d]", i)
		conn := proxy.Connection{Name: c.Name, Kind: c.Kind, Private: c.Private}
		if err := proxy.CheckConnectionName(c.Name); err != nil {
			b.config.problem(found, at+".name", err)
			continue
		}
		if _, twice := b.kinds[c.Name]; twice {
			b.config.problem(found, at+".name", fmt.Errorf("there are two connections %q", c.Name))
			continue
		}
		b.kinds[c.Name] = c.Kind
		if c.Kind != proxy.KindAnthropic && c.Kind != proxy.KindHTTP {
			b.config.problem(found, at+".kind", fmt.Errorf("%q: write %s or %s", c.Kind, proxy.KindAnthropic, proxy.KindHTTP))
		}
		u, err := url.Parse(c.Upstream)
		if err == nil {
			err = proxy.CheckUpstream(u, c.Private)
		}
		if err != nil {
			b.config.problem(found, at+".upstream", err)
			continue
		}
		conn.Upstream = u
		if err := b.buildCredential(&conn, c.Credential, at+".credential", found, env); err != nil {
			continue
		}
		b.connections = append(b.connections, conn)
	}
}

var errReported = errors.New("reported")

func (b *built) buildCredential(conn *proxy.Connection, c credentialConfig, at string, found *problems, env environment) error {
	if c == (credentialConfig{}) {
		return nil
	}
	var err error
	switch {
	case c.Value == "":
		b.config.problem(found, at+".value", errors.New("value is missing: env:NAME, file:PATH or a URL"))
		return errReported
	case c.User != "" && c.Header != "":
		b.config.problem(found, at, errors.New("write header, or user for Basic authentication, not both"))
		return errReported
	case c.User != "":
		conn.Placement, err = inject.NewBasic(c.User)
	default:
		conn.Placement, err = inject.NewPlacement(c.Header, c.Prefix)
	}
	if err != nil {
		b.config.problem(found, at+".header", err)
		return errReported
	}
	if conn.Credential, err = b.source(c.Value, env); err != nil {
		b.config.problem(found, at+".value", err)
		return errReported
	}
	usable := func(s access.Secret) error {
		if len(s.Reveal()) < shortestSecret {
			return fmt.Errorf("the credential has fewer than %d characters: it could not be masked without masking everything", shortestSecret)
		}
		return conn.Placement.Check(s)
	}
	value, err := conn.Credential.Credential(context.Background())
	if err == nil {
		err = usable(value.Secret)
	}
	if err != nil {
		b.config.problem(found, at+".value", err)
		return errReported
	}
	conn.Credential.Require(usable)
	return nil
}

// shortestSecret can be told from ordinary text.
const shortestSecret = 8

// resolve makes file: references relative to the configuration file.
func (b *built) resolve(ref string) string {
	if path, ok := strings.CutPrefix(ref, "file:"); ok {
		return "file:" + b.path(path)
	}
	return ref
}

// path makes a path relative to the configuration file; an empty one stays.
func (b *built) path(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(b.config.file), path)
}

func (b *built) buildSecrets(found *problems, env environment) {
	read := func(path, ref string) access.Secret {
		if ref == "" {
			return access.Secret{}
		}
		c, err := b.once(ref, env)
		if err == nil && len(c.Secret.Reveal()) < shortestSecret {
			err = fmt.Errorf("the secret has fewer than %d characters", shortestSecret)
		}
		if err != nil {
			b.config.problem(found, path, err)
			return access.Secret{}
		}
		return c.Secret
	}
	b.buildLiveness(found, read)
	b.adminToken = read("control.token", b.config.Control.Token)
	b.held = append(b.held, proxy.Held{Name: "admin-token", Secret: b.adminToken})
	if s := b.config.Approvals.Slack; s != nil {
		for path, value := range map[string]string{"bot_token": s.BotToken, "signing_secret": s.SigningSecret, "channel": s.Channel} {
			if value == "" {
				b.config.problem(found, "approvals.slack."+path, fmt.Errorf("%s is missing", path))
			}
		}
		b.slackToken = read("approvals.slack.bot_token", s.BotToken)
		b.slackSecret = read("approvals.slack.signing_secret", s.SigningSecret)
		b.held = append(b.held, proxy.Held{Name: "slack-token", Secret: b.slackToken}, proxy.Held{Name: "slack-secret", Secret: b.slackSecret})
	}
}

// mappingConfig is what mappings may refer to. Features of an LLM connection are names of tools that its provider adds
// without asking us, so any name is taken there: one that nothing has grants nothing.
func (b *built) mappingConfig() federation.MappingConfig {
	signals := make(map[string]federation.Signals)
	for _, c := range b.config.Issuers {
		signals[c.Name] = federation.Signals{API: c.API != nil, Webhook: c.Webhook != nil}
	}
	return federation.MappingConfig{Issuers: b.issuers, Connections: b.kinds, Groups: b.groups, Signals: signals,
		CheckAllow: guard.ParseAllow, Features: map[string][]string{proxy.KindHTTP: nil}}
}

// openBucket opens the archive's bucket. For a folder it returns the folder, too: its files are synced there.
func openBucket(ctx context.Context, raw string) (bucket *blob.Bucket, folder string, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, "", fmt.Errorf("archive.bucket: %w", err)
	}
	if u.Scheme == "file" {
		q := u.Query()
		q.Set("create_dir", "true")
		q.Set("no_tmp_dir", "true") // a rename across mounts fails
		q.Set("metadata", "skip")   // nothing reads the files beside, and one that is torn would block its object
		u.RawQuery = q.Encode()
		folder = filepath.FromSlash(u.Path)
	}
	bucket, err = blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, "", fmt.Errorf("open the archive's bucket: %w", err)
	}
	return bucket, folder, nil
}
