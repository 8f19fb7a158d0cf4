package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/record"
)

func (a *archiveOptions) replay(c *cobra.Command, args []string) error {
	bucket, err := a.open(c.Context())
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }()
	t := &teller{out: a.env.Stdout, calls: make(map[string]int)}
	for l, err := range a.events(c.Context(), bucket, args) {
		if err != nil {
			return err
		}
		if err := t.tell(l); err != nil {
			return err
		}
	}
	return nil
}

// teller tells a record as a story, a line or two an event. What it prints was masked when it was recorded, and is
// escaped here: agents wrote it.
type teller struct {
	out   io.Writer
	start time.Time
	calls map[string]int // numbers of the calls, by id
	brief bool           // without the ends of calls that went well
	err   error
}

const toldText = 110

func (t *teller) tell(l record.Line) error {
	if t.start.IsZero() {
		t.start = l.Time
	}
	data, err := l.Data()
	if err != nil {
		return err
	}
	if record.IsAudit(l.Session) {
		return t.audit(l, data)
	}
	if l.Call != "" && t.calls[l.Call] == 0 {
		t.calls[l.Call] = len(t.calls) + 1
	}
	switch e := data.(type) {
	case *record.SessionOpened:
		t.line(l, "session   opened by %s for mapping %s, until %s", line(e.Subject, 70), e.Mapping, e.Closes.UTC().Format(time.TimeOnly+"Z"))
	case *record.SessionJoined:
		t.line(l, "session   %s at %s", joinedWord(e), line(e.Door, 60))
	case *record.CallStarted:
		model := ""
		if e.Model != "" {
			model = " to " + line(e.Model, 40)
		}
		t.line(l, "call %-4d %s %s on %s%s, %d bytes", t.calls[l.Call], line(e.Method, 10), line(e.Path, 60), e.Connection, model, e.BodyBytes)
	case *record.Decision:
		if e.Effect != access.Allow.String() || len(e.Observed) > 0 {
			t.decision(l, e)
		}
	case *record.ApprovalAsked:
		t.line(l, "          asks people (rule %s): %s", e.Rule, line(strings.Replace(e.Text, "\n", " ", 1), 80))
	case *record.ApprovalDecided:
		t.line(l, "          %s%s%s", e.State, by(e), because(e.Reason))
	case *record.ToolUse:
		t.line(l, "  tool    %s %s %s%s", line(e.Name, 30), line(e.Input, 60), e.Action, ruleText(e))
	case *record.Response:
		if text := spoken(e); text != "" {
			t.line(l, "  text    %s", line(text, toldText))
		}
	case *record.CallEnded:
		if t.brief && e.Reason == "done" {
			return nil
		}
		t.line(l, "     %-4d %s%s, %d in and %d out tokens, %d ms%s", t.calls[l.Call], e.Reason, statusText(e.Status), e.InputTokens, e.OutputTokens, e.DurationMS, because(e.Detail))
	case *record.SessionEnded:
		t.line(l, "session   ended: %s; %s, %d denied, %s", access.EndReason(e.Reason).Text(), plural(int(e.Calls), "call"), e.Denials, plural(int(e.Approvals), "question"))
	case *record.Gap:
		t.line(l, "GAP       %s (%d events missing)", line(e.Reason, 80), e.Missing)
	}
	return t.err
}

func (t *teller) line(l record.Line, format string, args ...any) {
	if t.err != nil {
		return
	}
	_, t.err = fmt.Fprintf(t.out, "%8.3fs  %s\n", l.Time.Sub(t.start).Seconds(), fmt.Sprintf(format, args...))
}

func (t *teller) decision(l record.Line, e *record.Decision) {
	if e.Effect == access.Deny.String() {
		t.line(l, "  DENIED  by %s: %s", line(e.Rule, 40), line(e.Reason, 80))
	}
	for _, o := range e.Observed {
		t.line(l, "  observe %s would have said %s: %s", line(o.Rule, 40), o.Effect, line(o.Reason, 60))
	}
}

func joinedWord(e *record.SessionJoined) string {
	if e.Renewed {
		return "renewed by a fresh token of the job"
	}
	return "joined"
}

func by(e *record.ApprovalDecided) string {
	if e.By == "" {
		return ""
	}
	return fmt.Sprintf(" by %s (%s)", line(e.By, 40), line(e.Via, 10))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + line(reason, 90)
}

func ruleText(e *record.ToolUse) string {
	if e.Rule == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", line(e.Rule, 40))
}

func statusText(status int) string {
	if status == 0 {
		return ""
	}
	return fmt.Sprintf(" with %d", status)
}

// spoken is the text that a model wrote in an answer, or in a piece of a stream: the text deltas of its events.
func spoken(e *record.Response) string {
	if e.Base64 {
		return ""
	}
	var whole struct {
		Content []struct {
			Text string `json:"text"`
		} `json:"content"`
	}
	var out strings.Builder
	if json.Unmarshal([]byte(e.Text), &whole) == nil {
		for _, block := range whole.Content {
			out.WriteString(strings.TrimSpace(block.Text) + " ")
		}
		return strings.TrimSpace(out.String())
	}
	for _, l := range strings.Split(e.Text, "\n") {
		payload, ok := strings.CutPrefix(l, "data: ")
		if !ok {
			continue
		}
		var event struct {
			Type  string `json:"type"`
			Delta struct {
				Text string `json:"text"`
			} `json:"delta"`
		}
		if json.Unmarshal([]byte(payload), &event) != nil {
			continue
		}
		if event.Type == "content_block_start" && out.Len() > 0 {
			out.WriteByte(' ')
		}
		out.WriteString(event.Delta.Text)
	}
	return out.String()
}
