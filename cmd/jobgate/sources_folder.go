package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// generations is the link by which Kubernetes swaps all files of a mounted ConfigMap at once: the files that one sees are
// links through it, and it is a link to a hidden folder with the files of one generation.
const generations = "..data"

// folderReader reads the mappings of a folder: each *.yaml and *.yml file directly in it that is not hidden.
type folderReader struct {
	path  string
	every time.Duration // between looks whether the folder is still the one that is watched
}

// read reads all files of one folder, though a link to it be turned meanwhile. A link that leads out of the folder is an
// error: what can be written here is to be all that can be in force from here.
func (f *folderReader) read(context.Context) ([]sourceFile, string, error) {
	folder, err := os.OpenRoot(f.path)
	if err != nil {
		return nil, "", fmt.Errorf("open the folder: %w", err)
	}
	defer func() { _ = folder.Close() }()
	root := folder
	if _, err := folder.Lstat(generations); err == nil {
		if root, err = folder.OpenRoot(generations); err != nil {
			return nil, "", fmt.Errorf("open the generation of the folder's files: %w", err)
		}
		defer func() { _ = root.Close() }()
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, "", fmt.Errorf("list the folder: %w", err)
	}
	var files []sourceFile
	for _, e := range entries {
		if !isMappingFile(e.Name()) || e.IsDir() {
			continue
		}
		if len(files) == maxSourceFiles {
			return nil, "", fmt.Errorf("the folder %s has more than %d files", f.path, maxSourceFiles)
		}
		text, err := readBounded(root, e.Name())
		if err != nil {
			return nil, "", fmt.Errorf("read %s: %w", filepath.Join(f.path, e.Name()), err)
		}
		files = append(files, sourceFile{Name: filepath.Join(f.path, e.Name()), Text: text})
	}
	commit, _ := gitState(f.path)
	return files, commit, nil
}

// busy reports whether the files are being checked out just now.
func (f *folderReader) busy() bool {
	_, busy := gitState(f.path)
	return busy
}

func isMappingFile(name string) bool {
	return !strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml"))
}

func readBounded(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe would block
		return nil, errors.New("it is no regular file")
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return readAtMost(file, maxSourceFile)
}

// readAtMost reads all of a file of a bounded size.
func readAtMost(r io.Reader, most int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return raw, err
}

// watch wakes when something happens in the folder, or to it. It need not be reliable: a network's file system tells
// nothing, and the folder is read now and then anyway.
func (f *folderReader) watch(ctx context.Context, wake func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return
	}
	defer func() { _ = w.Close() }()
	again := time.NewTicker(f.every)
	defer again.Stop()
	watched := f.arm(w)
	wake() // what happened before that was not seen
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-w.Events:
			if !open {
				return
			}
			if dir := filepath.Dir(e.Name); e.Name == watched[0] || dir == watched[0] || dir == watched[len(watched)-1] {
				wake()
				watched = f.arm(w)
			}
		case _, open := <-w.Errors: // too many events to keep
			if !open {
				return
			}
			wake()
		case <-again.C:
			watched = f.arm(w)
		}
	}
}

// arm watches the folder, what it is a link to, and the folder that it lies in: that is where it is made, renamed, and
// where a link to it is turned. It returns the folder's own names.
func (f *folderReader) arm(w *fsnotify.Watcher) []string {
	path, err := filepath.Abs(f.path)
	if err != nil {
		path = f.path
	}
	names := []string{path}
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		names = append(names, real)
	}
	for _, name := range append(names, filepath.Dir(path)) {
		_ = w.Add(name) // what is not there cannot be watched yet
	}
	return names
}
