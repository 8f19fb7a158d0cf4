//go:build !unix

package main

import (
	"os"
	"syscall"
)

var endings = []os.Signal{os.Interrupt}

var forwarded = []os.Signal{os.Interrupt}

func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

func terminate(pid int) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return process.Kill()
}
