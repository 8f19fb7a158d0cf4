package dial

import "net/netip"

const (
	loopback = "loopback"
	internal = "private network"
)

// block is a range of addresses that is not public.
type block struct {
	prefix  netip.Prefix
	kind    string
	private bool // reached where private addresses are allowed
}

// blocks are looked at in this order: the metadata services lie inside of wider ranges. The list follows the IANA
// special-purpose address registries (RFC 6890) and the providers' own pages for the metadata services.
var blocks = []block{
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, where metadata services are", false},
	{netip.MustParsePrefix("fe80::/10"), "link-local", false},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "metadata service", false},    // AWS
	{netip.MustParsePrefix("fd20:ce::254/128"), "metadata service", false},     // Google Cloud
	{netip.MustParsePrefix("168.63.129.16/32"), "metadata service", false},     // Azure
	{netip.MustParsePrefix("100.100.100.200/32"), "metadata service", false},   // Alibaba Cloud
	{netip.MustParsePrefix("192.0.0.192/32"), "metadata service", false},       // Oracle Cloud
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified or this network", false}, // reaches loopback on Linux
	{netip.MustParsePrefix("::/128"), "unspecified", false},
	{netip.MustParsePrefix("127.0.0.0/8"), loopback, true},
	{netip.MustParsePrefix("::1/128"), loopback, true},
	{netip.MustParsePrefix("10.0.0.0/8"), internal, true},
	{netip.MustParsePrefix("172.16.0.0/12"), internal, true},
	{netip.MustParsePrefix("192.168.0.0/16"), internal, true},
	{netip.MustParsePrefix("fc00::/7"), internal, true},
	{netip.MustParsePrefix("fec0::/10"), internal, true}, // site-local, deprecated
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT", true},
	{netip.MustParsePrefix("192.0.0.0/24"), "special purpose", false},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation", false},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation", false},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation", false},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation", false},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking", true},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast", false},
	{netip.MustParsePrefix("ff00::/8"), "multicast", false},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved or broadcast", false},
	{netip.MustParsePrefix("100::/64"), "discard", false},
}

// carriers are IPv6 ranges whose addresses carry an IPv4 address, with the byte at which it begins. What they reach is
// that address's host.
var carriers = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64, RFC 6052
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // NAT64 for local use, RFC 8215
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4, RFC 3056
	{netip.MustParsePrefix("::/96"), 12},           // IPv4-compatible, deprecated
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // IPv4-translated, RFC 2765
}

// teredo carries the client's IPv4 address inverted, and a relay's: RFC 4380. Nothing public is served there.
var teredo = netip.MustParsePrefix("2001::/32")

// classify returns what kind of special address it is, "" for a public one, and whether it is one that may be reached
// where private addresses are allowed.
func classify(addr netip.Addr) (kind string, private bool) {
	if !addr.IsValid() {
		return "no address", false
	}
	addr = addr.Unmap().WithZone("")
	for _, b := range blocks {
		if b.prefix.Contains(addr) {
			return b.kind, b.private
		}
	}
	if addr.Is4() {
		return "", false
	}
	if teredo.Contains(addr) {
		return "Teredo tunnel", false
	}
	for _, c := range carriers {
		if !c.prefix.Contains(addr) {
			continue
		}
		wide := addr.As16()
		inner := netip.AddrFrom4([4]byte(wide[c.at : c.at+4]))
		if kind, _ := classify(inner); kind != "" {
			return kind + " in a translated address", false
		}
	}
	return "", false
}
