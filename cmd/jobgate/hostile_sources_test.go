package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestFollowedSecretsLogNoQuery takes the server of a secret away whose URL has a token in its query: errors of the
// client quote the URL, and the log must not have it.
func TestFollowedSecretsLogNoQuery(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, firstKey) }))
	u, ok, err := secretURL(server.URL + "/key?token=s3cr3t-in-the-query&wait=10ms")
	if err != nil || !ok {
		t.Fatal(err)
	}
	v, err := openVariable(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	var log lockedBuffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.follow(ctx, slog.New(slog.NewTextHandler(&log, nil)))
	}()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(log.String(), "cannot be read now"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is logged of a secret that cannot be read")
		}
	}
	cancel()
	<-done
	v.close()
	if text := log.String(); strings.Contains(text, "s3cr3t-in-the-query") {
		t.Errorf("the log has the query of a secret's URL:\n%s", text)
	}
}

// cutServer answers with a part of a file and closes the connection, in the one form of HTTP in which that cannot be
// told from its end.
func cutServer(t *testing.T, head, part string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, head+part)
			_ = c.Close()
		}
	}()
	return "http://" + l.Addr().String() + "/mappings.yaml"
}

// TestSourceCutShort reads a file whose end nobody states. A part of a mapping, without the conditions below, would grant
// more than the whole.
func TestSourceCutShort(t *testing.T) {
	const part = "name: m\nissuer: i\nmatch: {repository_owner_id: \"1\"}\ngrants: [{connection: a}]\n"
	for name, c := range map[string]struct {
		head string
		good bool
	}{
		"HTTP/1.0, no length": {"HTTP/1.0 200 OK\r\n\r\n", false},
		"HTTP/1.1, no length": {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", false},
		"a longer length":     {"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", false},
		"its length":          {"HTTP/1.1 200 OK\r\nContent-Length: 78\r\n\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			_, r, err := newURLReader(cutServer(t, c.head, part))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			files, _, err := r.read(ctx)
			if good := err == nil; good != c.good {
				t.Fatalf("read = %q, %v; wanted good %t", files, err, c.good)
			}
			t.Log(err)
		})
	}
}

// TestSecretCutShort is the same of a secret: a part of one would be used, and masked in place of the whole.
func TestSecretCutShort(t *testing.T) {
	u, err := url.Parse(cutServer(t, "HTTP/1.0 200 OK\r\n\r\n", firstKey[:20]) + "?decoder=string")
	if err != nil {
		t.Fatal(err)
	}
	v, err := openVariable(t.Context(), u)
	if err == nil {
		v.close()
		t.Fatal("a secret was read whose end nobody stated")
	}
	t.Log(err)
}
