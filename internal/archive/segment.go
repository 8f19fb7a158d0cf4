package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// file is what the spool needs of a file. Tests put one in that fails.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Size() (int64, error)
	Sync() error
	Close() error
}

// osFile syncs the data and only as much of the metadata as reading it back needs.
type osFile struct{ *os.File }

func (f osFile) Sync() error { return syncData(f.File) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func openOSFile(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// segment is one file of the spool.
type segment struct {
	number int
	path   string
	f      file
	base   int64 // of the snapshot, however large it is
	size   int64 // of the frames that are good; guarded by spool.stateMu
	live   int64 // bytes of frames whose events are in no part yet; guarded by spool.stateMu
}

func segmentPath(dir string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("spool-%06d.wal", n))
}

// findSegments returns the numbers of the segments in dir, in order.
func findSegments(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read spool folder: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		var n int
		if _, err := fmt.Sscanf(e.Name(), "spool-%d.wal", &n); err == nil && filepath.Base(segmentPath(dir, n)) == e.Name() {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// createSegment makes a segment whose first frame is the snapshot, and brings both to the disk before it returns.
func (p *spool) createSegment(number int, snapshot []byte) (seg *segment, err error) {
	path := segmentPath(p.dir, number)
	f, err := p.open(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("create spool segment: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(path)
		}
	}()
	b, err := appendFrame([]byte(segmentMagic), kindSnapshot, "", snapshot)
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(b, 0); err != nil {
		return nil, fmt.Errorf("create spool segment: %w", err)
	}
	if err = errors.Join(f.Sync(), syncPath(p.dir)); err != nil {
		return nil, fmt.Errorf("create spool segment: %w", err)
	}
	return &segment{number: number, path: path, f: f, base: int64(len(b)), size: int64(len(b))}, nil
}

// syncPath brings a file, or a folder's list of files, to the disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
