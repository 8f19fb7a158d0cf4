package httpd

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// Stops is the kill switch.
type Stops interface {
	List() []federation.StopInfo
	Stop(ctx context.Context, order access.StopOrder) (federation.StopChange, error)
	Resume(ctx context.Context, kind access.StopKind, name, by string) (federation.StopChange, error)
}

func (p *People) stopRoutes(v1 *gin.RouterGroup) {
	v1.GET("/stops", p.answer(p.listStops))
	v1.PUT("/stops/all", p.answer(p.stop))
	v1.DELETE("/stops/all", p.answer(p.resume))
	v1.PUT("/stops/:kind/:name", p.answer(p.stop))
	v1.DELETE("/stops/:kind/:name", p.answer(p.resume))
}

func (p *People) listStops(g *gin.Context) error {
	writeJSON(g.Writer, http.StatusOK, api.List[api.StopView]{Items: stopViews(p.c.Stops.List())})
	return nil
}

// stop puts a stop in force. It takes no If-Match: whoever is woken by an incident has no revision at hand, and stopping
// twice does no harm.
func (p *People) stop(g *gin.Context) error {
	raw, err := readBody(g.Request, maxAdminBody)
	if err != nil {
		return err
	}
	body, err := api.DecodeStop(raw)
	if err != nil {
		return access.Refuse(access.CodeInvalid, err.Error())
	}
	kind, name := stopped(g)
	change, err := p.c.Stops.Stop(g.Request.Context(), access.StopOrder{Kind: kind, Name: name, Reason: body.Reason, By: caller(g.Request)})
	if err != nil {
		return err
	}
	writeJSON(g.Writer, http.StatusOK, stopChange(change))
	return nil
}

func (p *People) resume(g *gin.Context) error {
	kind, name := stopped(g)
	change, err := p.c.Stops.Resume(g.Request.Context(), kind, name, caller(g.Request))
	if err != nil {
		return err
	}
	writeJSON(g.Writer, http.StatusOK, stopChange(change))
	return nil
}

// stopped is what a path names.
func stopped(g *gin.Context) (access.StopKind, string) {
	if kind := g.Param("kind"); kind != "" {
		return access.StopKind(kind), g.Param("name")
	}
	return access.StopAll, ""
}

func stopChange(c federation.StopChange) api.StopChange {
	out := api.StopChange{Changed: c.Changed, Cut: c.Cut, InForce: stopViews(c.InForce)}
	if c.Stop.Kind != "" {
		view := stopView(c.Stop)
		out.Stop = &view
	}
	return out
}

func stopViews(list []federation.StopInfo) []api.StopView {
	out := make([]api.StopView, 0, len(list))
	for _, s := range list {
		out = append(out, stopView(s))
	}
	return out
}

func stopView(s federation.StopInfo) api.StopView {
	return api.StopView{Kind: string(s.Kind), Name: s.Name, Reason: s.Reason, By: s.By, At: s.At.UTC(), Sessions: s.Sessions}
}

// stopOfMapping returns the stop that holds a mapping back, nil where none does.
func stopOfMapping(list []federation.StopInfo, mapping string) *api.StopView {
	for _, s := range list {
		if s.Kind == access.StopAll || s.Kind == access.StopMapping && s.Name == mapping {
			view := stopView(s)
			return &view
		}
	}
	return nil
}

// stopsOfSession returns the stops that hold back calls of a session that is open.
func stopsOfSession(list []federation.StopInfo, s federation.SessionInfo) []api.StopView {
	var out []api.StopView
	for _, stop := range list {
		if s.State != access.Ended && s.StoppedBy(stop.StopOrder) {
			out = append(out, stopView(stop))
		}
	}
	return out
}
