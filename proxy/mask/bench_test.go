package mask_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jobgate/jobgate/proxy/mask"
)

// agentBody is a request of 42 KB as agents send it: prose, code and tool results as JSON strings.
func agentBody() []byte {
	text := "You are an agent that works in a repository. Run `go test ./...` and read what fails.\n" +
		"\tif err := run(ctx, \"./cmd/server\"); err != nil {\n\t\treturn fmt.Errorf(\"run %s: %w\", name, err)\n\t}\n" +
		"See https://example.com/docs/guide?id=12&lang=en for 50% of the details; the path is C:\\work\\repo.\n" +
		"- What tests leave behind, they remove; a file that is no longer read goes with the code that read it.\n"
	first := "The bearer of this note knows: sk-ant keys, AKIA ids and eyJ tokens never belong in a file.\n"
	type block struct {
		Type, Text string
	}
	blocks := []block{{"text", first}}
	for n := 0; n < 42<<10; n += len(text) + 60 {
		blocks = append(blocks, block{"text", fmt.Sprintf("%d %s", n, text)})
	}
	body, err := json.Marshal(map[string]any{"model": "claude", "stream": true, "messages": blocks})
	if err != nil {
		panic(err)
	}
	return body[:42<<10]
}

func benchSecrets(n int) []mask.Secret {
	rng := rand.New(rand.NewPCG(1, 2))
	var secrets []mask.Secret
	for i := range n {
		var b strings.Builder
		for range 40 {
			b.WriteByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[rng.IntN(64)])
		}
		secrets = append(secrets, mask.Secret{Name: fmt.Sprintf("secret-%d", i), Value: []byte(b.String())})
	}
	return secrets
}

// cpu is the time that this process has computed, whatever else the machine does.
func cpu() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		panic(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

func BenchmarkMask(b *testing.B) {
	body := agentBody()
	for _, c := range []struct {
		name      string
		secrets   int
		detectors []mask.Detector
	}{
		{"1 secret", 1, nil}, {"20 secrets", 20, nil}, {"100 secrets", 100, nil},
		{"20 secrets and detectors", 20, mask.Detectors()},
	} {
		b.Run(c.name, func(b *testing.B) {
			set := compile(b, mask.Config{Secrets: benchSecrets(c.secrets), Detectors: c.detectors})
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			before := cpu()
			for b.Loop() {
				if _, n := set.Mask(nil, body); n != 0 {
					b.Fatal(n)
				}
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N)/float64(len(body)), "cpu-ns/byte")
		})
	}
}

// BenchmarkStream writes what a model's stream is made of: 200 pieces of some 20 bytes.
func BenchmarkStream(b *testing.B) {
	set := compile(b, mask.Config{Secrets: benchSecrets(20), Detectors: mask.Detectors()})
	body := agentBody()[:4000]
	var dst []byte
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		st := set.NewStream()
		for at := 0; at < len(body); at += 20 {
			dst = st.Write(dst[:0], body[at:at+20])
		}
		dst = st.Close(dst[:0])
	}
}

func BenchmarkCompile(b *testing.B) {
	secrets := benchSecrets(20)
	b.ReportAllocs()
	for b.Loop() {
		compile(b, mask.Config{Secrets: secrets, Detectors: mask.Detectors()})
	}
}

func BenchmarkWithKey(b *testing.B) {
	set := compile(b, mask.Config{Secrets: benchSecrets(20), Detectors: mask.Detectors()})
	key := make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		set.WithKey(key)
	}
}

func BenchmarkWith(b *testing.B) {
	set := compile(b, mask.Config{Secrets: benchSecrets(20), Detectors: mask.Detectors()})
	own := mask.Secret{Name: "session", Value: []byte("jg_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLM")}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := set.With(own); err != nil {
			b.Fatal(err)
		}
	}
}
