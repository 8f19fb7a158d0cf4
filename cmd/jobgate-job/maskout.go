package main

import (
	"io"
	"os"
	"strings"
	"sync"

	"github.com/jobgate/jobgate/proxy/mask"
)

// maskOutput puts a masker before each of the command's outputs. It knows the session token and the job's own tokens by
// their value, and what the record's detectors recognise by its shape. It does not know the credential that Jobgate
// injects, which the job never has.
func maskOutput(env environment, s *session) (out, errs io.Writer, flush func(), err error) {
	secrets := []mask.Secret{{Name: "session-token", Value: []byte(s.token.Reveal())}}
	known := make(map[string]bool)
	for _, name := range hiddenVariables(env, s.source, s.jobgate.url) {
		value := env.get(name)
		if place := strings.ContainsAny(value, "/"); place || known[value] || len(value) < mask.MinSecret || len(value) > mask.MaxSecret {
			continue // a URL or a socket's path is no secret
		}
		known[value] = true
		secrets = append(secrets, mask.Secret{Name: "ci-token", Value: []byte(value)})
	}
	set, err := mask.Compile(mask.Config{Secrets: secrets, Detectors: mask.Detectors()})
	if err != nil {
		return nil, nil, nil, err
	}
	first, second := &maskedWriter{to: env.Stdout, stream: set.NewStream()}, &maskedWriter{to: env.Stderr, stream: set.NewStream()}
	return first, second, func() { first.close(); second.close() }, nil
}

// maskedWriter masks one output as it comes.
type maskedWriter struct {
	to     io.Writer
	stream *mask.Stream

	mu     sync.Mutex // guards what follows: a write may still be under way when close is called
	buf    []byte
	closed bool
}

func (w *maskedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, os.ErrClosed
	}
	w.buf = w.stream.Write(w.buf[:0], p)
	if _, err := w.to.Write(w.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *maskedWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	_, _ = w.to.Write(w.stream.Close(nil)) // the command has ended; there is nobody to be told
}
