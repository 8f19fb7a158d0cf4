package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// What is read of a source of mappings at most: a thousand teams with a file each fit, and nobody who can write there
// makes the server run out of memory.
const (
	maxSourceFile  = 1 << 20
	maxSourceFiles = 4096
	maxSourceBytes = 16 << 20
	// sourceTimeout is how long one reading may take.
	sourceTimeout = 30 * time.Second
)

// How often a source is looked at. A folder is watched beside that.
const (
	folderEvery   = 10 * time.Second
	remoteEvery   = 30 * time.Second
	shortestEvery = time.Second
)

// sourceConfig is an entry of mappings_from: one of folder, url and bucket.
type sourceConfig struct {
	Folder string       `yaml:"folder"` // its *.yaml and *.yml files
	URL    string       `yaml:"url"`    // of one file: http, https, or another runtimevar URL
	Bucket string       `yaml:"bucket"` // a gocloud.dev/blob URL
	Prefix string       `yaml:"prefix"` // of the objects in the bucket
	Every  api.Duration `yaml:"every"`
}

// sourceFile is a file of mappings as it was read.
type sourceFile struct {
	Name string `json:"name"` // as people find it: a path, a URL, or an object of a bucket
	Text []byte `json:"text"`
}

// sourceReader reads all that a source holds, at one instant as far as the source can do that. An error says that the
// source is away or cannot be understood as one; it is never an empty set. The commit is "" where there is none.
type sourceReader interface {
	read(ctx context.Context) (files []sourceFile, commit string, err error)
}

// sourceWatcher is a reader that can tell that something has changed before the next look.
type sourceWatcher interface {
	watch(ctx context.Context, wake func())
}

// sourceBusy is a reader that can tell that somebody is about to change more.
type sourceBusy interface{ busy() bool }

// content is what a source holds.
type content struct {
	Files    []sourceFile `json:"files"`
	Digest   string       `json:"digest"`   // of names and texts
	Revision string       `json:"revision"` // the digest, and the commit where there is one
}

// newContent checks what was read against the bounds, and names it.
func newContent(files []sourceFile, commit string) (*content, error) {
	slices.SortFunc(files, func(a, b sourceFile) int { return strings.Compare(a.Name, b.Name) })
	if len(files) > maxSourceFiles {
		return nil, fmt.Errorf("it holds %d files; at most %d are taken", len(files), maxSourceFiles)
	}
	sum, total := sha256.New(), 0
	for _, f := range files {
		if total += len(f.Text); total > maxSourceBytes {
			return nil, fmt.Errorf("its files have more than %d bytes", maxSourceBytes)
		}
		for _, part := range [][]byte{[]byte(f.Name), f.Text} {
			writePart(sum, part)
		}
	}
	c := &content{Files: files, Digest: fmt.Sprintf("sha256:%x", sum.Sum(nil))}
	c.Revision = c.Digest
	if commit != "" {
		c.Revision += " git:" + commit
	}
	return c, nil
}

// writePart writes a length before each part, so that no two sets have the same bytes.
func writePart(h hash.Hash, part []byte) {
	_, _ = fmt.Fprintf(h, "%d:", len(part))
	_, _ = h.Write(part)
}

// declared parses what a source holds.
func (c *content) declared(found *problems) []declared {
	var out []declared
	for _, f := range c.Files {
		for _, d := range parseMappings(f.Name, f.Text, found) {
			d.origin = access.Origin{From: f.Name, Revision: c.Revision}
			out = append(out, d)
		}
	}
	return out
}

// kind names the one of the three that a source is, "" for none or several.
func (c sourceConfig) kind() string {
	kinds := []string{}
	for kind, value := range map[string]string{"folder": c.Folder, "url": c.URL, "bucket": c.Bucket} {
		if value != "" {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) != 1 {
		return ""
	}
	return kinds[0]
}

// checkSources checks what stands in mappings_from. Nothing is read.
func (b *built) checkSources(found *problems) {
	seen := make(map[string]bool)
	for i, c := range b.config.MappingsFrom {
		at := fmt.Sprintf("mappings_from[%d]", i)
		if c.kind() == "" {
			b.config.problem(found, at, errors.New("write one of folder, url and bucket"))
			continue
		}
		if c.Prefix != "" && c.Bucket == "" {
			b.config.problem(found, at+".prefix", errors.New("a prefix goes with bucket"))
		}
		if c.Every != 0 && time.Duration(c.Every) < shortestEvery {
			b.config.problem(found, at+".every", fmt.Errorf("%s is shorter than %s", time.Duration(c.Every), shortestEvery))
		}
		s, err := b.newSource(c)
		switch {
		case err != nil:
			b.config.problem(found, at+"."+c.kind(), err)
		case seen[s.name]:
			b.config.problem(found, at, fmt.Errorf("%s stands here twice", s.name))
		default:
			seen[s.name] = true
		}
	}
}

// newSource makes a source that was not read yet.
func (b *built) newSource(c sourceConfig) (s *source, err error) {
	s = &source{config: c, every: time.Duration(c.Every)}
	defaultEvery := remoteEvery
	switch c.kind() {
	case "folder":
		s.name, defaultEvery = b.path(c.Folder), folderEvery
		s.reader = &folderReader{path: s.name, every: folderEvery}
	case "url":
		s.name, s.reader, err = newURLReader(c.URL)
	case "bucket":
		s.name, s.reader, err = newBucketReader(c.Bucket, c.Prefix)
	}
	if s.every == 0 {
		s.every = defaultEvery
	}
	return s, err
}

// shownURL is a URL as people may see it: a query can hold what is nobody's business.
func shownURL(u *url.URL) string {
	shown := *u
	shown.RawQuery, shown.Fragment, shown.User = "", "", nil
	return shown.String()
}

// readSources reads every source once, strictly, and adds their mappings to those of the configuration file.
func (b *built) readSources(ctx context.Context) error {
	found := &problems{file: b.config.file}
	for i, c := range b.config.MappingsFrom {
		s, err := b.newSource(c)
		var read *content
		if err == nil {
			read, err = s.read(ctx)
		}
		if err != nil {
			b.config.problem(found, fmt.Sprintf("mappings_from[%d]", i), err)
			continue
		}
		b.declared = append(b.declared, read.declared(found)...)
		if len(read.Files) == 0 {
			b.empty = append(b.empty, i)
		}
	}
	b.checkMappings(found)
	return found.or()
}
