package dialect_test

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		code      access.Code
		anthropic int
		kind      string
		http      int
	}{
		{access.CodeDenied, 400, "policy_blocked", 403},
		{access.CodeEnded, 400, "policy_blocked", 403},
		{access.CodeTarget, 400, "policy_blocked", 403},
		{access.CodeScope, 400, "policy_blocked", 403},
		{access.CodeInvalid, 400, "policy_blocked", 400},
		{access.CodeTooLarge, 400, "policy_blocked", 413},
		{access.CodeNotFound, 400, "policy_blocked", 404},
		{access.CodeUnauthenticated, 401, "authentication_error", 401},
		{access.CodeLimit, 429, "billing_error", 429},
		{access.CodeRecord, 503, "api_error", 503},
		{access.CodeUnavailable, 503, "api_error", 503},
		{access.CodeUpstream, 502, "api_error", 502},
		{access.CodeInternal, 500, "api_error", 500},
	} {
		err := access.Refuse(c.code, `Jobgate: no "that"`)
		w := httptest.NewRecorder()
		dialect.Anthropic{}.Refuse(w, err, "call_1")
		var got, want any
		want = map[string]any{"type": "error", "request_id": "call_1", "error": map[string]any{"type": c.kind, "message": `Jobgate: no "that"`}}
		if e := json.Unmarshal(w.Body.Bytes(), &got); e != nil || w.Code != c.anthropic || !cmp.Equal(got, want) {
			t.Errorf("%s: %d %s, want %d", c.code, w.Code, w.Body, c.anthropic)
		}
		h := w.Header()
		if h.Get("X-Should-Retry") != "false" || h.Get("Request-Id") != "call_1" || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s: header %v", c.code, h)
		}

		w = httptest.NewRecorder()
		dialect.HTTP{}.Refuse(w, err, "call_1")
		var problem struct {
			Type, Title, Detail, Instance string
			Status                        int
		}
		if e := json.Unmarshal(w.Body.Bytes(), &problem); e != nil || w.Code != c.http || problem.Status != c.http ||
			problem.Type != "urn:jobgate:problem:"+string(c.code) || problem.Title == "" || problem.Detail != `Jobgate: no "that"` || problem.Instance != "call_1" {
			t.Errorf("%s: %d %s, want %d", c.code, w.Code, w.Body, c.http)
		}
		if got := w.Header().Get("Content-Type"); got != "application/problem+json" || w.Header().Get("X-Should-Retry") != "false" {
			t.Errorf("%s: header %v", c.code, w.Header())
		}
	}
}

func TestRefusalSaysWhoAndWhen(t *testing.T) {
	w := httptest.NewRecorder()
	dialect.Anthropic{}.Refuse(w, &access.Error{Code: access.CodeLimit, Public: "spent", RetryAfter: 1500 * time.Millisecond, Err: errors.New("inner")}, "c")
	if got := w.Header().Get("Retry-After"); got != "2" || !strings.Contains(w.Body.String(), `"Jobgate: spent"`) {
		t.Errorf("retry-after %q, body %s", got, w.Body)
	}
	if strings.Contains(w.Body.String(), "inner") {
		t.Errorf("the cause is told: %s", w.Body)
	}
	w = httptest.NewRecorder()
	dialect.HTTP{}.Refuse(w, errors.New("inner"), "c")
	if strings.Contains(w.Body.String(), "inner") || w.Code != 500 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestErrorEvent(t *testing.T) {
	got := string(dialect.Anthropic{}.ErrorEvent(access.Refuse(access.CodeEnded, "over\n\n"), "call_1"))
	want := "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"policy_blocked\",\"message\":\"Jobgate: over\\n\\n\"},\"request_id\":\"call_1\"}\n\n"
	if got != want {
		t.Errorf("ErrorEvent = %q, want %q", got, want)
	}
	if got := string(dialect.Anthropic{}.Ping()); got != ping {
		t.Errorf("Ping = %q", got)
	}
}
