package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
	"github.com/jobgate/jobgate/proxy/upstream"
)

// lever is a kill switch for one session, as the real one works: in force first, then telling who is under way.
type lever struct {
	pulled atomic.Pointer[access.StopOrder]
}

func (l *lever) stopped(connection, mapping string) *access.Error {
	if stop := l.pulled.Load(); stop != nil {
		return stop.Refusal()
	}
	return nil
}

// pull returns when every call that it cut has left its upstream.
func (l *lever) pull(t testing.TB, s *access.Session) (cut int) {
	t.Helper()
	l.pulled.Store(&access.StopOrder{Kind: access.StopConnection, Name: "anthropic", Reason: "key leaked"})
	leaving := s.StopsChanged()
	limit := time.After(20 * time.Second)
	for _, left := range leaving {
		select {
		case <-left:
		case <-limit:
			t.Fatal("a call that was cut does not leave its upstream")
		}
	}
	return len(leaving)
}

const itsStop = `Jobgate: connection \"anthropic\" is stopped by an operator: key leaked; no call passes until an operator resumes it`

func TestStopCutsAStream(t *testing.T) {
	var l lever
	w := newWorld(t, options{model: held(5), stopped: l.stopped})
	resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
	body := bufio.NewReader(resp.Body)
	for {
		line, err := body.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "text_delta") {
			break
		}
	}
	if cut := l.pull(t, w.session); cut != 1 {
		t.Errorf("%d calls were cut", cut)
	}
	rest, err := io.ReadAll(body)
	if err != nil {
		t.Errorf("the stream ends with %v", err)
	}
	list := events(t, string(rest))
	if last := list[len(list)-1]; last.name != "error" || !strings.Contains(last.data, "policy_blocked") || !strings.Contains(last.data, itsStop) {
		t.Errorf("the stream ends with %+v", last)
	}
	w.settled(1)
	end := w.record.await(t, record.TypeCallEnded, 1)[0].Data.(record.CallEnded)
	if end.Reason != "stopped" || !strings.Contains(end.Detail, "key leaked") {
		t.Errorf("call.ended = %+v", end)
	}
	resp = w.call("POST", "/anthropic/v1/messages", message(true, ""))
	if answer := read(t, resp); resp.StatusCode != 400 || resp.Header.Get("X-Should-Retry") != "false" || !strings.Contains(answer, "policy_blocked") || !strings.Contains(answer, itsStop) {
		t.Errorf("the next call gets %d %s", resp.StatusCode, answer)
	}
	w.settled(1)
	end = w.record.await(t, record.TypeCallEnded, 2)[1].Data.(record.CallEnded)
	if end.Reason != "stopped" || end.Counts.Requests != 0 {
		t.Errorf("the next call.ended = %+v", end)
	}
	if got := len(w.model.Requests()); got != 1 {
		t.Errorf("the upstream saw %d requests", got)
	}
	if reason, _ := w.session.EndReason(); reason != "" {
		t.Errorf("the session has ended: %s", reason)
	}
	if tally, denials := w.session.Tally(); tally.Denials != 2 || !strings.Contains(denials[0].Reason, "key leaked") {
		t.Errorf("the summary has %+v %+v", tally, denials)
	}
	l.pulled.Store(nil)
	w.model.SetScript(testkit.ScriptSay("back"))
	if resp := w.call("POST", "/anthropic/v1/messages", message(false, "")); resp.StatusCode != 200 {
		t.Errorf("after it is lifted: %d", resp.StatusCode)
	}
}

func TestStopPassesWhatItDoesNotName(t *testing.T) {
	w := newWorld(t, options{model: held(5), stopped: func(connection, _ string) *access.Error {
		if connection == "plain" {
			return access.StopOrder{Kind: access.StopConnection, Name: "plain"}.Refusal()
		}
		return nil
	}, upstream: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { t.Error("the upstream was reached") })})
	resp := w.call("POST", "/anthropic/v1/messages", message(true, ""))
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if leaving := w.session.StopsChanged(); len(leaving) != 0 {
		t.Errorf("%d calls of another connection leave", len(leaving))
	}
	plain := w.call("GET", "/plain/a", "")
	if answer := read(t, plain); plain.StatusCode != 403 || !strings.Contains(answer, "urn:jobgate:problem:stopped") {
		t.Errorf("a call of kind http gets %d %s", plain.StatusCode, answer)
	}
	w.session.End(access.EndOperator, time.Now())
	w.settled(2)
}

// A session that sleeps is told of the stop and not 401, which would make its client exchange and try again.
func TestStopOfASessionThatSleeps(t *testing.T) {
	var l lever
	w := newWorld(t, options{asleep: true, stopped: l.stopped})
	l.pull(t, w.session)
	if resp := w.call("POST", "/anthropic/v1/messages", message(true, "")); resp.StatusCode != 400 || !strings.Contains(read(t, resp), itsStop) {
		t.Errorf("it gets %d", resp.StatusCode)
	}
	l.pulled.Store(nil)
	if resp := w.call("POST", "/anthropic/v1/messages", message(true, "")); resp.StatusCode != 401 {
		t.Errorf("after the stop it gets %d", resp.StatusCode)
	}
	w.session.End(access.EndOperator, time.Now())
	if resp := w.call("POST", "/anthropic/v1/messages", message(true, "")); resp.StatusCode != 400 || strings.Contains(read(t, resp), "stopped") {
		t.Errorf("of an ended session it gets %d", resp.StatusCode)
	}
}

// A question is cancelled, and an answer that comes all the same lets nothing pass.
func TestStopCancelsQuestions(t *testing.T) {
	var l lever
	w := newWorld(t, options{stopped: l.stopped, policy: func(p *access.Policy) {
		p.Grants[0].Rules = []access.Rule{{Name: "all", Effect: access.Ask, When: "true", Reason: "asks", Timeout: time.Minute}}
	}})
	cancelled := make(chan string, 1)
	asked := make(chan struct{})
	w.people.answer = func(ctx context.Context, a access.Approval) (access.Approval, error) {
		close(asked)
		<-ctx.Done()
		cancelled <- access.PublicText(context.Cause(ctx))
		a.State = access.Approved // the vote was first, by a hair
		return a, nil
	}
	done := make(chan string, 1)
	go func() {
		resp, err := w.try(t.Context(), "POST", "/anthropic/v1/messages", strings.NewReader(message(true, "")))
		if err != nil {
			done <- err.Error()
			return
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		done <- string(b)
	}()
	<-asked
	if cut := l.pull(t, w.session); cut != 1 {
		t.Errorf("%d calls were cut", cut)
	}
	if why := <-cancelled; !strings.Contains(why, "key leaked") {
		t.Errorf("the question is cancelled because %q", why)
	}
	if answer := <-done; !strings.Contains(answer, itsStop) {
		t.Errorf("the client gets %q", answer)
	}
	if got := len(w.model.Requests()); got != 0 {
		t.Errorf("the upstream saw %d requests", got)
	}
}

// watchedConn counts what is written after a stop was answered.
type watchedConn struct {
	net.Conn
	quiet *atomic.Bool
	late  *atomic.Int64
}

func (c watchedConn) Write(b []byte) (int, error) {
	quiet := c.quiet.Load()
	n, err := c.Conn.Write(b)
	if quiet && n > 0 {
		c.late.Add(1)
	}
	return n, err
}

// TestStopRaces starts calls and streams without a pause while stops land: once a stop has been answered, no byte goes to
// an upstream.
func TestStopRaces(t *testing.T) {
	for name, carries := range map[string]func(dial) http.RoundTripper{
		"own transport": func(d dial) http.RoundTripper { return upstream.New(upstream.Config{Dial: d}) },
		"net/http's":    func(d dial) http.RoundTripper { return &http.Transport{MaxIdleConnsPerHost: 64, DialContext: d} },
	} {
		t.Run(name, func(t *testing.T) { stopRaces(t, carries) })
	}
}

type dial = func(ctx context.Context, network, address string) (net.Conn, error)

func stopRaces(t *testing.T, carries func(dial) http.RoundTripper) {
	var l lever
	var quiet atomic.Bool
	var late atomic.Int64
	var dialer net.Dialer
	transport := carries(func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, address)
		return watchedConn{c, &quiet, &late}, err
	})
	w := newWorld(t, options{stopped: l.stopped, carries: transport, model: testkit.ModelConfig{Script: testkit.ScriptSay("short")}})
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var passed, refused atomic.Int64
	for i := range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				resp, err := w.try(ctx, "POST", "/anthropic/v1/messages", strings.NewReader(message(i%2 == 0, "")))
				if err != nil {
					continue
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				switch stopped := strings.Contains(string(b), itsStop); {
				case stopped:
					refused.Add(1)
				case resp.StatusCode == 200 && strings.Contains(string(b), "short"):
					passed.Add(1)
				default:
					t.Errorf("a call gets %d %s", resp.StatusCode, b)
				}
			}
		})
	}
	more := func(n *atomic.Int64) {
		t.Helper()
		from := n.Load()
		for until := time.Now().Add(20 * time.Second); n.Load() < from+10; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("the calls do not go on")
			}
		}
	}
	for range 40 {
		more(&passed)
		l.pull(t, w.session)
		quiet.Store(true)
		more(&refused)
		if n := late.Load(); n > 0 {
			t.Fatalf("%d writes to the upstream after the stop was answered", n)
		}
		quiet.Store(false)
		l.pulled.Store(nil)
	}
	cancel()
	clients.Wait()
}
