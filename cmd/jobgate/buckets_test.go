package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/testkit"
	"github.com/jobgate/jobgate/proxy/record"
)

// bucketsVariable names further buckets to archive to, by URL, separated by spaces: "s3://BUCKET?endpoint=...". Their
// credentials are in the environment, where the provider's SDK looks for them.
const bucketsVariable = "JOBGATE_TEST_BUCKETS"

// TestBuckets archives a session to a folder, and to every bucket that the environment names, and verifies it there.
func TestBuckets(t *testing.T) {
	for _, url := range append([]string{"file://" + t.TempDir()}, strings.Fields(os.Getenv(bucketsVariable))...) {
		scheme, _, _ := strings.Cut(url, ":")
		t.Run(scheme, func(t *testing.T) {
			w := newWorld(t, worldConfig{script: testkit.ScriptSay("hello"), extra: fmt.Sprintf("archive: {bucket: %q}", url)})
			opened := w.open()
			req, err := http.NewRequest("POST", w.base()+"/anthropic/v1/messages", strings.NewReader(
				`{"model":"claude-sonnet-4-5","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+opened.AccessToken)
			req.Header.Set("Anthropic-Version", "2023-06-01")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("status %d", resp.StatusCode)
			}
			if err := w.admin("DELETE", "/v1/sessions/"+opened.SessionID, nil, nil); err != nil {
				t.Fatal(err)
			}
			lines := w.events(opened.SessionID)
			if got := lines[len(lines)-1].Type; got != record.TypeSessionEnded {
				t.Errorf("the last event is %s", got)
			}
		})
	}
}
