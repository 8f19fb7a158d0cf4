package main

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestBehindProxies(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, c := range map[string]struct {
		peer string
		xff  []string
		want string
	}{
		"no proxy":                           {"203.0.113.9:4711", []string{"198.51.100.1"}, "203.0.113.9:4711"},
		"one proxy":                          {"10.0.0.1:4711", []string{"198.51.100.1"}, "198.51.100.1"},
		"a chain of proxies":                 {"10.0.0.1:4711", []string{"198.51.100.1, 10.9.9.9"}, "198.51.100.1"},
		"what the client made up":            {"10.0.0.1:4711", []string{"1.1.1.1, 198.51.100.1"}, "198.51.100.1"},
		"several headers":                    {"10.0.0.1:4711", []string{"1.1.1.1", "198.51.100.1"}, "198.51.100.1"},
		"with a port":                        {"10.0.0.1:4711", []string{"198.51.100.1:80"}, "198.51.100.1"},
		"IPv6":                               {"[fd00::1]:4711", []string{"[2001:db8::7]:80"}, "2001:db8::7"},
		"IPv4 in IPv6":                       {"[::ffff:10.0.0.1]:4711", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		"nothing said":                       {"10.0.0.1:4711", nil, "10.0.0.1:4711"},
		"nonsense":                           {"10.0.0.1:4711", []string{"<script>"}, "10.0.0.1:4711"},
		"nonsense before an address of ours": {"10.0.0.1:4711", []string{"unknown, 10.2.2.2"}, "10.2.2.2"},
		"only proxies":                       {"10.0.0.1:4711", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		"a zone":                             {"10.0.0.1:4711", []string{"fe80::1%eth0"}, "fe80::1"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			h := behindProxies(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr }), trusted)
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr, r.Header["X-Forwarded-For"] = c.peer, c.xff
			h.ServeHTTP(httptest.NewRecorder(), r)
			if got != c.want {
				t.Errorf("client = %s, want %s", got, c.want)
			}
		})
	}
}
