package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// defaultLease is the server's own, where its answer does not tell.
const defaultLease = 15 * time.Minute

// session is an open session of this job, with its folder.
type session struct {
	answer  api.Token
	token   access.Secret
	mapping string
	dir     string // 0700; holds the token file and what clients keep for the session
	file    string // 0600; the session token
	base    string // base URL of the chosen connection; of the only one; or Jobgate's
	vars    map[string]string
	joined  bool // by a job that has it open already, and will close it
	jobgate *jobgate
	source  *source
}

// open does what connect and exec begin with.
func open(ctx context.Context, o *options, parent string) (*session, error) {
	j, err := newJobgate(o)
	if err != nil {
		return nil, err
	}
	if err := refuseShadows(o.env); err != nil {
		return nil, err
	}
	s, err := newSource(o)
	if err != nil {
		return nil, err
	}
	answer, err := j.open(ctx, s, o.mapping, o.scope)
	if err != nil {
		return nil, hint(err, o.env)
	}
	opened := &session{
		answer: answer, token: access.NewSecret(answer.AccessToken), mapping: answer.Mapping, jobgate: j, source: s,
		joined: o.env.get("JOBGATE_SESSION_ID") == answer.SessionID,
	}
	if opened.mapping == "" {
		opened.mapping = o.mapping
	}
	if err := opened.settle(o, parent); err != nil {
		// The session stays open: closing it is for good, and a better try of the same job may join it.
		opened.clear()
		return nil, err
	}
	return opened, nil
}

// hint adds what the server cannot know to its refusal.
func hint(err error, env environment) error {
	var no *refused
	if errors.As(err, &no) && env.get("JOBGATE_SESSION_ID") != "" {
		return fmt.Errorf("%w (this job has a session already, %s: where a provider gives a job one token only, it opens once; commands run in it as they are, without exec)",
			err, visible(env.get("JOBGATE_SESSION_ID"), 80))
	}
	return err
}

// settle makes the session's folder and variables.
func (s *session) settle(o *options, parent string) error {
	chosen, err := choose(s.answer.Connections, o.url, o.connection)
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp(parent, "jobgate-"); err != nil { // 0700
		return fmt.Errorf("make the session's folder: %w", err)
	}
	s.file = filepath.Join(s.dir, "token")
	if err := os.WriteFile(s.file, []byte(s.token.Reveal()), 0o600); err != nil {
		return fmt.Errorf("write the token file: %w", err)
	}
	cache := filepath.Join(s.dir, "federation")
	if err := os.Mkdir(cache, 0o700); err != nil {
		return fmt.Errorf("make the session's folder: %w", err)
	}
	s.base = o.url
	switch {
	case chosen != nil:
		s.base = chosen.BaseURL
	case len(s.answer.Connections) == 1:
		s.base = s.answer.Connections[0].BaseURL
	}
	s.vars = variables(s.answer, chosen, s.mapping, s.file, cache)
	return nil
}

// clear removes the session's folder.
func (s *session) clear() {
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // what is left of it is in the job's own folder
	}
}

// lease is how long the session stays awake without a sign of life.
func (s *session) lease() time.Duration {
	if s.answer.Lease > 0 {
		return time.Duration(s.answer.Lease) * time.Second
	}
	return defaultLease
}

func (s *session) names() string {
	var names []string
	for _, c := range s.answer.Connections {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}

// tell says what was opened.
func (s *session) tell(say func(string, ...any)) {
	say("session %s is open under mapping %s, for %s; its window closes with this job, or after %d s", s.answer.SessionID, s.mapping, s.names(), s.answer.ExpiresIn)
	if s.source.provider.fresh == once && s.lease() < time.Duration(s.answer.ExpiresIn)*time.Second {
		say("%s gives a job one token, so nothing here can renew the lease of %s: the session sleeps after it unless Jobgate asks the provider "+
			"itself, or the mapping's lease is as long as its window", s.source.provider.name, s.lease())
	}
}

var connectionName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// choose returns the connection that the SDKs' variables shall name, or nil.
func choose(connections []api.Connection, url, name string) (*api.Connection, error) {
	var able []*api.Connection
	var list []string
	for i, c := range connections {
		if !connectionName.MatchString(c.Name) || c.BaseURL != url+"/"+c.Name {
			return nil, fmt.Errorf("the server names a connection %q at %q, which is not under %s; set --url to the server's public_url, exactly", c.Name, c.BaseURL, url)
		}
		if c.Kind == "anthropic" {
			able, list = append(able, &connections[i]), append(list, c.Name)
		}
	}
	granted := strings.Join(list, ", ")
	if name != "" {
		for _, c := range able {
			if c.Name == name {
				return c, nil
			}
		}
		return nil, misuse("connection %q is not granted here as one of kind anthropic; granted: %s", name, granted)
	}
	switch len(able) {
	case 0:
		return nil, nil
	case 1:
		return able[0], nil
	}
	return nil, misuse("several connections of kind anthropic are granted (%s); name one with --connection", granted)
}

// variables are what the job's clients read. No token is among them.
func variables(answer api.Token, chosen *api.Connection, mapping, file, cache string) map[string]string {
	vars := map[string]string{"JOBGATE_TOKEN_FILE": file, "JOBGATE_SESSION_ID": answer.SessionID}
	for _, c := range answer.Connections {
		vars["JOBGATE_URL_"+strings.ToUpper(strings.ReplaceAll(c.Name, "-", "_"))] = c.BaseURL
	}
	if chosen == nil {
		return vars
	}
	organization := chosen.Env["ANTHROPIC_ORGANIZATION_ID"]
	if organization == "" {
		organization = "jobgate"
	}
	maps.Copy(vars, fromServer(chosen.Env))
	maps.Copy(vars, map[string]string{
		"ANTHROPIC_BASE_URL":               chosen.BaseURL,
		"ANTHROPIC_FEDERATION_RULE_ID":     mapping,
		"ANTHROPIC_ORGANIZATION_ID":        organization,
		"ANTHROPIC_IDENTITY_TOKEN_FILE":    file,
		"CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
		// By default Claude Code keeps what it exchanged in the home folder, where it would outlive the job.
		"CLAUDE_CODE_FEDERATION_CACHE_DIR": cache,
		// Otherwise Claude Code asks the base URL for /api/hello and /api/claude_cli/bootstrap, which a narrow allow list
		// refuses, and every job would end as one in which something was refused.
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
	})
	return vars
}

var (
	clientVariable = regexp.MustCompile(`^(ANTHROPIC|CLAUDE)_[A-Z0-9_]+$`)
	credentialName = regexp.MustCompile(`KEY|TOKEN$|SECRET|PASSWORD`)
)

// fromServer takes variables of the clients themselves from the server, and no credential: PATH or NODE_OPTIONS, set by an
// answer, would be code that runs in the job.
func fromServer(env map[string]string) map[string]string {
	taken := make(map[string]string)
	for name, value := range env {
		if clientVariable.MatchString(name) && !credentialName.MatchString(name) && !strings.ContainsAny(value, "\x00\r\n") {
			taken[name] = value
		}
	}
	return taken
}

// temporary is the job's own folder for temporary files.
func temporary(env environment) string {
	if p, found := detect("auto", env); found && p.temp != "" {
		if dir := env.get(p.temp); dir != "" {
			return dir
		}
	}
	return os.TempDir()
}
