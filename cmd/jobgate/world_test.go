package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/internal/testkit/clients"
	"github.com/jobgate/jobgate/proxy/record"
)

// world is a server with its surroundings: the CI issuer, the model API, Slack, and a folder for its data.
type world struct {
	t      testing.TB
	folder string
	issuer *testkit.Issuer
	model  *testkit.Model
	slack  *testkit.Slack
	server *server
	log    *syncBuffer
	config string

	cancel context.CancelFunc
	done   chan error
	reload chan os.Signal
}

const (
	worldKey   = "sk-ant-api03-worldkey-9Qm2Vx7Lr4TzPb8KfWnC"
	worldAdmin = "admin-token-7f3b9c2e51d84a60"
)

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// rules of the grant on the model, as every test here has them unless it gives its own.
const worldRules = `
          - name: no-network
            effect: deny
            when: tool.name == "Bash" && tool.input.command.contains("curl")
            reason: agents of this mapping work without the network
          - name: releases
            effect: approve
            when: tool.name == "Bash" && tool.input.command.contains("release")
            reason: a release wants somebody's yes
            approvers: [sre]
            timeout: 1m
`

type worldConfig struct {
	rules   string // of the grant on the model
	limits  string
	onDeny  string
	mapping string // further lines of the mapping
	script  testkit.Script
	pacing  testkit.Pacing
	match   string // of the mapping
	extra   string // further top-level lines

	connections string // further entries
	grants      string // further ones of the mapping
	mappings    string // further entries

	edit func(*world) // changes the configuration before the server starts
}

func newWorld(t testing.TB, c worldConfig) *world {
	t.Helper()
	w := &world{t: t, folder: t.TempDir(), log: &syncBuffer{}}
	var err error
	if w.issuer, err = testkit.NewIssuer(testkit.IssuerConfig{}); err != nil {
		t.Fatal(err)
	}
	if w.model, err = testkit.NewModel(testkit.ModelConfig{Key: worldKey, Script: c.script, Pacing: c.pacing}); err != nil {
		t.Fatal(err)
	}
	if w.slack, err = testkit.NewSlack(testkit.SlackConfig{Token: "xoxb-world-slack-token", SigningSecret: "world-signing-secret-1",
		Users: []testkit.SlackUser{{ID: "U1", Name: "ana", Email: "ana@example.com"}, {ID: "U2", Name: "mallory", Email: "mallory@example.com"}}}); err != nil {
		t.Fatal(err)
	}
	if c.rules == "" {
		c.rules = worldRules
	}
	if c.match == "" {
		c.match = `{repository_owner_id: "123456", repository_id: "456789", ref: refs/heads/main, event_name: [push, workflow_dispatch]}`
	}
	jobs, control := freeAddr(t), freeAddr(t)
	w.config = fmt.Sprintf(`
public_url: http://%[1]s
listen: %[1]s
control: {listen: %[2]s, token: "env:ADMIN"}
data: %[3]s
log: {level: debug}
issuers:
  - {name: github, provider: github-actions, url: %[4]s}
connections:
  - name: anthropic
    kind: anthropic
    upstream: %[5]s
    credential: {header: x-api-key, value: "env:MODEL_KEY"}
%[14]s
approvals:
  slack: {bot_token: "env:SLACK_TOKEN", signing_secret: "env:SLACK_SECRET", channel: %[6]s, api_url: "%[7]s"}
  groups: {sre: {emails: [ana@example.com]}}
%[8]s
mappings:
  - name: agents
    issuer: github
    match: %[9]s
%[10]s
    grants:
      - connection: anthropic
        allow: ["POST /v1/messages", "POST /v1/messages/count_tokens"]
        on_deny: %[11]s
        limits: {%[12]s}
        rules: %[13]s
%[15]s
%[16]s
`, jobs, control, w.folder, w.issuer.URL(), w.model.URL(), w.slack.Channel(), w.slack.APIURL(), c.extra, c.match, c.mapping, orDefault(c.onDeny, "tell"), c.limits, c.rules, c.connections, c.grants, c.mappings)
	if c.edit != nil {
		c.edit(w)
	}
	w.writeConfig(w.config)
	w.slack.SetInteractionsURL("http://" + control + "/hooks/slack/interactions")
	w.start()
	t.Cleanup(func() {
		w.stop()
		_ = w.issuer.Close()
		_ = w.model.Close()
		_ = w.slack.Close()
		if t.Failed() {
			t.Logf("server log:\n%s", tail(w.log.String(), 6000))
		}
	})
	return w
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

func tail(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}

func freeAddr(t testing.TB) string {
	t.Helper()
	a, err := testkit.FreeAddress(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (w *world) file() string { return filepath.Join(w.folder, "jobgate.yaml") }

func (w *world) writeConfig(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.file(), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) getenv(name string) string {
	return map[string]string{"MODEL_KEY": worldKey, "ADMIN": worldAdmin, "SLACK_TOKEN": "xoxb-world-slack-token", "SLACK_SECRET": "world-signing-secret-1"}[name]
}

// start runs the server in this process until stop.
func (w *world) start() {
	w.t.Helper()
	cfg, err := loadConfig(w.file())
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if w.server, err = newServer(context.Background(), cfg, environment{Getenv: w.getenv, Stdout: io.Discard, Stderr: io.Discard}, log); err != nil {
		w.t.Fatal(err)
	}
	w.server.grace = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.done, w.reload = cancel, make(chan error, 1), make(chan os.Signal, 1)
	go func() { w.done <- w.server.run(ctx, w.reload) }()
}

func (w *world) stop() {
	w.t.Helper()
	if w.cancel == nil {
		return
	}
	w.cancel()
	w.cancel = nil
	defer http.DefaultClient.CloseIdleConnections() // else the next server's first caller may take a connection of this one
	if err := <-w.done; err != nil {
		w.t.Errorf("the server ended with %v", err)
	}
}

func (w *world) base() string { return w.server.b.config.PublicURL }

// job starts a job of the repository that the mapping serves.
func (w *world) job(overrides map[string]any) *testkit.Job {
	w.t.Helper()
	claims := map[string]any{"repository_owner_id": "123456", "repository_id": "456789", "ref": "refs/heads/main", "event_name": "push"}
	for k, v := range overrides {
		claims[k] = v
	}
	job := w.issuer.StartJob(w.issuer.GitHubClaims(claims))
	w.t.Cleanup(job.End)
	return job
}

func (w *world) token(job *testkit.Job) string {
	w.t.Helper()
	token, err := job.Token(context.Background(), w.base())
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// exchange shows a CI token at the first door.
func (w *world) exchange(token string, form url.Values) (int, api.Token, api.OAuthError) {
	w.t.Helper()
	values := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {token},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}}
	for k, v := range form {
		values[k] = v
	}
	resp, err := http.PostForm(w.base()+"/oauth/token", values)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	var ok api.Token
	var bad api.OAuthError
	_ = json.Unmarshal(raw, &ok)
	_ = json.Unmarshal(raw, &bad)
	return resp.StatusCode, ok, bad
}

// open opens the session of a new job, or fails.
func (w *world) open() api.Token {
	w.t.Helper()
	status, token, bad := w.exchange(w.token(w.job(nil)), nil)
	if status != http.StatusOK {
		w.t.Fatalf("exchange = %d %+v", status, bad)
	}
	return token
}

// admin asks the admin API.
func (w *world) admin(method, path string, body any, out any) error {
	c := &client{base: "http://" + w.server.control.Addr().String(), token: worldAdmin, http: &http.Client{Timeout: 10 * time.Second}}
	return c.do(context.Background(), method, path, nil, body, out)
}

// federation is what a job sets so that Anthropic's clients open a session by themselves.
func (w *world) federation(token, mapping string) map[string]string {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return map[string]string{
		"ANTHROPIC_BASE_URL": w.base() + "/anthropic", "ANTHROPIC_FEDERATION_RULE_ID": mapping, "ANTHROPIC_ORGANIZATION_ID": "any",
		"ANTHROPIC_IDENTITY_TOKEN_FILE": file, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
		"CLAUDE_CODE_FEDERATION_CACHE_DIR": filepath.Join(w.t.TempDir(), "cache"),
	}
}

// kit finds the real clients, or skips with the command that gets them.
func kit(t *testing.T) *clients.Kit {
	t.Helper()
	k, err := clients.Find()
	if missing := (*clients.MissingError)(nil); errors.As(err, &missing) {
		t.Skip(missing)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// agent runs the Claude Agent SDK with a time limit.
func (w *world) agent(k *clients.Kit, dir string, env map[string]string) *clients.Transcript {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	run, err := k.Agent(ctx, clients.AgentRun{Prompt: "go", Home: w.t.TempDir(), Dir: dir, Env: env})
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

// sessions lists the sessions over the admin API.
func (w *world) sessions(state string) []api.SessionView {
	w.t.Helper()
	var list api.List[api.SessionView]
	if err := w.admin("GET", "/v1/sessions"+state, nil, &list); err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

// events waits until a session's archive is finished, verifies it, and returns its lines.
func (w *world) events(session string) []record.Line {
	w.t.Helper()
	ctx := context.Background()
	bucket, _, err := openBucket(ctx, w.server.b.config.Archive.Bucket)
	if err != nil {
		w.t.Fatal(err)
	}
	defer bucket.Close()
	w.eventually("the archive of "+session+" is finished", func() bool {
		e, err := archive.Find(ctx, bucket, "", session)
		return err == nil && e.Signed
	})
	report, err := archive.Verify(ctx, bucket, "", session, w.server.signer.KeySet())
	if err != nil || !report.OK() {
		w.t.Fatalf("verify %s: %v, problems %v", session, err, report.Problems)
	}
	var lines []record.Line
	for l, err := range archive.Events(ctx, bucket, "", session) {
		if err != nil {
			w.t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// eventually polls what has no event to wait for. It fails after ten seconds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			w.t.Fatalf("after ten seconds it does not hold that %s", what)
		}
		time.Sleep(5 * time.Millisecond) // a pause between looks; nothing is asserted by it
	}
}

// nowhere searches every file of the data folder and the log for values that must not be there.
func (w *world) nowhere(values map[string]string) {
	w.t.Helper()
	look := func(where string, content []byte) {
		for name, value := range values {
			if value != "" && bytes.Contains(content, []byte(value)) {
				w.t.Errorf("%s stands in %s", name, where)
			}
		}
	}
	look("the log", []byte(w.log.String()))
	unpack, err := zstd.NewReader(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer unpack.Close()
	packed := 0
	err = filepath.WalkDir(w.folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type()&fs.ModeSocket != 0 {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		look(strings.TrimPrefix(path, w.folder), raw)
		if filepath.Ext(path) == ".zst" {
			text, err := unpack.DecodeAll(raw, nil)
			if err != nil {
				return err
			}
			look(strings.TrimPrefix(path, w.folder)+", unpacked", text)
			packed++
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if packed == 0 {
		w.t.Error("no part of an archive was searched")
	}
}

// types lists the events of a record for a failure's text.
func types(lines []record.Line) string {
	var out []string
	for _, l := range lines {
		out = append(out, l.Type)
	}
	return strings.Join(out, " ")
}

func decode[T any](t testing.TB, l record.Line) T {
	t.Helper()
	var v T
	if err := l.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// skipMissing skips a test whose program is not installed, and says how to get it.
func skipMissing(t *testing.T, err error) {
	t.Helper()
	if missing := (*clients.MissingError)(nil); errors.As(err, &missing) {
		t.Skip(missing)
	}
}
