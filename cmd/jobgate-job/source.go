package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// maxToken bounds a CI token, as the server does.
const maxToken = 16 << 10

var jwtForm = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// source gets a job's CI tokens.
type source struct {
	provider provider
	audience string
	env      environment
	http     *http.Client
	// last is the SHA-256 of the token that was shown last.
	last [sha256.Size]byte
}

// newSource finds out where this job's tokens come from.
func newSource(o *options) (*source, error) {
	name := o.provider
	p, found := detect(name, o.env)
	switch {
	case !found && o.tokenFile == "" && o.tokenEnv == "":
		return nil, misuse("no CI provider is recognised here; name it with --provider, or where the token is with --token-file or --token-env")
	case !found:
		p, _ = detect("generic", o.env)
	}
	if o.tokenEnv != "" {
		p.from, p.fresh, p.hide = recipe{vars: []string{o.tokenEnv}}, once, append(p.hide, o.tokenEnv)
	}
	if o.tokenFile != "" {
		p.from, p.fresh = recipe{file: o.tokenFile}, rotates
	}
	s := &source{provider: p, audience: o.url, env: o.env, http: newHTTP()}
	if len(p.from.command) > 0 {
		if _, err := s.look(p.from.command[0]); err != nil {
			s.provider.fresh = once // what is left is a variable
		}
	}
	return s, nil
}

// rotated reports whether the next token is another than the last that was shown.
func (s *source) rotated(ctx context.Context) (bool, error) {
	token, err := s.token(ctx)
	return err == nil && sum(token) != s.last, err
}

func sum(token access.Secret) [sha256.Size]byte { return sha256.Sum256([]byte(token.Reveal())) }

// token gets a token: a new one, where the provider gives them.
func (s *source) token(ctx context.Context) (access.Secret, error) {
	text, err := s.get(ctx)
	if err != nil {
		return access.Secret{}, err
	}
	text = strings.TrimSpace(text)
	if len(text) > maxToken || !jwtForm.MatchString(text) {
		return access.Secret{}, fmt.Errorf("what %s gives is no OIDC token (a JWT of at most %d bytes); %s", s.place(), maxToken, s.provider.help)
	}
	return access.NewSecret(text), nil
}

func (s *source) get(ctx context.Context) (string, error) {
	from := s.provider.from
	if from.http != nil {
		return s.fetch(ctx, from.http)
	}
	if len(from.command) > 0 {
		if path, err := s.look(from.command[0]); err == nil {
			return s.run(ctx, path, from.command[1:])
		}
	}
	for _, name := range from.vars {
		if value := s.env.get(name); value != "" {
			return value, nil
		}
	}
	if from.file != "" {
		return readSmall(from.file)
	}
	return "", fmt.Errorf("this job has no OIDC token of %s: %s is not there; %s", s.provider.name, s.place(), s.provider.help)
}

// place names where a token is looked for.
func (s *source) place() string {
	from := s.provider.from
	var places []string
	if from.http != nil {
		places = append(places, from.http.url)
	}
	if len(from.command) > 0 {
		places = append(places, "the command "+from.command[0])
	}
	places = append(places, from.vars...)
	if from.file != "" {
		places = append(places, from.file)
	}
	return strings.Join(places, " or ")
}

// fetch asks a mint. Its answers are not shown: one may hold a token.
func (s *source) fetch(ctx context.Context, m *mint) (string, error) {
	address, secret := m.url, ""
	if !strings.Contains(address, "/") {
		address, secret = s.env.get(m.url), s.env.get(m.token)
		if address == "" || secret == "" {
			return "", fmt.Errorf("this job cannot get an OIDC token (%s or %s is not set): %s", m.url, m.token, s.provider.help)
		}
	}
	target, err := url.Parse(address)
	if err != nil || target.Host == "" {
		return "", fmt.Errorf("%s is no URL", m.url)
	}
	query := target.Query()
	extra, _ := url.ParseQuery(m.query) // of the table
	for name := range extra {
		query.Set(name, extra.Get(name))
	}
	if m.audience != "" {
		query.Set(m.audience, s.audience)
	}
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, m.method, target.String(), nil)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", target.Host, err)
	}
	req.Header.Set("Accept", "application/json")
	if secret != "" {
		req.Header.Set("Authorization", m.scheme+secret)
	}
	if m.header[0] != "" {
		req.Header.Set(m.header[0], m.header[1])
	}
	status, body, err := send(s.http, req)
	if err != nil {
		return "", err
	}
	return mintAnswer(m, s.provider, status, body)
}

func mintAnswer(m *mint, p provider, status int, body []byte) (string, error) {
	switch {
	case status >= 500:
		return "", &unreachable{text: fmt.Sprintf("the token endpoint of %s answered %d", p.name, status), passing: true}
	case status != http.StatusOK:
		return "", fmt.Errorf("the token endpoint of %s answered %d and gave no OIDC token; %s", p.name, status, p.help)
	case m.field == "":
		return string(body), nil
	}
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("the token endpoint of %s answered with no JSON", p.name)
	}
	token, _ := answer[m.field].(string)
	return token, nil
}

// look finds a command in the PATH of the job's environment, which is not this process's own in a detached renewal.
func (s *source) look(name string) (string, error) {
	for _, dir := range strings.Split(s.env.get("PATH"), string(os.PathListSeparator)) {
		if dir == "" {
			continue // the working directory is the repository's, and no place for a program
		}
		if path, err := exec.LookPath(dir + string(os.PathSeparator) + name); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

func (s *source) run(ctx context.Context, path string, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	quoted, err := json.Marshal(s.audience)
	if err != nil {
		return "", err
	}
	filled := make([]string, len(args))
	for i, arg := range args {
		filled[i] = strings.NewReplacer("{audience}", s.audience, "{audience-json}", string(quoted)).Replace(arg)
	}
	cmd := exec.CommandContext(ctx, path, filled...)
	cmd.Env, cmd.WaitDelay = s.env.Vars, time.Second
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	said := ""
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		said = ": " + visible(strings.TrimSpace(string(exit.Stderr)), 300)
	}
	return "", fmt.Errorf("run %s: %w%s", s.provider.from.command[0], err, said)
}

// readSmall reads a plain file of at most 64 KiB: a pipe or a device in its place must not hang the job.
func readSmall(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > 64<<10 {
		return "", fmt.Errorf("%s is no plain file of at most 64 KiB", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return string(raw), err
}
