package archive

import (
	"os"
	"syscall"
)

// syncData is fdatasync(2): the data and the size, not the times.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
