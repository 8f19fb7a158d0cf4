package main

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/record"
)

// fetch is one request with the headers given as pairs.
func (w *world) fetch(method, url string, headers ...string) (int, http.Header, string) {
	w.t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(raw)
}

// TestTwoSides is what each listener serves, to whom, and what neither does.
func TestTwoSides(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	token := w.open()
	w.ask(token.AccessToken, "hello")
	w.status(token.AccessToken, "/made-up-by-the-job/x")
	jobs, people := w.base(), "http://"+w.server.control.Addr().String()
	admin := []string{"Authorization", "Bearer " + worldAdmin}
	for _, c := range []struct {
		method, url string
		headers     []string
		want        int
	}{
		{"GET", jobs + "/healthz", nil, 200},
		{"GET", jobs + "/readyz", nil, 200},
		{"GET", people + "/healthz", nil, 200},
		{"GET", people + "/readyz", nil, 200},
		{"GET", jobs + "/.well-known/jobgate-archive.json", nil, 200},
		{"GET", people + "/metrics", nil, 200},
		{"GET", jobs + "/metrics", nil, 401}, // a connection's name, as it were
		{"GET", people + "/v1/sessions", nil, 401},
		{"GET", people + "/v1/sessions", []string{"Authorization", "Bearer " + token.AccessToken}, 401},
		{"GET", people + "/v1/sessions", []string{"Authorization", "Basic " + worldAdmin}, 401},
		{"GET", people + "/v1/sessions", admin, 200},
		{"GET", jobs + "/v1/sessions", admin, 404},
		{"DELETE", jobs + "/v1/mappings/agents", admin, 404},
		{"POST", people + "/oauth/token", nil, 404},
		{"POST", people + "/anthropic/v1/messages", admin, 404},
		{"GET", jobs + "/anthropic/v1/messages", []string{"Sec-Fetch-Mode", "navigate", "Authorization", "Bearer " + token.AccessToken}, 403},
		{"GET", jobs + "/healthz", []string{"Sec-Fetch-Mode", "navigate"}, 403},
		{"POST", people + "/hooks/slack/interactions", nil, 401},
	} {
		status, header, body := w.fetch(c.method, c.url, c.headers...)
		if status != c.want {
			t.Errorf("%s %s %q = %d %s, want %d", c.method, c.url, c.headers, status, body, c.want)
		}
		if strings.HasPrefix(c.url, jobs) && c.want != 403 && (header.Get("Content-Security-Policy") != "sandbox" || header.Get("X-Content-Type-Options") != "nosniff") {
			t.Errorf("%s %s has the headers %v", c.method, c.url, header)
		}
	}
	_, _, metrics := w.fetch("GET", people+"/metrics")
	for _, want := range []string{`jobgate_calls_total{connection="anthropic",reason="done"} 1`, "jobgate_sessions_open 1", "jobgate_spool_bytes"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if strings.Contains(metrics, "made-up") {
		t.Error("a job can make metrics")
	}
	info, err := os.Stat(filepath.Join(w.folder, "control.sock"))
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode()&fs.ModeSocket == 0 {
		t.Errorf("the socket is %v (%v)", info.Mode(), err)
	}
	err = filepath.WalkDir(w.folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil && strings.Contains(path, "keys") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestSocketOnly has no listener for people: the control socket serves without a token.
func TestSocketOnly(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	token := w.open()
	w.stop()
	var kept []string
	for line := range strings.SplitSeq(w.config, "\n") {
		if !strings.HasPrefix(line, "control:") {
			kept = append(kept, line)
		}
	}
	w.writeConfig(strings.Join(kept, "\n"))
	w.start()
	if w.server.control != nil {
		t.Error("people are listened to over TCP")
	}
	if out := w.must("sessions", "ls"); !strings.Contains(out, token.SessionID) {
		t.Errorf("sessions ls over the socket says\n%s", out)
	}
}

// TestClientBehindProxy records the address of the job, not that of the balancer.
func TestClientBehindProxy(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding, extra: "trusted_proxies: [127.0.0.0/8]"})
	token := w.open()
	req, err := http.NewRequest("POST", w.base()+"/anthropic/v1/messages", bytes.NewReader(messageBody("hello", false)))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Authorization": "Bearer " + token.AccessToken, "Content-Type": "application/json", "Anthropic-Version": "2023-06-01",
		"X-Forwarded-For": "10.1.1.1, 198.51.100.7"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	must(w, w.admin("DELETE", "/v1/sessions/"+token.SessionID, nil, nil))
	for _, l := range w.events(token.SessionID) {
		if l.Type == record.TypeCallStarted {
			if e := decode[record.CallStarted](t, l); e.Client != "198.51.100.7" {
				t.Errorf("the client is recorded as %s", e.Client)
			}
		}
	}
	for _, r := range w.model.Requests() {
		if got := r.Header.Get("X-Forwarded-For"); got != "" {
			t.Errorf("the upstream is told %s", got)
		}
	}
}

// TestBucketAway takes the bucket's folder away while calls run: they go on, and the archives come when it is back.
func TestBucketAway(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	folder := filepath.Join(w.folder, "archive")
	first := w.open()
	w.ask(first.AccessToken, "before")
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, second, bad := w.exchange(w.token(w.job(map[string]any{"run_id": "31", "check_run_id": "32"})), nil)
	if second.AccessToken == "" {
		t.Fatalf("an exchange while the bucket is away: %+v", bad)
	}
	for _, token := range []string{first.AccessToken, second.AccessToken} {
		if status, body := w.ask(token, "meanwhile"); status != http.StatusOK {
			t.Errorf("a call while the bucket is away = %d %s", status, body)
		}
	}
	for _, s := range []string{first.SessionID, second.SessionID} {
		must(w, w.admin("DELETE", "/v1/sessions/"+s, nil, nil))
	}
	w.eventually("the log tells of the bucket", func() bool { return strings.Contains(w.log.String(), "not a directory") })
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start() // the next start does not wait for the pause between attempts
	for i, s := range []string{first.SessionID, second.SessionID} {
		calls := 0
		for _, l := range w.events(s) {
			if l.Type == record.TypeCallEnded {
				calls++
			}
		}
		if want := 2 - i; calls != want {
			t.Errorf("%d calls are in the archive of session %d, want %d", calls, i, want)
		}
	}
}
