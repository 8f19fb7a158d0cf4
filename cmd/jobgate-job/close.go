package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// told is what the end of a session brought to light.
type told struct {
	info   api.Introspection
	closed string // how closing went
}

// ending is a session to end.
type ending struct {
	session, mapping string
	held             []access.Secret // tokens that may be the session's
	joined           bool            // somebody else closes it
}

// closeSession is the command close: the end of what connect began.
func closeSession(ctx context.Context, o *options, _ []string) error {
	st, err := readState(o.stateFile)
	if err != nil {
		return err
	}
	stopRenewal(st.Renewal)
	// What stands on this command's own line wins over a file that the job's processes can write.
	if o.url == "" {
		o.url = st.URL
	}
	if o.mapping == "" {
		o.mapping = st.Mapping
	}
	j, err := newJobgate(o)
	if err != nil {
		return err
	}
	s, _ := newSource(o) // without one, the token in the file must do
	dir := ownFolder(st.Dir)
	showRenewal(o, dir)
	end, err := endSession(ctx, j, s, ending{session: st.Session, mapping: o.mapping, joined: st.Joined, held: []access.Secret{heldToken(st.TokenFile)}})
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
	_ = os.Remove(o.stateFile) // both lie in the job's own folder, which goes with it
	if code := report(o, o.env.Stdout, end, st.Session, err); code != exitDone {
		return exitError(code)
	}
	return nil
}

// endSession asks what a session did, and closes it.
func endSession(ctx context.Context, j *jobgate, s *source, e ending) (told, error) {
	info, token, err := ask(ctx, j, s, e)
	if err != nil {
		return told{}, err
	}
	if e.joined {
		return told{info: info, closed: "it stays open for the step that opened it"}, nil
	}
	if err := j.revoke(ctx, token); err != nil {
		return told{info: info, closed: fmt.Sprintf("it could not be closed (%v); it sleeps when its lease ends", err)}, nil
	}
	return told{info: info}, nil
}

// ask counts an answer only if it is about the session that was opened: the job's processes can put what they like into
// the token file. Otherwise a fresh CI token of the job, which they cannot forge, leads back to it.
func ask(ctx context.Context, j *jobgate, s *source, e ending) (api.Introspection, access.Secret, error) {
	for _, token := range e.held {
		if token.IsZero() {
			continue
		}
		info, err := j.introspect(ctx, token)
		var away *unreachable
		if errors.As(err, &away) {
			return api.Introspection{}, access.Secret{}, err
		}
		if err == nil && info.SessionID == e.session {
			return info, token, nil
		}
	}
	if s == nil || s.provider.fresh != fresh {
		return api.Introspection{}, access.Secret{}, errors.New("the token file no longer holds this session's token, and the provider gives the job no other")
	}
	again, err := j.open(ctx, s, e.mapping, "")
	if err != nil {
		return api.Introspection{}, access.Secret{}, err
	}
	if again.SessionID != e.session {
		return api.Introspection{}, access.Secret{}, fmt.Errorf("the job's token leads to session %s, not to %s", again.SessionID, e.session)
	}
	token := access.NewSecret(again.AccessToken)
	info, err := j.introspect(ctx, token)
	return info, token, err
}

// ownFolder returns dir if it is what connect makes, "" for anything else: it is going to be deleted.
func ownFolder(dir string) string {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || !filepath.IsAbs(dir) || !strings.HasPrefix(filepath.Base(dir), "jobgate-") {
		return ""
	}
	if _, err := os.Lstat(filepath.Join(dir, "federation")); err != nil {
		return ""
	}
	return filepath.Clean(dir)
}

func showRenewal(o *options, dir string) {
	if dir == "" {
		return
	}
	text, err := readSmall(filepath.Join(dir, "renewal.log"))
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines[max(0, len(lines)-20):] {
		o.env.say("renewal: %s", line)
	}
}
