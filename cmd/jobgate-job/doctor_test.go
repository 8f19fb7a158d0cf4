package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

type finding struct{ Check, Status, Text, Do string }

func (w *world) doctor(env map[string]string, args ...string) (result, map[string]finding) {
	w.t.Helper()
	got := w.run(env, append([]string{"doctor", "-o", "json"}, args...)...)
	noToken(w.t, "the output", got.stdout+got.stderr)
	var list struct{ Items []finding }
	if err := json.Unmarshal([]byte(got.stdout), &list); err != nil {
		w.t.Fatalf("doctor prints %q: %v", got.stdout, err)
	}
	byName := make(map[string]finding)
	for _, f := range list.Items {
		byName[f.Check] = f
	}
	return got, byName
}

func TestDoctor(t *testing.T) {
	w := newWorld(t, worldConfig{})
	moved := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	defer moved.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	late := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Date", "Tue, 01 Jan 2030 00:00:00 GMT")
		if r.URL.Path != "/healthz" {
			http.NotFound(rw, r)
		}
	}))
	defer late.Close()
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(w.gitlabToken(nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		want map[string]string // status by check
	}{
		{"all well", w.githubJob(nil), nil, 0, map[string]string{"shadows": "ok", "secrets": "ok", "url": "ok", "dns": "ok", "server": "ok", "clock": "ok", "tls": "ok",
			"provider": "ok", "token": "ok", "renewal": "ok", "streams": "ok", "exchange": "ok", "sandbox": ""}},
		{"shadow and secrets", map[string]string{"ANTHROPIC_API_KEY": "sk-ant-1", "OPENAI_API_KEY": "sk-1"}, nil, 1, map[string]string{"shadows": "fail", "secrets": "warn", "provider": "fail"}},
		{"one token", map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(nil)}, nil, 0, map[string]string{"token": "ok", "renewal": "warn", "exchange": "ok"}},
		{"a file", nil, []string{"--token-file", tokenFile}, 0, map[string]string{"token": "ok", "renewal": "ok", "exchange": "ok"}},
		{"for another", map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(map[string]any{"aud": "https://other.example.com"})}, nil, 1, map[string]string{"token": "warn", "exchange": "fail"}},
		{"expired", map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(map[string]any{"exp": 1700000000})}, nil, 1, map[string]string{"token": "fail", "exchange": "fail"}},
		{"a stranger's", w.githubJob(map[string]any{"repository_owner_id": "1"}), nil, 1, map[string]string{"token": "ok", "exchange": "fail"}},
		{"another branch", w.githubJob(map[string]any{"ref": "refs/heads/dev"}), nil, 1, map[string]string{"token": "ok", "exchange": "fail"}},
		{"redirect", w.githubJob(nil), []string{"--url", moved.URL}, 1, map[string]string{"server": "fail"}},
		{"private authority", w.githubJob(nil), []string{"--url", secure.URL}, 1, map[string]string{"server": "fail"}},
		{"clock", w.githubJob(nil), []string{"--url", late.URL}, 0, map[string]string{"clock": "warn"}},
		{"nobody there", w.githubJob(nil), []string{"--url", "http://127.0.0.1:1"}, 1, map[string]string{"server": "fail"}},
		{"no URL", w.githubJob(nil), []string{"--url", ""}, 1, map[string]string{"url": "fail"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, found := w.doctor(c.env, c.args...)
			if got.code != c.code {
				t.Errorf("doctor = %d, want %d", got.code, c.code)
			}
			if text := found["renewal"].Text; slices.Contains(c.args, "--token-file") && !strings.Contains(text, "whenever the token's file is written anew") {
				t.Errorf("renewal is %q", text)
			}
			for check, status := range c.want {
				f := found[check]
				if status == "" && (f.Status == "ok" || f.Status == "skip" && f.Text != "") {
					continue // as the machine has it
				}
				if f.Status != status || status == "fail" && f.Do == "" && check != "provider" {
					t.Errorf("%s: %+v, want %s", check, f, status)
				}
			}
		})
	}
	if n := len(w.sessions()); n != 0 {
		t.Errorf("%d sessions, want none: doctor was not asked to exchange", n)
	}
	_, found := w.doctor(w.githubJob(nil), "--exchange")
	if f := found["exchange"]; f.Status != "ok" || w.only().State != "awake" {
		t.Errorf("exchange: %+v, session %s", f, w.only().State)
	}
}

// holding is a balancer that passes an answer on when it has all of it, as nginx does with proxy_buffering on.
func holding(t *testing.T, to string, change func(*http.Response, []byte) []byte) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			body = change(r, body)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	return s.URL
}

// TestDoctorMeasuresStreams tells a balancer that holds streams back from one that does not, and says what to do.
func TestDoctorMeasuresStreams(t *testing.T) {
	w := newWorld(t, worldConfig{})
	target, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	passing := httptest.NewServer(httputil.NewSingleHostReverseProxy(target))
	defer passing.Close()
	as := func(server string) func(*http.Response, []byte) []byte {
		return func(r *http.Response, body []byte) []byte { r.Header.Set("Server", server); return body }
	}
	for name, c := range map[string]struct {
		url          string
		status       string
		says, doThis string
	}{
		"direct":          {w.url, "ok", "as they are sent", ""},
		"a good balancer": {passing.URL, "ok", "as they are sent", ""},
		"it holds back":   {holding(t, w.url, as("")), "fail", "held back on the way: 5 lines were sent over 8", "NO_PROXY"},
		"nginx":           {holding(t, w.url, as("nginx/1.22.1")), "fail", "held back", "proxy_buffering off"},
		"it cuts": {holding(t, w.url, func(r *http.Response, body []byte) []byte {
			if strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
				return body[:len(body)/2]
			}
			return body
		}), "fail", "of 5 lines", "switch response buffering off"},
		"an older server": {holding(t, w.url, func(r *http.Response, body []byte) []byte {
			if strings.HasSuffix(r.Request.URL.Path, "/_stream") {
				r.StatusCode = http.StatusNotFound
			}
			return body
		}), "skip", "older", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, found := w.doctor(w.githubJob(nil), "--url", c.url)
			f := found["streams"]
			if f.Status != c.status || !strings.Contains(f.Text, c.says) || !strings.Contains(f.Do, c.doThis) || c.status == "fail" && got.code != 1 {
				t.Errorf("streams: %+v, exit code %d; want %s, %q, %q", f, got.code, c.status, c.says, c.doThis)
			}
		})
	}
}

// TestDryRunUsesNothingUp has a job's one token tried several times and exchanged then.
func TestDryRunUsesNothingUp(t *testing.T) {
	w := newWorld(t, worldConfig{})
	env := map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(nil), "JOBGATE_STATE": filepath.Join(t.TempDir(), "state")}
	for range 2 {
		if _, found := w.doctor(env, "--mapping", "agents-gitlab"); found["exchange"].Status != "ok" || !strings.Contains(found["exchange"].Text, "would open a session under mapping agents-gitlab, for anthropic") {
			t.Errorf("exchange: %+v", found["exchange"])
		}
	}
	if n := len(w.sessions()); n != 0 {
		t.Errorf("%d sessions, want none", n)
	}
	if got := w.run(env, "connect", "--mapping", "agents-gitlab"); got.code != 0 {
		t.Fatalf("connect = %d: %s", got.code, got.stderr)
	}
	if _, found := w.doctor(env, "--mapping", "agents-gitlab"); found["exchange"].Status != "warn" || !strings.Contains(found["exchange"].Do, "somebody else has the token") {
		t.Errorf("with the token spent: %+v", found["exchange"])
	}
}

// TestDoctorBehindNginx is the same with a real balancer, as it comes and as it should be.
func TestDoctorBehindNginx(t *testing.T) {
	needs(t, "nginx", "apt-get install nginx-light")
	w := newWorld(t, worldConfig{})
	for name, c := range map[string]struct{ setting, status string }{"as it comes": {"", "fail"}, "as it should be": {"proxy_buffering off;", "ok"}} {
		t.Run(name, func(t *testing.T) {
			dir, address := t.TempDir(), freeAddr(t)
			write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 64; }
http { access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server { listen %[2]s; location / { proxy_pass %[3]s; %[4]s } } }`, dir, address, w.url, c.setting))
			nginx := exec.Command("nginx", "-c", filepath.Join(dir, "nginx.conf"), "-p", dir)
			if err := nginx.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = nginx.Process.Signal(syscall.SIGTERM)
				_ = nginx.Wait()
			}()
			w.eventually("nginx answers", func() bool {
				resp, err := http.Get("http://" + address + "/healthz")
				if err != nil {
					return false
				}
				_ = resp.Body.Close()
				return resp.StatusCode == http.StatusOK
			})
			_, found := w.doctor(w.githubJob(nil), "--url", "http://"+address)
			if f := found["streams"]; f.Status != c.status || c.status == "fail" && !strings.HasPrefix(f.Do, "nginx in front of Jobgate: proxy_buffering off") {
				t.Errorf("streams: %+v, want %s", f, c.status)
			}
		})
	}
}
