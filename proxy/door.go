package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
)

// credentialHeaders may carry a job's token, and none of them ever goes upstream as the job sent it.
var credentialHeaders = []string{"Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"}

// door finds the connection and the token. Until the token is known nothing is told beyond the standard code.
func (f *flight) door() error {
	if f.r.Header.Get("Sec-Fetch-Mode") == "navigate" {
		return access.Refuse(access.CodeDenied, "Jobgate: this address serves programs, not browsers")
	}
	name, rest, err := splitTarget(f.r)
	if err != nil {
		return err
	}
	conn := f.p.connections[name]
	if conn != nil {
		f.conn = conn
	}
	if conn != nil && conn.Kind == KindAnthropic && rest == "/v1/oauth/token" && f.r.Method == http.MethodPost && f.p.c.Exchange != nil {
		f.p.c.Exchange(f.w, f.r, conn.Name)
		return errAnswered
	}
	token, err := presentedToken(f.r.Header)
	if err != nil {
		return err
	}
	if token == "" {
		return unauthenticated()
	}
	hash, ok := access.HashToken(token)
	if !ok {
		return unauthenticated()
	}
	f.s, f.token, err = f.p.c.Sessions.SessionByToken(f.ctx, hash)
	if err != nil {
		f.s = nil
		return err
	}
	if conn == nil {
		return access.Refuse(access.CodeNotFound, fmt.Sprintf("Jobgate: there is no connection %q here", clip(name, 64)))
	}
	f.call.Connection, f.call.Kind = conn.Name, conn.Kind
	f.call.Method, f.call.Path, f.call.Query = f.r.Method, rest, f.r.URL.RawQuery
	return refuseStrayToken(f.r, token)
}

func unauthenticated() error {
	return access.Refuse(access.CodeUnauthenticated, "Jobgate: show a valid access token of an open session")
}

// splitTarget returns the connection's name and the path below it, exactly as the request line has it. A target that
// cleaning or one decoding would change is refused: what is judged must be what is sent.
func splitTarget(r *http.Request) (name, rest string, err error) {
	target, _, _ := strings.Cut(r.RequestURI, "?")
	switch {
	case !strings.HasPrefix(target, "/"):
		return "", "", access.Refuse(access.CodeInvalid, "Jobgate: the request target must be a path, not an absolute URL")
	case !plainPath(target):
		return "", "", access.Refuse(access.CodeInvalid, "Jobgate: the path must be clean: no //, no . or .. segment, no %-escape, no control character or backslash")
	}
	name, rest, _ = strings.Cut(target[1:], "/")
	return name, "/" + rest, nil
}

func plainPath(target string) bool {
	for i := 0; i < len(target); i++ {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '\\' || c == '#' {
			return false
		}
	}
	return target == "/" || path.Clean(target) == strings.TrimSuffix(target, "/")
}

// presentedToken returns the one Jobgate token of a request, "" where there is none. What else stands in a credential
// header is the client's idea of a key and is dropped; two different tokens leave open who is asking.
func presentedToken(h http.Header) (string, error) {
	found := ""
	for _, name := range credentialHeaders {
		for _, value := range h[name] {
			token := strings.TrimSpace(value)
			if name == "Authorization" {
				scheme, rest, ok := strings.Cut(token, " ")
				if !ok || !strings.EqualFold(scheme, "Bearer") {
					continue
				}
				token = strings.TrimSpace(rest)
			}
			if !strings.HasPrefix(token, access.TokenPrefix) {
				continue
			}
			if found != "" && found != token {
				return "", access.Refuse(access.CodeInvalid, "Jobgate: the request shows two different access tokens; show one")
			}
			found = token
		}
	}
	return found, nil
}

// refuseStrayToken keeps the token out of what goes upstream: a query or a header that holds it, too.
func refuseStrayToken(r *http.Request, token string) error {
	if query, err := url.QueryUnescape(r.URL.RawQuery); err != nil || strings.Contains(query, token) {
		return access.Refuse(access.CodeInvalid, "Jobgate: the query is malformed or holds the access token; show the token in a header only")
	}
	for name, values := range r.Header {
		if isCredentialHeader(name) {
			continue
		}
		for _, v := range values {
			if strings.Contains(v, token) {
				return access.Refuse(access.CodeInvalid, fmt.Sprintf("Jobgate: the header %s holds the access token; show it in one of authorization, x-api-key, api-key, x-goog-api-key", name))
			}
		}
	}
	return nil
}

func isCredentialHeader(name string) bool {
	for _, h := range credentialHeaders {
		if name == h {
			return true
		}
	}
	return false
}

// session finds out whether the call may be looked at: an awake session, a token of this connection, a grant on it.
func (f *flight) session() error {
	now := f.p.c.Now()
	if err := f.s.Usable(now); err != nil {
		return err
	}
	if !f.token.Allows(f.conn.Name) {
		return access.Refuse(access.CodeDenied, fmt.Sprintf("Jobgate: this access token is not good for connection %q; it was taken for %s",
			f.conn.Name, strings.Join(f.token.Connections, ", ")))
	}
	f.policy = f.s.Policy()
	f.grant = f.p.c.Guard.Grant(f.policy, f.conn.Name)
	if f.grant == nil {
		return access.Refuse(access.CodeDenied, fmt.Sprintf("Jobgate: mapping %q grants nothing on connection %q (it grants %s)",
			f.s.Mapping, f.conn.Name, strings.Join(f.policy.Connections(), ", ")))
	}
	id, err := newID("c_")
	if err != nil {
		return err
	}
	f.call.ID, f.call.Session = id, f.s.ID
	f.masks, err = f.p.c.Maskers.For(f.s.ID)
	return err
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}
