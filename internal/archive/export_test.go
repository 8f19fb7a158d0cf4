package archive

import (
	"os"
	"sync"
)

// ReserveName is the file that is given up when the disk is full.
const ReserveName = "reserve"

// FaultyDisk stands between the spool and its files. While it is broken, writes stop half-way with its error.
type FaultyDisk struct {
	mu   sync.Mutex // guards what follows
	err  error
	only func() bool
	gate chan struct{}
}

// BreakWhile makes writes fail as long as cond holds.
func (d *FaultyDisk) BreakWhile(err error, cond func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.only = err, cond
}

// Hold makes every write wait until release is called.
func (d *FaultyDisk) Hold() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gate := make(chan struct{})
	d.gate = gate
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		close(gate)
		d.gate = nil
	}
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
	if d.only != nil && !d.only() {
		return nil
	}
	return d.err
}

func (d *FaultyDisk) wait() {
	d.mu.Lock()
	gate := d.gate
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
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
	f.disk.wait()
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
