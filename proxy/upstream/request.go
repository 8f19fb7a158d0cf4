package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// heads are lent to requests while they are written.
var heads = sync.Pool{New: func() any { b := make([]byte, 0, inlineBody+4<<10); return &b }}

// check refuses what cannot be sent at all.
func check(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("a request without URL cannot be sent")
	case req.URL.Scheme != "http" && req.URL.Scheme != "https" || req.URL.Host == "":
		return fmt.Errorf("an upstream of scheme %q and host %q cannot be called", req.URL.Scheme, req.URL.Host)
	case req.Body == nil && req.ContentLength != 0:
		return fmt.Errorf("a request without body cannot have a length of %d", req.ContentLength)
	case req.Method == http.MethodConnect:
		return errors.New("method CONNECT cannot be sent: nothing is tunnelled here")
	}
	return nil
}

// length is how many bytes of body a request has whose body is held.
func length(req *http.Request) int64 {
	if req.Body == nil || req.Body == http.NoBody {
		return 0
	}
	return req.ContentLength
}

// repeatable reports whether a request may be sent again although an upstream may have begun to work on it: RFC 9110
// section 9.2.2. Those are requests without body here.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, "", http.MethodHead, http.MethodOptions, http.MethodTrace:
		return length(req) == 0
	}
	return false
}

// appendHead writes the head of a request. What could end a line or a head early is refused, as net/http does: it would
// let whoever wrote a header write another request.
func appendHead(out []byte, req *http.Request) ([]byte, error) {
	method, target := req.Method, req.URL.RequestURI()
	if method == "" {
		method = http.MethodGet
	}
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	host, err := inASCII(host)
	switch {
	case !validMethod(method):
		return nil, fmt.Errorf("method %q cannot be sent", method)
	case !validTarget(target):
		return nil, errors.New("the path and query hold a blank or a control character, or do not begin with /, and cannot be sent")
	case err != nil || !httpguts.ValidHostHeader(host):
		return nil, fmt.Errorf("host %q cannot be sent", host)
	}
	out = append(append(out, method...), ' ')
	out = append(append(out, target...), " HTTP/1.1\r\nHost: "...)
	out = append(append(out, host...), "\r\n"...)
	if n := length(req); n > 0 || method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, n, 10), "\r\n"...)
	}
	if req.Close {
		out = append(out, "Connection: close\r\n"...)
	}
	return appendHeaders(out, req.Header)
}

func appendHeaders(out []byte, h http.Header) ([]byte, error) {
	for name, values := range h {
		if framing(name) || len(values) == 0 {
			continue // written by appendHead, or not at all
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, fmt.Errorf("header name %q cannot be sent", name)
		}
		if name == "User-Agent" && values[0] == "" {
			continue // net/http's way to say that there is none
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return nil, fmt.Errorf("the value of header %s holds a control character and cannot be sent", name)
			}
			out = append(append(out, name...), ": "...)
			out = append(append(out, value...), "\r\n"...)
		}
	}
	return append(out, "\r\n"...), nil
}

// inASCII is how a host is written on the wire and in DNS.
func inASCII(host string) (string, error) {
	for i := range len(host) {
		if host[i] >= 0x80 {
			return httpguts.PunycodeHostPort(host)
		}
	}
	return host, nil
}

// framing reports whether a header says where a request ends, whose it is, or what becomes of the connection: that is
// the transport's own business, however the name is written.
func framing(name string) bool {
	switch len(name) {
	case len("Host"), len("Trailer"), len("Connection"), len("Content-Length"), len("Transfer-Encoding"):
	default:
		return false
	}
	for _, own := range [...]string{"Host", "Trailer", "Connection", "Content-Length", "Transfer-Encoding"} {
		if len(own) == len(name) && strings.EqualFold(own, name) {
			return true
		}
	}
	return false
}

func validMethod(method string) bool { return httpguts.ValidHeaderFieldName(method) } // both are tokens, RFC 9110 section 5.6.2

// validTarget takes a path and query, or *. A target that names a host would speak against the Host header.
func validTarget(target string) bool {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return target == "*" || target != "" && target[0] == '/'
}

// appendBody writes a short body behind its head.
func appendBody(out []byte, req *http.Request, n int64) ([]byte, error) {
	if n == 0 {
		return out, nil
	}
	src, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	defer func() { _ = src.Close() }()
	at := len(out)
	out = slices.Grow(out, int(n))[:at+int(n)]
	got, err := io.ReadFull(src, out[at:])
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return nil, shortBody(int64(got), n)
	case err != nil:
		return nil, err
	}
	return out, ended(src, n)
}

// ended makes sure that a body has no more than its n bytes.
func ended(src io.Reader, n int64) error {
	var one [1]byte
	switch m, err := io.ReadFull(src, one[:]); {
	case m > 0:
		return errLongBody(n)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

func shortBody(got, n int64) error {
	return fmt.Errorf("the request's body has %d bytes, not the %d that it should have", got, n)
}

func errLongBody(n int64) error {
	return fmt.Errorf("the request's body is longer than the %d bytes that it should have", n)
}

// copyBody writes a long body. own is true where the body itself was at fault, and not the connection.
func copyBody(dst io.Writer, src io.ReadCloser, n int64) (own bool, err error) {
	defer func() { _ = src.Close() }()
	w := &exactly{w: dst, left: n}
	_, err = io.Copy(w, src)
	switch {
	case err == nil && w.left > 0:
		return true, shortBody(n-w.left, n)
	case errors.Is(err, errSurplus):
		return true, errLongBody(n)
	}
	return err != nil && !w.broken, err
}

// exactly passes on no more than it should: the surplus of a body would be another request.
type exactly struct {
	w      io.Writer
	left   int64
	broken bool // w is at fault
}

var errSurplus = errors.New("more than was announced")

func (e *exactly) Write(p []byte) (int, error) {
	if int64(len(p)) > e.left {
		return 0, errSurplus
	}
	n, err := e.w.Write(p)
	e.left -= int64(n)
	e.broken = err != nil
	return n, err
}
