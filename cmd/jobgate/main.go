// Command jobgate is the server and its operator's tool.
//
// Jobgate stands between CI jobs and the services that they call: see the README. Exit codes: 0 done, 1 failed, 2 wrong
// use, 3 denied.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], environment{
		Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	stop()
	os.Exit(code)
}
