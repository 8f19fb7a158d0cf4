package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gocloud.dev/blob"

	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/internal/signing"
	"github.com/jobgate/jobgate/proxy/record"
)

func (a *archiveOptions) auditFlags(commands ...*cobra.Command) {
	for _, c := range commands {
		c.Flags().BoolVar(&a.audit, "audit", false, "the audit streams: exchanges, refusals, and what people changed")
		c.Flags().StringVar(&a.day, "day", "", "only the audit streams of this day in UTC, such as 2026-11-24")
	}
}

// oneOrDay takes an id, or a day of audit streams.
func (a *archiveOptions) oneOrDay(c *cobra.Command, args []string) error {
	if len(args) == 0 && a.day != "" {
		return nil
	}
	if len(args) == 0 && a.audit {
		return usageError{fmt.Errorf("%s --audit takes a stream's id, or --day 2026-11-24", c.CommandPath())}
	}
	return exactly(1, "the id of a session or of an audit stream")(c, args)
}

// idOf takes an id, or the path of a record in the bucket or of one of its objects.
func idOf(arg string) string {
	for _, part := range slices.Backward(strings.Split(strings.TrimSuffix(arg, "/"), "/")) {
		if strings.HasPrefix(part, "ses_") || record.IsAudit(part) {
			return part
		}
	}
	return path.Base(arg)
}

// ofAudit reports whether audit streams are meant: by a flag, or by the first id.
func (a *archiveOptions) ofAudit(args []string) bool {
	return a.audit || a.day != "" || len(args) > 0 && record.IsAudit(idOf(args[0]))
}

// streams finds the audit streams that are meant, the oldest first.
func (a *archiveOptions) streams(ctx context.Context, bucket *blob.Bucket, args []string) ([]archive.Entry, error) {
	var out []archive.Entry
	for _, arg := range args {
		id := idOf(arg)
		if !record.IsAudit(id) {
			return nil, usageError{fmt.Errorf("%q is no audit stream: their ids begin with %s", id, record.AuditPrefix)}
		}
		e, err := archive.Find(ctx, bucket, a.prefix, id)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	if len(args) > 0 {
		return out, nil
	}
	var filter archive.Filter
	if a.day != "" {
		day, err := time.Parse(time.DateOnly, a.day)
		if err != nil {
			return nil, usageError{fmt.Errorf("--day %q: write it as 2026-11-24", a.day)}
		}
		filter = archive.Filter{Since: day, Until: day}
	}
	for e, err := range archive.ListAudit(ctx, bucket, a.prefix, filter) {
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(x, y archive.Entry) int {
		if c := x.Day.Compare(y.Day); c != 0 {
			return c
		}
		return strings.Compare(x.Session, y.Session)
	})
	if len(out) == 0 && a.day != "" {
		return nil, fmt.Errorf("there is no audit stream of %s", a.day)
	}
	return out, nil
}

// events are those of a session, or of the audit streams that are meant.
func (a *archiveOptions) events(ctx context.Context, bucket *blob.Bucket, args []string) iter.Seq2[record.Line, error] {
	if !a.ofAudit(args) {
		return archive.Events(ctx, bucket, a.prefix, idOf(args[0]))
	}
	return func(yield func(record.Line, error) bool) {
		streams, err := a.streams(ctx, bucket, args)
		if err != nil {
			yield(record.Line{}, err)
			return
		}
		for _, e := range streams {
			for l, err := range archive.EntryEvents(ctx, bucket, e) {
				if !yield(l, err) || err != nil {
					return
				}
			}
		}
	}
}

func (a *archiveOptions) listAudit(ctx context.Context, bucket *blob.Bucket) error {
	entries, err := a.streams(ctx, bucket, nil)
	if err != nil {
		return err
	}
	slices.Reverse(entries)
	if a.json() {
		return a.printJSON(map[string]any{"items": entries})
	}
	if len(entries) == 0 {
		_, err := fmt.Fprintln(a.env.Stdout, "no audit stream is archived yet")
		return err
	}
	var rows [][]string
	for _, e := range entries {
		state := "open, or its end is not archived"
		if e.Manifest && e.Signed {
			state = "finished"
		}
		rows = append(rows, []string{e.Session, e.Day.Format(time.DateOnly), state, strconv.Itoa(len(e.Parts)), strconv.FormatInt(e.Bytes, 10)})
	}
	return a.table([]string{"AUDIT STREAM", "DAY", "STATE", "PARTS", "BYTES"}, rows)
}

func (a *archiveOptions) showAudit(ctx context.Context, bucket *blob.Bucket, args []string) error {
	streams, err := a.streams(ctx, bucket, args)
	if err != nil {
		return err
	}
	var manifests []archive.AuditManifest
	for _, e := range streams {
		m, err := archive.ReadAuditManifest(ctx, bucket, e)
		if errors.Is(err, archive.ErrUnknown) {
			return fmt.Errorf("audit stream %s has no manifest yet: it is open, or its end is not archived; `jobgate archive replay %s` shows what is there", e.Session, e.Session)
		}
		if err != nil {
			return err
		}
		manifests = append(manifests, m)
	}
	switch {
	case a.json() && len(args) > 0:
		return a.printJSON(manifests[0])
	case a.json():
		return a.printJSON(map[string]any{"items": manifests})
	}
	for i, m := range manifests {
		if err := a.printStream(streams[i], m); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveOptions) printStream(e archive.Entry, m archive.AuditManifest) error {
	after := "none: the first of its server, or of a new data folder"
	if m.After != nil {
		after = fmt.Sprintf("%s, which ended with event %d", m.After.Stream, m.After.Events)
	}
	t := m.Totals
	for _, row := range [][2]string{
		{"stream", m.Stream}, {"where", e.Location}, {"after", after},
		{"opened", m.Opened.Format(time.RFC3339)}, {"ended", m.Ended.Format(time.RFC3339) + ": " + m.Reason},
		{"exchanges", fmt.Sprintf("%d opened, %d renewed, %d joined, %d refused, %d tried, %d further ones summed up", t.Opened, t.Renewed, t.Joined, t.Refused, t.Tried, t.Suppressed)},
		{"acts", strconv.FormatInt(t.Acts, 10)}, {"missing", strconv.FormatInt(m.Missing, 10)},
		{"events", fmt.Sprintf("%d in %s, head %s", m.Events, plural(len(m.Parts), "part"), m.Head)},
	} {
		if _, err := fmt.Fprintf(a.env.Stdout, "%-12s %s\n", row[0], line(row[1], 200)); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveOptions) verifyAudit(ctx context.Context, bucket *blob.Bucket, keys *signing.KeySet, args []string) error {
	entries, err := a.streams(ctx, bucket, args)
	if err != nil {
		return err
	}
	reports, err := archive.VerifyAudit(ctx, bucket, a.prefix, entries, keys, time.Now())
	if err != nil {
		return err
	}
	bad := 0
	for _, r := range reports {
		if r.Err(time.Now()) != nil {
			bad++
		}
		if !a.json() {
			a.printAuditReport(r)
		}
	}
	if a.json() {
		if err := a.printJSON(map[string]any{"items": reports}); err != nil {
			return err
		}
	} else if len(reports) == 0 {
		_, _ = fmt.Fprintln(a.env.Stdout, "no audit stream is archived yet")
	}
	if bad > 0 {
		return fmt.Errorf("%s of %d did not verify", plural(bad, "audit stream"), len(reports))
	}
	return nil
}

func (a *archiveOptions) printAuditReport(r archive.AuditReport) {
	out, id := a.env.Stdout, escape(r.Stream)
	switch err := r.Err(time.Now()); {
	case r.OK():
		_, _ = fmt.Fprintf(out, "%s: good: signed, whole, %d events in %s\n", id, r.Events, plural(r.Parts, "part"))
	case len(r.Problems) == 0 && err == nil:
		_, _ = fmt.Fprintf(out, "%s: not finished: %d events so far hold\n", id, r.Events)
	case len(r.Problems) == 0:
		_, _ = fmt.Fprintf(out, "%s: BAD: it has no manifest, though its day is over\n", id)
	default:
		for _, p := range r.Problems {
			_, _ = fmt.Fprintf(out, "%s: BAD: %s\n", id, escape(p.String()))
		}
	}
	if r.First != "" {
		_, _ = fmt.Fprintf(out, "  note: %s\n", escape(r.First))
	}
}

// audit tells an event of an audit stream.
func (t *teller) audit(l record.Line, data any) error {
	switch e := data.(type) {
	case *record.AuditOpened:
		t.told(l, "audit     of %s begins", line(e.Day, 20))
	case *record.Exchange:
		t.exchange(l, e)
	case *record.Refusals:
		t.told(l, "refused   %d more, not written one by one", e.Count)
		for _, by := range e.By {
			t.told(l, "          %d %s: %s %s", by.Count, line(by.Class, 20), line(by.Reason, 40), line(by.Issuer, 80))
		}
	case *record.Act:
		text := fmt.Sprintf("%s of %s by %s", line(e.Act, 30), line(e.Of, 60), line(e.By, 60))
		if e.Via != "" {
			text += " (" + line(e.Via, 10) + ")"
		}
		t.told(l, "act       %s%s", text, because(e.Reason))
	case *record.AuditEnded:
		t.told(l, "audit     ends: %s", line(e.Reason, 30))
	case *record.Gap:
		t.told(l, "GAP       %s (%d events missing)", line(e.Reason, 80), e.Missing)
	}
	return t.err
}

func (t *teller) exchange(l record.Line, e *record.Exchange) {
	who := e.Subject
	if !e.Verified {
		who = strings.TrimSpace("nobody known " + e.ClaimedIssuer)
	}
	text := fmt.Sprintf("%-9s %s %s at %s", line(e.Outcome, 10), line(e.Exchange, 40), line(who, 70), line(e.Door, 60))
	if e.Mapping != "" {
		text += " under " + line(e.Mapping, 64)
	}
	if e.Session != "" {
		text += ", " + line(e.Session, 40)
	}
	t.told(l, "%s", text)
	if e.Outcome == "refused" {
		t.told(l, "          %s: %s", line(e.Reason, 40), line(strings.TrimPrefix(e.Detail, e.Reason+": "), 160))
	}
	for _, f := range e.Failed {
		t.told(l, "          %s fails %s: %s", line(f.Mapping, 64), line(strings.TrimSpace(f.Kind+" "+f.On), 60), failing(f.Kind, line(f.Got, 80), line(f.Wanted, 80)))
	}
}

// told is a line with the time of day: an audit stream is read beside a log.
func (t *teller) told(l record.Line, format string, args ...any) {
	if t.err != nil {
		return
	}
	_, t.err = fmt.Fprintf(t.out, "%s  %s\n", l.Time.Format("15:04:05Z"), fmt.Sprintf(format, args...))
}
