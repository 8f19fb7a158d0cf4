package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
)

// placeholderKey reads the key of the maskers' placeholders from dir, and makes it where there is none.
func placeholderKey(dir string) (access.Secret, error) {
	path := filepath.Join(dir, "placeholder.key")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(dir, path); err != nil {
			return access.Secret{}, err
		}
		raw, err = os.ReadFile(path)
	}
	if err != nil {
		return access.Secret{}, fmt.Errorf("read the placeholder key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil || len(key) != 32 {
		return access.Secret{}, fmt.Errorf("%s is no key of 32 bytes in hex; move it away and a new one is made", path)
	}
	return access.NewSecret(string(key)), nil
}

func makeKey(dir, path string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the key folder: %w", err)
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return fmt.Errorf("make the placeholder key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was first
	}
	if err != nil {
		return fmt.Errorf("make the placeholder key: %w", err)
	}
	_, err = f.WriteString(hex.EncodeToString(key[:]) + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}
