package httpd_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/httpd"
)

// fakeHooks answers what a test says, and remembers what came.
type fakeHooks struct {
	result federation.HookResult
	err    error
	kind   string
	header http.Header
	body   string
}

func (f *fakeHooks) Receive(_ context.Context, kind string, h http.Header, body []byte) (federation.HookResult, error) {
	f.kind, f.header, f.body = kind, h, string(body)
	return f.result, f.err
}

func hookServer(hooks httpd.Hooks) http.Handler {
	w := &jobsWorld{}
	return w.jobsWith(func(c *httpd.JobsConfig) { c.Hooks = hooks })
}

func TestHooksAreHandedOn(t *testing.T) {
	for _, kind := range federation.HookKinds() {
		hooks := &fakeHooks{result: federation.HookResult{Outcome: "ended", Sessions: 2}}
		r := httptest.NewRequest(http.MethodPost, "/hooks/"+kind, strings.NewReader(" {\"as\":  \"it came\"}\n"))
		r.Header.Set("X-Hub-Signature-256", "sha256=00")
		rec := httptest.NewRecorder()
		hookServer(hooks).ServeHTTP(rec, r)
		var got api.HookResult
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || rec.Code != http.StatusOK || got != (api.HookResult{Outcome: "ended", Sessions: 2}) {
			t.Errorf("%s: %d %s", kind, rec.Code, rec.Body)
		}
		if hooks.kind != kind || hooks.body != " {\"as\":  \"it came\"}\n" || hooks.header.Get("X-Hub-Signature-256") != "sha256=00" {
			t.Errorf("%s: handed on %q %q %q", kind, hooks.kind, hooks.body, hooks.header)
		}
	}
}

func TestHooksThatAreRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		method string
		path   string
		body   string
		hooks  *fakeHooks
		want   int
	}{
		{"bad signature", "POST", "/hooks/github", "{}", &fakeHooks{err: access.Refuse(access.CodeUnauthenticated, "no")}, http.StatusUnauthorized},
		{"not configured", "POST", "/hooks/github", "{}", &fakeHooks{err: access.Refuse(access.CodeNotFound, "no")}, http.StatusNotFound},
		{"no hooks at all", "POST", "/hooks/gitlab", "{}", nil, http.StatusNotFound},
		{"cannot be read", "POST", "/hooks/generic", "{}", &fakeHooks{err: access.Refuse(access.CodeInvalid, "no")}, http.StatusBadRequest},
		{"something else", "POST", "/hooks/generic", "{}", &fakeHooks{err: errors.New("disk full")}, http.StatusInternalServerError},
		{"too long", "POST", "/hooks/github", strings.Repeat(" ", 1<<20+1), &fakeHooks{}, http.StatusRequestEntityTooLarge},
		{"another kind", "POST", "/hooks/circleci", "{}", &fakeHooks{}, http.StatusNotFound},
		{"another path", "POST", "/hooks/github/", "{}", &fakeHooks{}, http.StatusNotFound},
		{"another method", "GET", "/hooks/github", "", &fakeHooks{}, http.StatusMethodNotAllowed},
	} {
		var hooks httpd.Hooks
		if test.hooks != nil {
			hooks = test.hooks
		}
		rec := httptest.NewRecorder()
		hookServer(hooks).ServeHTTP(rec, httptest.NewRequest(test.method, test.path, strings.NewReader(test.body)))
		if rec.Code != test.want || strings.Contains(rec.Body.String(), "disk full") {
			t.Errorf("%s: %d %s, want %d", test.name, rec.Code, rec.Body, test.want)
		}
		if test.hooks != nil && test.hooks.kind != "" && test.hooks.err == nil {
			t.Errorf("%s: handed on", test.name)
		}
	}
}
