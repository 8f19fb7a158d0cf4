package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// hideMemory keeps other processes of the same user from reading this one's memory and environment under /proc, where the
// CI token and the mint stand (prctl(2), PR_SET_DUMPABLE). It does not stop root. That it may fail is no reason not to go
// on: the job's shell, which cannot be hidden, has the same variables.
func hideMemory() { setDumpable(0) }

// showMemory takes hideMemory back.
func showMemory() { setDumpable(1) }

func setDumpable(to uintptr) {
	const option = 4 // PR_SET_DUMPABLE
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, option, to, 0)
}

// process is one process as proc(5) shows it. Its start time tells it from a later one of the same id.
type process struct {
	ID     int    `json:"id"`
	Name   string `json:"name"`
	Start  string `json:"start"`
	parent int
}

// processOf reads a process; ok is false where there is none.
func processOf(id int) (process, bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return process{}, false
	}
	text := string(raw)
	from, to := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if from < 0 || to < from {
		return process{}, false
	}
	fields := strings.Fields(text[to+1:])
	if len(fields) < 20 {
		return process{}, false
	}
	p := process{ID: id, Name: text[from+1 : to], Start: fields[19]}
	_, err = fmt.Sscan(fields[1], &p.parent)
	return p, err == nil
}

// commandLine returns the arguments of a process, "" where they cannot be read.
func commandLine(id int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id))
	return strings.ReplaceAll(strings.TrimRight(string(raw), "\x00"), "\x00", " ")
}
