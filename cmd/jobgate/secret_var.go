package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"gocloud.dev/runtimevar"
	_ "gocloud.dev/runtimevar/awsparamstore"
	_ "gocloud.dev/runtimevar/awssecretsmanager"
	_ "gocloud.dev/runtimevar/filevar"
	_ "gocloud.dev/runtimevar/gcpsecretmanager"
	"gocloud.dev/runtimevar/httpvar"

	"github.com/jobgate/jobgate/proxy/inject"
)

const (
	// firstValue bounds the wait for a variable's first value at the start.
	firstValue = 15 * time.Second
	// maxSecret bounds a secret, as one in a file is.
	maxSecret = 64 << 10
)

// secretSchemes are those of URLs that a secret can be read by. A URL that would hold the value itself is none.
var secretSchemes = []string{"file", "https", "http", "awssecretsmanager", "awsparamstore", "gcpsecretmanager"}

// variable is a secret that is followed where it lies: its latest value is used for the next call.
type variable struct {
	name   string // for people: the URL without its query
	url    *url.URL
	v      *runtimevar.Variable
	source *inject.Source
}

// secretURL parses a reference that is a URL; ok is false for env:NAME, file:PATH and what is no reference.
func secretURL(ref string) (u *url.URL, ok bool, err error) {
	if !strings.Contains(ref, "://") {
		return nil, false, nil
	}
	u, err = url.Parse(ref)
	switch {
	case err != nil || !slices.Contains(secretSchemes, u.Scheme):
		// The text is not shown: it may be the secret.
		return nil, true, fmt.Errorf("a secret is a reference: env:NAME, file:PATH, or a URL of %s", strings.Join(secretSchemes, ", "))
	case u.User != nil:
		return nil, true, errors.New("the URL has a user name or a password in it, which would stand in the record; take it out")
	case u.Scheme == "http" && !loopbackHost(u.Hostname()):
		return nil, true, fmt.Errorf("http://%s: a secret over plain http can be read on the way; write https, which only a loopback address may do without", u.Host)
	}
	q := u.Query()
	if q.Get("decoder") == "" {
		q.Set("decoder", "string")
		u.RawQuery = q.Encode()
	}
	return u, true, nil
}

// openVariable opens a secret's URL and waits for its first value. One that is not had is an error; later ones are only
// logged, and the last good value is used on.
func openVariable(ctx context.Context, u *url.URL) (*variable, error) {
	out := &variable{name: u.Scheme + "://" + u.Host + u.Path, url: u}
	var err error
	if u.Scheme == "http" || u.Scheme == "https" {
		out.v, err = (&httpvar.URLOpener{Client: boundedClient()}).OpenVariableURL(ctx, u)
	} else {
		out.v, err = runtimevar.OpenVariable(ctx, u.String())
	}
	if err != nil {
		return nil, fmt.Errorf("open the secret %s: %s", out.name, withoutQuery(err, u))
	}
	ctx, cancel := context.WithTimeout(ctx, firstValue)
	defer cancel()
	snapshot, err := out.v.Watch(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("the secret %s was not to be had within %s", out.name, firstValue)
	case err != nil:
		err = fmt.Errorf("read the secret %s: %s", out.name, withoutQuery(err, u))
	default:
		var first string
		if first, err = secretText(snapshot.Value); err == nil {
			out.source, err = inject.NewFollowed(out.name, first, out.latest, time.Now)
		}
	}
	if err != nil {
		out.close()
		return nil, err
	}
	return out, nil
}

// latest returns the latest good value. It does not wait: there was one at the start.
func (x *variable) latest(ctx context.Context) (string, error) {
	snapshot, err := x.v.Latest(ctx)
	if err != nil {
		return "", err
	}
	return secretText(snapshot.Value)
}

func (x *variable) close() { _ = x.v.Close() }

// follow logs what happens to a secret until ctx ends: that it has a new value, and that it cannot be read.
func (x *variable) follow(ctx context.Context, log *slog.Logger) {
	for {
		snapshot, err := x.v.Watch(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, runtimevar.ErrClosed):
			return
		case err != nil:
			log.Warn("a secret cannot be read now; its last value is used", "secret", x.name, "error", withoutQuery(err, x.url))
			continue
		}
		text, err := secretText(snapshot.Value)
		c, errNow := x.source.Credential(ctx)
		switch {
		case err == nil && errNow == nil && c.Secret.Reveal() == text:
			log.Info("a secret was read anew", "secret", x.name, "version", c.Version)
		default:
			log.Warn("a secret's new value cannot be used; its last value is", "secret", x.name, "version", c.Version, "error", errors.Join(err, errNow))
		}
	}
}

// secretText returns a variable's value as a secret has it: without the line end that editors add.
func secretText(value any) (string, error) {
	var text string
	switch v := value.(type) {
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		return "", errors.New("it is no text; write decoder=string in its URL, or leave decoder out")
	}
	if len(text) > maxSecret {
		return "", fmt.Errorf("it has %d bytes; at most %d are taken", len(text), maxSecret)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", errors.New("it is empty")
	}
	return text, nil
}

// withoutQuery takes the URL's query, which may hold what is nobody's business, out of an error's text.
func withoutQuery(err error, u *url.URL) string {
	var request *url.Error
	if errors.As(err, &request) { // it quotes a URL, which after a redirect is another one
		err = request.Err
	}
	text := err.Error()
	if u.RawQuery != "" {
		text = strings.ReplaceAll(text, "?"+u.RawQuery, "")
	}
	for _, values := range u.Query() {
		for _, v := range values {
			if len(v) >= shortestSecret {
				text = strings.ReplaceAll(text, v, "...")
			}
		}
	}
	return cutLine(text)
}

// cutLine makes a client's error one line that fits a log.
func cutLine(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	if len(text) > 400 {
		text = text[:400] + "..."
	}
	return text
}

// source returns where a secret is read from, after a first read.
func (b *built) source(ref string, env environment) (*inject.Source, error) {
	u, isURL, err := secretURL(ref)
	switch {
	case err != nil:
		return nil, err
	case !isURL:
		return inject.NewSource(b.resolve(ref), env.Getenv, time.Now)
	}
	v, err := openVariable(context.Background(), u)
	if err != nil {
		return nil, err
	}
	b.variables = append(b.variables, v)
	return v.source, nil
}

// once reads a secret that is not followed.
func (b *built) once(ref string, env environment) (inject.Credential, error) {
	followed := len(b.variables)
	src, err := b.source(ref, env)
	if err != nil {
		return inject.Credential{}, err
	}
	defer func() {
		for _, v := range b.variables[followed:] {
			v.close()
		}
		b.variables = b.variables[:followed]
	}()
	return src.Credential(context.Background())
}

// close stops following secrets.
func (b *built) close() {
	for _, v := range b.variables {
		v.close()
	}
}
