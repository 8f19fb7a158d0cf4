package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
)

// auditLines verifies all audit streams of a server that was stopped, and returns their lines, the oldest first.
func (w *world) auditLines() []record.Line {
	w.t.Helper()
	ctx := context.Background()
	bucket, _, err := openBucket(ctx, w.server.b.config.Archive.Bucket)
	if err != nil {
		w.t.Fatal(err)
	}
	defer bucket.Close()
	var entries []archive.Entry
	for e, err := range archive.ListAudit(ctx, bucket, "", archive.Filter{}) {
		must(w, err)
		entries = append([]archive.Entry{e}, entries...)
	}
	reports, err := archive.VerifyAudit(ctx, bucket, "", entries, w.server.signer.KeySet(), time.Now())
	must(w, err)
	byStream := map[string][]record.Line{}
	first := ""
	for i, r := range reports {
		if !r.OK() {
			w.t.Errorf("audit stream %+v", r)
		}
		for l, err := range archive.EntryEvents(ctx, bucket, entries[i]) {
			must(w, err)
			byStream[r.Stream] = append(byStream[r.Stream], l)
		}
		if r.Opened.After == nil {
			first = r.Stream
		}
	}
	// In the order in which they follow one another.
	var lines []record.Line
	for next := first; next != ""; {
		lines = append(lines, byStream[next]...)
		was := next
		next = ""
		for _, r := range reports {
			if r.Opened.After != nil && r.Opened.After.Stream == was {
				next = r.Stream
			}
		}
	}
	return lines
}

var exchangeID = regexp.MustCompile(`x_[a-z0-9]{26}`)

// TestAuditStream lets jobs in, refuses some, and has people change access by every way; the audit stream tells all of it, over a
// restart, and is good.
func TestAuditStream(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	opened := w.open()
	ci := w.token(w.job(map[string]any{"ref": "refs/heads/next"}))
	status, _, wrongRef := w.exchange(ci, nil)
	if status != http.StatusBadRequest || wrongRef.ExchangeID == "" || !strings.Contains(wrongRef.Description, wrongRef.ExchangeID) {
		t.Errorf("a refusal = %d %+v, want its id in both fields", status, wrongRef)
	}
	_, _, sdk := w.connect("anthropic", ci, "agents")
	if sdk.ExchangeID == "" || !strings.Contains(sdk.Description, sdk.ExchangeID) || sdk.ExchangeID == wrongRef.ExchangeID {
		t.Errorf("the other door's refusal = %+v", sdk)
	}
	_, _, malformed := w.exchange("not.a.token", nil)
	_, joined, _ := w.connect("anthropic", opened.AccessToken, "agents")
	if joined.AccessToken == "" {
		t.Error("it did not join")
	}
	held := w.send(opened.AccessToken, messageBody("release", true))
	question := w.question()
	message := w.slackMessage(func(m testkit.SlackMessage) bool { return len(m.Buttons()) == 2 })
	if _, err := w.slack.Press(t.Context(), message.TS, "deny", "U1"); err != nil {
		t.Fatal(err)
	}
	w.wait(held)
	w.must("sessions", "close", opened.SessionID)
	spec := api.Mapping{Name: "extra", Issuer: "github", Match: map[string]api.Values{"repository_owner_id": {"123456"}, "repository_id": {"7"}},
		Grants: []api.Grant{{Connection: "anthropic", Allow: []string{"POST /v1/messages"}}}}
	must(w, w.admin("PUT", "/v1/mappings/extra", spec, nil))
	must(w, w.admin("DELETE", "/v1/mappings/extra", nil, nil))
	w.must("stop", "--connection", "anthropic", "--reason", "a key leaked")
	w.must("resume", "--connection", "anthropic")
	w.must("mappings", "delete", "agents")
	w.must("mappings", "restore", "agents")
	w.writeConfig(strings.Replace(w.config, "name: agents\n", "name: renamed\n", 1))
	w.reload <- os.Interrupt
	w.eventually("the file is read again", func() bool {
		var m api.MappingView
		return w.admin("GET", "/v1/mappings/renamed", nil, &m) == nil
	})
	w.stop()
	w.start()
	w.stop()

	var got []string
	events := map[string]record.Exchange{}
	var acts []record.Act
	for _, l := range w.auditLines() {
		switch l.Type {
		case record.TypeExchange:
			e := decode[record.Exchange](t, l)
			events[e.Exchange] = e
			got = append(got, e.Outcome+" "+e.Reason)
		case record.TypeAct:
			a := decode[record.Act](t, l)
			acts = append(acts, a)
			got = append(got, a.Act+" "+a.Of+" via "+a.Via)
		default:
			got = append(got, l.Type)
		}
	}
	want := []string{
		"audit.opened", "mapping.reload agents via file",
		"opened ", "refused claim_mismatch", "refused claim_mismatch", "refused malformed", "joined ",
		"approval.deny " + question.ID + " via slack", "session.close " + opened.SessionID + " via socket",
		"mapping.put extra via api", "mapping.delete extra via api",
		"stop connection \"anthropic\" via socket", "resume connection \"anthropic\" via socket",
		"mapping.delete agents via socket", "mapping.restore agents via socket",
		"mapping.reload renamed via file", "mapping.delete agents via file",
		"audit.ended",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the audit stream says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	refused := events[wrongRef.ExchangeID]
	if refused.Door != "/oauth/token" || !refused.Verified || refused.Claims["repository_id"] != "456789" || len(refused.Failed) != 1 ||
		refused.Failed[0].Mapping != "agents" || refused.Failed[0].Got != "'refs/heads/next'" || refused.Failed[0].Wanted != "'refs/heads/main'" {
		t.Errorf("the refused exchange: %+v", refused)
	}
	if e := events[sdk.ExchangeID]; e.Door != "/anthropic/v1/oauth/token" || e.Asked == nil || e.Asked.Mapping != "agents" {
		t.Errorf("the other door's: %+v", e)
	}
	if e := events[malformed.ExchangeID]; e.Verified || e.Issuer != "" || len(e.Claims) > 0 {
		t.Errorf("the malformed one: %+v", e)
	}
	if acts[1].By == "" || acts[1].Mapping != "agents" || acts[1].Digest == "" {
		t.Errorf("the vote: %+v", acts[1])
	}
	for id := range events {
		if !strings.Contains(w.log.String(), "exchange="+id) {
			t.Errorf("the log has no line of %s", id)
		}
	}
	// On the screen, by an auditor who has the bucket and the key only.
	for args, has := range map[string][]string{
		"archive ls --audit":                  {"AUDIT STREAM", "aud_", "finished"},
		"archive verify --audit":              {": good: signed, whole, ", "note: it names no stream before it"},
		"archive show --day " + today():       {"1 opened, 0 renewed, 1 joined, 3 refused, 0 tried, 0 further ones"},
		"archive replay --day " + today():     {"agents fails match ref: it is 'refs/heads/next', wanted 'refs/heads/main'", "act       session.close of " + opened.SessionID + " by operator on the control socket (socket)"},
		"archive export --day " + today():     {`"type":"exchange","exchange":"x_`},
		"archive verify --day " + today():     {": good: "},
		"archive ls --audit --day " + today(): {"aud_"},
	} {
		out := w.must(strings.Fields(args)...)
		for _, part := range has {
			if !strings.Contains(out, part) {
				t.Errorf("jobgate %s: no %q in\n%s", args, part, out)
			}
		}
	}
	if code, _, errs := w.command("archive", "verify", "--audit", "--day", "2020-01-01"); code != exitFailed || !strings.Contains(errs, "no audit stream of 2020-01-01") {
		t.Errorf("a day without: %d %s", code, errs)
	}
	w.tamper()
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }

// tamper changes and removes what lies in the bucket, and has the command find it.
func (w *world) tamper() {
	w.t.Helper()
	parts, err := filepath.Glob(filepath.Join(w.folder, "archive", "v1", "audit", "dt=*", "aud_*", "events-*.zst"))
	if err != nil || len(parts) == 0 {
		w.t.Fatalf("parts %v, %v", parts, err)
	}
	good, err := os.ReadFile(parts[0])
	must(w, err)
	for name, change := range map[string]func() error{
		"is missing": func() error { return os.Remove(parts[0]) },
		"BAD": func() error {
			bad := bytes.Clone(good)
			bad[len(bad)/2] ^= 4
			return os.WriteFile(parts[0], bad, 0o600)
		},
	} {
		must(w, change())
		if code, out, errs := w.command("archive", "verify", "--audit"); code != exitFailed || !strings.Contains(out, name) || !strings.Contains(errs, "did not verify") {
			w.t.Errorf("%s: exit code %d\n%s%s", name, code, out, errs)
		}
		must(w, os.WriteFile(parts[0], good, 0o600))
	}
	// A whole stream vanishes.
	must(w, os.RemoveAll(filepath.Dir(parts[0])))
	if _, out, _ := w.command("archive", "verify", "--audit"); strings.Count(out, "good") > 0 && !strings.Contains(out, "which is not there") && !strings.Contains(out, "older than everything") {
		w.t.Errorf("a stream vanished:\n%s", out)
	}
}

// TestAuditSurvivesAKill answers an exchange, is killed, and has written it down, for the audit stream and for explain.
func TestAuditSurvivesAKill(t *testing.T) {
	w := newWorld(t, worldConfig{script: holding})
	w.stop()
	var opened []api.Token
	var refused []string
	for round := range 3 {
		server := w.startChild()
		status, token, bad := w.exchange(w.token(w.job(map[string]any{"run_id": fmt.Sprint(10 + round)})), nil)
		if status != http.StatusOK {
			t.Fatalf("exchange = %d %+v", status, bad)
		}
		opened = append(opened, token)
		_, _, bad = w.exchange(w.token(w.job(map[string]any{"ref": "refs/heads/next"})), nil)
		server.kill() // before anything of it is sealed
		refused = append(refused, bad.ExchangeID)
	}
	w.start()
	for _, id := range refused {
		code, out, errs := w.command("explain", "--exchange", id)
		if code != exitDenied || !strings.Contains(out, id) || !strings.Contains(out, "FAILS   ref: it is 'refs/heads/next', wanted 'refs/heads/main'") {
			t.Errorf("explain %s after a kill: %d\n%s%s", id, code, out, errs)
		}
	}
	w.stop()
	said := map[string]bool{}
	interrupted := 0
	for _, l := range w.auditLines() {
		switch l.Type {
		case record.TypeExchange:
			e := decode[record.Exchange](t, l)
			said[e.Exchange], said[e.Session] = true, true
		case record.TypeAuditEnded:
			if decode[record.AuditEnded](t, l).Interrupted {
				interrupted++
			}
		}
	}
	for i := range opened {
		if !said[opened[i].SessionID] || !said[refused[i]] {
			t.Errorf("round %d: the audit stream does not have %s and %s", i, opened[i].SessionID, refused[i])
		}
	}
	if interrupted != 3 {
		t.Errorf("%d streams were interrupted, want 3", interrupted)
	}
}

// A flood of nonsense is summed up, and fills neither the audit stream nor the log.
func TestAuditFlood(t *testing.T) {
	w := newWorld(t, worldConfig{})
	const flood = 400
	for range flood {
		w.exchange("nonsense", nil)
	}
	w.stop()
	written, summed := 0, int64(0)
	for _, l := range w.auditLines() {
		switch l.Type {
		case record.TypeExchange:
			written++
		case record.TypeRefusals:
			summed += decode[record.Refusals](t, l).Count
		}
	}
	if written > 60 || int64(written)+summed != flood {
		t.Errorf("%d refusals are written and %d summed up, want %d in all and most of them summed up", written, summed, flood)
	}
	if lines := strings.Count(w.log.String(), "outcome=refused"); lines != written {
		t.Errorf("%d lines in the log, %d events", lines, written)
	}
}

// An exchange is refused while the spool takes nothing, and people still take access away.
func TestAuditFailsClosed(t *testing.T) {
	bucket := t.TempDir()
	inTheWay := filepath.Join(bucket, "v1") // a file where a folder must be: nothing can be stored
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, worldConfig{script: holding, extra: fmt.Sprintf("archive: {bucket: %q, spool_max_bytes: 65536}", "file://"+bucket)})
	var spent bool
	for i := range 400 {
		status, _, bad := w.exchange(w.token(w.job(map[string]any{"run_id": fmt.Sprint(1000 + i)})), nil)
		if status == http.StatusServiceUnavailable && bad.Error == string(access.CodeUnavailable) {
			spent = true
			break
		}
	}
	if !spent {
		t.Fatal("the spool takes everything")
	}
	if _, _, bad := w.exchange("nonsense", nil); bad.Error != string(access.CodeGrant) || bad.ExchangeID == "" {
		t.Errorf("a refusal while nothing can be written = %+v", bad)
	}
	w.must("mappings", "delete", "agents")
	must(w, os.Remove(inTheWay))
}

// The id of an exchange is on what is given out, too.
func TestExchangeIDOfWhatIsGiven(t *testing.T) {
	w := newWorld(t, worldConfig{})
	resp, err := http.PostForm(w.base()+"/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token": {w.token(w.job(nil))}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}})
	must(w, err)
	defer resp.Body.Close()
	var token api.Token
	must(w, json.NewDecoder(resp.Body).Decode(&token))
	id := resp.Header.Get("Jobgate-Exchange-Id")
	if !exchangeID.MatchString(id) {
		t.Fatalf("the header is %q", id)
	}
	if code, out, errs := w.command("-o", "json", "explain", id); code != exitDone || !strings.Contains(out, token.SessionID) {
		t.Errorf("explain %s: %d %s%s", id, code, out, errs)
	}
}
