package proxy_test

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy"
)

// No line of the log, no text for the client and no line of the record holds a credential or a token, whatever goes
// wrong.
func TestNothingIsToldInLogs(t *testing.T) {
	secretPage := func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		switch r.URL.Path {
		case "/a/encoding":
			w.Header().Set("Content-Encoding", auth)
		case "/a/type":
			w.Header().Set("Content-Type", auth)
			_, _ = io.WriteString(w, auth)
		case "/a/reset":
			panic(http.ErrAbortHandler)
		case "/a/status":
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 "+auth+"\r\n\r\n")
			_ = c.Close()
		case "/a/header":
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: "+auth+"\r\n\r\n")
			_ = c.Close()
		case "/a/id":
			w.Header().Set("Request-Id", auth)
		}
	}
	w := newWorld(t, options{upstream: http.HandlerFunc(secretPage), secret: plainSecret, log: slog.LevelDebug, limits: proxy.Bounds{Body: 10 << 10}})
	for _, path := range []string{"/plain/a", "/plain/a/encoding", "/plain/a/type", "/plain/a/reset", "/plain/a/status", "/plain/a/header", "/plain/a/id", "/plain/refused/" + plainSecret[:5], "/nothing/a"} {
		resp := w.call("GET", path, "")
		var head strings.Builder
		_ = resp.Header.Write(&head)
		if text := head.String() + read(t, resp); len(leaks(text, plainSecret)) > 0 || strings.Contains(text, w.token) {
			t.Errorf("%s: the client gets %s", path, text)
		}
	}
	for name, script := range map[string]testkit.Script{
		"encoding": func(r testkit.Request) testkit.Response {
			return testkit.Response{Header: map[string]string{"Content-Encoding": r.Credential()}}
		},
		"id in a block": func(r testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.ToolUse{ID: r.Credential(), Name: "Bash", Input: `{}`}}}
		},
		"name of a tool": func(r testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.ToolUse{Name: r.Credential(), Input: `{}`}}}
		},
		"no JSON": func(r testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.ToolUse{Name: "Bash", Input: `{"a":` + r.Credential()}}}
		},
	} {
		for _, stream := range []bool{true, false} {
			w.model.SetScript(script)
			if text := read(t, w.call("POST", "/anthropic/v1/messages", message(stream, ""))); len(leaks(text, w.model.Key())) > 0 {
				t.Errorf("%s: the client gets %s", name, text)
			}
		}
	}
	w.settled(9 + 8)
	for what, text := range map[string]string{"log": w.log.String(), "record": w.record.text()} {
		if found := append(leaks(text, plainSecret), leaks(text, w.model.Key())...); len(found) > 0 {
			t.Errorf("the %s holds a credential: %v", what, found)
		}
		if strings.Contains(text, w.token) {
			t.Errorf("the %s holds the token", what)
		}
	}
	if n := strings.Count(w.log.String(), `msg="call ended"`); n < 17 {
		t.Errorf("the log has only %d ends", n)
	}
}

func TestNewRefusesWhatIsUnsafe(t *testing.T) {
	maskers, err := proxy.NewMaskers(access.NewSecret("key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	helper := &world{t: t}
	for _, c := range []struct{ name, base, says string }{
		{"v1", "https://a.example", "taken by Jobgate"}, {"oauth", "https://a.example", "taken by Jobgate"}, {"Upper", "https://a.example", "matches"},
		{"_x", "https://a.example", "matches"}, {"", "https://a.example", "matches"}, {"a", "http://a.example", "plain http"}, {"a", "ftp://a.example", "scheme"},
		{"a", "https://u:p@a.example", "user name"}, {"a", "https://a.example?x=1", "query"}, {"a", "https://", "needs a URL"}, {"a", "http://8.8.8.8", "plain http"},
	} {
		conn := helper.connection(c.name, proxy.KindHTTP, c.base, "", "", "")
		_, err := proxy.New(proxy.Config{Connections: []proxy.Connection{conn}, Sessions: &sessions{}, Recorder: newMemory(), Maskers: maskers, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("New(%q, %q) = %v, want an error that says %q", c.name, c.base, err, c.says)
		}
	}
	if _, err := proxy.New(proxy.Config{}); err == nil {
		t.Error("an empty configuration is taken")
	}
}
