package inject

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jobgate/jobgate/internal/access"
)

const (
	// recheck is how long the value of a file is used before the file is looked at again.
	recheck = 5 * time.Second
	// maxFile bounds a credential file; the largest in use, a service account's key, has 3 KB.
	maxFile = 64 << 10
)

// Credential is a value and how the record names it.
type Credential struct {
	Secret access.Secret
	// Name is the reference it was read by; Version changes with the value and tells nothing about it.
	Name    string
	Version string
}

// Source reads a credential. The last good value is kept: a file that vanishes for a moment stops nothing, one that
// was never readable is an error.
type Source struct {
	ref    string
	now    func() time.Time
	latest func(context.Context) (string, error) // nil for env: and file:

	mu      sync.Mutex // guards all below
	require func(access.Secret) error
	current Credential
	read    time.Time
	stamp   time.Time // the file's modification time when it was read
}

// NewSource returns the source of a reference, after a first read.
func NewSource(ref string, getenv func(string) string, now func() time.Time) (*Source, error) {
	s := &Source{ref: ref, now: now}
	kind, rest, _ := strings.Cut(ref, ":")
	switch kind {
	case "env":
		value := strings.TrimSpace(getenv(rest))
		if value == "" {
			return nil, fmt.Errorf("the environment variable %s is not set or empty; set it where the server starts", rest)
		}
		s.keep(value)
		s.read = s.now().Add(100 * 365 * 24 * time.Hour) // a process cannot see its environment change
		return s, nil
	case "file":
		if err := s.readFile(rest); err != nil {
			return nil, err
		}
		return s, nil
	}
	return nil, fmt.Errorf("a secret is a reference, env:NAME, file:PATH or a URL, and this value is none of them (it is not shown, since it may be the secret itself)")
}

// NewFollowed returns the source of a value that changes where it lies: latest returns the last good one, without
// waiting, and is asked for every call. The name is shown in the record; first is the value at the start.
func NewFollowed(name, first string, latest func(context.Context) (string, error), now func() time.Time) (*Source, error) {
	if first == "" {
		return nil, fmt.Errorf("the secret %s is empty", name)
	}
	s := &Source{ref: name, now: now, latest: latest}
	s.keep(first)
	s.read = s.now()
	return s, nil
}

// Require sets what a value must be like from now on: a new one that is not is passed over, and the last good one used.
func (s *Source) Require(check func(access.Secret) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.require = check
}

// Credential returns the value to use now.
func (s *Source) Credential(ctx context.Context) (Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest != nil {
		if value, err := s.latest(ctx); err == nil {
			s.takeLocked(value)
		}
		return s.current, nil
	}
	if now := s.now(); now.Sub(s.read) >= recheck {
		s.read = now
		if path, ok := strings.CutPrefix(s.ref, "file:"); ok {
			s.refreshLocked(path)
		}
	}
	if s.current.Secret.IsZero() {
		return Credential{}, fmt.Errorf("the credential %s has no value", s.ref)
	}
	return s.current, nil
}

func (s *Source) refreshLocked(path string) {
	info, err := os.Stat(path)
	if err != nil || info.ModTime().Equal(s.stamp) {
		return
	}
	if value, err := readSecret(path); err == nil {
		s.takeLocked(value)
		s.stamp = info.ModTime()
	}
}

// takeLocked takes a new value up, where it is one that can be used.
func (s *Source) takeLocked(value string) {
	if value == "" || value == s.current.Secret.Reveal() || s.require != nil && s.require(access.NewSecret(value)) != nil {
		return
	}
	s.keep(value)
}

func (s *Source) readFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read the secret file:%s: %w", path, err)
	}
	value, err := readSecret(path)
	if err != nil {
		return err
	}
	s.keep(value)
	s.read, s.stamp = s.now(), info.ModTime()
	return nil
}

func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read the secret file:%s: %w", path, err)
	}
	if info.Size() > maxFile {
		return "", fmt.Errorf("the secret file:%s has %d bytes; at most %d are taken", path, info.Size(), maxFile)
	}
	raw, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return "", fmt.Errorf("read the secret file:%s: %w", path, err)
	}
	value := strings.TrimSpace(string(raw))
	if value == "" {
		return "", fmt.Errorf("the secret file:%s is empty", path)
	}
	return value, nil
}

func (s *Source) keep(value string) {
	sum := sha256.Sum256([]byte("jobgate credential version\x00" + value))
	s.current = Credential{Secret: access.NewSecret(value), Name: s.ref, Version: hex.EncodeToString(sum[:4])}
}
