package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/proxy/record"
)

const (
	firstKey  = "first-key-9Qm2Vx7Lr4TzPb8KfWnC"
	secondKey = "second-key-4TzPb8KfWnC9Qm2Vx7Lr"
)

// vault is a service that gives out a secret, as each kind of URL asks for it.
type vault struct {
	mu     sync.Mutex // guards all below
	value  string
	status int // of its answers; zero is 200
}

func (v *vault) set(value string, status int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.value, v.status = value, status
}

// ServeHTTP answers as a file server, as AWS Secrets Manager and as AWS Systems Manager do.
func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	value, status := v.value, v.status
	v.mu.Unlock()
	if status != 0 {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"__type":"ResourceNotFoundException","message":"it is not to be had"}`)
		return
	}
	version, at := fmt.Sprintf("v-%x", value), time.Now().Unix()
	var answer any
	switch r.Header.Get("X-Amz-Target") {
	case "secretsmanager.GetSecretValue":
		answer = map[string]any{"Name": "app/key", "SecretString": value, "VersionId": version, "VersionStages": []string{"AWSCURRENT"}}
	case "secretsmanager.DescribeSecret":
		answer = map[string]any{"Name": "app/key", "LastChangedDate": at, "VersionIdsToStages": map[string][]string{version: {"AWSCURRENT"}}}
	case "AmazonSSM.GetParameter":
		answer = map[string]any{"Parameter": map[string]any{"Name": "/app/key", "Type": "SecureString", "Value": value, "Version": len(value), "LastModifiedDate": at}}
	default:
		_, _ = io.WriteString(w, value+"\n")
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(answer)
}

// followedWorld is a server with a connection whose credential lies at a URL, and whose upstream says back what it was
// ever sent.
func followedWorld(t *testing.T, ref string) *world {
	t.Helper()
	var mu sync.Mutex
	sent := []string{}
	upstream := plainUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if key := r.Header.Get("X-Key"); len(sent) == 0 || sent[len(sent)-1] != key {
			sent = append(sent, key)
		}
		w.Header().Set("X-Keys", fmt.Sprint(len(sent)))
		_, _ = io.WriteString(w, "keys so far: "+strings.Join(sent, " "))
	})
	return newWorld(t, worldConfig{
		script:      holding,
		connections: fmt.Sprintf("  - {name: files, kind: http, upstream: %q, credential: {header: x-key, value: %q}}", upstream, ref),
		grants:      `      - {connection: files, allow: ["GET /{name}"]}`,
	})
}

// keysSent calls the upstream and returns how many different keys it was sent by now. No key may come back.
func (w *world) keysSent(token string) string {
	w.t.Helper()
	req, err := http.NewRequest("GET", w.base()+"/files/a", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(raw), "keys so far: [masked:") {
		w.t.Fatalf("the call = %d %s", resp.StatusCode, raw)
	}
	for _, key := range []string{firstKey, secondKey} {
		if strings.Contains(string(raw), key) {
			w.t.Fatalf("an answer shows a credential: %s", raw)
		}
	}
	return resp.Header.Get("X-Keys")
}

// TestFollowedSecrets rotates a credential where it lies. The next call uses the new one, which is masked from its first
// use on, as the old one still is; while the source is away, or says nonsense, the last good one is used.
func TestFollowedSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	put := func(value string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	put(firstKey)
	v := &vault{value: firstKey}
	server := httptest.NewServer(v)
	defer server.Close()
	for _, name := range []string{"AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL_SSM"} {
		t.Setenv(name, server.URL)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
	for name, c := range map[string]struct {
		ref, shown string
		set        func(value string)
		away       func()
	}{
		"file": {"file://" + file + "?decoder=string&wait=1s", "file://" + file, put, func() { _ = os.Remove(file) }},
		"http": {server.URL + "/key?wait=1s", server.URL + "/key", func(s string) { v.set(s, 0) }, func() { v.set("", http.StatusBadGateway) }},
		"secrets manager": {"awssecretsmanager://app/key?region=eu-central-1&wait=1s", "awssecretsmanager://app/key", func(s string) { v.set(s, 0) },
			func() { v.set("", http.StatusBadRequest) }},
		"parameter store": {"awsparamstore://app/key?region=eu-central-1&wait=1s", "awsparamstore://app/key", func(s string) { v.set(s, 0) },
			func() { v.set("", http.StatusBadRequest) }},
	} {
		t.Run(name, func(t *testing.T) {
			c.set(firstKey)
			w := followedWorld(t, c.ref)
			token := w.open()
			if n := w.keysSent(token.AccessToken); n != "1" {
				t.Errorf("the upstream knows %s keys", n)
			}
			c.set(secondKey)
			w.eventually("the new key is used", func() bool { return w.keysSent(token.AccessToken) == "2" })
			w.eventually("the log says so", func() bool { return strings.Contains(w.log.String(), "a secret was read anew") })

			c.away()
			w.eventually("the log says that it cannot be read", func() bool {
				return strings.Contains(w.log.String(), "a secret cannot be read now; its last value is used")
			})
			if n := w.keysSent(token.AccessToken); n != "2" {
				t.Errorf("while the source is away the upstream knows %s keys", n)
			}
			c.set("abc") // too short to be masked
			w.eventually("the log says that it cannot be used", func() bool { return strings.Contains(w.log.String(), "a secret's new value cannot be used") })
			if n := w.keysSent(token.AccessToken); n != "2" {
				t.Errorf("a value that cannot be masked was sent: the upstream knows %s keys", n)
			}

			w.must("sessions", "close", token.SessionID)
			var names []string
			for _, l := range w.events(token.SessionID) {
				if l.Type == record.TypeCallSent {
					names = append(names, decode[record.CallSent](t, l).Credential)
				}
			}
			if len(names) < 3 || names[0] != c.shown {
				t.Errorf("the record names the credential %q, want %s", names, c.shown)
			}
			if err := os.Remove(file); name == "file" && err != nil {
				t.Fatal(err)
			}
			w.nowhere(map[string]string{"the first key": firstKey, "the second key": secondKey})
			put(firstKey)
		})
	}
}

// TestBadSecretURLs refuses what cannot be read at the start, with its place, and never shows what may be the secret.
func TestBadSecretURLs(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	object := filepath.Join(t.TempDir(), "object")
	for name, text := range map[string]string{empty: "\n", object: `{"key": "sesame-open-now"}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	away := httptest.NewServer(http.NotFoundHandler())
	defer away.Close()
	moved := httptest.NewServer(http.RedirectHandler("https://elsewhere.example/", http.StatusFound))
	defer moved.Close()
	for ref, want := range map[string]string{
		"file:///does/not/exist":                     "/does/not/exist",
		"file://" + empty:                            "is empty",
		"file://" + object + "?decoder=jsonmap":      "is no text",
		"file://" + object + "?decoder=sesame":       "decoder",
		away.URL + "/key?token=sesame-open-now":      "404",
		moved.URL + "/key":                           "redirect",
		"http://vault.example/key":                   "plain http",
		"https://user:sesame-open-now@vault.example": "user name or a password",
		"vault://sesame-open-now":                    "a URL of file, https",
		"constant://?val=sesame-open-now":            "a URL of file, https",
		"sk-ant-sesame-open-now":                     "a secret is a reference",
	} {
		file := filepath.Join(t.TempDir(), "jobgate.yaml")
		text := "public_url: https://jobgate.example.com\nissuers: [{name: github, provider: github-actions}]\nconnections:\n" +
			"  - name: web\n    kind: http\n    upstream: https://example.com\n    credential:\n      header: x-key\n      value: " + fmt.Sprintf("%q", ref) + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := loadConfig(file)
		if err == nil {
			_, err = buildConfig(cfg, environment{Getenv: fakeEnv}, slog.New(slog.DiscardHandler))
		}
		if err == nil || !strings.Contains(err.Error(), file+":9: connections[0].credential.value") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sesame-open") {
			t.Errorf("%s: %v, want line 9 and %q", ref, err, want)
		}
	}
}

// TestOtherSecretsByURL reads the secrets that are no connection's by URL, too: once, at the start.
func TestOtherSecretsByURL(t *testing.T) {
	v := &vault{value: worldAdmin}
	server := httptest.NewServer(v)
	defer server.Close()
	w := newWorld(t, worldConfig{script: holding, edit: func(w *world) {
		w.config = strings.Replace(w.config, `"env:ADMIN"`, fmt.Sprintf("%q", server.URL+"/admin?"+url.Values{"wait": {"1s"}}.Encode()), 1)
	}})
	if len(w.sessions("")) != 0 {
		t.Error("there are sessions")
	}
}
