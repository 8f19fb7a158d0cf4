// Package federation says who a job is and what it may do: token -> identity -> mapping -> grant -> session.
//
// A [Verifier] takes the OIDC token that a CI provider gave to a job and returns an access.Identity, or refuses. A
// [Mapping] says which identities it serves and what they are granted. What providers differ in is data, one row a
// provider; code asks a provider only whether a job still runs ([Liveness]).
//
//	v, err := federation.NewVerifier(federation.VerifierConfig{Audience: publicURL, Issuers: issuers})
//	id, err := v.Verify(ctx, token)       // *access.Error with a stable Reason, such as "aud_mismatch"
//	err = mapping.Match(id, time.Now())   // nil: the mapping serves this job
//
// What it refuses, and why, stands where it is refused: algorithms, sizes and times in verify_limits.go, the shape of a
// token in jwt.go, keys in keys.go, triggers that outsiders can pull in providers.go, mappings that would let in
// strangers in mapping_check.go. Nothing is decided by "sub": its grammar changes, and owners can choose it.
package federation
