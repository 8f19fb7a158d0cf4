package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockFile takes the lock of a store for this process. The lock goes with the file handle, so a process that was
// killed holds none; the file stays, because removing it would let two processes lock two files of one name.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		_ = f.Close()
		return nil, fmt.Errorf("lock store: another process holds %s; stop it, or give this one a data folder of its own", path)
	case err != nil:
		_ = f.Close()
		return nil, fmt.Errorf("lock store %s: %w", path, err)
	}
	return f, nil
}
