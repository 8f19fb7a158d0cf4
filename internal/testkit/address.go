package testkit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddress returns an address that nobody listens on. Its port is below those that systems give out by themselves
// (RFC 6335 section 6 has them begin at 49152, Linux at 32768), so that no connection of a busy machine takes it before it
// is listened on.
func FreeAddress(ctx context.Context) (string, error) {
	const first, ports, tries = 10000, 20000, 100
	var listening net.ListenConfig
	var err error
	for range tries {
		var l net.Listener
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(ports))
		if l, err = listening.Listen(ctx, "tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
