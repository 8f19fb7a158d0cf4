package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
)

const (
	slackToken  = "xoxb-world-slack-token"
	slackSecret = "world-signing-secret-1"
)

// everyForm is a secret as it stands and in encodings in which it could be read again.
func everyForm(name, secret string) map[string]string {
	forms := map[string]string{name: secret}
	for _, e := range []testkit.Encoding{testkit.Percent, testkit.HexLower, testkit.HexUpper, testkit.JSONEscaped, testkit.Base64Unpadded} {
		forms[name+" as "+string(e)] = strings.TrimRight(e.Encode(secret), "=")
	}
	for shift := range 3 { // without the characters that its neighbours share
		whole := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
		forms[fmt.Sprintf("%s as base64 shifted by %d", name, shift)] = strings.TrimRight(whole, "=")[4 : len(whole)-5]
	}
	forms[name+" reversed hex"] = hex.EncodeToString([]byte(secret))
	return forms
}

// TestNoSecretAnywhere has an upstream that echoes the credential in every encoding, cut at many places, in text, errors
// and headers, and an agent that puts every secret it can get hold of, and some that it cannot, into its prompts, its
// tool inputs, paths and headers. Nothing of that is in a file, a log line, an error or an answer.
func TestNoSecretAnywhere(t *testing.T) {
	echo := plainUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		w.Header().Set("X-Echo", key)
		w.Header().Set("Location", "https://example.com/?k="+testkit.Percent.Encode(key))
		if strings.HasPrefix(r.URL.Path, "/fail") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		for _, e := range testkit.Encodings() {
			text := "before " + e.Encode(key) + " after\n"
			for at := 0; at < len(text); at += 7 {
				_, _ = io.WriteString(w, text[at:min(at+7, len(text))])
				w.(http.Flusher).Flush()
			}
		}
	})
	w := newWorld(t, worldConfig{
		connections: fmt.Sprintf("  - {name: files, kind: http, upstream: %q, credential: {header: authorization, prefix: 'Bearer ', value: 'env:MODEL_KEY'}}", echo),
		grants:      `      - {connection: files, allow: ["GET /{name}", "GET /{name}/{more}", "POST /{name}"]}`,
	})
	ci := w.token(w.job(nil))
	_, token, _ := w.exchange(ci, nil)
	second := w.token(w.job(nil)) // a token of the job that was shown nowhere yet
	_, joined, _ := w.connect("anthropic", second, "agents")
	secrets := map[string]string{}
	for name, value := range map[string]string{"the credential": worldKey, "the session token": token.AccessToken, "the second session token": joined.AccessToken,
		"the admin token": worldAdmin, "Slack's token": slackToken, "Slack's secret": slackSecret} {
		maps.Copy(secrets, everyForm(name, value))
	}
	for name, value := range map[string]string{"the CI token": ci, "the second CI token": second} {
		secrets[name], secrets[name+"'s signature"] = value, value[strings.LastIndex(value, ".")+1:]
	}
	leaked := func(where, text string, not ...string) {
		for name, value := range secrets {
			if strings.Contains(text, value) && !anyPrefix(name, not) {
				t.Errorf("%s stands in %s", name, where)
			}
		}
	}

	// The upstream says the credential, in every encoding and cut at every eighth byte.
	for _, e := range testkit.Encodings() {
		for cut := 0; cut < len(worldKey); cut += 8 {
			w.model.SetScript(testkit.ScriptEcho(e, cut))
			for _, stream := range []bool{true, false} {
				c := w.send(token.AccessToken, messageBody("say it", stream))
				body := w.wait(c)
				leaked(fmt.Sprintf("an answer (%s, cut at %d, stream %v)", e, cut, stream), body+joinDeltas(body))
				leaked("an answer's header", fmt.Sprint(c.header))
			}
		}
	}
	// ... and in errors and headers.
	for _, kind := range []testkit.FaultKind{testkit.FaultStatus, testkit.FaultErrorEvent} {
		w.model.SetScript(func(r testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "so far"}}, Header: map[string]string{"x-echo": r.Credential(), "request-id": r.Credential()},
				Fault: testkit.Fault{Kind: kind, After: 3, Status: 400, Type: "invalid_request_error", Message: "your key " + r.Credential() + " is bad"}}
		})
		for _, stream := range []bool{true, false} {
			c := w.send(token.AccessToken, messageBody("fail", stream))
			leaked("an error", w.wait(c)+fmt.Sprint(c.header))
		}
	}
	for _, path := range []string{"/files/echo", "/files/fail"} {
		_, body := w.status(token.AccessToken, path)
		leaked("an answer of the http connection", body)
	}

	// The agent puts what it has, and what it should not have, wherever it can.
	jobs := strings.Join([]string{joined.AccessToken, ci, second}, " ")
	everything := strings.Join([]string{jobs, worldKey, worldAdmin, slackToken, slackSecret}, " ")
	says := func(text string) testkit.Script {
		return func(testkit.Request) testkit.Response {
			return testkit.Response{Blocks: []testkit.Block{testkit.Text{Text: "I have " + text}, bash("make release; echo " + text), bash("curl " + text), bash("true " + text)}}
		}
	}
	prompt := "release with " + strings.ReplaceAll(everything, joined.AccessToken, token.AccessToken)
	w.model.SetScript(says(everything)) // what Jobgate holds, in a tool's input: such a stream ends
	for _, stream := range []bool{true, false} {
		leaked("an answer with tool inputs", w.wait(w.send(joined.AccessToken, messageBody(prompt, stream))), "the second session token", "the CI token", "the second CI token")
	}
	w.model.SetScript(says(jobs))
	call := w.send(joined.AccessToken, messageBody(prompt, true))
	asked := w.question()
	leaked("a question", fmt.Sprintf("%+v", asked))
	message := w.slackMessage(func(testkit.SlackMessage) bool { return true })
	leaked("Slack's message", message.Text+string(message.Blocks))
	for _, args := range [][]string{{"approvals", "ls"}, {"sessions", "ls"}, {"-o", "json", "approvals", "ls"}, {"mappings", "show", "agents"}} {
		leaked("jobgate "+strings.Join(args, " "), w.must(args...))
	}
	if code, _, errs := w.command("approvals", "deny", asked.ID, "-r", "no: "+everything); code != exitDone {
		t.Errorf("deny = %d %s", code, errs)
	}
	w.wait(call)
	for _, path := range []string{"/files/" + token.AccessToken, "/files/x?key=" + worldKey + "&t=" + second, "/nowhere/" + worldAdmin, "/" + token.AccessToken, "/anthropic/v1/" + worldKey} {
		_, body := w.status(joined.AccessToken, path)
		leaked("the answer to a path with secrets", body, "the credential", "the session token", "the admin token", "the second CI token") // its own words
	}
	for _, bad := range []string{ci + "x", "jg_" + worldKey, token.AccessToken + "x", worldKey} {
		_, body := w.status(bad, "/anthropic/v1/messages")
		leaked("a 401", body)
		_, _, refused := w.exchange(bad, nil)
		leaked("a refused exchange", fmt.Sprint(refused))
		_, _, refused = w.connect("anthropic", bad, everything)
		leaked("a refused exchange", fmt.Sprint(refused.Error), "x")
	}

	for _, s := range []string{token.SessionID, w.sessions("?state=open")[0].ID} {
		_ = w.admin("DELETE", "/v1/sessions/"+s, nil, nil)
	}
	w.events(token.SessionID)
	for _, args := range [][]string{{"archive", "show", token.SessionID}, {"archive", "replay", token.SessionID}, {"archive", "export", token.SessionID}} {
		leaked("jobgate "+strings.Join(args[:2], " "), w.must(args...))
	}
	w.stop()
	w.nowhere(secrets)
	for _, args := range [][]string{{"archive", "replay", "--day", today()}, {"archive", "export", "--day", today()}} {
		leaked("jobgate "+strings.Join(args, " "), w.must(args...))
	}
	if !strings.Contains(w.must("archive", "export", "--day", today()), record.TypeExchange) {
		t.Error("the audit stream holds no exchange")
	}
}

func anyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// joinDeltas is the text of a stream as its reader puts it together.
func joinDeltas(body string) string {
	var out strings.Builder
	for line := range strings.SplitSeq(body, "\n") {
		var event struct {
			Delta struct {
				Text string `json:"text"`
			} `json:"delta"`
		}
		if json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &event) == nil {
			out.WriteString(event.Delta.Text)
		}
	}
	return out.String()
}
