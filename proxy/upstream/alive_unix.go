//go:build unix

package upstream

import "syscall"

// alive reports whether an idle connection is still open and silent: an upstream that closed it, or that says something
// nobody asked for, gets no request on it.
func (c *conn) alive() bool {
	if c.tls != nil && c.tls.start != c.tls.end {
		return false
	}
	raw, ok := c.tcp.(syscall.Conn)
	if !ok {
		return true
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	silent := false
	err = control.Read(func(fd uintptr) bool {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		silent = n < 0 && (err == syscall.EAGAIN || err == syscall.EWOULDBLOCK)
		return true
	})
	return err == nil && silent
}
