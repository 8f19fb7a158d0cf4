package dial

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Timeout bounds one connection attempt where a Dialer says nothing else.
const Timeout = 5 * time.Second

// Dialer opens TCP connections. The zero Dialer reaches public addresses only.
type Dialer struct {
	// Private lets it reach loopback, private and carrier-grade NAT addresses. Link-local addresses, the metadata
	// services of clouds, multicast and unspecified addresses are refused all the same.
	Private bool
	// Timeout bounds one attempt; zero takes the package's.
	Timeout time.Duration
}

// AddressError is an address that is refused.
type AddressError struct {
	Addr netip.Addr
	Kind string // such as "loopback" or "metadata service"
	// Private says that a Dialer with Private would reach it.
	Private bool
}

// Error says what the address is and what would allow it.
func (e *AddressError) Error() string {
	text := fmt.Sprintf("address %s is refused: %s", e.Addr, e.Kind)
	if e.Private {
		text += "; private: true in the configuration of what is called allows it"
	}
	return text
}

// DialContext connects to a host and port. An error of a refused address holds an *AddressError.
func (d Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	timeout := d.Timeout
	if timeout == 0 {
		timeout = Timeout
	}
	dialer := net.Dialer{Timeout: timeout, Control: d.control}
	return dialer.DialContext(ctx, network, address)
}

func (d Dialer) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	return d.Check(at.Addr())
}

// Check returns an *AddressError for an address that the dialer does not reach.
func (d Dialer) Check(addr netip.Addr) error {
	kind, private := classify(addr)
	if kind == "" || private && d.Private {
		return nil
	}
	return &AddressError{Addr: addr, Kind: kind, Private: private}
}

// Literal reports whether a URL's host is written as a loopback or private address, or as localhost: whoever wrote it
// meant an internal service. A name that resolves to one is another matter.
func Literal(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	addr = addr.Unmap()
	kind, private := classify(addr)
	return private && (kind == loopback || kind == internal)
}

// Loopback reports whether a URL's host is written as a loopback address, or as localhost.
func Loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}
