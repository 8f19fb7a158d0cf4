package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// maxProbe bounds the small stream that doctor reads; the real one has 200 bytes.
	maxProbe = 64 << 10
	// wholeAtEnd is the part of the stream's own length within which all of it arrives where something held it back.
	wholeAtEnd = 2
)

// probeLine is one line of the small stream: when it was sent, and when it came.
type probeLine struct {
	Line  int   `json:"line"`
	Of    int   `json:"of"`
	AtMS  int64 `json:"at_ms"`
	since time.Duration
}

// checkStream reads a small stream of the server's, whose lines are sent a fifth of a second apart, and tells whether they
// come as they are sent. Where they come together, so would an agent's words, and the signs of life of a call that waits
// for somebody's yes.
func checkStream(ctx context.Context, o *options) finding {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url+"/_stream", nil)
	if err != nil {
		return finding{"streams", fail, err.Error(), ""}
	}
	req.Header.Set("Accept", "text/event-stream")
	begun := time.Now()
	resp, err := newHTTP().Do(req)
	if err != nil {
		return finding{"streams", fail, explain(err, req.URL.Host).Error(), certificateHint(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusForbidden:
		return finding{"streams", skipped, fmt.Sprintf("%s/_stream answers %d: the server is older than this program, or something on the way keeps the path back", o.url, resp.StatusCode), ""}
	default:
		return finding{"streams", skipped, fmt.Sprintf("%s/_stream answers %d: it cannot be tried now", o.url, resp.StatusCode), "try again in a moment"}
	}
	lines, err := readProbe(resp.Body, begun)
	return judgeStream(lines, err, remedy(resp.Header))
}

func readProbe(body io.Reader, begun time.Time) ([]probeLine, error) {
	var lines []probeLine
	scan := bufio.NewScanner(io.LimitReader(body, maxProbe))
	for scan.Scan() {
		text, ok := strings.CutPrefix(scan.Text(), "data: ")
		if !ok {
			continue
		}
		l := probeLine{since: time.Since(begun)}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return lines, fmt.Errorf("a line of it is not as it was sent: %w", err)
		}
		lines = append(lines, l)
	}
	return lines, scan.Err()
}

func judgeStream(lines []probeLine, err error, do string) finding {
	if len(lines) == 0 {
		return finding{"streams", fail, "nothing of a small stream came" + because(err), do}
	}
	first, last := lines[0], lines[len(lines)-1]
	if err != nil || last.Line != last.Of || len(lines) != last.Of {
		return finding{"streams", fail, fmt.Sprintf("a small stream was cut after %d of %d lines%s", len(lines), last.Of, because(err)), do}
	}
	sent, came := time.Duration(last.AtMS-first.AtMS)*time.Millisecond, last.since-first.since
	if sent > 0 && came < sent/wholeAtEnd {
		return finding{"streams", fail, fmt.Sprintf("held back on the way: %d lines were sent over %s and came together, the first after %s",
			len(lines), sent, first.since.Round(time.Millisecond)), do}
	}
	return finding{"streams", ok, fmt.Sprintf("they come as they are sent: the first byte after %s, the last of %s after %s",
		rounded(first.since), sent, last.since.Round(time.Millisecond)), ""}
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// remedy says what to do where streams are held back, by what the answer shows of the way.
func remedy(h http.Header) string {
	shown := strings.ToLower(h.Get("Server") + " " + h.Get("Via"))
	const nginx = "nginx in front of Jobgate: proxy_buffering off; proxy_read_timeout 300s; and no gzip for text/event-stream"
	const apache = "Apache in front of Jobgate: ProxyPass ... flushpackets=on, and no mod_deflate for text/event-stream"
	const cloud = "the CDN in front of Jobgate: switch its response buffering off for this host, or let the host past it"
	switch {
	case strings.Contains(shown, "nginx"), strings.Contains(shown, "openresty"):
		return nginx
	case strings.Contains(shown, "apache"):
		return apache
	case strings.Contains(shown, "cloudflare"), strings.Contains(shown, "cloudfront"), strings.Contains(shown, "akamai"), strings.Contains(shown, "varnish"):
		return cloud
	}
	return "switch response buffering off on the way: " + nginx + "; " + apache + "; Envoy: no buffer filter on the route; a runner's proxy that scans: NO_PROXY for Jobgate's host"
}
