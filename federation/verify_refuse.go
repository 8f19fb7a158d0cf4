package federation

import (
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
)

// Reasons why a token or an identity is refused, in access.Error.Reason. They are stable: logs, explain and tests use
// them.
const (
	reasonMalformed       = "malformed"
	reasonAlgorithm       = "alg_not_allowed"
	reasonHeader          = "header_not_allowed"
	reasonIssuer          = "unknown_issuer"
	reasonKeyID           = "unknown_kid"
	reasonSignature       = "bad_signature"
	reasonAudience        = "aud_mismatch"
	reasonExpired         = "expired"
	reasonEarly           = "not_yet_valid"
	reasonLifetime        = "lifetime_too_long"
	reasonAge             = "too_old"
	reasonMissing         = "claim_missing"
	reasonType            = "claim_type"
	reasonMismatch        = "claim_mismatch"
	reasonUntrusted       = "untrusted_event"
	reasonKind            = "wrong_token_kind"
	reasonOverride        = "denied_by_override"
	reasonKeysUnavailable = "keys_unavailable"
)

// refuse returns the refusal of a token. The stranger gets the bare code; what was wrong goes to the log.
func refuse(reason, format string, args ...any) *access.Error {
	return &access.Error{
		Code: access.CodeGrant, Reason: reason, Public: string(access.CodeGrant),
		Err: fmt.Errorf(reason+": "+format, args...),
	}
}

// unavailable returns the error of an issuer whose keys cannot be had.
func unavailable(issuer string, cause error) *access.Error {
	return &access.Error{
		Code: access.CodeUnavailable, Reason: reasonKeysUnavailable, Public: string(access.CodeUnavailable),
		RetryAfter: coolDown, Err: fmt.Errorf("keys of issuer %q: %w", issuer, cause),
	}
}
