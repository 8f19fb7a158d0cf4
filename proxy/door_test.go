package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

// echo answers with what it got.
func echo(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprintf(w, "%s %s\n", r.Method, r.RequestURI)
	_ = r.Header.Write(w)
	_, _ = io.Copy(w, r.Body)
}

func TestDoorRefusesPathTricks(t *testing.T) {
	w := newWorld(t, options{upstream: http.HandlerFunc(echo)})
	for _, target := range []string{
		"//plain/a", "/plain//a", "/plain/%61", "/plain/a%2fb", "/plain/%2e%2e/a", "/plain/../plain/a", "/plain/./a", "/plain/a/..", "/plain/.",
		"/plain/a\\b", "/plain/a;b", "/plain/..;/a", "http://plain.example/plain/a", "*", "/plain/a#b", "/plain/a\"b", "/plain/a\x7f", "/plain/\xc3\xa4",
		"/plain/a{x}", "/..", "/.", "//", "plain/a", "/plain/a|b", "/plain/a/%", "/plain/a%00",
	} {
		got := w.raw("GET " + target + " HTTP/1.1\r\nHost: x\r\nx-api-key: " + w.token + "\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%q is answered with %q", target, firstLine(got))
		}
	}
	for target, want := range map[string]string{
		"/plain/a/x.y~z-_:@!$&'()*+,=": "GET /a/x.y~z-_:@!$&'()*+,= ", // as it was judged, byte for byte
		"/plain/a?b=/../%2f;x":         "GET /a?b=/../%2f;x ",
		"/plain/a/[x]":                 "GET /a/[x] ",
	} {
		got := w.raw("GET " + target + " HTTP/1.1\r\nHost: x\r\nx-api-key: " + w.token + "\r\nConnection: close\r\n\r\n")
		if want = strings.TrimSpace(want); !strings.Contains(got, want+"\n") {
			t.Errorf("%q is answered with %q, want %q sent", target, got, want)
		}
	}
	if got := w.raw("GET /plain/a/ HTTP/1.1\r\nHost: x\r\nx-api-key: " + w.token + "\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403 ") {
		t.Errorf("a trailing slash is another path, and no entry allows it: %q", firstLine(got))
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\r\n")
	return line
}

func TestDoorRefusesHostileBytes(t *testing.T) {
	w := newWorld(t, options{upstream: http.HandlerFunc(echo)})
	auth := "Host: x\r\nx-api-key: " + w.token + "\r\nConnection: close\r\n"
	for name, request := range map[string]string{
		"NUL in path":        "GET /plain/a\x00b HTTP/1.1\r\n" + auth + "\r\n",
		"space in path":      "GET /plain/a b HTTP/1.1\r\n" + auth + "\r\n",
		"huge header":        "GET /plain/a HTTP/1.1\r\n" + auth + "X-Big: " + strings.Repeat("a", 200<<10) + "\r\n\r\n",
		"length and chunked": "POST /plain/a HTTP/1.1\r\n" + auth + "Content-Length: 3\r\nTransfer-Encoding: chunked, identity\r\n\r\nabc",
		"two lengths":        "POST /plain/a HTTP/1.1\r\n" + auth + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
		"no host":            "GET /plain/a HTTP/1.1\r\nx-api-key: " + w.token + "\r\n\r\n",
		"connect":            "CONNECT plain:443 HTTP/1.1\r\n" + auth + "\r\n",
	} {
		got := w.raw(request)
		if !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 5") {
			t.Errorf("%s: answered with %q", name, firstLine(got))
		}
		if strings.Contains(got, w.token) {
			t.Errorf("%s: the answer repeats the token", name)
		}
	}
}

func TestDoorTakesExactlyOneToken(t *testing.T) {
	w := newWorld(t, options{upstream: http.HandlerFunc(echo), secret: plainSecret})
	_, other := w.open(options{}, "s_2")
	for _, c := range []struct {
		name    string
		headers []string
		query   string
		status  int
	}{
		{"x-api-key", []string{"X-Api-Key", w.token}, "", 200},
		{"bearer", []string{"Authorization", "Bearer " + w.token}, "", 200},
		{"bearer in another case", []string{"Authorization", "bearer  " + w.token}, "", 200},
		{"api-key", []string{"Api-Key", w.token}, "", 200},
		{"x-goog-api-key", []string{"X-Goog-Api-Key", w.token}, "", 200},
		{"the same twice", []string{"Authorization", "Bearer " + w.token, "X-Api-Key", w.token}, "", 200},
		{"beside a foreign key", []string{"Authorization", "Bearer sk-ant-mine", "X-Api-Key", w.token}, "", 200},
		{"beside a foreign line", []string{"Authorization", "Basic dTpw", "Authorization", "Bearer " + w.token}, "", 200},
		{"two tokens", []string{"Authorization", "Bearer " + w.token, "X-Api-Key", other}, "", 400},
		{"two lines", []string{"Authorization", "Bearer " + w.token, "Authorization", "Bearer " + other}, "", 400},
		{"a good and a bad one", []string{"Api-Key", "jg_nonsense", "X-Api-Key", w.token}, "", 400},
		{"list in one line", []string{"Authorization", "Bearer " + w.token + ", Bearer " + other}, "", 401},
		{"none", nil, "", 401},
		{"foreign only", []string{"X-Api-Key", "sk-ant-mine"}, "", 401},
		{"cut", []string{"X-Api-Key", w.token[:20]}, "", 401},
		{"changed", []string{"X-Api-Key", w.token[:30] + string(w.token[30]^1) + w.token[31:]}, "", 401},
		{"basic", []string{"Authorization", "Basic " + w.token}, "", 401},
		{"in the query", []string{"X-Api-Key", w.token}, "?key=" + w.token, 400},
		{"escaped in the query", []string{"X-Api-Key", w.token}, "?key=%6ag" + w.token[2:], 400},
		{"only in the query", nil, "?key=" + w.token, 401},
		{"in another header", []string{"X-Api-Key", w.token, "X-Debug", "is " + w.token}, "", 400},
		{"in a cookie", []string{"X-Api-Key", w.token, "Cookie", "k=" + w.token}, "", 400},
		{"navigation", []string{"X-Api-Key", w.token, "Sec-Fetch-Mode", "navigate"}, "", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := w.call("GET", "/plain/a"+c.query, "", append([]string{"X-Api-Key", ""}, c.headers...)...)
			body := read(t, resp)
			if resp.StatusCode != c.status {
				t.Fatalf("status = %d, want %d: %s", resp.StatusCode, c.status, body)
			}
			if strings.Contains(body, w.token) || strings.Contains(body, "sk-ant-mine") || strings.Contains(body, "dTpw") {
				t.Errorf("the upstream saw a credential of the client: %s", body)
			}
			if c.status != 200 && resp.Header.Get("X-Should-Retry") != "false" {
				t.Errorf("x-should-retry = %q", resp.Header.Get("X-Should-Retry"))
			}
			if resp.Header.Get("Content-Security-Policy") != "sandbox" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("the answer could be a page: %v", resp.Header)
			}
		})
	}
	if got := w.call("GET", "/plain/a/"+w.token, ""); got.StatusCode != 400 {
		t.Errorf("a token in the path is answered with %d", got.StatusCode)
	}
	if log := w.log.String(); strings.Contains(log, w.token) || strings.Contains(log, other) {
		t.Errorf("a token is in the log: %s", log)
	}
}

func TestDoorIsNoOracle(t *testing.T) {
	w := newWorld(t, options{upstream: http.HandlerFunc(echo), policy: func(p *access.Policy) { p.Grants = p.Grants[:1] }})
	type answer struct {
		status int
		body   string
	}
	ask := func(path, token string) answer {
		resp := w.call("GET", path, "", "X-Api-Key", "", "X-Api-Key", token)
		body := read(t, resp)
		name, _, _ := strings.Cut(path[1:], "/")
		body = strings.ReplaceAll(body, name, "NAME")
		if i := strings.Index(body, `"instance"`); i >= 0 {
			body = body[:i]
		}
		return answer{resp.StatusCode, body}
	}
	if got, want := ask("/nothing/a", ""), ask("/plain/a", ""); got != want || got.status != 401 {
		t.Errorf("without a token, an unknown connection answers %v, a known one %v", got, want)
	}
	if got, want := ask("/nothing/a", w.token), ask("/plain/a", w.token); got != want || got.status != 403 {
		t.Errorf("with a token, an unknown connection answers %v, one that is not granted %v", got, want)
	}
}

func TestDoorDropsWhatIsNotForTheUpstream(t *testing.T) {
	w := newWorld(t, options{upstream: http.HandlerFunc(echo), secret: plainSecret})
	body := read(t, w.call("POST", "/plain/a", "hello",
		"Connection", "X-Hop, close", "X-Hop", "gone", "Keep-Alive", "gone", "Te", "gone", "Upgrade", "gone", "Proxy-Authorization", "gone",
		"X-Forwarded-For", "gone", "Forwarded", "for=gone", "Cookie", "a=gone", "Authorization", "Bearer gone", "Api-Key", "gone",
		"X_Api_Key", "gone", "Accept-Encoding", "gzip, gone", "X-Kept", "stays", "Content-Encoding", "stays"))
	if strings.Contains(body, "gone") {
		t.Errorf("the upstream got what it must not: %s", body)
	}
	for _, want := range []string{"X-Kept: stays", "Content-Encoding: stays", "Accept-Encoding: identity", "Content-Length: 5", "hello", "Authorization: Bearer [masked:plain:"} {
		if !strings.Contains(body, want) {
			t.Errorf("the upstream did not get %q: %s", want, body)
		}
	}
	if strings.Contains(body, "User-Agent: Go-http-client") && strings.Count(body, "User-Agent") > 1 {
		t.Errorf("a user agent of our own: %s", body)
	}
}

func TestDoorRefusesEncodedModelCalls(t *testing.T) {
	w := newWorld(t, options{})
	if resp := w.call("POST", "/anthropic/v1/messages", message(false, ""), "Content-Encoding", "gzip"); resp.StatusCode != 400 {
		t.Errorf("status = %d", resp.StatusCode)
	}
	if n := len(w.model.Requests()); n != 0 {
		t.Errorf("%d requests reached the model", n)
	}
}

func TestSessionStates(t *testing.T) {
	for _, c := range []struct {
		name, path string
		asleep     bool
		end        access.EndReason
		scope      []string
		status     int
		says       string
	}{
		{name: "dormant anthropic", path: "/anthropic/v1/messages", asleep: true, status: 401, says: "authentication_error"},
		{name: "dormant http", path: "/plain/a", asleep: true, status: 401, says: "sleeps"},
		{name: "ended anthropic", path: "/anthropic/v1/messages", end: access.EndDeleted, status: 400, says: "policy_blocked"},
		{name: "ended http", path: "/plain/a", end: access.EndClosed, status: 403, says: "the job closed its session"},
		{name: "token of another connection", path: "/anthropic/v1/messages", scope: []string{"plain"}, status: 400, says: "policy_blocked"},
		{name: "token of another connection, http", path: "/plain/a", scope: []string{"anthropic"}, status: 403, says: "Jobgate:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{upstream: http.HandlerFunc(echo), asleep: c.asleep})
			if c.end != "" {
				w.session.End(c.end, time.Now())
			}
			if c.scope != nil {
				w.token = w.sessions.add(t, w.session, c.scope...)
			}
			resp := w.call("POST", c.path, message(true, ""))
			body := read(t, resp)
			if resp.StatusCode != c.status || !strings.Contains(body, c.says) {
				t.Errorf("status %d, want %d, body %s", resp.StatusCode, c.status, body)
			}
			if resp.Header.Get("X-Should-Retry") != "false" {
				t.Error("the client is told to ask again")
			}
			if n := len(w.model.Requests()); n != 0 {
				t.Errorf("%d requests reached the model", n)
			}
		})
	}
}

func TestExchangeIsAnsweredAtTheDoor(t *testing.T) {
	exchange := func(w http.ResponseWriter, _ *http.Request, connection string) {
		_, _ = io.WriteString(w, "exchange at "+connection)
	}
	w := newWorld(t, options{upstream: http.HandlerFunc(echo), exchange: exchange})
	if got := read(t, w.call("POST", "/anthropic/v1/oauth/token", "{}", "X-Api-Key", "")); got != "exchange at anthropic" {
		t.Errorf("the exchange answers %q", got)
	}
	if resp := w.call("POST", "/plain/v1/oauth/token", "{}"); resp.StatusCode != 403 {
		t.Errorf("for another kind it is a path like any other, and answers %d", resp.StatusCode)
	}
	if n := len(w.model.Requests()); n != 0 {
		t.Errorf("%d exchanges went upstream", n)
	}
}
