package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

const sessionToken = "jg_0123456789abcdefghijklmnopqrstuvwxyz"

// answering is a server that gives one answer after the other, and the forms that it was sent.
func answering(t *testing.T, answers ...func(w http.ResponseWriter)) (*jobgate, *[]string) {
	t.Helper()
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		asked = append(asked, r.PostForm.Get("subject_token"))
		answers[min(len(asked), len(answers))-1](w)
	}))
	t.Cleanup(srv.Close)
	o := &options{url: srv.URL + "/", env: environment{Stderr: io.Discard}}
	j, err := newJobgate(o)
	if err != nil {
		t.Fatal(err)
	}
	return j, &asked
}

func reply(code int, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// minting is a source whose every token is another.
func minting(t *testing.T) *source {
	t.Helper()
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		fmt.Fprintf(w, `{"value":%q}`, token(t, map[string]any{"n": n}))
	}))
	t.Cleanup(srv.Close)
	s, err := sourceOf(t, options{}, "GITHUB_ACTIONS=true", "ACTIONS_ID_TOKEN_REQUEST_URL="+srv.URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN=secret")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const opened = `{"access_token":"` + sessionToken + `","session_id":"ses_1","expires_in":60,"mapping":"agents"}`

func TestOpenRetries(t *testing.T) {
	j, asked := answering(t, reply(503, `{"error":"temporarily_unavailable","error_description":"keys"}`), reply(200, opened))
	got, err := j.open(t.Context(), minting(t), "", "")
	if err != nil || got.SessionID != "ses_1" {
		t.Fatalf("open = %v, %v", got.SessionID, err)
	}
	if len(*asked) != 2 || (*asked)[0] == (*asked)[1] {
		t.Errorf("the second try did not take a fresh token")
	}
}

func TestOpenAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(http.ResponseWriter)
		code   int // of the program
		says   string
	}{
		{"refused", reply(400, `{"error":"invalid_grant","error_description":"ref is x"}`), exitDenied, "invalid_grant: ref is x"},
		{"redirect", reply(302, ""), exitFailed, "redirect"},
		{"not ours", reply(404, "<html>"), exitFailed, "without an OAuth error"},
		{"no JSON", reply(200, "<html>"), exitFailed, "no JSON"},
		{"no session", reply(200, `{}`), exitFailed, "without a session"},
		{"a token of another kind", reply(200, `{"access_token":"ghp_x","session_id":"s","expires_in":1}`), exitFailed, "without a session"},
		{"endless", reply(200, strings.Repeat(" ", maxAnswer+10)), exitFailed, "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, asked := answering(t, c.answer)
			_, err := j.open(t.Context(), minting(t), "", "")
			if err == nil || codeFor(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("open = %v, want %q and exit code %d", err, c.says, c.code)
			}
			if len(*asked) != 1 {
				t.Errorf("asked %d times, want once", len(*asked))
			}
		})
	}
}

func TestCheckURL(t *testing.T) {
	for given, want := range map[string]string{
		"https://jobgate.example.com":        "https://jobgate.example.com",
		"https://jobgate.example.com/x/":     "https://jobgate.example.com/x",
		"http://127.0.0.1:8080":              "http://127.0.0.1:8080",
		"http://[::1]:8080":                  "http://[::1]:8080",
		"http://localhost":                   "http://localhost",
		"http://127.0.0.1.example.com":       "",
		"http://jobgate.example.com":         "",
		"https://user:word@example.com":      "",
		"https://jobgate.example.com?x":      "",
		"https://jobgate.example.com#x":      "",
		"https://jobgate.example.com/a b":    "",
		"jobgate.example.com":                "",
		"file:///etc/passwd":                 "",
		"":                                   "",
		"https://jobgate.example.com/\nx: y": "",
	} {
		got, err := checkURL(given)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("checkURL(%q) = %q, %v; want %q", given, got, err, want)
		}
		var usage usageError
		if err != nil && (!errors.As(err, &usage) || strings.Contains(err.Error(), "word")) {
			t.Errorf("checkURL(%q) = %v: no wrong use, or it shows a password", given, err)
		}
	}
}

func TestChoose(t *testing.T) {
	connection := func(name, kind string) api.Connection {
		return api.Connection{Name: name, Kind: kind, BaseURL: audience + "/" + name}
	}
	evil := connection("model", "anthropic")
	evil.BaseURL = "https://evil.example.com/model"
	for _, c := range []struct {
		name    string
		granted []api.Connection
		named   string
		want    string
		says    string
	}{
		{"one", []api.Connection{connection("npm", "http"), connection("model", "anthropic")}, "", "model", ""},
		{"none", []api.Connection{connection("npm", "http")}, "", "", ""},
		{"two, named", []api.Connection{connection("a", "anthropic"), connection("b", "anthropic")}, "b", "b", ""},
		{"two", []api.Connection{connection("a", "anthropic"), connection("b", "anthropic")}, "", "", "--connection"},
		{"not granted", []api.Connection{connection("a", "anthropic")}, "b", "", "not granted"},
		{"elsewhere", []api.Connection{evil}, "", "", "not under"},
		{"a name that is none", []api.Connection{{Name: "a=b", BaseURL: audience + "/a=b"}}, "", "", "not under"},
	} {
		got, err := choose(c.granted, audience, c.named)
		name := ""
		if got != nil {
			name = got.Name
		}
		if name != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: choose = %q, %v; want %q, %q", c.name, name, err, c.want, c.says)
		}
	}
}

func TestFromServer(t *testing.T) {
	got := fromServer(map[string]string{
		"ANTHROPIC_ORGANIZATION_ID": "x", "CLAUDE_CODE_NEW": "1", "PATH": "/evil", "NODE_OPTIONS": "-r x", "LD_PRELOAD": "x",
		"ANTHROPIC_API_KEY": "k", "ANTHROPIC_AUTH_TOKEN": "t", "CLAUDE_X": "two\nlines", "ANTHROPIC_lower": "x",
	})
	if diff := cmp.Diff(map[string]string{"ANTHROPIC_ORGANIZATION_ID": "x", "CLAUDE_CODE_NEW": "1"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestSessionSecret holds that what is printed of a session shows no token.
func TestSessionSecret(t *testing.T) {
	s := &session{token: access.NewSecret(sessionToken)}
	if text := fmt.Sprintf("%v %+v", s.token, s.token); strings.Contains(text, "jg_") {
		t.Error(text)
	}
	raw, err := json.Marshal(orders{Session: "ses_1", Last: []byte("x")})
	if err != nil || strings.Contains(string(raw), "jg_") {
		t.Errorf("%s %v", raw, err)
	}
}
