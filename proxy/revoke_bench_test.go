package proxy_test

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/testkit"
)

// BenchmarkRevocation measures from the end of a session to the moment at which the last of 1,000 clients has read the
// reason and the end of its stream. The aim is 100 ms.
func BenchmarkRevocation(b *testing.B) {
	const streams = 1000
	var took, middle []time.Duration
	for range b.N { // the timer runs while streams open, so that there are few rounds: each keeps its files until the end
		last, half := revoke(b, streams)
		took, middle = append(took, last), append(middle, half)
	}
	slices.Sort(took)
	slices.Sort(middle)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-to-last")
	b.ReportMetric(float64(middle[len(middle)/2].Microseconds())/1000, "ms-to-median")
	b.ReportMetric(0, "ns/op")
}

func revoke(b *testing.B, streams int) (last, half time.Duration) {
	w := newWorld(b, options{model: held(5)})
	w.model.SetScript(testkit.ScriptSay("A story that has a beginning and goes on for a while."))
	var open, done sync.WaitGroup
	cuts := make([]time.Duration, streams)
	var began time.Time
	open.Add(streams)
	for n := range streams {
		done.Go(func() {
			resp, err := w.try(b.Context(), "POST", "/anthropic/v1/messages", strings.NewReader(message(true, "")))
			if err != nil {
				open.Done()
				b.Error(err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			body := bufio.NewReader(resp.Body)
			for line := ""; !strings.Contains(line, "text_delta"); {
				if line, err = body.ReadString('\n'); err != nil {
					b.Error(err)
					break
				}
			}
			open.Done()
			rest, err := io.ReadAll(body)
			cuts[n] = time.Since(began)
			if err != nil || !strings.Contains(string(rest), "its mapping was deleted") {
				b.Errorf("the stream ends with %v: %s", err, rest)
			}
		})
	}
	open.Wait()
	began = time.Now()
	w.session.End(access.EndDeleted, began)
	done.Wait()
	slices.Sort(cuts)
	<-w.session.Quiet()
	return cuts[len(cuts)-1], cuts[len(cuts)/2]
}
