package main_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
)

// binaries are the programs, which are built when the first test needs them.
var binaries struct {
	dir, job, server string
	once             sync.Once
	err              error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		_ = os.RemoveAll(binaries.dir)
	}
	os.Exit(code)
}

func needsBinaries(t *testing.T) {
	t.Helper()
	b := &binaries
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "jobgate-job-test-"); b.err != nil {
			return
		}
		b.job, b.server = filepath.Join(b.dir, "jobgate-job"), filepath.Join(b.dir, "jobgate")
		b.err = errors.Join(build(b.job, "."), build(b.server, "../jobgate"))
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
}

func build(out, pkg string) error {
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

const (
	modelKey   = "sk-ant-api03-jobworld-9Qm2Vx7Lr4TzPb8KfWnC"
	adminToken = "admin-token-5c1e9b7f20d34a68"

	gitlabAPIToken = "glpat-4c1d9a7e20b35f68World"
)

// world is a running server with its surroundings: the issuers of GitHub and GitLab, and the model API.
type world struct {
	t              *testing.T
	folder         string
	github, gitlab *testkit.Issuer
	model          *testkit.Model
	url, control   string
	log            *lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

type worldConfig struct {
	lease  string // default 15m
	gitlab string // further keys of GitLab's issuer
	script testkit.Script
	host   string // of a URL with TLS; only a mount namespace's hosts file knows it
}

func newWorld(t *testing.T, c worldConfig) *world {
	t.Helper()
	needsBinaries(t)
	w := &world{t: t, folder: t.TempDir(), log: &lockedBuffer{}}
	var err error
	if w.github, err = testkit.NewIssuer(testkit.IssuerConfig{}); err != nil {
		t.Fatal(err)
	}
	if w.gitlab, err = testkit.NewIssuer(testkit.IssuerConfig{}); err != nil {
		t.Fatal(err)
	}
	if w.model, err = testkit.NewModel(testkit.ModelConfig{Key: modelKey, Script: c.script}); err != nil {
		t.Fatal(err)
	}
	if c.lease == "" {
		c.lease = "15m"
	}
	jobs, control := freeAddr(t), freeAddr(t)
	w.url, w.control = "http://"+jobs, "http://"+control
	tlsKeys := ""
	if c.host != "" {
		_, port, _ := net.SplitHostPort(jobs)
		w.url = "https://" + net.JoinHostPort(c.host, port)
		tlsKeys = "tls: {cert: \"file:" + w.certify(c.host) + "\", key: \"file:" + filepath.Join(w.folder, "tls.key") + "\"}"
	}
	grants := `
    grants:
      - connection: anthropic
        allow: ["POST /v1/messages", "POST /v1/messages/count_tokens"]
        rules:
          - name: no-network
            effect: deny
            when: tool.name == "Bash" && tool.input.command.contains("curl")
            reason: agents of this mapping work without the network`
	config := fmt.Sprintf(`
public_url: %s
listen: %s
control: {listen: %s, token: "env:ADMIN"}
data: %s
log: {level: debug}
%s
issuers:
  - {name: github, provider: github-actions, url: %s}
  - {name: gitlab, provider: gitlab, url: %s%s}
connections:
  - name: anthropic
    kind: anthropic
    upstream: %s
    credential: {header: x-api-key, value: "env:MODEL_KEY"}
mappings:
  - name: agents
    issuer: github
    window: {lease: %s}
    match: {repository_owner_id: "123456", repository_id: "456789", ref: refs/heads/main, event_name: [push]}%s
  - name: agents-gitlab
    issuer: gitlab
    window: {lease: %s}
    match: {namespace_id: "72", project_id: "20", ref_path: refs/heads/main, pipeline_source: [push, web]}%s
`, w.url, jobs, control, w.folder, tlsKeys, w.github.URL(), w.gitlab.URL(), c.gitlab, w.model.URL(), c.lease, grants, c.lease, grants)
	w.serve(config)
	t.Cleanup(func() {
		_ = w.github.Close()
		_ = w.gitlab.Close()
		_ = w.model.Close()
		if t.Failed() {
			text := w.log.String()
			t.Logf("server log:\n%s", text[max(0, len(text)-5000):])
		}
	})
	return w
}

func (w *world) serve(config string) {
	w.t.Helper()
	file := filepath.Join(w.folder, "jobgate.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(binaries.server, "serve", "-c", file)
	cmd.Env = append(os.Environ(), "ADMIN="+adminToken, "MODEL_KEY="+modelKey, "GITLAB_API_TOKEN="+gitlabAPIToken)
	cmd.Stdout, cmd.Stderr = w.log, w.log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			w.t.Errorf("the server ended with %v", err)
		}
	})
	w.eventually("the server is ready", func() bool {
		resp, err := http.Get(w.control + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// certify makes a certificate for a host and returns its file.
func (w *world) certify(host string) string {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority of the test's own"}, DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.folder, "tls.pem")
	write(w.t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
	write(w.t, filepath.Join(w.folder, "tls.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return file
}

func freeAddr(t *testing.T) string {
	t.Helper()
	address, err := testkit.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// eventually polls what has no event to wait for. It fails after twenty seconds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			w.t.Fatalf("after twenty seconds it does not hold that %s", what)
		}
		time.Sleep(10 * time.Millisecond) // a pause between looks; nothing is asserted by it
	}
}

// githubJob starts a job of the repository that a mapping serves, and returns its environment.
func (w *world) githubJob(overrides map[string]any) map[string]string {
	w.t.Helper()
	claims := map[string]any{"repository_owner_id": "123456", "repository_id": "456789", "ref": "refs/heads/main", "event_name": "push"}
	maps.Copy(claims, overrides)
	job := w.github.StartJob(w.github.GitHubClaims(claims))
	w.t.Cleanup(job.End)
	env := job.Env()
	env["GITHUB_ACTIONS"] = "true"
	return env
}

// gitlabToken mints what a GitLab job with id_tokens finds in its variable.
func (w *world) gitlabToken(overrides map[string]any) string {
	w.t.Helper()
	now := time.Now()
	claims := map[string]any{
		"iss": w.gitlab.URL(), "aud": w.url, "jti": fmt.Sprintf("gl-%d", now.UnixNano()),
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Second).Unix(), "exp": now.Add(time.Hour).Unix(),
		"sub":          "project_path:my-group/my-project:ref_type:branch:ref:main",
		"namespace_id": "72", "namespace_path": "my-group", "project_id": "20", "project_path": "my-group/my-project",
		"job_namespace_id": "72", "job_namespace_path": "my-group", "job_project_id": "20", "job_project_path": "my-group/my-project",
		"user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com", "user_access_level": "maintainer",
		"pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch",
		"ref_path": "refs/heads/main", "ref_protected": "true", "runner_id": 1, "runner_environment": "self-hosted",
		"sha": "714a629c0b401fdce83e847fc9589983fc6f46bc", "project_visibility": "private",
		"ci_config_ref_uri": "gitlab.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
		"ci_config_sha":     "714a629c0b401fdce83e847fc9589983fc6f46bc",
	}
	maps.Copy(claims, overrides)
	token, err := w.gitlab.Mint(claims, testkit.MintOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// result is what a program left behind.
type result struct {
	code           int
	stdout, stderr string
}

// program makes a run of jobgate-job: in an empty home, with these variables and PATH.
func (w *world) program(env map[string]string, args ...string) *exec.Cmd {
	w.t.Helper()
	home := w.t.TempDir()
	cmd := exec.Command(binaries.job, args...)
	cmd.Dir = home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "JOBGATE_URL=" + w.url}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 20 * time.Second
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %v: %v", cmd.Args, err)
	}
	return result{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

func (w *world) run(env map[string]string, args ...string) result {
	w.t.Helper()
	return finish(w.t, w.program(env, args...))
}

// sessions lists the sessions over the admin API.
func (w *world) sessions() []api.SessionView {
	w.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, w.control+"/v1/sessions", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var list api.List[api.SessionView]
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

// only returns the one session that there is.
func (w *world) only() api.SessionView {
	w.t.Helper()
	list := w.sessions()
	if len(list) != 1 {
		w.t.Fatalf("%d sessions, want one", len(list))
	}
	return list[0]
}

// nothingIn fails where a folder still holds anything of a session.
func nothingIn(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "ci-templates" {
			return fs.SkipDir
		}
		if err == nil && strings.HasPrefix(d.Name(), "jobgate-") {
			t.Errorf("%s is left behind", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// noToken fails where a text holds a session token or a CI token.
func noToken(t *testing.T, where, text string) {
	t.Helper()
	for _, mark := range []string{"jg_", "eyJ", "ghrt-"} {
		if strings.Contains(text, mark) {
			t.Errorf("a token (%s...) stands in %s:\n%s", mark, where, text)
		}
	}
}
