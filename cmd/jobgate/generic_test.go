package main

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
)

// foundryTokens is what a configuration says of a CI system that nobody here knows.
const foundryTokens = `
      claims: {workshop: int, piece: string, attempt: int, by: string, mould: string}
      job_key: [piece, attempt]
      tenants: [workshop]
      trusted: {by: [push, timer]}
      shows: {repository: mould, event: by}
`

// foundryWorld is a server that trusts the tokens of such a system.
func foundryWorld(t *testing.T, tokens string, c worldConfig) *world {
	t.Helper()
	c.match = "{workshop: 42, mould: bells/great-bell}"
	c.edit = func(w *world) {
		w.config = strings.Replace(w.config, "{name: github, provider: github-actions, url: "+w.issuer.URL()+"}",
			"name: foundry\n    provider: generic\n    url: "+w.issuer.URL()+"\n    tokens:"+tokens, 1)
		w.config = strings.Replace(w.config, "issuer: github", "issuer: foundry", 1)
	}
	return newWorld(t, c)
}

// piece mints a token of a job of the foundry.
func (w *world) piece(change map[string]any) string {
	w.t.Helper()
	now := time.Now()
	claims := map[string]any{
		"iss": w.issuer.URL(), "aud": w.base(), "sub": "piece/p-9", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "nonce": rand.Text(),
		"workshop": 42, "piece": "p-9", "attempt": 1, "by": "push", "mould": "bells/great-bell",
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	token, err := w.issuer.Mint(claims, testkit.MintOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// jobShown is what people read of a session's job.
func jobShown(s api.SessionView) string {
	job, _ := s.Job.(map[string]any)
	return fmt.Sprint(job["repository"], " ", job["event"])
}

// TestGenericProvider takes jobs of a CI system of which only the configuration knows anything, through both doors.
func TestGenericProvider(t *testing.T) {
	w := foundryWorld(t, foundryTokens, worldConfig{script: holding})
	first := w.piece(nil)
	status, token, bad := w.exchange(first, nil)
	if status != http.StatusOK {
		t.Fatalf("exchange = %d %+v", status, bad)
	}
	if s := w.session(token.SessionID); jobShown(s) != "bells/great-bell push" || s.JobKey != "piece=p-9;attempt=1" {
		t.Errorf("people read %v, job key %s", s.Job, s.JobKey)
	}
	if status, body := w.ask(token.AccessToken, "hello"); status != http.StatusOK {
		t.Errorf("a call = %d %s", status, body)
	}
	if status, joined, bad := w.connect("anthropic", first, "agents"); status != http.StatusOK || joined.SessionID != token.SessionID {
		t.Errorf("the same token at the connection's door = %d %+v %+v", status, joined, bad)
	}
	w.openFails(first, "invalid_grant") // shown twice
	if status, other, bad := w.connect("anthropic", w.piece(map[string]any{"piece": "p-10"}), "agents"); status != http.StatusOK || other.SessionID == token.SessionID {
		t.Errorf("another job at the connection's door = %d %+v %+v", status, other, bad)
	}
	if status, again, _ := w.exchange(w.piece(map[string]any{"attempt": 2}), nil); status != http.StatusOK || again.SessionID == token.SessionID {
		t.Errorf("the next attempt = %d %+v", status, again)
	}
	for name, c := range map[string]struct {
		change map[string]any
		says   string // to the job
	}{
		"no job":              {map[string]any{"piece": nil}, ""},
		"attempt in quotes":   {map[string]any{"attempt": "3"}, ""},
		"no owner":            {map[string]any{"workshop": nil}, ""},
		"owner in quotes":     {map[string]any{"workshop": "42"}, ""},
		"a stranger's":        {map[string]any{"workshop": 43}, ""},
		"by a comment":        {map[string]any{"piece": "p-11", "by": "comment"}, "by is 'comment', and the issuer's configuration trusts only 'push', 'timer'"},
		"of another mould":    {map[string]any{"piece": "p-12", "mould": "bells/small"}, "mould"},
		"for another service": {map[string]any{"aud": "https://other.example"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for door, ask := range map[string]func(string) (int, string, string){
				"first": func(s string) (int, string, string) {
					status, _, bad := w.exchange(s, nil)
					return status, bad.Error, bad.Description
				},
				"connection's": func(s string) (int, string, string) {
					status, _, bad := w.connect("anthropic", s, "agents")
					return status, bad.Error, bad.Description
				},
			} {
				if status, code, text := ask(w.piece(c.change)); status != http.StatusBadRequest || code == "" || !strings.Contains(text, c.says) {
					t.Errorf("%s door = %d %s %s, want it refused with %q", door, status, code, text, c.says)
				} else if c.says == "" && strings.Contains(text, "great-bell") {
					t.Errorf("%s door tells a stranger %s", door, text)
				}
			}
		})
	}

	w.stop()
	w.start()
	if s := w.session(token.SessionID); jobShown(s) != "bells/great-bell push" {
		t.Errorf("after a restart people read %v", s.Job)
	}
	if out := w.must("sessions", "ls"); !strings.Contains(out, "bells/great-bell") {
		t.Errorf("sessions ls:\n%s", out)
	}
}

// TestGenericLease renews a lease by a fresh token only where the issuer is said to give some to a running job.
func TestGenericLease(t *testing.T) {
	window := "    window: {max: 1h, lease: 1s}"
	t.Run("one token", func(t *testing.T) {
		w := foundryWorld(t, foundryTokens, worldConfig{script: holding, mapping: window})
		status, token, bad := w.exchange(w.piece(nil), nil)
		if status != http.StatusOK {
			t.Fatalf("exchange = %d %+v", status, bad)
		}
		asleep := w.session(token.SessionID).Asleep
		if status, second, _ := w.exchange(w.piece(nil), nil); status == http.StatusOK && !w.session(second.SessionID).Asleep.Equal(asleep) {
			t.Errorf("a second token moved the lease from %s to %s", asleep, w.session(second.SessionID).Asleep)
		}
		w.eventually("it sleeps", func() bool { return w.session(token.SessionID).State == "dormant" })
		if refused := w.openFails(w.piece(nil), "invalid_grant"); !strings.Contains(refused.Description, "no sign of life") {
			t.Errorf("a further token of a sleeping session: %+v", refused)
		}
		if state := w.session(token.SessionID).State; state != "dormant" {
			t.Errorf("the session is %s", state)
		}
	})
	t.Run("fresh tokens", func(t *testing.T) {
		w := foundryWorld(t, foundryTokens+"      renewable: true\n", worldConfig{script: holding, mapping: window})
		_, token, _ := w.exchange(w.piece(nil), nil)
		w.eventually("it sleeps", func() bool { return w.session(token.SessionID).State == "dormant" })
		if status, again, bad := w.exchange(w.piece(nil), nil); status != http.StatusOK || again.SessionID != token.SessionID {
			t.Errorf("a fresh token = %d %+v", status, bad)
		}
	})
}

// TestGenericWithoutJob takes tokens that name no job where the mapping says that it may.
func TestGenericWithoutJob(t *testing.T) {
	tokens := strings.Replace(foundryTokens, "      job_key: [piece, attempt]\n", "", 1)
	w := foundryWorld(t, tokens, worldConfig{script: holding, mapping: "    job_bound: false"})
	_, one, _ := w.exchange(w.piece(nil), nil)
	_, two, _ := w.exchange(w.piece(nil), nil)
	if one.SessionID == "" || two.SessionID == "" || one.SessionID == two.SessionID {
		t.Errorf("two tokens opened %q and %q, want a session each", one.SessionID, two.SessionID)
	}
	file := filepath.Join(t.TempDir(), "jobgate.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(w.config, "    job_bound: false", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(file)
	if err == nil {
		_, err = buildConfig(cfg, environment{Getenv: w.getenv}, nil)
	}
	if err == nil || !strings.Contains(err.Error(), "job_bound: false") {
		t.Errorf("a mapping that says nothing: %v", err)
	}
}

// TestGenericExplained explains and suggests over the server and without one.
func TestGenericExplained(t *testing.T) {
	w := foundryWorld(t, foundryTokens, worldConfig{script: holding})
	folder := t.TempDir()
	shown := filepath.Join(folder, "token")
	if err := os.WriteFile(shown, []byte(w.piece(map[string]any{"by": "comment"})), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := w.command("explain", "--token", shown)
	if code != exitDenied || !strings.Contains(out, "trusts only 'push'") || !strings.Contains(out, "bells/great-bell") {
		t.Errorf("explain = %d\n%s\n%s", code, out, errs)
	}
	out = w.must("mappings", "suggest", "--from-token", shown)
	for _, want := range []string{"workshop: 42", "issuer: foundry", "WARNING", "name: great-bell", "by: comment", "mould: bells/great-bell"} {
		if !strings.Contains(out, want) {
			t.Errorf("the suggestion lacks %q:\n%s", want, out)
		}
	}
}
