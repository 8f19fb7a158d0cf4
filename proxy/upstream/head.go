package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"golang.org/x/net/http/httpguts"
)

// appendHead writes the head of a request. What could end a line or a head early is refused, as net/http does: it would
// let whoever wrote a header write another request.
func appendHead(out []byte, req *http.Request) ([]byte, error) {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	target := req.URL.RequestURI()
	switch {
	case !validMethod(req.Method):
		return nil, fmt.Errorf("method %q cannot be sent", req.Method)
	case !validTarget(target):
		return nil, errors.New("the path or query holds a blank or a control character and cannot be sent")
	case !httpguts.ValidHostHeader(host):
		return nil, fmt.Errorf("host %q cannot be sent", host)
	}
	out = append(append(out, req.Method...), ' ')
	out = append(append(out, target...), " HTTP/1.1\r\nHost: "...)
	out = append(append(out, host...), "\r\n"...)
	if req.ContentLength > 0 || req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch {
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, req.ContentLength, 10), "\r\n"...)
	}
	if req.Close {
		out = append(out, "Connection: close\r\n"...)
	}
	for name, values := range req.Header {
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection":
			continue // written above, or not at all
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, fmt.Errorf("header name %q cannot be sent", name)
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

func validMethod(method string) bool { return httpguts.ValidHeaderFieldName(method) } // both are tokens, RFC 9110 section 5.6.2

func validTarget(target string) bool {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return target != ""
}
