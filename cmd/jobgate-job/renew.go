package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// maxRefusals in a row end the renewal: a window that is over stays over, a mapping that is edited may match again.
	maxRefusals = 3
	// maxLog bounds the renewal's log.
	maxLog = 64 << 10
	// shortestRound keeps a lease of a second from becoming a storm.
	shortestRound = 250 * time.Millisecond
)

// renewal keeps a session awake by showing fresh CI tokens of the same job, every third of the lease.
type renewal struct {
	jobgate                 *jobgate
	source                  *source
	mapping, scope, session string
	tokenFile               string
	interval                time.Duration
	until                   time.Time
	say                     func(format string, args ...any)
	// over says why there is nothing to renew any more, "" while there is.
	over func() string

	refusals int // in a row
}

// newRenewal returns the renewal of a session that has just been opened.
func newRenewal(s *session, scope string, say func(string, ...any)) *renewal {
	return &renewal{
		jobgate: s.jobgate, source: s.source, mapping: s.mapping, scope: scope, session: s.answer.SessionID, tokenFile: s.file,
		interval: max(s.lease()/3, shortestRound), until: time.Now().Add(time.Duration(s.answer.ExpiresIn) * time.Second),
		say: say, over: func() string { return "" },
	}
}

// run renews until ctx, the window or the session is over.
func (r *renewal) run(ctx context.Context) {
	for time.Now().Add(r.interval).Before(r.until) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.interval):
		}
		why := r.over()
		if why == "" {
			why = r.round(ctx)
		}
		if why != "" && ctx.Err() == nil {
			r.say("%s; no more renewals", why)
			return
		}
	}
}

// round renews once, and says why that was the last time, "" where it was not.
func (r *renewal) round(ctx context.Context) string {
	led, err := r.renew(ctx)
	var away *unreachable
	var no *refused
	switch {
	case ctx.Err() != nil:
		return ""
	case err == nil:
		r.refusals = 0
	case errors.As(err, &no) && no.stopped: // the lease stands still, and may be renewed once it is resumed
		r.say("not renewed: %v", err)
	case !errors.As(err, &away):
		r.refusals++
		r.say("not renewed: %v", err)
	default:
		r.say("not renewed: %v", err)
	}
	switch {
	case err == nil && led != r.session:
		return "the exchange leads to session " + led
	case r.refusals == maxRefusals:
		return "refused too often"
	}
	return ""
}

// renew shows a fresh token and returns the session that it led to. The file keeps its token, since clients may have read
// it already; asking about it also counts as its use, so that it is not the one which the server drops when there are too
// many.
func (r *renewal) renew(ctx context.Context) (string, error) {
	if r.source.provider.fresh == rotates {
		if other, err := r.source.rotated(ctx); err != nil || !other {
			return r.session, err
		}
	}
	answer, err := r.jobgate.open(ctx, r.source, r.mapping, r.scope)
	if err != nil || answer.SessionID != r.session {
		return answer.SessionID, err
	}
	held := heldToken(r.tokenFile)
	if info, err := r.jobgate.introspect(ctx, held); err == nil && !info.Active {
		return answer.SessionID, replaceFile(r.tokenFile, access.NewSecret(answer.AccessToken))
	}
	return answer.SessionID, nil
}

// heldToken reads a token file, empty where it holds no session token: the job's processes can write into it.
func heldToken(file string) access.Secret {
	text, _ := readSmall(file)
	if text = strings.TrimSpace(text); tokenForm.MatchString(text) {
		return access.NewSecret(text)
	}
	return access.Secret{}
}

func replaceFile(file string, token access.Secret) error {
	if err := os.WriteFile(file+".new", []byte(token.Reveal()), 0o600); err != nil {
		return fmt.Errorf("replace the token file: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("replace the token file: %w", err)
	}
	return nil
}

// orders are what a detached renewal is told by stdin: a command line and an environment can be read by every process of
// the job.
type orders struct {
	URL       string    `json:"url"`
	Mapping   string    `json:"mapping"`
	Scope     string    `json:"scope"`
	Session   string    `json:"session"`
	Provider  string    `json:"provider"`
	TokenEnv  string    `json:"token_env"`
	FromFile  string    `json:"from_file"`
	TokenFile string    `json:"token_file"`
	Lease     int64     `json:"lease_seconds"`
	Until     time.Time `json:"until"`
	Log       string    `json:"log"`
	Worker    process   `json:"worker"`
	Last      []byte    `json:"last"` // SHA-256 of the token that opened the session
	Vars      []string  `json:"vars"`
}

// startRenewal starts a process that renews while the job runs, and returns its id.
func startRenewal(o *options, s *session) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find this program: %w", err)
	}
	raw, err := json.Marshal(orders{
		URL: o.url, Mapping: s.mapping, Scope: o.scope, Session: s.answer.SessionID, Provider: s.source.provider.name,
		TokenEnv: o.tokenEnv, FromFile: o.tokenFile, TokenFile: s.file, Lease: int64(s.lease() / time.Second),
		Until: time.Now().Add(time.Duration(s.answer.ExpiresIn) * time.Second), Log: filepath.Join(s.dir, "renewal.log"),
		Worker: workerAbove(os.Getppid(), s.source.provider.worker), Last: s.source.last[:], Vars: o.env.Vars,
	})
	if err != nil {
		return 0, fmt.Errorf("encode the renewal's orders: %w", err)
	}
	cmd := exec.Command(self, "renew")
	cmd.Dir, cmd.SysProcAttr, cmd.Env = s.dir, detached(), renewalVars(o.env)
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, fmt.Errorf("start the renewal: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the renewal: %w", err)
	}
	_, err = in.Write(raw)
	if err = errors.Join(err, in.Close()); err != nil {
		return 0, fmt.Errorf("give the renewal its orders: %w", err)
	}
	pid := cmd.Process.Pid
	return pid, cmd.Process.Release()
}

// renewalVars are the variables that the renewal finds in its own environment: proxies and certificates.
// RUNNER_TRACKING_ID lets a GitHub runner end it with the job, should close never run.
func renewalVars(env environment) []string {
	var kept []string
	for _, name := range []string{"PATH", "HOME", "RUNNER_TRACKING_ID", "SSL_CERT_FILE", "SSL_CERT_DIR", "SystemRoot",
		"https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"} {
		if value := env.get(name); value != "" {
			kept = append(kept, name+"="+value)
		}
	}
	return kept
}

// workerAbove finds the runner's process for this job among the ancestors of a step, so that a lease does not outlive a
// runner that was killed. The zero process where there is none to be seen.
func workerAbove(pid int, name string) process {
	for name != "" && pid > 1 {
		p, found := processOf(pid)
		switch {
		case !found:
			return process{}
		case p.Name == name:
			return p
		}
		pid = p.parent
	}
	return process{}
}

// renewDetached carries out the orders that come by stdin.
func renewDetached(ctx context.Context, o *options, _ []string) error {
	raw, err := io.ReadAll(io.LimitReader(o.env.Stdin, 4<<20))
	if err != nil {
		return fmt.Errorf("read the orders: %w", err)
	}
	var w orders
	if err := json.Unmarshal(raw, &w); err != nil || w.Session == "" {
		return misuse("renew is started by connect")
	}
	o.env.Vars = w.Vars
	o.url, o.provider, o.tokenEnv, o.tokenFile = w.URL, w.Provider, w.TokenEnv, w.FromFile
	log := renewalLog(w.Log)
	j, err := newJobgate(o)
	if err != nil {
		return err
	}
	s, err := newSource(o)
	if err != nil {
		return err
	}
	j.say = log
	copy(s.last[:], w.Last)
	r := &renewal{
		jobgate: j, source: s, mapping: w.Mapping, scope: w.Scope, session: w.Session, tokenFile: w.TokenFile,
		interval: max(time.Duration(w.Lease)*time.Second/3, shortestRound), until: w.Until, say: log,
		over: func() string { return jobOver(w) },
	}
	r.run(ctx)
	return nil
}

func jobOver(w orders) string {
	if _, err := os.Stat(w.TokenFile); err != nil {
		return "the token file is gone"
	}
	if w.Worker.ID == 0 {
		return ""
	}
	if now, found := processOf(w.Worker.ID); !found || now.Start != w.Worker.Start {
		return "the runner is gone"
	}
	return ""
}

func renewalLog(name string) func(string, ...any) {
	return func(format string, args ...any) {
		if info, err := os.Stat(name); err == nil && info.Size() > maxLog {
			return
		}
		line := time.Now().UTC().Format(time.RFC3339) + " " + visible(fmt.Sprintf(format, args...), 1000) + "\n"
		_ = appendFile(name, line) // nobody is there to be told
	}
}

// stopRenewal ends the process with this id, if it is still the one that connect started.
func stopRenewal(pid int) {
	self, err := os.Executable()
	if err == nil && pid > 1 && commandLine(pid) == self+" renew" {
		_ = terminate(pid) // it may have ended by itself; where it cannot be found, it ends when the token file is gone
	}
}
