package federation

import (
	"context"

	"github.com/jobgate/jobgate/internal/access"
)

// OfToken returns the session of an access token, also one that is over, and the token: what a job may know of its own
// session. A token that leads nowhere is CodeUnauthenticated.
func (s *Sessions) OfToken(ctx context.Context, token string) (SessionInfo, access.AccessToken, error) {
	hash, ok := access.HashToken(token)
	if !ok {
		return SessionInfo{}, access.AccessToken{}, errUnknownToken
	}
	session, held, err := s.SessionByToken(ctx, hash)
	switch access.CodeOf(err) {
	case "":
		info, err := s.Get(ctx, session.ID)
		return info, held, err
	case access.CodeEnded:
	default:
		return SessionInfo{}, access.AccessToken{}, err
	}
	stored, found, err := s.c.Store.TokenByHash(ctx, hash)
	if err != nil {
		return SessionInfo{}, access.AccessToken{}, err
	}
	if !found {
		return SessionInfo{}, access.AccessToken{}, errUnknownToken
	}
	info, err := s.Get(ctx, stored.Session)
	return info, stored.AccessToken, err
}
