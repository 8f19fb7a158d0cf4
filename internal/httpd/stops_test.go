package httpd_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// fakeStops knows the connection anthropic, the mapping agents, and all.
type fakeStops struct {
	list []federation.StopInfo
	err  error
}

func (f *fakeStops) List() []federation.StopInfo { return f.list }

func (f *fakeStops) Stop(_ context.Context, order access.StopOrder) (federation.StopChange, error) {
	if name := string(order.Kind) + " " + order.Name; name != "connection anthropic" && name != "mapping agents" && name != "all " {
		return federation.StopChange{}, access.Refuse(access.CodeNotFound, "there is no "+name)
	}
	order.At = noon
	info := federation.StopInfo{StopOrder: order, Sessions: 1}
	f.list = append(f.list, info)
	return federation.StopChange{Stop: info, Changed: true, Cut: 2, InForce: f.list}, f.err
}

func (f *fakeStops) Resume(_ context.Context, kind access.StopKind, name, _ string) (federation.StopChange, error) {
	for i, s := range f.list {
		if s.Kind == kind && s.Name == name {
			f.list = append(f.list[:i], f.list[i+1:]...)
			return federation.StopChange{Stop: s, Changed: true, InForce: f.list}, nil
		}
	}
	return federation.StopChange{InForce: f.list}, nil
}

func TestStops(t *testing.T) {
	w := newWorld(t, mapping("agents"))
	w.sessions.rows["ses_1"] = openSession("ses_1")
	p := w.people()
	change := decode[api.StopChange](t, admin(t, p, "PUT", "/v1/stops/mapping/agents", `{"reason": "key leaked"}`), http.StatusOK)
	if s := change.Stop; s == nil || s.Kind != "mapping" || s.Name != "agents" || s.Reason != "key leaked" || s.By != "admin token" || !change.Changed || change.Cut != 2 {
		t.Errorf("stop = %+v", change)
	}
	if list := decode[api.List[api.StopView]](t, admin(t, p, "GET", "/v1/stops", ""), http.StatusOK); len(list.Items) != 1 {
		t.Errorf("list = %+v", list)
	}
	if m := decode[api.MappingView](t, admin(t, p, "GET", "/v1/mappings/agents", ""), http.StatusOK); m.Stopped == nil || m.Stopped.Reason != "key leaked" {
		t.Errorf("the mapping says %+v", m.Stopped)
	}
	if s := decode[api.SessionView](t, admin(t, p, "GET", "/v1/sessions/ses_1", ""), http.StatusOK); len(s.Stopped) != 1 {
		t.Errorf("the session says %+v", s.Stopped)
	}
	if s := decode[api.List[api.SessionView]](t, admin(t, p, "GET", "/v1/sessions", ""), http.StatusOK); len(s.Items[0].Stopped) != 1 {
		t.Errorf("the list of sessions says %+v", s.Items[0].Stopped)
	}
	_ = decode[api.StopChange](t, admin(t, p, "PUT", "/v1/stops/all", ""), http.StatusOK)
	change = decode[api.StopChange](t, admin(t, p, "DELETE", "/v1/stops/mapping/agents", ""), http.StatusOK)
	if change.Stop == nil || !change.Changed || len(change.InForce) != 1 || change.InForce[0].Kind != "all" {
		t.Errorf("resume = %+v", change)
	}
	for range 2 {
		change = decode[api.StopChange](t, admin(t, p, "DELETE", "/v1/stops/all", ""), http.StatusOK)
	}
	if change.Stop != nil || change.Changed {
		t.Errorf("resuming again = %+v", change)
	}
}

func TestStopsAreRefused(t *testing.T) {
	w := newWorld(t, mapping("agents"))
	p := w.people()
	if got := ask(t, p, "PUT", "/v1/stops/all", "").Code; got != http.StatusUnauthorized {
		t.Errorf("without a token = %d", got)
	}
	problem(t, admin(t, p, "PUT", "/v1/stops/connection/other", ""), http.StatusNotFound, "not_found")
	problem(t, admin(t, p, "PUT", "/v1/stops/mapping/agents", `{"reson": "x"}`), http.StatusBadRequest, "invalid_request")
	problem(t, admin(t, p, "PUT", "/v1/stops/all", strings.Repeat(" ", 1<<20+1)), http.StatusRequestEntityTooLarge, "too_large")
	if got := admin(t, p, "PUT", "/v1/stops/all/everything", "").Code; got != http.StatusNotFound {
		t.Errorf("a name for all = %d", got)
	}
}
