package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// TestMain makes the test binary whatever process a test needs beside itself: a server that can be killed, or the bare
// proxy that gateways are compared with.
func TestMain(m *testing.M) {
	if spec := os.Getenv(bareVariable); spec != "" {
		serveBare(spec)
	}
	if file := os.Getenv(serveVariable); file != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := run(ctx, []string{"serve", "-c", file}, environment{Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}
