package httpd

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// maxPlanBody bounds a plan: the mappings of a large configuration file.
const maxPlanBody = 16 << 20

// Planner says what other mappings would have made of the exchanges of the last days.
type Planner interface {
	Plan(ctx context.Context, r api.PlanRequest) (api.Plan, error)
}

func (p *People) planMappings(g *gin.Context) error {
	raw, err := readBody(g.Request, maxPlanBody)
	if err != nil {
		return err
	}
	r, err := api.DecodePlan(raw)
	if err != nil {
		return access.Refuse(access.CodeInvalid, err.Error())
	}
	out, err := p.c.Planner.Plan(g.Request.Context(), r)
	if err != nil {
		return err
	}
	writeJSON(g.Writer, http.StatusOK, out)
	return nil
}
