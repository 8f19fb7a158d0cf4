package main_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
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
	late := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Date", "Tue, 01 Jan 2030 00:00:00 GMT")
	}))
	defer late.Close()
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		want map[string]string // status by check
	}{
		{"all well", w.githubJob(nil), nil, 0, map[string]string{"shadows": "ok", "secrets": "ok", "url": "ok", "dns": "ok", "server": "ok", "clock": "ok", "tls": "ok",
			"provider": "ok", "token": "ok", "renewal": "ok", "streams": "skip", "exchange": "skip", "sandbox": ""}},
		{"shadow and secrets", map[string]string{"ANTHROPIC_API_KEY": "sk-ant-1", "OPENAI_API_KEY": "sk-1"}, nil, 1, map[string]string{"shadows": "fail", "secrets": "warn", "provider": "fail"}},
		{"one token", map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(nil)}, nil, 0, map[string]string{"token": "ok", "renewal": "warn"}},
		{"for another", map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(map[string]any{"aud": "https://other.example.com"})}, nil, 0, map[string]string{"token": "warn"}},
		{"expired", map[string]string{"GITLAB_CI": "true", "JOBGATE_ID_TOKEN": w.gitlabToken(map[string]any{"exp": 1700000000})}, nil, 1, map[string]string{"token": "fail"}},
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
