package archive

import (
	"os"
	"sync"
)

// FaultyDisk stands between the spool and its files. While it is broken, writes stop half-way with its error.
type FaultyDisk struct {
	mu  sync.Mutex // guards err
	err error
}

// Break makes every write fail; nil mends.
func (d *FaultyDisk) Break(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *FaultyDisk) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Under returns a configuration whose spool lies on the disk.
func (d *FaultyDisk) Under(cfg Config) Config {
	cfg.openFile = func(name string, flag int) (file, error) {
		if err := d.failure(); err != nil && flag&os.O_CREATE != 0 {
			return nil, err
		}
		f, err := openOSFile(name, flag)
		return faultyFile{f, d}, err
	}
	return cfg
}

type faultyFile struct {
	file
	disk *FaultyDisk
}

func (f faultyFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.disk.failure(); err != nil {
		n, _ := f.file.WriteAt(b[:len(b)/2], off)
		return n, err
	}
	return f.file.WriteAt(b, off)
}

// WithSegments returns a configuration whose spool begins a new segment after so many bytes.
func (c Config) WithSegments(bytes int64) Config {
	c.segmentBytes = bytes
	return c
}
