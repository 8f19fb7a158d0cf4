package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxBody is the largest request body that an emulator reads: the limit of
// the Messages API (32 MB) and far more than a CI provider takes.
const maxBody = 32 << 20

// server is one emulator's listener. Close ends what is in flight and waits
// for it, so that a test can look for leaked goroutines afterwards.
type server struct {
	url   string
	http  *http.Server
	serve chan error

	mu     sync.Mutex // guards closed against a call that is just starting
	closed bool
	calls  sync.WaitGroup
}

// listen serves h on a free port of 127.0.0.1.
func listen(h http.Handler) (*server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen on a free port of 127.0.0.1: %w", err)
	}
	s := &server{url: "http://" + ln.Addr().String(), serve: make(chan error, 1)}
	s.http = &http.Server{Handler: s.counted(h), ReadHeaderTimeout: 30 * time.Second}
	go func() { s.serve <- s.http.Serve(ln) }()
	return s, nil
}

func (s *server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			panic(http.ErrAbortHandler) // net/http's word for "cut, and say nothing"
		}
		s.calls.Add(1)
		s.mu.Unlock()
		defer s.calls.Done()
		h.ServeHTTP(w, r)
	})
}

// Close cuts every connection, waits for the calls in flight and frees the
// port. Closing again does nothing.
func (s *server) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	err := s.http.Close()
	s.calls.Wait()
	if served := <-s.serve; err == nil && !errors.Is(served, http.ErrServerClosed) {
		err = served
	}
	if err != nil {
		return fmt.Errorf("close %s: %w", s.url, err)
	}
	return nil
}

// pause waits for d or for the end of ctx, and reports whether d passed.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
