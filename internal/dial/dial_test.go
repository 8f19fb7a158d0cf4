package dial_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/dial"
)

func TestCheck(t *testing.T) {
	const (
		public  = "public"  // reached by everyone
		private = "private" // reached where private addresses are allowed
		never   = "never"
	)
	for _, test := range []struct{ addr, want string }{
		{"8.8.8.8", public},
		{"140.82.121.4", public},
		{"172.15.255.255", public},
		{"172.32.0.0", public},
		{"100.63.255.255", public},
		{"100.128.0.0", public},
		{"2606:4700::1111", public},
		{"64:ff9b::808:808", public}, // NAT64 of 8.8.8.8
		{"::ffff:8.8.8.8", public},

		{"127.0.0.1", private},
		{"127.255.255.254", private},
		{"::1", private},
		{"::ffff:127.0.0.1", private},
		{"10.0.0.1", private},
		{"172.16.0.1", private},
		{"172.31.255.255", private},
		{"192.168.1.1", private},
		{"::ffff:192.168.1.1", private},
		{"fc00::1", private},
		{"fd12:3456::1", private},
		{"100.64.0.1", private},
		{"100.127.255.254", private},
		{"198.18.0.1", private},

		{"169.254.169.254", never},
		{"169.254.0.1", never},
		{"::ffff:169.254.169.254", never},
		{"fe80::1", never},
		{"fe80::1%eth0", never},
		{"fd00:ec2::254", never},
		{"fd20:ce::254", never},
		{"168.63.129.16", never},
		{"100.100.100.200", never},
		{"192.0.0.192", never},
		{"0.0.0.0", never},
		{"0.1.2.3", never},
		{"::", never},
		{"224.0.0.1", never},
		{"ff02::1", never},
		{"255.255.255.255", never},
		{"240.0.0.1", never},
		{"192.0.2.1", never},
		{"2001:db8::1", never},
		{"64:ff9b::a9fe:a9fe", never}, // NAT64 of 169.254.169.254
		{"64:ff9b::7f00:1", never},    // NAT64 of 127.0.0.1
		{"64:ff9b:1::a00:1", never},   // local NAT64 of 10.0.0.1
		{"2002:7f00:1::", never},      // 6to4 of 127.0.0.1
		{"::127.0.0.1", never},
		{"::ffff:0:127.0.0.1", never},
		{"2001:0:4136:e378:8000:63bf:3fff:fdd2", never},
	} {
		addr := netip.MustParseAddr(test.addr)
		got := public
		if (dial.Dialer{}).Check(addr) != nil {
			got = private
		}
		if (dial.Dialer{Private: true}).Check(addr) != nil {
			got = never
		}
		if got != test.want {
			t.Errorf("%s is %s, want %s", test.addr, got, test.want)
		}
	}
	if (dial.Dialer{Private: true}).Check(netip.Addr{}) == nil {
		t.Error("the zero address is reached")
	}
}

func TestLiteral(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "10.1.2.3": true, "192.168.0.1": true, "fd00::1": true, "localhost": true,
		"::ffff:10.0.0.1": true,
		"169.254.169.254": false, "fd00:ec2::254": false, "0.0.0.0": false, "8.8.8.8": false, "100.64.0.1": false,
		"example.com": false, "": false, "127.0.0.1.nip.io": false, "127.1": false, "0x7f000001": false,
	} {
		if got := dial.Literal(host); got != want {
			t.Errorf("Literal(%q) = %v, want %v", host, got, want)
		}
	}
	for host, want := range map[string]bool{"127.0.0.1": true, "::1": true, "localhost": true, "10.0.0.1": false, "x": false} {
		if got := dial.Loopback(host); got != want {
			t.Errorf("Loopback(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestDialContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	var refused *dial.AddressError
	if _, err := (dial.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String()); !errors.As(err, &refused) {
		t.Errorf("dial of a loopback address: %v, want an AddressError", err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if _, err := (dial.Dialer{}).DialContext(t.Context(), "tcp", net.JoinHostPort("localhost", port)); !errors.As(err, &refused) || !strings.Contains(err.Error(), "private: true") {
		t.Errorf("dial of a name that resolves to loopback: %v, want an AddressError", err)
	}
	conn, err := (dial.Dialer{Private: true}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("dial with Private: %v", err)
	}
	conn.Close()
}
