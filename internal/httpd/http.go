package httpd

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/internal/api"
)

// newRouter returns a gin engine that neither redirects nor cleans paths, and logs through slog.
func newRouter(log *slog.Logger) *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.RedirectTrailingSlash = false
	r.RedirectFixedPath = false
	r.HandleMethodNotAllowed = true
	r.ContextWithFallback = true
	_ = r.SetTrustedProxies(nil)
	r.Use(func(g *gin.Context) {
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				log.Error("a handler panicked", "path", g.FullPath(), "panic", p)
				g.AbortWithStatus(http.StatusInternalServerError)
			}
		}()
		g.Next()
	})
	r.NoRoute(func(g *gin.Context) {
		writeProblem(g.Writer, http.StatusNotFound, "not_found", "there is nothing at this path")
	})
	r.NoMethod(func(g *gin.Context) {
		writeProblem(g.Writer, http.StatusMethodNotAllowed, "method_not_allowed", "this path does not take that method")
	})
	return r
}

// health serves /healthz, the process lives, and /readyz, it can serve.
func health(r *gin.Engine, ready func(context.Context) error) {
	r.GET("/healthz", func(g *gin.Context) { g.String(http.StatusOK, "ok\n") })
	r.GET("/readyz", func(g *gin.Context) {
		if ready != nil {
			if err := ready(g.Request.Context()); err != nil {
				g.String(http.StatusServiceUnavailable, "not ready\n")
				return
			}
		}
		g.String(http.StatusOK, "ok\n")
	})
}

// writeJSON writes an answer that nobody may keep.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := api.Encode(v)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func writeProblem(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	body, err := api.Encode(api.Problem{Type: "urn:jobgate:problem:" + code, Title: http.StatusText(status), Status: status, Detail: detail})
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
