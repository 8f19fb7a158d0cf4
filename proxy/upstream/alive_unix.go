//go:build unix

package upstream

import (
	"net"
	"syscall"
)

// peeker looks at what has come on a connection without taking it. It is made once a connection, and not once a call.
type peeker struct {
	raw   syscall.RawConn
	look  func(fd uintptr) bool
	one   [1]byte
	quiet bool
}

// newPeeker returns nil where nothing can be seen.
func newPeeker(c net.Conn) *peeker {
	system, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return nil
	}
	p := &peeker{raw: raw}
	p.look = func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), p.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		p.quiet = n < 0 && (err == syscall.EAGAIN || err == syscall.EWOULDBLOCK)
		return true
	}
	return p
}

// silent reports whether an idle connection is still open, and nothing has come on it.
func (p *peeker) silent() bool {
	if p == nil {
		return true
	}
	p.quiet = false
	err := p.raw.Read(p.look)
	return err == nil && p.quiet
}
