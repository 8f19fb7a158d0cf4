package federation

import "time"

// Issuer is a CI provider's OIDC issuer that this deployment trusts.
type Issuer struct {
	// Name is what mappings call it.
	Name string
	// Provider names a row of the provider table, such as "github-actions".
	Provider string
	// URL is the issuer exactly as tokens carry it in "iss". Empty takes the provider's, where it has only one.
	URL string
	// Algorithms are the JWS algorithms that are accepted; empty takes RS256. Symmetric ones and "none" are refused.
	Algorithms []string
	// KeysFile is a file with a JWK set that is used in place of the issuer's discovery and keys. Empty fetches them.
	KeysFile string
	// AllowPrivate lets the issuer's host resolve to internal addresses.
	AllowPrivate bool
	// SharedAudience accepts the provider's fixed audience, which other services accept, too.
	SharedAudience bool
	// Audience is the fixed audience of a provider whose audience cannot be chosen; empty takes the deployment's own.
	Audience string
	// MaxAge bounds the time since "iat"; zero does not.
	MaxAge time.Duration
	// MaxLifetime bounds exp - iat; zero takes 24 h.
	MaxLifetime time.Duration
	// StaleKeys is how long keys are used while the issuer cannot be reached; zero takes 24 h.
	StaleKeys time.Duration
}
