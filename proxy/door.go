package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jobgate/jobgate/internal/access"
)

// credentialHeaders may carry a job's token, and none of them ever goes upstream as the job sent it.
var credentialHeaders = []string{"Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"}

// door finds the connection and the token. Until the token is known nothing is told beyond the standard code.
func (f *flight) door() (err error) {
	if f.call.ID, err = newID("c_"); err != nil { // every answer has an id that its reader can quote
		return err
	}
	if f.r.Header.Get("Sec-Fetch-Mode") == "navigate" {
		return access.Refuse(access.CodeDenied, "Jobgate: this address serves programs, not browsers")
	}
	name, rest, err := splitTarget(f.r)
	if err != nil {
		return err
	}
	f.conn = f.p.connections[name]
	f.call.Connection, f.call.Method, f.call.Path, f.call.Query = name, f.r.Method, rest, f.r.URL.RawQuery
	if f.conn != nil {
		f.call.Kind = f.conn.Kind
	}
	if f.call.Kind == KindAnthropic && rest == "/v1/oauth/token" && f.r.Method == http.MethodPost && f.p.c.Exchange != nil {
		f.p.c.Exchange(f.w, f.r, f.conn.Name)
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
	f.shown = []byte(token)
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
		return "", "", access.Refuse(access.CodeInvalid, "Jobgate: the path must be clean: no //, no . or .. segment, no %-escape, no path parameter (;), and only characters that stand in a URL's path")
	}
	name, rest, _ = strings.Cut(target[1:], "/")
	return name, "/" + rest, nil
}

// plainPath reports whether every server reads the path alike. What stands behind a semicolon is a parameter to some,
// who would see "..;" as "..".
func plainPath(target string) bool {
	segment := 0 // where the current one begins
	for i := 1; i <= len(target); i++ {
		if i < len(target) && target[i] != '/' {
			if !pathCharacter(target[i]) {
				return false
			}
			continue
		}
		s := target[segment+1 : i]
		if s == "." || s == ".." || s == "" && i < len(target) {
			return false
		}
		segment = i
	}
	return true
}

// pathCharacter reports whether a byte may stand in a path as it is: RFC 3986 section 3.3, but for the semicolon.
func pathCharacter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,=:@[]", c) >= 0
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

// refuseStrayToken keeps the token out of what goes upstream: a URL or another header that holds it, too.
func refuseStrayToken(r *http.Request, token string) error {
	if strings.Contains(r.RequestURI, token) {
		return access.Refuse(access.CodeInvalid, "Jobgate: the URL holds the access token; show the token in a header only")
	}
	if query, err := url.QueryUnescape(r.URL.RawQuery); err != nil || strings.Contains(query, token) {
		return access.Refuse(access.CodeInvalid, "Jobgate: the query is malformed or holds the access token; show the token in a header only")
	}
	for name, values := range r.Header {
		if slices.Contains(credentialHeaders, name) {
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

// session finds out whether the call may be looked at: an awake session, a token of this connection, a grant on it.
// From here on the session knows of the call, and its record stays open for it.
func (f *flight) session() (err error) {
	f.call.Session = f.s.ID
	if f.masks, err = f.p.c.Maskers.For(f.s.ID); err != nil {
		return err
	}
	if f.conn == nil {
		f.call.Connection = clip(f.masked(f.call.Connection), 64) // no name of ours: anything
	}
	usable := f.s.Usable(f.p.c.Now())
	if access.CodeOf(usable) == access.CodeEnded {
		return usable
	}
	f.unwatch = f.s.Watch(f)
	if f.ctx.Err() != nil {
		return f.cause(f.ctx.Err()) // its record may be closed
	}
	if refusal := f.stopped(); refusal != nil { // also of a session that sleeps: a 401 would make its client try again
		return f.refuseStopped(refusal)
	}
	if usable != nil {
		return usable
	}
	if refusal := f.lookUpGrant(); refusal != nil {
		f.noteStarted()
		f.noteDecision("call", access.Decision{Rule: "grant", Reason: refusal.Public})
		f.countDenial(access.Decision{Rule: "grant", Reason: refusal.Public}, f.call.Method+" "+f.call.Path)
		return refusal
	}
	return nil
}

// lookUpGrant takes what the mapping says now. A connection that does not exist is refused as one that is not granted:
// a job need not know the others' connections.
func (f *flight) lookUpGrant() *access.Error {
	f.policy = f.s.Policy()
	if !f.token.Allows(f.call.Connection) {
		return access.Refuse(access.CodeDenied, fmt.Sprintf("Jobgate: this access token is not good for connection %q; it was taken for %s",
			f.call.Connection, strings.Join(f.token.Connections, ", ")))
	}
	if grant := f.p.c.Guard.Grant(f.policy, f.call.Connection); grant != nil && f.conn != nil {
		f.grant = grant
		return nil
	}
	return access.Refuse(access.CodeDenied, fmt.Sprintf("Jobgate: mapping %q grants nothing on connection %q (it grants %s)",
		f.s.Mapping, f.call.Connection, strings.Join(f.policy.Connections(), ", ")))
}

// clip shortens a text for people, between two characters. What may hold a secret is masked before: a part of one
// would not be found.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
