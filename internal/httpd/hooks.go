package httpd

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

const (
	// maxHook bounds a delivery. Those about jobs have some 20 KB.
	maxHook = 1 << 20
	// hookTimeout ends a delivery before its sender gives up: GitHub and GitLab wait for ten seconds.
	hookTimeout = 8 * time.Second
)

// Hooks takes what CI providers say of jobs.
type Hooks interface {
	Receive(ctx context.Context, kind string, header http.Header, body []byte) (federation.HookResult, error)
}

// hookRoutes serves POST /hooks/{kind}. The bytes that came are what is verified.
func (j *Jobs) hookRoutes() {
	for _, kind := range federation.HookKinds() {
		j.router.POST("/hooks/"+kind, func(g *gin.Context) {
			ctx, cancel := context.WithTimeout(g.Request.Context(), hookTimeout)
			defer cancel()
			result, err := j.receive(ctx, kind, g.Request)
			if err != nil {
				j.refuseHook(g.Writer, kind, err)
				return
			}
			writeJSON(g.Writer, http.StatusOK, api.HookResult(result))
		})
	}
}

func (j *Jobs) receive(ctx context.Context, kind string, r *http.Request) (federation.HookResult, error) {
	body, err := readBody(r, maxHook)
	if err != nil {
		return federation.HookResult{}, err
	}
	if j.c.Hooks == nil {
		return federation.HookResult{}, access.Refuse(access.CodeNotFound, "webhooks are not configured")
	}
	return j.c.Hooks.Receive(ctx, kind, r.Header, body)
}

func (j *Jobs) refuseHook(w http.ResponseWriter, kind string, err error) {
	code := access.CodeOf(err)
	status := map[access.Code]int{
		access.CodeNotFound: http.StatusNotFound, access.CodeUnauthenticated: http.StatusUnauthorized, access.CodeInvalid: http.StatusBadRequest,
		access.CodeTooLarge: http.StatusRequestEntityTooLarge, access.CodeCanceled: http.StatusBadRequest,
	}[code]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	j.c.Log.Warn("a webhook was refused", "kind", kind, "error", err)
	writeProblem(w, status, string(code), access.PublicText(err))
}
