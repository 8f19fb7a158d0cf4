package httpd

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

const (
	// probeLines and probePause make a stream of 800 ms: long enough to tell one that is held back from a slow network.
	probeLines, probePause = 5, 200 * time.Millisecond
	// probesAtOnce bounds the streams at one time. They need no token and cost a goroutine each.
	probesAtOnce = 32
)

// probe answers GET /_stream: five lines, a fifth of a second apart, framed as a model's stream is. Whoever reads them all
// at once has something on the way that holds streams back.
func (j *Jobs) probe(g *gin.Context) {
	select {
	case j.probes <- struct{}{}:
		defer func() { <-j.probes }()
	default:
		g.Header("Retry-After", "1")
		writeProblem(g.Writer, http.StatusServiceUnavailable, "unavailable", "too many such streams at once; try again")
		return
	}
	h := g.Writer.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	begun := time.Now()
	pause := time.NewTicker(probePause)
	defer pause.Stop()
	for n := 1; n <= probeLines; n++ {
		if n > 1 {
			select {
			case <-g.Request.Context().Done():
				return
			case <-pause.C:
			}
		}
		if _, err := fmt.Fprintf(g.Writer, "data: {\"line\":%d,\"of\":%d,\"at_ms\":%d}\n\n", n, probeLines, time.Since(begun).Milliseconds()); err != nil {
			return
		}
		g.Writer.Flush()
	}
}

// dryRun is POST /_dry-run: what POST /oauth/token would answer, without a token, and with nothing used up.
func (j *Jobs) dryRun(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	if f.Get("subject_token") == "" {
		return access.Refuse(access.CodeInvalid, "subject_token is missing: the CI provider's OIDC token goes there")
	}
	trial, err := j.c.Exchange.Try(ctx, federation.OpenRequest{
		Token: f.Get("subject_token"), Mapping: f.Get("mapping"), Scope: strings.Fields(f.Get("scope")),
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, api.DryRun{
		Exchange: trial.Exchange, Mapping: trial.Mapping, Connections: trial.Connections, SessionID: trial.Session,
		ExpiresIn: int64(trial.ExpiresIn / time.Second), Lease: int64(trial.Lease / time.Second),
	})
	return nil
}
