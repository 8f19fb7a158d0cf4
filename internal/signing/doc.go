// Package signing holds the deployment's own signing keys: one Ed25519 key (RFC 8037) for each purpose, never one key for two. A key
// signs JWS (RFC 7515), compact or detached, each with a typ that says what was signed, so that a signature over one thing never passes
// for a signature over another. The public halves are handed out as a JWK set (RFC 7517).
//
// A key lives in {dir}/{purpose}.jwk, mode 0600, and is made at the first start. Its id is the purpose and the key's thumbprint (RFC
// 7638), so a key file that was copied to the place of another purpose is refused.
//
//	key, err := signing.Load(filepath.Join(data, "keys"), signing.Archive)
//	jws, err := key.SignDetached("jobgate-manifest", manifest)
//	…
//	keys, err := signing.ParseKeySet(pinned, signing.Archive)
//	err = keys.VerifyDetached("jobgate-manifest", jws, manifest)
package signing
