package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

const (
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange" // RFC 8693 section 2.1
	grantBearer   = "urn:ietf:params:oauth:grant-type:jwt-bearer"     // RFC 7523 section 2.1
	typeJWT       = "urn:ietf:params:oauth:token-type:jwt"            // RFC 8693 section 3
	typeIDToken   = "urn:ietf:params:oauth:token-type:id_token"
	typeAccess    = "urn:ietf:params:oauth:token-type:access_token"

	// maxExchange bounds the body of an exchange: a token has 16 KiB at most, twice that when every byte is escaped.
	maxExchange = 64 << 10
	// exchangeTimeout bounds an exchange, the wait for an issuer's keys (5 s) within it.
	exchangeTimeout = 20 * time.Second
)

// Exchange opens sessions.
type Exchange interface {
	Open(context.Context, federation.OpenRequest) (federation.Opened, error)
	Connect(context.Context, federation.ConnectRequest) (federation.Opened, error)
	Try(context.Context, federation.OpenRequest) (federation.Trial, error)
}

// TokenSessions is what a job may know of its own session, and how it closes it.
type TokenSessions interface {
	OfToken(ctx context.Context, token string) (federation.SessionInfo, access.AccessToken, error)
	Revoke(ctx context.Context, token string) error
}

// JobsConfig is what the jobs' side serves. All fields but Hooks and Ready are required.
type JobsConfig struct {
	PublicURL string
	Exchange  Exchange
	Sessions  TokenSessions
	Calls     http.Handler
	// Hooks is nil where no CI provider sends webhooks.
	Hooks Hooks
	// Kinds are the connections' kinds by name.
	Kinds map[string]string
	// Keys is the archive's public key set.
	Keys []byte
	// Archive tells people where a session's archive is.
	Archive func(session string, opened time.Time) string
	Ready   func(context.Context) error
	Log     *slog.Logger
}

// Jobs is the jobs' side.
type Jobs struct {
	c      JobsConfig
	router *gin.Engine
	probes chan struct{} // one place for each under way
}

// NewJobs returns the handler of the jobs' side.
func NewJobs(c JobsConfig) *Jobs {
	j := &Jobs{c: c, router: newRouter(c.Log), probes: make(chan struct{}, probesAtOnce)}
	r := j.router
	r.POST("/oauth/token", j.answer(j.token))
	r.POST("/oauth/revoke", j.answer(j.revoke))
	r.POST("/oauth/introspect", j.answer(j.introspect))
	r.POST(federation.TryDoor, j.answer(j.dryRun))
	r.GET("/_stream", j.probe)
	r.GET("/.well-known/jobgate-archive.json", func(g *gin.Context) {
		g.Header("Cache-Control", "max-age=300")
		g.Data(http.StatusOK, "application/jwk-set+json", c.Keys)
	})
	j.hookRoutes()
	health(r, c.Ready)
	return j
}

// ServeHTTP picks by the first path segment: Jobgate's own paths, or a call.
func (j *Jobs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Sec-Fetch-Mode") == "navigate" {
		http.Error(w, "this address serves programs, not browsers", http.StatusForbidden)
		return
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case first == "oauth", first == "hooks", first == "healthz", first == "readyz", first == "v1", first == "",
		strings.HasPrefix(first, "."), strings.HasPrefix(first, "_"):
		w.Header().Set("Content-Security-Policy", "sandbox")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		j.router.ServeHTTP(w, r)
	default:
		j.c.Calls.ServeHTTP(w, r)
	}
}

// oauthStatus are the statuses of the exchange's errors, RFC 6749 section 5.2: 400 for all that the client can mend. A
// 401 would make Anthropic's clients ask twice and point at their own console.
func oauthStatus(code access.Code) (int, string) {
	switch code {
	case access.CodeUnavailable, access.CodeRecord:
		return http.StatusServiceUnavailable, string(access.CodeUnavailable)
	case access.CodeGrant, access.CodeTarget, access.CodeScope, access.CodeInvalid:
		return http.StatusBadRequest, string(code)
	case access.CodeUnauthenticated, access.CodeEnded, access.CodeDenied:
		return http.StatusBadRequest, string(access.CodeGrant)
	case access.CodeTooLarge:
		return http.StatusBadRequest, string(access.CodeInvalid)
	case access.CodeCanceled:
		return http.StatusServiceUnavailable, string(access.CodeUnavailable)
	}
	return http.StatusInternalServerError, "server_error"
}

// answer turns a handler's error into the exchange's error form.
func (j *Jobs) answer(handle func(context.Context, http.ResponseWriter, *http.Request) error) gin.HandlerFunc {
	return func(g *gin.Context) {
		ctx, cancel := context.WithTimeout(g.Request.Context(), exchangeTimeout)
		defer cancel()
		if err := handle(ctx, g.Writer, g.Request); err != nil {
			j.refuse(g.Writer, err)
		}
	}
}

func (j *Jobs) refuse(w http.ResponseWriter, err error) {
	status, code := oauthStatus(access.CodeOf(err))
	body := api.OAuthError{Error: code}
	var refusal *access.Error
	if errors.As(err, &refusal) {
		if body.ExchangeID = refusal.Exchange; body.ExchangeID != "" {
			w.Header().Set(exchangeHeader, body.ExchangeID)
		}
		if refusal.Public != code {
			body.Description = refusal.Public
		}
		if refusal.Reason == access.ReasonStopped {
			body.Reason = refusal.Reason
		}
		if refusal.RetryAfter > 0 {
			w.Header().Set("Retry-After", fmt.Sprintf("%d", int(refusal.RetryAfter.Seconds())+1))
		}
	}
	if status == http.StatusInternalServerError {
		j.c.Log.Error("an exchange failed", "error", err)
		body.Description = "the operator finds the cause in the server's log"
	}
	if status == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "2")
	}
	writeJSON(w, status, body)
}

// form reads a form that has each field at most once, RFC 6749 section 3.2.
func form(r *http.Request) (url.Values, error) {
	if media := r.Header.Get("Content-Type"); !strings.HasPrefix(media, "application/x-www-form-urlencoded") {
		return nil, access.Refuse(access.CodeInvalid, "the body must be application/x-www-form-urlencoded")
	}
	raw, err := readBody(r, maxExchange)
	if err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, access.Refuse(access.CodeInvalid, "the body is no valid form")
	}
	for name, list := range values {
		if len(list) > 1 {
			return nil, access.Refuse(access.CodeInvalid, fmt.Sprintf("the field %q stands there more than once", clip(name)))
		}
	}
	return values, nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

func readBody(r *http.Request, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, &access.Error{Code: access.CodeCanceled, Public: "the body could not be read", Err: err}
	}
	if int64(len(raw)) > limit {
		return nil, access.Refuse(access.CodeTooLarge, fmt.Sprintf("the body is longer than %d bytes", limit))
	}
	return raw, nil
}

// token is POST /oauth/token, RFC 8693.
func (j *Jobs) token(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	if got := f.Get("grant_type"); got != grantExchange {
		return access.Refuse(access.CodeInvalid, "grant_type must be "+grantExchange)
	}
	if got := f.Get("subject_token_type"); got != typeJWT && got != typeIDToken {
		return access.Refuse(access.CodeInvalid, "subject_token_type must be "+typeJWT+" or "+typeIDToken)
	}
	if f.Get("subject_token") == "" {
		return access.Refuse(access.CodeInvalid, "subject_token is missing: the CI provider's OIDC token goes there")
	}
	if want := f.Get("requested_token_type"); want != "" && want != typeAccess {
		return access.Refuse(access.CodeInvalid, "requested_token_type can only be "+typeAccess)
	}
	opened, err := j.c.Exchange.Open(ctx, federation.OpenRequest{
		Token: f.Get("subject_token"), Mapping: f.Get("mapping"), Scope: strings.Fields(f.Get("scope")),
	})
	if err != nil {
		return err
	}
	out := j.tokenAnswer(w, opened)
	out.IssuedTokenType = typeAccess
	for _, name := range opened.Connections {
		out.Connections = append(out.Connections, j.connection(name, opened.Session.Mapping))
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// exchangeHeader carries the exchange's id, by which log, audit stream and explain know it: of what was given out, too.
const exchangeHeader = "Jobgate-Exchange-Id"

func (j *Jobs) tokenAnswer(w http.ResponseWriter, o federation.Opened) api.Token {
	w.Header().Set(exchangeHeader, o.Exchange)
	return api.Token{
		AccessToken: o.Token.Reveal(), TokenType: "Bearer", ExpiresIn: int64(o.ExpiresIn / time.Second),
		Scope: strings.Join(o.Connections, " "), SessionID: o.Session.ID, Mapping: o.Session.Mapping,
		Lease: int64(o.Session.Policy().Window.Lease / time.Second),
	}
}

// connection is what an SDK of the connection's kind reads from its environment; a token is never among it.
func (j *Jobs) connection(name, mapping string) api.Connection {
	base := j.c.PublicURL + "/" + name
	c := api.Connection{Name: name, Kind: j.c.Kinds[name], BaseURL: base, Env: map[string]string{}}
	if c.Kind == "anthropic" {
		c.Env = map[string]string{
			"ANTHROPIC_BASE_URL":               base,
			"ANTHROPIC_FEDERATION_RULE_ID":     mapping,
			"ANTHROPIC_ORGANIZATION_ID":        "jobgate",
			"CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
		}
	}
	return c
}

// assertion is the body of the exchange that Anthropic's SDKs do by themselves, RFC 7523 in JSON.
type assertion struct {
	GrantType      string `json:"grant_type"`
	Assertion      string `json:"assertion"`
	Rule           string `json:"federation_rule_id"`
	Organization   string `json:"organization_id"`
	ServiceAccount string `json:"service_account_id"`
	Workspace      string `json:"workspace_id"`
}

// Connect answers POST /{connection}/v1/oauth/token.
func (j *Jobs) Connect(w http.ResponseWriter, r *http.Request, connection string) {
	ctx, cancel := context.WithTimeout(r.Context(), exchangeTimeout)
	defer cancel()
	if err := j.connect(ctx, w, r, connection); err != nil {
		w.Header().Set("X-Should-Retry", "false")
		j.refuse(w, err)
	}
}

func (j *Jobs) connect(ctx context.Context, w http.ResponseWriter, r *http.Request, connection string) error {
	raw, err := readBody(r, maxExchange)
	if err != nil {
		return err
	}
	var a assertion
	if err := json.Unmarshal(raw, &a); err != nil {
		return access.Refuse(access.CodeInvalid, "the body is no JSON object with grant_type, assertion and federation_rule_id")
	}
	switch {
	case a.GrantType != grantBearer:
		return access.Refuse(access.CodeInvalid, "grant_type must be "+grantBearer)
	case a.Assertion == "":
		return access.Refuse(access.CodeInvalid, "assertion is missing: the CI provider's OIDC token, or an access token of /oauth/token, goes there")
	}
	opened, err := j.c.Exchange.Connect(ctx, federation.ConnectRequest{
		Connection: connection, Assertion: a.Assertion, Mapping: a.Rule, Organization: a.Organization,
		ServiceAccount: a.ServiceAccount, Workspace: a.Workspace,
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, j.tokenAnswer(w, opened))
	return nil
}

// revoke is POST /oauth/revoke, RFC 7009: whoever has a token of the session may close it. A token that is not good
// (any more) is answered alike: it is revoked.
func (j *Jobs) revoke(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	if err := j.c.Sessions.Revoke(ctx, f.Get("token")); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return nil
}

// introspect is POST /oauth/introspect, RFC 7662, for a bearer of the same session. It tells of a session that is over,
// too: the job's summary comes after its end.
func (j *Jobs) introspect(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return access.Refuse(access.CodeInvalid, "show an access token of the same session as bearer")
	}
	own, _, err := j.c.Sessions.OfToken(ctx, strings.TrimSpace(bearer))
	if err != nil {
		return inactive(w, err)
	}
	info, token, err := j.c.Sessions.OfToken(ctx, f.Get("token"))
	if err != nil || info.ID != own.ID {
		return inactive(w, err)
	}
	writeJSON(w, http.StatusOK, j.summary(info, token))
	return nil
}

// inactive answers of a token that leads nowhere, or belongs to somebody else, no more than that.
func inactive(w http.ResponseWriter, err error) error {
	switch access.CodeOf(err) {
	case "", access.CodeUnauthenticated, access.CodeEnded, access.CodeNotFound:
		writeJSON(w, http.StatusOK, api.Introspection{})
		return nil
	}
	return err
}

func (j *Jobs) summary(info federation.SessionInfo, token access.AccessToken) api.Introspection {
	t := info.Tally
	out := api.Introspection{
		Active: info.State == access.Awake && time.Now().Before(token.Expires), SessionID: info.ID, Mapping: info.Mapping, Override: info.Override,
		Scope: strings.Join(token.Connections, " "), Exp: token.Expires.Unix(), State: string(info.State),
		Window: &api.Span{Opens: info.Opened.UTC(), Closes: info.Closes.UTC()},
		Calls:  t.Calls, Denials: t.Denials, Observed: t.Observed,
		Approvals: api.Approvals{Asked: t.Asked, Approved: t.Approved, Denied: t.Refused, Expired: t.Expired, Cancelled: t.Cancelled},
		Archive:   j.c.Archive(info.ID, info.Opened), EndReason: string(info.Reason),
	}
	for _, name := range sortedNames(info.Counts) {
		out.Connections = append(out.Connections, api.ConnectionUsage{Name: name, Usage: api.Usage(info.Counts[name])})
	}
	for _, d := range info.Denials {
		out.Denied = append(out.Denied, api.Denial(d))
	}
	return out
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
