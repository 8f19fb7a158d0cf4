package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"
)

// asking asks about every call of a connection.
func asking(p *access.Policy) {
	for i := range p.Grants {
		p.Grants[i].Rules = []access.Rule{{Name: "calls", Effect: access.Ask, When: `call.method == "POST"`, Reason: "people look first", Approvers: []string{"sre"}, Timeout: time.Minute}}
	}
}

var quick = proxy.Bounds{Ping: 2 * time.Millisecond}

// pinged reads a held stream until it has been kept alive n times.
func pinged(t *testing.T, r *bufio.Reader, n int) {
	t.Helper()
	for n > 0 {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ends while it is held: %v", err)
		}
		if line == "event: ping\n" {
			n--
		}
	}
}

func TestApprovedStream(t *testing.T) {
	w := newWorld(t, options{policy: asking, limits: quick})
	resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("a held stream begins with %d, %s", resp.StatusCode, resp.Header)
	}
	asked := <-w.people.arrive
	body := bufio.NewReader(resp.Body)
	pinged(t, body, 3)
	if n := len(w.model.Requests()); n != 0 {
		t.Fatalf("%d requests reached the model before anybody said yes", n)
	}
	if asked.Digest == "" || asked.Title != "POST /v1/messages" || asked.Text != message(true, "") || asked.Rule != "calls" || asked.Approvers[0] != "sre" || asked.Revision != 1 {
		t.Errorf("asked %+v", asked)
	}
	w.people.reply <- vote(access.Approved)
	rest, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(rest); !strings.HasSuffix(got, string(w.model.Sent(0))) {
		t.Errorf("the answer is not the model's: %s", got)
	}
	w.settled(1)
	want := "call.started decision approval.asked approval.decided call.sent response call.ended"
	if got := strings.Join(w.record.types(), " "); got != want {
		t.Errorf("the record has %s, want %s", got, want)
	}
	if tally, _ := w.session.Tally(); tally.Asked != 1 || tally.Approved != 1 {
		t.Errorf("tally = %+v", tally)
	}
}

func TestApprovedWhole(t *testing.T) {
	w := newWorld(t, options{policy: asking, upstream: http.HandlerFunc(echo)})
	for _, path := range []string{"/anthropic/v1/messages", "/plain/a?b=c"} {
		w.people.reply <- vote(access.Approved)
		resp := w.call("POST", path, message(false, ""))
		if body := read(t, resp); resp.StatusCode != 200 {
			t.Errorf("status %d: %s", resp.StatusCode, body)
		}
	}
	<-w.people.arrive
	if a := <-w.people.arrive; a.Title != "POST /a?b=c" || a.Text != message(false, "") {
		t.Errorf("asked %+v", a)
	}
}

// A no is said twice: in the stream, and to the client's repeat without one, which has the same digest.
func TestDeniedStreamAndItsRepeat(t *testing.T) {
	w := newWorld(t, options{policy: asking, limits: quick})
	no := map[string]access.Approval{}
	w.people.answer = func(_ context.Context, a access.Approval) (access.Approval, error) {
		if prior, ok := no[a.Digest]; ok {
			return prior, nil
		}
		v := vote(access.Denied)
		v.Reason = "not today"
		a, err := a.Settle(v)
		no[a.Digest] = a
		return a, err
	}
	body := read(t, w.call("POST", "/anthropic/v1/messages", message(true, "")))
	list := events(t, body)
	last := list[len(list)-1]
	if last.name != "error" || !strings.Contains(last.message, "not today") || !strings.Contains(last.data, "policy_blocked") {
		t.Errorf("the stream ends with %+v", last)
	}
	resp := w.call("POST", "/anthropic/v1/messages", message(false, ""))
	body = read(t, resp)
	if resp.StatusCode != 400 || !strings.Contains(body, "policy_blocked") || !strings.Contains(body, "not today") || resp.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("the repeat gets %d: %s", resp.StatusCode, body)
	}
	if n := len(w.model.Requests()); n != 0 {
		t.Errorf("%d requests reached the model", n)
	}
	w.settled(2)
	if tally, denials := w.session.Tally(); tally.Asked != 1 || tally.Refused != 1 || len(denials) != 2 {
		t.Errorf("tally = %+v, %+v", tally, denials)
	}
	if n := w.session.CountsOf("anthropic"); n != (access.Counts{}) {
		t.Errorf("what was not sent is counted: %+v", n)
	}
	if !strings.Contains(w.record.text(), "remembered from ") {
		t.Error("the record does not say that the answer was remembered")
	}
}

func TestExpiredAndMissingPeople(t *testing.T) {
	w := newWorld(t, options{policy: asking})
	w.people.answer = func(_ context.Context, a access.Approval) (access.Approval, error) {
		return a.Settle(access.Vote{State: access.Expired, At: time.Now()})
	}
	resp := w.call("POST", "/anthropic/v1/messages", message(false, ""))
	if body := read(t, resp); resp.StatusCode != 400 || !strings.Contains(body, "nobody answered") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	w.people.answer = func(_ context.Context, a access.Approval) (access.Approval, error) {
		return access.Approval{}, errors.New("the docket is away")
	}
	resp = w.call("POST", "/anthropic/v1/messages", message(false, ""))
	if body := read(t, resp); resp.StatusCode != 500 || strings.Contains(body, "docket") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	w.settled(2)
	if d := w.record.await(t, record.TypeApprovalDecided, 2)[1].Data.(record.ApprovalDecided); d.State != "cancelled" {
		t.Errorf("a question whose fate is not known is recorded as %+v", d)
	}
	alone := newWorld(t, options{policy: asking, noPeople: true})
	resp = alone.call("POST", "/anthropic/v1/messages", message(false, ""))
	if body := read(t, resp); resp.StatusCode != 400 || !strings.Contains(body, "nobody to ask") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if n := len(w.model.Requests()) + len(alone.model.Requests()); n != 0 {
		t.Errorf("%d requests reached the model", n)
	}
}

func TestClientThatLeavesCancelsItsQuestion(t *testing.T) {
	for _, stream := range []bool{true, false} {
		w := newWorld(t, options{policy: asking, limits: quick})
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			resp, err := w.try(ctx, "POST", "/anthropic/v1/messages", strings.NewReader(message(stream, "")))
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			gone <- err
		}()
		<-w.people.arrive
		leave()
		if err := <-gone; err == nil {
			t.Error("the client did not notice that it left")
		}
		w.settled(1)
		d := w.record.await(t, record.TypeApprovalDecided, 1)[0].Data.(record.ApprovalDecided)
		end := w.record.await(t, record.TypeCallEnded, 1)[0].Data.(record.CallEnded)
		if d.State != "cancelled" || end.Reason != "client_gone" {
			t.Errorf("stream=%t: decided %+v, ended %+v", stream, d, end)
		}
		if n := len(w.model.Requests()); n != 0 {
			t.Errorf("%d requests reached the model", n)
		}
	}
}

func TestWhatChangesWhilePeopleThink(t *testing.T) {
	rename := func(p *access.Policy) { asking(p); p.Grants[0].Rules[0].Name = "other" }
	for _, c := range []struct {
		name   string
		change func(*world)
		status int // of a call that is not streamed
		says   string
	}{
		{"nothing that matters", func(w *world) { w.change(2, asking) }, 200, ""},
		{"the rule is gone", func(w *world) { w.change(2, nil) }, 200, ""},
		{"the grant is gone", func(w *world) { w.change(2, func(p *access.Policy) { p.Grants = p.Grants[1:] }) }, 400, "grants nothing"},
		{"a rule denies", func(w *world) {
			w.change(2, func(p *access.Policy) {
				p.Grants[0].Rules = []access.Rule{{Name: "closed", Effect: access.Deny, When: "true", Reason: "closed for today"}}
			})
		}, 400, "closed for today"},
		{"another rule asks", func(w *world) { w.change(2, rename) }, 400, "the mapping was changed while people decided"},
		{"other people are asked", func(w *world) {
			w.change(2, func(p *access.Policy) { asking(p); p.Grants[0].Rules[0].Approvers = []string{"board"} })
		}, 400, "the mapping was changed while people decided"},
		{"the limit is spent", func(w *world) {
			w.change(2, func(p *access.Policy) { asking(p); p.Grants[0].Limits.OutputTokens = 50 })
		}, 429, "50 output tokens"},
		{"the session ends", func(w *world) { w.session.End(access.EndOperator, time.Now()) }, 400, "an operator closed it"},
	} {
		for _, stream := range []bool{true, false} {
			t.Run(c.name, func(t *testing.T) {
				w := newWorld(t, options{policy: asking, limits: quick})
				answer := make(chan *http.Response, 1)
				go func() { answer <- w.call("POST", "/anthropic/v1/messages", message(stream, "")) }()
				<-w.people.arrive
				c.change(w)
				w.people.reply <- vote(access.Approved)
				resp := <-answer
				body := read(t, resp)
				if want := c.status; resp.StatusCode != want && !stream || !strings.Contains(body, c.says) {
					t.Errorf("stream=%t: status %d, want %d: %s", stream, resp.StatusCode, want, body)
				}
				if stream && c.says != "" && !strings.Contains(body, "event: error") {
					t.Errorf("the stream ends without an error: %s", body)
				}
				w.settled(1)
				if n := len(w.model.Requests()); (n == 1) != (c.status == 200) {
					t.Errorf("%d requests reached the model", n)
				}
				started, ended := w.record.await(t, record.TypeCallStarted, 1)[0], w.record.await(t, record.TypeCallEnded, 1)[0]
				if started.Call != ended.Call {
					t.Errorf("call %s started, and %s ended", started.Call, ended.Call)
				}
				if c.status != 200 && w.session.CountsOf("anthropic") != (access.Counts{}) {
					t.Errorf("counts = %+v", w.session.CountsOf("anthropic"))
				}
			})
		}
	}
}

// A mapping that changes while the request is still read judges it all the same.
func TestChangeWhileTheRequestIsRead(t *testing.T) {
	w := newWorld(t, options{})
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	body := message(false, "")
	_, _ = fmt.Fprintf(c, "POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nAnthropic-Version: 2023-06-01\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", w.token, len(body))
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("read %q, %v", line, err)
	}
	w.change(2, func(p *access.Policy) { p.Grants[0].Allow = nil }) // the session was looked at, the body was not
	_, _ = r.ReadString('\n')
	_, _ = io.WriteString(c, body)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body := read(t, resp); resp.StatusCode != 400 || !strings.Contains(body, "allow list") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if n := len(w.model.Requests()); n != 0 {
		t.Errorf("%d requests reached the model", n)
	}
}

func TestLongBodiesAreNotHeldForPeople(t *testing.T) {
	w := newWorld(t, options{policy: asking, upstream: http.HandlerFunc(echo), limits: proxy.Bounds{Held: 64 << 10}})
	body := message(true, `,"x":"`+strings.Repeat("y", 65<<10)+`"`)
	if resp := w.call("POST", "/anthropic/v1/messages", body); resp.StatusCode != 400 {
		t.Errorf("status %d: %s", resp.StatusCode, read(t, resp))
	}
	if resp := w.call("POST", "/plain/a", body); resp.StatusCode != 413 {
		t.Errorf("status %d: %s", resp.StatusCode, read(t, resp))
	}
	if n := len(w.people.questions()) + len(w.model.Requests()); n != 0 {
		t.Errorf("%d questions and calls", n)
	}
}

// An upstream's refusal reaches a stream that was kept alive as an event, whatever it looks like.
func TestUpstreamRefusesAHeldStream(t *testing.T) {
	for name, c := range map[string]struct {
		upstream http.HandlerFunc
		says     string
	}{
		"envelope": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(529)
			_, _ = io.WriteString(w, "{\"type\":\"error\",\r\n\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n")
		}, "Overloaded"},
		"page": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(502)
			_, _ = io.WriteString(w, "<html>\n\nBad gateway</html>")
		}, "status 502"},
		"no JSON": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(500)
			_, _ = io.WriteString(w, "oops\n\nevent: content_block_start\n\n")
		}, "status 500"},
		"empty": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, "content-type"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldWith(t, options{policy: asking, limits: quick}, c.upstream)
			w.people.reply <- vote(access.Approved)
			body := read(t, w.call("POST", "/anthropic/v1/messages", message(true, "")))
			list := events(t, body)
			last := list[len(list)-1]
			if last.name != "error" || last.kind != "error" || !strings.Contains(last.message, c.says) {
				t.Errorf("the stream ends with %+v of %s", last, body)
			}
			for _, e := range list {
				if e.name != "ping" && e.name != "error" {
					t.Errorf("the stream holds %+v", e)
				}
			}
			w.settled(1)
			w.record.await(t, record.TypeCallEnded, 1)
		})
	}
}

// Dormancy that came while people decided is told so that the client exchanges again.
func TestAnswerAfterTheLease(t *testing.T) {
	clock := &clock{now: time.Now()}
	w := newWorld(t, options{policy: asking, now: clock.Now})
	answer := make(chan *http.Response, 1)
	go func() { answer <- w.call("POST", "/anthropic/v1/messages", message(false, "")) }()
	<-w.people.arrive
	clock.add(20 * time.Minute)
	w.people.reply <- vote(access.Approved)
	if resp := <-answer; resp.StatusCode != 401 {
		t.Errorf("status %d: %s", resp.StatusCode, read(t, resp))
	}
	if n := len(w.model.Requests()); n != 0 {
		t.Errorf("%d requests reached the model", n)
	}
}

// Where several rules ask, each gets its own yes; one no is enough.
func TestEveryRuleThatAsksIsHeard(t *testing.T) {
	for _, about := range []string{"call", "tool"} {
		for _, answers := range [][]access.ApprovalState{{access.Approved, access.Approved}, {access.Approved, access.Denied}, {access.Denied}} {
			t.Run(fmt.Sprint(about, answers), func(t *testing.T) {
				when := map[string]string{"call": `call.method == "POST"`, "tool": `tool.name == "Bash"`}[about]
				w := newWorld(t, options{limits: quick, model: askingModel(), policy: toolRules(access.Tell,
					access.Rule{Name: "dev", Effect: access.Ask, When: when, Reason: "r", Approvers: []string{"dev"}},
					access.Rule{Name: "sre", Effect: access.Ask, When: when, Reason: "r", Approvers: []string{"sre"}})})
				for _, a := range answers {
					w.people.reply <- vote(a)
				}
				body := read(t, w.call("POST", "/anthropic/v1/messages", message(true, "")))
				yes := answers[len(answers)-1] == access.Approved
				if strings.Contains(body, `"name":"Bash"`) != yes {
					t.Errorf("the client gets %s", body)
				}
				asked := w.people.questions()
				if len(asked) != len(answers) || asked[0].Rule != "dev" || len(asked) > 1 && (asked[1].Rule != "sre" || asked[1].Digest != asked[0].Digest) {
					t.Errorf("asked %+v", asked)
				}
				if about == "call" && (len(w.model.Requests()) == 1) != yes {
					t.Errorf("%d requests reached the model", len(w.model.Requests()))
				}
			})
		}
	}
}
