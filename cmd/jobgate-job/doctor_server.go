package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"
)

const (
	// skew is how far this machine's clock may be off before tools that compare times are confused by it.
	skew = 30 * time.Second
	// late is the last part of a certificate's life in which one that has not been renewed is worth a word: lives of six
	// days and of a year have it both.
	late = 10
)

// checkServer looks at the way to Jobgate: DNS, proxies, TLS, the answer, and its clock.
func checkServer(ctx context.Context, o *options) []finding {
	target, err := url.Parse(o.url)
	if err != nil {
		return []finding{{"url", fail, "--url is no URL", ""}}
	}
	proxy, out := checkProxy(o.env, target)
	if proxy {
		out = append(out, finding{"dns", skipped, "the proxy looks names up", ""})
	} else {
		out = append(out, checkDNS(ctx, target.Hostname()))
	}
	return append(out, checkAnswer(ctx, o, target)...)
}

// checkProxy reports whether requests go through a proxy, and which variables say so. A proxy's URL may hold a password.
func checkProxy(env environment, target *url.URL) (bool, []finding) {
	req := &http.Request{URL: target}
	through, err := http.ProxyFromEnvironment(req)
	var set []string
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"} {
		if env.get(name) != "" {
			set = append(set, name)
		}
	}
	switch {
	case err != nil:
		return false, []finding{{"proxy", fail, "a proxy variable is no URL: " + strings.Join(set, ", "), "write it as http://host:port"}}
	case through != nil:
		return true, []finding{{"proxy", ok, fmt.Sprintf("requests go through %s (%s is set)", through.Host, strings.Join(set, ", ")),
			"it must not buffer streams, nor end a silent connection before 15 s; else add " + target.Hostname() + " to NO_PROXY"}}
	case len(set) > 0:
		return false, []finding{{"proxy", ok, "not for " + target.Host + " (" + strings.Join(set, ", ") + " is set)", ""}}
	}
	return false, []finding{{"proxy", ok, "none", ""}}
}

func checkDNS(ctx context.Context, host string) finding {
	if net.ParseIP(host) != nil {
		return finding{"dns", ok, host + " is an address", ""}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begun := time.Now()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	took := time.Since(begun).Round(time.Millisecond)
	switch {
	case err != nil:
		return finding{"dns", fail, explain(err, host).Error(), "check the url, and the runner's DNS"}
	case took > time.Second:
		return finding{"dns", warn, fmt.Sprintf("%s is %s, after %s", host, strings.Join(addresses, ", "), took), "the runner's DNS is slow"}
	}
	return finding{"dns", ok, fmt.Sprintf("%s is %s", host, strings.Join(addresses, ", ")), ""}
}

// checkAnswer asks for the server's health, and then for a small stream.
func checkAnswer(ctx context.Context, o *options, target *url.URL) []finding {
	var connected, first time.Time
	trace := &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { connected = time.Now() },
		GotFirstResponseByte: func() { first = time.Now() },
	}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, o.url+"/healthz", nil)
	if err != nil {
		return []finding{{"server", fail, err.Error(), ""}}
	}
	sent := time.Now()
	resp, err := newHTTP().Do(req)
	if err != nil {
		return []finding{{"server", fail, explain(err, target.Host).Error(), certificateHint(err)}}
	}
	defer resp.Body.Close()
	out := checkTLS(o.env, resp.TLS)
	if resp.StatusCode != http.StatusOK {
		do := "is it Jobgate's public_url, and is the server up?"
		if resp.StatusCode >= 300 && resp.StatusCode < 400 {
			do = "a redirect is not followed, since a token would go along: set --url to Jobgate's public_url itself"
		}
		return append(out, finding{"server", fail, fmt.Sprintf("%s/healthz answers %d", o.url, resp.StatusCode), do})
	}
	out = append(out,
		finding{"server", ok, fmt.Sprintf("healthy; connected after %s, first byte %s later", rounded(connected.Sub(sent)), rounded(first.Sub(connected))), ""},
		checkClock(resp.Header.Get("Date"), time.Now()),
		checkStream(ctx, o))
	return out
}

func rounded(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func certificateHint(err error) string {
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return "a company's own certificate authority: name its PEM file in SSL_CERT_FILE for this program and in NODE_EXTRA_CA_CERTS for " +
			"Claude Code; verification cannot be switched off"
	}
	return "check the network between the runner and Jobgate: firewall, proxy variables, port"
}

func checkTLS(env environment, state *tls.ConnectionState) []finding {
	if state == nil || len(state.PeerCertificates) == 0 {
		return []finding{{"tls", ok, "none: a loopback address", ""}}
	}
	leaf := state.PeerCertificates[0]
	text := fmt.Sprintf("%s, certificate by %s, good until %s",
		tls.VersionName(state.Version), visible(leaf.Issuer.CommonName, 100), leaf.NotAfter.UTC().Format(time.DateOnly))
	switch {
	case time.Until(leaf.NotAfter) < leaf.NotAfter.Sub(leaf.NotBefore)/late:
		return []finding{{"tls", warn, text, "renew the certificate"}}
	case (env.get("SSL_CERT_FILE") != "" || env.get("SSL_CERT_DIR") != "") && env.get("NODE_EXTRA_CA_CERTS") == "":
		return []finding{{"tls", warn, text,
			"SSL_CERT_FILE is set and NODE_EXTRA_CA_CERTS is not: Claude Code and other Node clients have authorities of their own, and may not know this one"}}
	}
	return []finding{{"tls", ok, text, ""}}
}

// checkClock compares this machine's clock with the server's. Tokens are judged by the server's and the issuer's alone.
func checkClock(date string, now time.Time) finding {
	at, err := http.ParseTime(date)
	if err != nil {
		return finding{"clock", skipped, "the server's answer has no date", ""}
	}
	off := now.Sub(at).Round(time.Second)
	if off.Abs() > skew {
		return finding{"clock", warn, fmt.Sprintf("this machine's clock is %s off the server's", off),
			"one of the two is wrong: tokens that the runner makes itself would be refused, and certificates misjudged; set up NTP"}
	}
	return finding{"clock", ok, fmt.Sprintf("within %s of the server's", skew), ""}
}
