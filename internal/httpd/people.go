package httpd

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

//go:embed openapi.yaml
var openAPI []byte

// maxAdminBody bounds what the admin API reads: a mapping with a thousand rules fits.
const maxAdminBody = 1 << 20

// Mappings is the set of mappings that the admin API changes.
type Mappings interface {
	List() ([]federation.MappingInfo, error)
	Get(name string) (federation.MappingInfo, error)
	Put(ctx context.Context, spec api.Mapping, ifMatch int64, by string) (federation.MappingInfo, error)
	Preview(spec api.Mapping, ifMatch int64) (federation.Preview, error)
	Delete(ctx context.Context, name string, ifMatch int64, by string) error
	Restore(ctx context.Context, name, by string) (federation.MappingInfo, error)
}

// Sessions lists and ends sessions.
type Sessions interface {
	List(ctx context.Context, open bool) ([]federation.SessionInfo, error)
	Get(ctx context.Context, id string) (federation.SessionInfo, error)
	End(ctx context.Context, id string, reason access.EndReason, by string) error
}

// Desk lists questions and takes votes.
type Desk interface {
	List(ctx context.Context, state access.ApprovalState) ([]access.Approval, error)
	Get(ctx context.Context, id string) (access.Approval, error)
	Vote(ctx context.Context, id string, v access.Vote) (access.Approval, error)
}

// PeopleConfig is what the people's side serves. Token, Slack, Metrics and Ready may be left out.
type PeopleConfig struct {
	Mappings Mappings
	Sessions Sessions
	Desk     Desk
	Stops    Stops
	Hits     Hits
	// Sources tells where mappings come from beside the configuration file; nil for nowhere.
	Sources func() []api.SourceView
	// Explainer answers POST /v1/explain.
	Explainer Explainer
	// Planner answers POST /v1/mappings/plan.
	Planner Planner
	// Token is the admin API's bearer token. Without one the API is served on the Unix socket only.
	Token access.Secret
	// Slack takes Slack's interactions; it verifies them itself.
	Slack   http.Handler
	Metrics http.Handler
	Archive func(session string, opened time.Time) string
	Ready   func(context.Context) error
	Log     *slog.Logger
}

// People is the people's side.
type People struct {
	c      PeopleConfig
	router *gin.Engine
	token  [sha256.Size]byte
}

type callerKey struct{}

// NewPeople returns the handler of the people's side.
func NewPeople(c PeopleConfig) *People {
	p := &People{c: c, router: newRouter(c.Log)}
	if !c.Token.IsZero() {
		p.token = sha256.Sum256([]byte(c.Token.Reveal()))
	}
	health(p.router, c.Ready)
	if c.Slack != nil {
		p.router.POST("/hooks/slack/interactions", gin.WrapH(c.Slack))
	}
	if c.Metrics != nil {
		p.router.GET("/metrics", gin.WrapH(c.Metrics))
	}
	p.router.GET("/v1/openapi.yaml", func(g *gin.Context) { g.Data(http.StatusOK, "application/yaml", openAPI) })
	v1 := p.router.Group("/v1", p.authorize)
	v1.GET("/mappings", p.answer(p.listMappings))
	v1.GET("/mappings/:name", p.answer(p.getMapping))
	v1.PUT("/mappings/:name", p.answer(p.putMapping))
	v1.DELETE("/mappings/:name", p.answer(p.deleteMapping))
	v1.POST("/mappings/:name/restore", p.answer(p.restoreMapping))
	v1.GET("/mappings/:name/hits", p.answer(p.mappingHits))
	v1.POST("/mappings/plan", p.answer(p.planMappings))
	v1.POST("/explain", p.answer(p.explain))
	p.stopRoutes(v1)
	v1.GET("/sessions", p.answer(p.listSessions))
	v1.GET("/sessions/:id", p.answer(p.getSession))
	v1.DELETE("/sessions/:id", p.answer(p.endSession))
	v1.GET("/approvals", p.answer(p.listApprovals))
	v1.GET("/approvals/:id", p.answer(p.getApproval))
	v1.POST("/approvals/:id/approve", p.answer(p.vote(access.Approved)))
	v1.POST("/approvals/:id/deny", p.answer(p.vote(access.Denied)))
	return p
}

// Routes returns "METHOD /path" of everything that is served, for the test that holds the OpenAPI file against it.
func (p *People) Routes() []string {
	var out []string
	for _, r := range p.router.Routes() {
		out = append(out, r.Method+" "+r.Path)
	}
	return out
}

// ServeHTTP serves the TCP listener: the admin API to whoever has the token.
func (p *People) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	p.router.ServeHTTP(w, r)
}

// Socket serves the Unix socket: whoever may open it, by the rights of its file, is an operator.
func (p *People) Socket() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, "operator on the control socket")))
	})
}

// authorize lets the admin token pass. A browser's request from another origin never carries it by itself: there is no
// cookie.
func (p *People) authorize(g *gin.Context) {
	if g.Request.Context().Value(callerKey{}) != nil {
		return
	}
	scheme, token, _ := strings.Cut(g.GetHeader("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	if p.c.Token.IsZero() || !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(sum[:], p.token[:]) != 1 {
		g.Header("WWW-Authenticate", "Bearer")
		writeProblem(g.Writer, http.StatusUnauthorized, "unauthenticated", "show the admin token as bearer")
		g.Abort()
		return
	}
	g.Request = g.Request.WithContext(context.WithValue(g.Request.Context(), callerKey{}, "admin token"))
}

// caller names who asks, for votes, tombstones and the log.
func caller(r *http.Request) string {
	by, _ := r.Context().Value(callerKey{}).(string)
	return by
}

var adminStatus = map[access.Code]int{
	access.CodeInvalid:         http.StatusBadRequest,
	access.CodeUnauthenticated: http.StatusUnauthorized,
	access.CodeDenied:          http.StatusForbidden,
	access.CodeNotFound:        http.StatusNotFound,
	access.CodeConflict:        http.StatusConflict,
	access.CodeEnded:           http.StatusConflict,
	access.CodeTooLarge:        http.StatusRequestEntityTooLarge,
	access.CodeUnavailable:     http.StatusServiceUnavailable,
	access.CodeRecord:          http.StatusServiceUnavailable,
	access.CodeCanceled:        http.StatusServiceUnavailable,
}

func (p *People) answer(handle func(*gin.Context) error) gin.HandlerFunc {
	return func(g *gin.Context) {
		err := handle(g)
		if err == nil {
			return
		}
		code := access.CodeOf(err)
		status, known := adminStatus[code]
		detail := access.PublicText(err)
		var field *api.FieldError
		if errors.As(err, &field) {
			status, known, code, detail = http.StatusBadRequest, true, access.CodeInvalid, field.Error()
		}
		var refusal *access.Error
		if errors.As(err, &refusal) {
			status = precondition(refusal.Reason, g.GetHeader("If-Match"), status)
		}
		if !known {
			status = http.StatusInternalServerError
			p.c.Log.Error("an admin request failed", "path", g.FullPath(), "error", err)
		}
		writeProblem(g.Writer, status, string(code), detail)
	}
}

// precondition tells the conflicts apart that an If-Match is about, RFC 9110 section 13.1.1 and RFC 6585 section 3.
func precondition(reason, ifMatch string, status int) int {
	switch {
	case reason == federation.ReasonIfMatch:
		return http.StatusPreconditionRequired
	case reason == access.ReasonRevision && ifMatch != "":
		return http.StatusPreconditionFailed
	}
	return status
}

func (p *People) listSessions(g *gin.Context) error {
	state := g.Query("state")
	if state != "" && state != "open" {
		return access.Refuse(access.CodeInvalid, `state can only be "open"`)
	}
	infos, err := p.c.Sessions.List(g.Request.Context(), state == "open")
	if err != nil {
		return err
	}
	out, stops := api.List[api.SessionView]{Items: []api.SessionView{}}, p.c.Stops.List()
	for _, s := range infos {
		view := p.sessionView(s)
		view.Claims, view.Stopped = nil, stopsOfSession(stops, s)
		out.Items = append(out.Items, view)
	}
	writeJSON(g.Writer, http.StatusOK, out)
	return nil
}

func (p *People) sessionView(s federation.SessionInfo) api.SessionView {
	out := api.SessionView{
		ID: s.ID, State: string(s.State), Mapping: s.Mapping, Revision: s.InForce, Override: s.Override, Origin: originView(s.Origin), Issuer: s.Identity.Issuer,
		Provider: s.Identity.Provider, Subject: s.Identity.Subject, JobKey: string(s.Identity.JobKey), Job: s.Job,
		Opened: s.Opened.UTC(), Closes: s.Closes.UTC(), Asleep: s.Asleep.UTC(), EndReason: string(s.Reason),
		Sign:  string(s.Sign),
		Usage: make(map[string]api.Usage, len(s.Counts)), Archive: p.c.Archive(s.ID, s.Opened), Claims: s.Identity.Claims,
		Tally: api.Tally{Calls: s.Tally.Calls, Denials: s.Tally.Denials, Observed: s.Tally.Observed, Asked: s.Tally.Asked,
			Approved: s.Tally.Approved, Denied: s.Tally.Refused, Expired: s.Tally.Expired, Cancelled: s.Tally.Cancelled},
	}
	if out.Revision == 0 {
		out.Revision = s.Revision
	}
	if !s.Ended.IsZero() {
		ended := s.Ended.UTC()
		out.Ended = &ended
	}
	for name, c := range s.Counts {
		out.Usage[name] = api.Usage(c)
	}
	return out
}

func (p *People) getSession(g *gin.Context) error {
	s, err := p.c.Sessions.Get(g.Request.Context(), g.Param("id"))
	if err != nil {
		return err
	}
	view := p.sessionView(s)
	view.Stopped = stopsOfSession(p.c.Stops.List(), s)
	writeJSON(g.Writer, http.StatusOK, view)
	return nil
}

func (p *People) endSession(g *gin.Context) error {
	if err := p.c.Sessions.End(g.Request.Context(), g.Param("id"), access.EndOperator, caller(g.Request)); err != nil {
		return err
	}
	p.c.Log.Info("session closed", "session", g.Param("id"), "by", caller(g.Request))
	g.Writer.WriteHeader(http.StatusNoContent)
	return nil
}

func (p *People) listApprovals(g *gin.Context) error {
	state := access.ApprovalState(g.Query("state"))
	switch state {
	case "", access.Pending, access.Approved, access.Denied, access.Expired, access.Cancelled:
	default:
		return access.Refuse(access.CodeInvalid, "state can be pending, approved, denied, expired or cancelled")
	}
	list, err := p.c.Desk.List(g.Request.Context(), state)
	if err != nil {
		return err
	}
	out := api.List[api.ApprovalView]{Items: []api.ApprovalView{}}
	for _, a := range list {
		out.Items = append(out.Items, approvalView(a))
	}
	writeJSON(g.Writer, http.StatusOK, out)
	return nil
}

func (p *People) getApproval(g *gin.Context) error {
	a, err := p.c.Desk.Get(g.Request.Context(), g.Param("id"))
	if err != nil {
		return err
	}
	writeJSON(g.Writer, http.StatusOK, approvalView(a))
	return nil
}

// vote settles a question. Over this door a vote says which key opened it: nobody's name is taken from a header.
func (p *People) vote(state access.ApprovalState) func(*gin.Context) error {
	return func(g *gin.Context) error {
		raw, err := readBody(g.Request, maxAdminBody)
		if err != nil {
			return err
		}
		body, err := api.DecodeVote(raw)
		if err != nil {
			return access.Refuse(access.CodeInvalid, err.Error())
		}
		via := "api"
		if g.GetHeader("Jobgate-Client") == "cli" {
			via = "cli"
		}
		a, err := p.c.Desk.Vote(g.Request.Context(), g.Param("id"), access.Vote{State: state, By: caller(g.Request), Via: via, Reason: body.Reason})
		if err != nil {
			return err
		}
		writeJSON(g.Writer, http.StatusOK, approvalView(a))
		return nil
	}
}

func approvalView(a access.Approval) api.ApprovalView {
	out := api.ApprovalView{
		ID: a.ID, State: string(a.State), Session: a.Session, Call: a.Call, ToolUse: a.ToolUse, Connection: a.Connection,
		Mapping: a.Mapping, Rule: a.Rule, Reason: a.Reason, Approvers: a.Approvers, Job: a.Job, Digest: a.Digest,
		Title: a.Title, Text: a.Text, Masked: a.Masked, Truncated: a.Truncated, Asked: a.Asked.UTC(), Expires: a.Expires.UTC(),
		By: a.Vote.By, Via: a.Vote.Via, VoteReason: a.Vote.Reason,
	}
	if out.Approvers == nil {
		out.Approvers = []string{}
	}
	if !a.Vote.At.IsZero() {
		at := a.Vote.At.UTC()
		out.Decided = &at
	}
	return out
}
