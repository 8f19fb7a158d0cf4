package httpd_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// TestProbeStream reads the small stream as it is sent, and finds that there are not too many at once.
func TestProbeStream(t *testing.T) {
	w := jobsWorld{}
	server := httptest.NewServer(w.jobs())
	defer server.Close()
	begun := time.Now()
	var open []*http.Response
	for {
		resp, err := http.Get(server.URL + "/_stream")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			if resp.Header.Get("Retry-After") == "" {
				t.Error("a refusal does not say when to come again")
			}
			break
		}
		if open = append(open, resp); len(open) > 100 {
			t.Fatal("a hundred streams are open at once")
		}
	}
	first := open[0]
	if first.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" || first.Header.Get("Cache-Control") != "no-store" || first.Header.Get("Content-Security-Policy") != "sandbox" {
		t.Errorf("header %v", first.Header)
	}
	lines, arrived := 0, []time.Duration{}
	for scan := bufio.NewScanner(first.Body); scan.Scan(); {
		if strings.HasPrefix(scan.Text(), "data: ") {
			arrived = append(arrived, time.Since(begun))
			lines++
		}
	}
	if lines != 5 || arrived[4]-arrived[0] < 300*time.Millisecond {
		t.Errorf("%d lines at %v, want five with pauses", lines, arrived)
	}
	for _, resp := range open {
		resp.Body.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		resp, err := http.Get(server.URL + "/_stream")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("streams that clients left hold their places")
		}
	}
}

// TestDryRun is an exchange that gives nothing out.
func TestDryRun(t *testing.T) {
	w := jobsWorld{exchange: fakeExchange{granted: []string{"anthropic"}}}
	ask := func(body string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(http.MethodPost, "/_dry-run", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		got := httptest.NewRecorder()
		w.jobs().ServeHTTP(got, req)
		return got
	}
	got := ask(url.Values{"subject_token": {"a.b.c"}, "mapping": {"agents"}, "scope": {"anthropic"}}.Encode())
	var answer api.DryRun
	if err := json.Unmarshal(got.Body.Bytes(), &answer); err != nil || got.Code != http.StatusOK || answer.Mapping != "agents" || answer.ExpiresIn != 3600 || answer.Lease != 900 {
		t.Errorf("a dry run = %d %s, %v", got.Code, got.Body, err)
	}
	if len(w.exchange.opened) != 0 || len(w.exchange.tried) != 1 || w.exchange.tried[0].Scope[0] != "anthropic" {
		t.Errorf("opened %v, tried %v", w.exchange.opened, w.exchange.tried)
	}
	if got := ask(""); got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), "subject_token is missing") {
		t.Errorf("no token = %d %s", got.Code, got.Body)
	}
	w.exchange.err = access.Refuse(access.CodeTarget, "no mapping serves this job")
	if got := ask("subject_token=a.b.c"); got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), "invalid_target") {
		t.Errorf("a refusal = %d %s", got.Code, got.Body)
	}
}
