package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// keptSource is what a source said when it was last put in force, kept in the data folder: a restart while the source is
// away goes on with it.
type keptSource struct {
	Source string `json:"source"`
	content
}

func (s *sources) keptFile(one *source) string {
	return filepath.Join(s.folder, fmt.Sprintf("%x", sha256.Sum256([]byte(one.config.kind()+" "+one.name)))[:24]+".json")
}

// remember keeps what is in force of a source. Where that fails, a restart needs the source itself.
func (s *sources) remember(one *source) {
	err := func() error {
		text, err := json.Marshal(keptSource{Source: one.name, content: *one.inForce})
		if err != nil {
			return err
		}
		if err := os.MkdirAll(s.folder, 0o700); err != nil {
			return err
		}
		return replaceFile(s.keptFile(one), text)
	}()
	if err != nil {
		s.log.Warn("what a source of mappings says could not be kept for a restart", "source", one.name, "error", err)
	}
}

// replaceFile writes a file that is either the old one or the new.
func replaceFile(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// recall returns what was kept of a source, nil where nothing usable was.
func (s *sources) recall(one *source) *content {
	text, err := os.ReadFile(s.keptFile(one))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var kept keptSource
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err == nil && kept.Source != one.name {
		err = fmt.Errorf("it is of %s", kept.Source)
	}
	if err != nil {
		s.log.Warn("what a source of mappings said before the restart cannot be read", "source", one.name, "error", err)
		return nil
	}
	return &kept.content
}
