package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/api"
)

// TestDeleteSaysWhatItDeletes has somebody put the mapping anew between the look and the deletion.
func TestDeleteSaysWhatItDeletes(t *testing.T) {
	w := newWorld(t, worldConfig{})
	w.apply(appliedMapping, "--yes")
	admin := "http://" + w.server.control.Addr().String()
	meanwhile := ""
	between := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete && meanwhile != "" {
			w.apply(meanwhile, "--yes")
		}
		out, err := http.NewRequestWithContext(r.Context(), r.Method, admin+r.URL.Path, nil)
		if err != nil {
			t.Error(err)
			return
		}
		out.Header = r.Header
		resp, err := http.DefaultClient.Do(out)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		body := new(bytes.Buffer)
		_, _ = body.ReadFrom(resp.Body)
		rw.WriteHeader(resp.StatusCode)
		_, _ = rw.Write(body.Bytes())
	}))
	defer between.Close()
	remove := func() (int, string) {
		var stdout, stderr bytes.Buffer
		code := run(context.Background(), []string{"mappings", "delete", "nightly"}, environment{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
			Getenv: func(name string) string {
				return map[string]string{"JOBGATE_URL": between.URL, "JOBGATE_ADMIN_TOKEN": worldAdmin}[name]
			}})
		return code, stderr.String()
	}
	meanwhile = strings.Replace(appliedMapping, "requests: 5", "requests: 6", 1)
	if code, errs := remove(); code != exitFailed || !strings.Contains(errs, `"nightly" is not at revision 1 any more but at 2`) {
		t.Errorf("exit code %d, %s", code, errs)
	}
	var m api.MappingView
	must(w, w.admin("GET", "/v1/mappings/nightly", nil, &m))
	if m.Deleted || m.Revision != 2 {
		t.Errorf("in force: %+v", m)
	}
	meanwhile = ""
	if code, errs := remove(); code != exitDone {
		t.Errorf("exit code %d, %s", code, errs)
	}
}
