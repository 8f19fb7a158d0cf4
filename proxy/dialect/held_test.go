package dialect_test

import (
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/dialect"
	"github.com/jobgate/jobgate/proxy/mask"
)

// prose is what a model writes to a person; a stream has a word of it in each event.
const prose = `I looked at the three files that you named and found the reason why the second request never returns. The client opens a
connection and writes the header, but it waits for an answer before it sends the body, while the server reads the whole body first. Both
wait for each other until the timer fires. This did not show in the tests because they send small bodies that fit into one packet. I
changed the client so that it writes the body in the background and reads the answer at the same time. When the server refuses the
request early, the writer stops and the error is returned with the name of the host. I also added a test with a large body, which fails
without the change and passes with it. Two things remain open. The timeout is still a constant, and it would be better to take it from
the configuration like the others. The log line for a refused request shows only the status code; the path would help whoever has to
find out what happened. Tell me whether I should do these now, or leave them for a later change and describe them in the notes.`

// TestFewEventsWait: events of one word each wait only where the word ends as a form of a secret begins. Most of what
// waits does so for the first character of the value itself: s ends many words.
func TestFewEventsWait(t *testing.T) {
	var all []mask.Secret
	for _, c := range []struct {
		name, value string
		most        int // of 100 events
	}{
		{"anthropic", "sk-ant-api03-R2dVq7Zk0xWmT4yLb9JcPfHn3sEuAoQi8gKvXr5tDzB1wNlMjYh6CeFpGaSOU_I-kQ7AA", 15},
		{"github", "ghp_9fKq2LzXv7TbWm4RcYs8HnJd3PgEa6UoQi1B", 5},
		{"slack", "xoxb-2847561930-5829104736-Kd8sLq0ZpX7vTnB3yRmWc5Hf", 5},
		{"password", "T7w$kP2zQ9mXv4LrB8nGc6JhYd3Fs5KtEa0UoWi1", 5},
	} {
		secret := mask.Secret{Name: c.name, Value: []byte(c.value)}
		all = append(all, secret)
		if n := waiting(t, secret); n > c.most {
			t.Errorf("%s: %d %% of the events wait, want at most %d", c.name, n, c.most)
		}
	}
	if n := waiting(t, all...); n > 25 {
		t.Errorf("all: %d %% of the events wait, want at most 25", n)
	}
}

// waiting gives the percentage of events that do not leave as they come.
func waiting(t *testing.T, secrets ...mask.Secret) int {
	t.Helper()
	set, err := mask.Compile(mask.Config{Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	f := dialect.NewFilter(dialect.FilterConfig{Text: set, Opaque: set})
	if _, err := f.Write(nil, []byte(start(0, `{"type":"text","text":""}`))); err != nil {
		t.Fatal(err)
	}
	words, n := strings.Fields(prose)[:200], 0
	for _, word := range words {
		event := textDelta(0, " "+word)
		out, err := f.Write(nil, []byte(event))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(string(out), event) {
			n++
		}
	}
	t.Logf("%d secrets, the first %s: %d of %d events wait", len(secrets), secrets[0].Name, n, len(words))
	return 100 * n / len(words)
}
