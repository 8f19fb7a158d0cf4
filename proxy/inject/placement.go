package inject

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/jobgate/jobgate/internal/access"
)

// OAuthBeta is what Anthropic's API wants beside an OAuth token.
const OAuthBeta = "oauth-2025-04-20"

// Placement says where in a request a credential stands.
type Placement struct {
	header string
	prefix string
	user   string // of Basic authentication
	basic  bool
}

// NewPlacement places a credential in a header, after an optional prefix such as "Bearer ".
func NewPlacement(header, prefix string) (Placement, error) {
	if !httpguts.ValidHeaderFieldName(header) {
		return Placement{}, fmt.Errorf("%q is no header name", header)
	}
	switch http.CanonicalHeaderKey(header) {
	case "Host", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Te", "Trailer", "Content-Encoding":
		return Placement{}, fmt.Errorf("the header %s belongs to the transport and cannot carry a credential", header)
	}
	if prefix == "" && http.CanonicalHeaderKey(header) == "Authorization" {
		return Placement{}, fmt.Errorf("the header authorization needs a prefix, for example prefix: \"Bearer \"")
	}
	return Placement{header: http.CanonicalHeaderKey(header), prefix: prefix}, nil
}

// NewBasic places a credential as the password of HTTP Basic authentication, RFC 7617.
func NewBasic(user string) (Placement, error) {
	if strings.Contains(user, ":") {
		return Placement{}, fmt.Errorf("the user name of Basic authentication cannot hold a colon (RFC 7617 section 2)")
	}
	return Placement{header: "Authorization", user: user, basic: true}, nil
}

// Header returns the canonical name of the header that it sets.
func (p Placement) Header() string { return p.header }

// Check refuses a value that cannot stand in a header: the transport would name it in its error.
func (p Placement) Check(s access.Secret) error {
	if !p.basic && !httpguts.ValidHeaderFieldValue(p.prefix+s.Reveal()) {
		return fmt.Errorf("the credential holds a character that cannot stand in the header %s, a line break for example", p.header)
	}
	return nil
}

// Apply puts the credential into the header of the outgoing request, in place of whatever stood there. It is called
// as the last act before the request is sent.
func (p Placement) Apply(h http.Header, s access.Secret) error {
	if err := p.Check(s); err != nil {
		return err
	}
	value := s.Reveal()
	if p.basic {
		h.Set(p.header, "Basic "+base64.StdEncoding.EncodeToString([]byte(p.user+":"+value)))
		return nil
	}
	h.Set(p.header, p.prefix+value)
	if strings.HasPrefix(value, "sk-ant-oat") {
		h.Add("Anthropic-Beta", OAuthBeta)
	}
	return nil
}
