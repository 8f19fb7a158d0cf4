package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/internal/httpd"
)

// maxHead bounds a request's head. Agents send 2 KB.
const maxHead = 64 << 10

// listen opens the listeners of both sides and of the control socket, and puts servers over them.
func (s *server) listen(jobs http.Handler, people *httpd.People) (err error) {
	cfg := s.b.config
	var listening net.ListenConfig
	ctx := context.Background()
	if s.jobs, err = listening.Listen(ctx, "tcp", cfg.Listen); err != nil {
		return fmt.Errorf("listen for jobs: %w", err)
	}
	if cfg.Control.Listen != "" {
		if s.control, err = listening.Listen(ctx, "tcp", cfg.Control.Listen); err != nil {
			return fmt.Errorf("listen for people: %w", err)
		}
	}
	if s.socket, err = listenSocket(filepath.Join(cfg.Data, "control.sock")); err != nil {
		return err
	}
	calls, interrupt := context.WithCancelCause(context.Background())
	s.interrupt = interrupt
	s.jobsSrv = s.newHTTPServer(behindProxies(jobs, s.b.proxies), calls)
	s.controlSrv = s.newHTTPServer(people, context.Background())
	s.sockSv = s.newHTTPServer(people.Socket(), context.Background())
	return nil
}

func (s *server) newHTTPServer(h http.Handler, base context.Context) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHead,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(quiet{s.log.Handler()}, slog.LevelDebug),
	}
}

// quiet keeps what net/http says of single connections at debug level.
type quiet struct{ slog.Handler }

// listenSocket makes the control socket, for its owner only: whoever may open it is an operator. The store's lock is
// held by now, so that a socket which is there belongs to a process that is gone.
func listenSocket(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old control socket: %w", err)
	}
	var listening net.ListenConfig
	l, err := listening.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w (a socket's path has 107 characters at most; choose a shorter data folder)", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the control socket: %w", err), l.Close())
	}
	return l, nil
}

func addressOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

func filePath(b *built, ref string) string { return strings.TrimPrefix(b.resolve(ref), "file:") }

func newLogger(c logConfig, w io.Writer) (*slog.Logger, error) {
	level, err := logLevel(c.Level)
	if err != nil {
		return nil, err
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

func logLevel(text string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return 0, fmt.Errorf("%q: write debug, info, warn or error", text)
	}
	return level, nil
}

func loopbackHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func parsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q is no address range such as 10.0.0.0/8", text)
	}
	return p.Masked(), nil
}

// archiveKnowsNot reports whether a record cannot be closed, because it is closed or was never begun.
func archiveKnowsNot(err error) bool {
	return errors.Is(err, archive.ErrUnknown) || errors.Is(err, archive.ErrEnded)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
