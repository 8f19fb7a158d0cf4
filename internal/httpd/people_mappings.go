package httpd

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

func (p *People) listMappings(g *gin.Context) error {
	infos, err := p.c.Mappings.List()
	if err != nil {
		return err
	}
	open, err := p.openByMapping(g.Request.Context())
	if err != nil {
		return err
	}
	out := api.MappingList{Items: []api.MappingView{}, Sources: []api.SourceView{}}
	if p.c.Sources != nil {
		out.Sources = p.c.Sources()
	}
	stops := p.c.Stops.List()
	for _, m := range infos {
		view := mappingView(m, open[m.Row.Name])
		view.Stopped = stopOfMapping(stops, m.Row.Name)
		out.Items = append(out.Items, view)
	}
	writeJSON(g.Writer, http.StatusOK, out)
	return nil
}

func (p *People) openByMapping(ctx context.Context) (map[string]int, error) {
	sessions, err := p.c.Sessions.List(ctx, true)
	if err != nil {
		return nil, err
	}
	open := make(map[string]int)
	for _, s := range sessions {
		open[s.Mapping]++
	}
	return open, nil
}

func mappingView(m federation.MappingInfo, open int) api.MappingView {
	return api.MappingView{
		Name: m.Row.Name, Revision: m.Row.Revision, Source: string(m.Row.Source), Deleted: !m.Row.Live(),
		Changed: m.Row.Changed.UTC().Format(time.RFC3339), By: m.Row.By, Sessions: open, Spec: m.Spec,
		Origin: originView(m.Origin),
	}
}

func originView(o access.Origin) *api.Origin {
	if o == (access.Origin{}) {
		return nil
	}
	return &api.Origin{From: o.From, Revision: o.Revision}
}

func (p *People) showMapping(g *gin.Context, m federation.MappingInfo) error {
	open, err := p.openByMapping(g.Request.Context())
	if err != nil {
		return err
	}
	g.Header("ETag", etag(m.Row.Revision))
	view := mappingView(m, open[m.Row.Name])
	view.Stopped = stopOfMapping(p.c.Stops.List(), m.Row.Name)
	writeJSON(g.Writer, http.StatusOK, view)
	return nil
}

func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

// ifMatch returns the revision of an If-Match header, 0 where there is none.
func ifMatch(r *http.Request) (int64, error) {
	value := r.Header.Get("If-Match")
	if value == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(value, "W/"), `"`), 10, 64)
	if err != nil || n <= 0 {
		return 0, access.Refuse(access.CodeInvalid, "If-Match must be the ETag that a GET of the mapping gave")
	}
	return n, nil
}

func (p *People) getMapping(g *gin.Context) error {
	m, err := p.c.Mappings.Get(g.Param("name"))
	if err != nil {
		return err
	}
	return p.showMapping(g, m)
}

func (p *People) putMapping(g *gin.Context) error {
	match, err := ifMatch(g.Request)
	if err != nil {
		return err
	}
	raw, err := readBody(g.Request, maxAdminBody)
	if err != nil {
		return err
	}
	spec, err := api.DecodeMapping(raw)
	if err != nil {
		return access.Refuse(access.CodeInvalid, err.Error())
	}
	if spec.Name == "" {
		spec.Name = g.Param("name")
	}
	if spec.Name != g.Param("name") {
		return access.Refuse(access.CodeInvalid, fmt.Sprintf("the body names the mapping %q, the path %q", clip(spec.Name), clip(g.Param("name"))))
	}
	switch dry := g.Query("dry_run"); dry {
	case "true":
		return p.previewMapping(g, spec, match)
	case "", "false":
	default:
		return access.Refuse(access.CodeInvalid, "dry_run can be true or false")
	}
	m, err := p.c.Mappings.Put(g.Request.Context(), spec, match, caller(g.Request))
	if err != nil {
		return err
	}
	p.c.Log.Info("mapping put", "mapping", spec.Name, "revision", m.Row.Revision, "by", caller(g.Request))
	return p.showMapping(g, m)
}

func (p *People) deleteMapping(g *gin.Context) error {
	match, err := ifMatch(g.Request)
	if err != nil {
		return err
	}
	if err := p.c.Mappings.Delete(g.Request.Context(), g.Param("name"), match, caller(g.Request)); err != nil {
		return err
	}
	p.c.Log.Info("mapping deleted", "mapping", g.Param("name"), "by", caller(g.Request))
	g.Writer.WriteHeader(http.StatusNoContent)
	return nil
}

func (p *People) restoreMapping(g *gin.Context) error {
	m, err := p.c.Mappings.Restore(g.Request.Context(), g.Param("name"), caller(g.Request))
	if err != nil {
		return err
	}
	p.c.Log.Info("mapping restored", "mapping", g.Param("name"), "by", caller(g.Request))
	return p.showMapping(g, m)
}
