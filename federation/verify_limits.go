package federation

import "time"

// What a token may be, at most, and what an issuer's documents may be.
const (
	// maxToken bounds a token before anything of it is looked at. The largest that providers make stay below 4 KiB.
	maxToken = 16 << 10
	// maxDepth bounds the nesting of a token's JSON: providers need three levels.
	maxDepth = 16
	// maxKeyID bounds "kid". The longest that were seen are SHA-256 in hex.
	maxKeyID = 256
	// leeway is what clocks may differ, on both sides. GitLab and Kubernetes issue with nbf = now.
	leeway = 60 * time.Second
	// maxLifetime bounds exp - iat where an issuer says nothing else: the longest that a provider issues (Semaphore).
	maxLifetime = 24 * time.Hour
	// maxSeconds bounds a NumericDate, so that no arithmetic on it overflows. Milliseconds, a common mistake, lie below:
	// they are refused as a lifetime.
	maxSeconds = 1e13
)

// How an issuer's keys are fetched and kept.
const (
	// maxDocument bounds a discovery document and a key set.
	maxDocument = 1 << 20
	// maxKeys bounds the keys of a set.
	maxKeys = 256
	// minModulus and maxModulus bound RSA keys, in bits: RFC 7518 section 3.3, and the time that a check may take.
	minModulus, maxModulus = 2048, 8192
	// fetchTimeout bounds a refresh, and so how long an exchange waits for keys.
	fetchTimeout = 5 * time.Second
	// maxFetches bounds the refreshes of all issuers at one time. The others wait, no longer than fetchTimeout.
	maxFetches = 4
	// coolDown is the least time between two refreshes, whatever tokens say and whether or not the first succeeded.
	coolDown = time.Minute
	// coldCoolDown is the same while there are no keys that can be used, so that nobody is served: an issuer that is back is
	// found soon. firstPause is between attempts within one refresh then, and doubles.
	coldCoolDown, firstPause = 10 * time.Second, 250 * time.Millisecond
	// freshKeys is how long keys are used before they are fetched anew, where the issuer does not say, and minFresh and
	// maxFresh what its word is kept between.
	freshKeys, minFresh, maxFresh = time.Hour, 5 * time.Minute, 24 * time.Hour
	// staleKeys is how long keys are used while the issuer cannot be reached, where the configuration does not say.
	staleKeys = 24 * time.Hour
	// freshDiscovery is how long the place of the keys is believed.
	freshDiscovery = 24 * time.Hour
	// maxRedirects bounds redirects, which stay on one origin.
	maxRedirects = 3
)

// signatureAlgorithms are those that an issuer may be configured with. Symmetric ones and "none" are not among them:
// RFC 8725 section 3.1.
var signatureAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// refusedAudiences belong to services that take a CI provider's tokens themselves. A deployment with such an audience
// would accept, and could replay, what was meant for them.
var refusedAudiences = []string{"https://api.anthropic.com", "https://api.openai.com"}
