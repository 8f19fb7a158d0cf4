package main

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// behindProxies lets h see a client's own address where the request came through a proxy that the configuration
// trusts. Nothing is decided by it: it stands in the record.
func behindProxies(h http.Handler, trusted []netip.Prefix) http.Handler {
	if len(trusted) == 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if client, ok := clientAddress(r, trusted); ok {
			r.RemoteAddr = client.String()
		}
		h.ServeHTTP(w, r)
	})
}

// clientAddress is the last address in X-Forwarded-For that no trusted proxy has: what stands before it was written by
// whoever sent the request. It reports false where the peer is no trusted proxy, or says nothing that can be read.
func clientAddress(r *http.Request, trusted []netip.Prefix) (netip.Addr, bool) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !covers(trusted, peer.Addr()) {
		return netip.Addr{}, false
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	var client netip.Addr
	for _, hop := range slices.Backward(hops) {
		addr, ok := parseHop(hop)
		if !ok {
			break
		}
		client = addr
		if !covers(trusted, addr) {
			break
		}
	}
	return client, client.IsValid()
}

// parseHop reads an address as proxies write it: alone, or with a port.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap().WithZone(""), err == nil
}

func covers(prefixes []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}
