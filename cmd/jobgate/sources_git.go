package main

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// gitState returns the commit that is checked out where a folder lies, "" where it lies in no checkout or that cannot be
// read simply, and whether git is changing the checkout just now. No git is run.
func gitState(folder string) (commit string, busy bool) {
	real, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return "", false
	}
	if real, err = filepath.Abs(real); err != nil {
		return "", false
	}
	dir := gitFolder(real)
	if dir == "" {
		return "", false
	}
	_, err = os.Lstat(filepath.Join(dir, "index.lock"))
	return headOf(dir), err == nil
}

// gitFolder finds the checkout's own folder of git: .git, or what the file .git of a linked worktree points to.
func gitFolder(folder string) string {
	for range 32 {
		dir := filepath.Join(folder, ".git")
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() {
			return dir
		}
		if err == nil {
			target, ok := strings.CutPrefix(firstLine(dir), "gitdir: ")
			if !ok {
				return ""
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(folder, target)
			}
			return target
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return ""
		}
		folder = parent
	}
	return ""
}

var (
	commitText = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)
	refText    = regexp.MustCompile(`^refs/[A-Za-z0-9._/+@-]{1,200}$`)
)

func headOf(dir string) string {
	head := firstLine(filepath.Join(dir, "HEAD"))
	ref, symbolic := strings.CutPrefix(head, "ref: ")
	if !symbolic {
		return commitText.FindString(head)
	}
	if !refText.MatchString(ref) || strings.Contains(ref, "..") {
		return ""
	}
	for _, base := range []string{dir, commonFolder(dir)} {
		if commit := commitText.FindString(firstLine(filepath.Join(base, filepath.FromSlash(ref)))); commit != "" {
			return commit
		}
	}
	return packed(filepath.Join(commonFolder(dir), "packed-refs"), ref)
}

// commonFolder is where a linked worktree's branches lie.
func commonFolder(dir string) string {
	common := firstLine(filepath.Join(dir, "commondir"))
	switch {
	case common == "":
		return dir
	case filepath.IsAbs(common):
		return common
	}
	return filepath.Join(dir, common)
}

// packed finds a branch among those that git has put into one file.
func packed(file, ref string) string {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if commit, name, ok := strings.Cut(lines.Text(), " "); ok && name == ref {
			return commitText.FindString(commit)
		}
	}
	return ""
}

func firstLine(file string) string {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Scan()
	return strings.TrimSpace(lines.Text())
}
