package proxy_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy"
)

type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// FuzzTarget holds that what is sent is what was judged: the target of the request, byte for byte, and nothing that
// cleaning or decoding would change.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"/plain/a", "/plain/a/b?x=%2f", "/plain//a", "/plain/../a", "/plain/%61", "/plain/a;b", "http://x/plain/a", "/plain", "/plain/a/[x]", "/plain/a?"} {
		f.Add(seed)
	}
	maskers, err := proxy.NewMaskers(access.NewSecret("key"), nil)
	if err != nil {
		f.Fatal(err)
	}
	var sent *url.URL
	found := &sessions{known: map[access.TokenHash]opened{}, found: make(chan struct{}, 1)}
	base, _ := url.Parse("https://upstream.example/base")
	p, err := proxy.New(proxy.Config{
		Connections: []proxy.Connection{{Name: "plain", Kind: proxy.KindHTTP, Upstream: base}},
		Sessions:    found, Recorder: newMemory(), Maskers: maskers, Log: slog.New(slog.DiscardHandler),
		Transport: tripper(func(r *http.Request) (*http.Response, error) {
			sent = r.URL
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
		}),
	})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now()
	s := access.NewSession(access.SessionConfig{ID: "s", Window: access.Window{Opens: now, Closes: now.Add(time.Hour)}, Asleep: now.Add(time.Hour), Policy: &access.Policy{
		Mapping: "m", Mode: access.Observe, Grants: []access.Grant{{Connection: "plain"}}}})
	token := found.add(f, s, "plain")
	f.Fuzz(func(t *testing.T, target string) {
		r := httptest.NewRequest("GET", "/", nil)
		u, err := url.ParseRequestURI(target)
		if err != nil || len(target) > 2000 {
			return // net/http refuses it
		}
		r.URL, r.RequestURI = u, target
		r.Header.Set("X-Api-Key", token)
		sent = nil
		p.ServeHTTP(httptest.NewRecorder(), r)
		if sent == nil {
			return
		}
		got := sent.RequestURI()
		want := "/base" + strings.TrimPrefix(target, "/plain")
		if got != want && got != strings.TrimSuffix(want, "?") && got != strings.Replace(want, "/base", "/base/", 1) && got != strings.TrimSuffix(strings.Replace(want, "/base", "/base/", 1), "?") {
			t.Errorf("%q is sent as %q", target, got)
		}
		if clean := path.Clean(sent.Path); clean != strings.TrimSuffix(sent.Path, "/") || !strings.HasPrefix(clean, "/base") {
			t.Errorf("%q is sent as %q, which means %q", target, got, clean)
		}
		if strings.ContainsAny(sent.EscapedPath(), "%;\\") {
			t.Errorf("%q is sent with a path that can be read in two ways: %q", target, got)
		}
	})
}
