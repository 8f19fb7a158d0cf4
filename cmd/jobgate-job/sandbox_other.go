//go:build !linux

package main

import (
	"context"
	"errors"
	"os/exec"
)

// room is what only Linux has: see sandbox_linux.go.
type room struct{}

func newRoom(*session) (*room, error) { return nil, sandboxHint(errors.ErrUnsupported) }

func (*room) enter(*exec.Cmd) error { return errors.ErrUnsupported }

func (*room) open(func(string, ...any)) (func(), error) { return nil, errors.ErrUnsupported }

func enterRoom(context.Context, *options, []string) error { return misuse("inside is Linux's only") }

func trySandbox() error { return sandboxHint(errors.ErrUnsupported) }

func sandboxHint(error) error {
	return errors.New("--sandbox needs Linux")
}
