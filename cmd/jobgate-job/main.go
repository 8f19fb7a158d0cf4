package main

import (
	"context"
	"os"
	"os/signal"
)

func main() {
	hideMemory()
	ctx := context.Background()
	if len(os.Args) < 2 || os.Args[1] != "exec" { // exec passes signals on to its command
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, endings...)
		defer stop()
	}
	os.Exit(run(ctx, os.Args[1:], environment{Vars: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}))
}
