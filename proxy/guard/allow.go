package guard

import (
	"fmt"
	"strings"
)

// route is one entry of an allow list.
type route struct {
	method   string
	segments []string
}

// ParseAllow checks an entry "METHOD /path/{template}". A template segment matches exactly one non-empty segment.
func ParseAllow(entry string) error {
	_, err := parseRoute(entry)
	return err
}

func parseRoute(entry string) (route, error) {
	method, path, ok := strings.Cut(entry, " ")
	if !ok || method == "" || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " ?#%*") {
		return route{}, fmt.Errorf("%q is no allow entry; write METHOD /path/{template}, for example POST /v1/messages", entry)
	}
	if method != strings.ToUpper(method) {
		return route{}, fmt.Errorf("%q: write the method in capitals", entry)
	}
	segments := strings.Split(path[1:], "/")
	for _, s := range segments {
		if strings.ContainsAny(s, "{}") && !isTemplate(s) {
			return route{}, fmt.Errorf("%q: a template is a whole segment, such as /v1/files/{id}", entry)
		}
	}
	return route{method: method, segments: segments}, nil
}

func isTemplate(segment string) bool {
	return len(segment) > 2 && segment[0] == '{' && segment[len(segment)-1] == '}' &&
		!strings.ContainsAny(segment[1:len(segment)-1], "{}")
}

func (r route) matches(method, path string) bool {
	if r.method != method || !strings.HasPrefix(path, "/") {
		return false
	}
	rest := path[1:]
	for i, want := range r.segments {
		segment, tail, more := strings.Cut(rest, "/")
		if more != (i < len(r.segments)-1) {
			return false
		}
		if isTemplate(want) && segment == "" || !isTemplate(want) && segment != want {
			return false
		}
		rest = tail
	}
	return true
}
