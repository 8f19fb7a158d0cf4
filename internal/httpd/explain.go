package httpd

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// Explainer says what the mappings in force make of a token, of claims, or of an exchange that was.
type Explainer interface {
	Explain(ctx context.Context, r api.ExplainRequest) (api.Explanation, error)
}

// explain answers 200 also for a job that would be refused: that is the answer. The body may hold a CI token, so it is
// neither logged nor told in an error.
func (p *People) explain(g *gin.Context) error {
	raw, err := readBody(g.Request, maxAdminBody)
	if err != nil {
		return err
	}
	r, err := api.DecodeExplain(raw)
	if err != nil {
		return access.Refuse(access.CodeInvalid, err.Error())
	}
	out, err := p.c.Explainer.Explain(g.Request.Context(), r)
	if err != nil {
		return err
	}
	writeJSON(g.Writer, http.StatusOK, out)
	return nil
}

// previewMapping says what a PUT would do.
func (p *People) previewMapping(g *gin.Context, spec api.Mapping, ifMatch int64) error {
	preview, err := p.c.Mappings.Preview(spec, ifMatch)
	if err != nil {
		return err
	}
	writeJSON(g.Writer, http.StatusOK, previewView(spec, preview))
	return nil
}

func previewView(spec api.Mapping, v federation.Preview) api.MappingPreview {
	out := api.MappingPreview{Name: spec.Name, Revision: v.Row.Revision, Changed: v.Changed, After: spec, Ends: []api.SessionEnding{}, Stay: v.Stay}
	if v.Row.Revision > 0 {
		out.Before = &v.Before
	}
	for _, s := range v.Ends {
		out.Ends = append(out.Ends, api.SessionEnding{ID: s.ID, Job: s.Job, Reason: s.Why})
	}
	return out
}
