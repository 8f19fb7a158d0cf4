package dialect

import (
	"net/http"
	"strings"
)

// CutLoginBetas removes the values of anthropic-beta that belong to the client's login at Jobgate. All others stay as
// they are, in their order.
func CutLoginBetas(header http.Header) {
	lines := header["Anthropic-Beta"]
	kept := lines[:0:0]
	for _, line := range lines {
		if !strings.Contains(line, "oauth-2025-04-20") && !strings.Contains(line, "oidc-federation-") {
			kept = append(kept, line)
			continue
		}
		var values []string
		for value := range strings.SplitSeq(line, ",") {
			if v := strings.TrimSpace(value); v != "oauth-2025-04-20" && !strings.HasPrefix(v, "oidc-federation-") {
				values = append(values, value)
			}
		}
		if len(values) > 0 {
			kept = append(kept, strings.TrimSpace(strings.Join(values, ",")))
		}
	}
	if len(kept) == 0 {
		delete(header, "Anthropic-Beta")
		return
	}
	header["Anthropic-Beta"] = kept
}

// DropResponseHeaders removes what an answer says about the account behind the credential and about the way to it. The
// upstream's request id goes as well: the client gets the call's.
func DropResponseHeaders(header http.Header) {
	for _, name := range []string{"Request-Id", "Anthropic-Organization-Id", "Cf-Ray", "Via", "Set-Cookie"} {
		delete(header, name)
	}
	for name := range header {
		if strings.HasPrefix(name, "Anthropic-Ratelimit-") {
			delete(header, name)
		}
	}
}
