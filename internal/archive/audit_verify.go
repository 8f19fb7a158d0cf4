package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gocloud.dev/blob"

	"github.com/jobgate/jobgate/internal/signing"
	"github.com/jobgate/jobgate/proxy/record"
)

// auditGrace is how long after its day, or after the beginning of the next one, a stream may be without its manifest: uploads take time.
const auditGrace = time.Hour

// AuditReport is what VerifyAudit found of one stream.
type AuditReport struct {
	Stream   string             `json:"stream"`
	Location string             `json:"location"`
	Day      time.Time          `json:"day"`
	Finished bool               `json:"finished"` // there is a manifest; without one the stream is still open, or something is missing
	Opened   record.AuditOpened `json:"opened"`   // from the signed opening
	Manifest AuditManifest      `json:"manifest"` // as it was signed; zero where not Finished
	Parts    int                `json:"parts"`    // that were read
	Events   uint64             `json:"events"`   // whose chain holds, from the first on
	Head     string             `json:"head"`     // hash of the last of them, in hex
	Problems []Problem          `json:"problems"` // empty where everything that is there holds
	// First says that no stream before it is known: the server's first, or what was before is older than the bucket keeps.
	First string `json:"first,omitempty"`
}

// OK reports whether the stream is finished and whole.
func (r AuditReport) OK() bool { return r.Finished && len(r.Problems) == 0 }

// Err returns nil when everything that must be there by now is there and holds. The stream of a day that is not over need not be
// finished.
func (r AuditReport) Err(now time.Time) error {
	if len(r.Problems) > 0 {
		return fmt.Errorf("audit stream %s: %s (problems: %d)", r.Stream, r.Problems[0], len(r.Problems))
	}
	if over := r.Day.Add(24 * time.Hour); !r.Finished && now.After(over.Add(auditGrace)) {
		return fmt.Errorf("audit stream %s: %s: there is none, though its day ended at %s", r.Stream, manifestName, over.Format(time.RFC3339))
	}
	return nil
}

// VerifyAudit checks audit streams that were found or listed, each as Verify checks a session, and that each follows the one that it
// names: a stream that vanished, or was cut, is missed by the next. An error is for a bucket that cannot be read.
func VerifyAudit(ctx context.Context, bucket *blob.Bucket, prefix string, entries []Entry, keys *signing.KeySet, now time.Time) ([]AuditReport, error) {
	reports := make([]AuditReport, 0, len(entries))
	for _, e := range entries {
		v := newVerification(ctx, bucket, e, keys)
		r, err := v.run()
		if err != nil {
			return nil, err
		}
		reports = append(reports, AuditReport{Stream: e.Session, Location: e.Location, Day: e.Day, Finished: r.Finished, Opened: v.audit.Opened,
			Manifest: v.audit.Manifest, Parts: r.Parts, Events: r.Events, Head: r.Head, Problems: r.Problems})
	}
	l := links{ctx: ctx, bucket: bucket, prefix: prefix, now: now, reports: reports}
	return reports, l.check()
}

// links checks what streams say of one another.
type links struct {
	ctx     context.Context
	bucket  *blob.Bucket
	prefix  string
	now     time.Time
	reports []AuditReport
	oldest  time.Time // day in the bucket
}

func (l *links) check() error {
	days, err := auditRoot.days(l.ctx, l.bucket, l.prefix)
	if err != nil || len(days) == 0 {
		return err
	}
	l.oldest = days[len(days)-1]
	followed := make(map[string]string)
	// From the oldest on, so that of two that follow one the later is the one in doubt.
	for _, i := range l.byAge() {
		r := &l.reports[i]
		after := r.Opened.After
		if after == nil {
			r.First = "it names no stream before it: the first of its server, or of a new data folder"
			continue
		}
		if other := followed[after.Stream]; other != "" {
			r.problem(openingName, "follows %s, as %s does: one of them was written by a copy of the server's data folder", after.Stream, other)
		}
		followed[after.Stream] = r.Stream
		if err := l.follows(r, *after); err != nil {
			return err
		}
	}
	return nil
}

func (l *links) byAge() []int {
	order := make([]int, len(l.reports))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int {
		if l.reports[x].Stream < l.reports[y].Stream {
			return -1
		}
		return 1
	})
	return order
}

func (r *AuditReport) problem(file, format string, args ...any) {
	r.Problems = append(r.Problems, Problem{File: file, Message: fmt.Sprintf(format, args...)})
}

// follows compares what a stream says of the one before it to what is there.
func (l *links) follows(r *AuditReport, after record.AuditHead) error {
	if !record.IsAudit(after.Stream) || !validSession(after.Stream) {
		r.problem(openingName, "names %q as the stream before it, which is none", after.Stream)
		return nil
	}
	e, err := Find(l.ctx, l.bucket, l.prefix, after.Stream)
	if errors.Is(err, ErrUnknown) {
		day, bad := time.Parse(time.DateOnly, after.Day)
		if bad == nil && day.Before(l.oldest) {
			r.First = fmt.Sprintf("the stream before it, %s, is older than everything here", after.Stream)
			return nil
		}
		r.problem(openingName, "follows stream %s of %s, which is not there", after.Stream, after.Day)
		return nil
	}
	if err != nil {
		return err
	}
	m, err := ReadAuditManifest(l.ctx, l.bucket, e)
	switch {
	case errors.Is(err, ErrUnknown):
		if l.now.Sub(r.begun()) > auditGrace {
			r.problem(openingName, "follows stream %s, which has ended and has no manifest", after.Stream)
		}
	case err != nil:
		// That stream's own report says so.
	case m.Events != after.Events || m.Head != after.Head:
		r.problem(openingName, "follows stream %s as it ended with event %d (%.12s…), and there it ends with %d (%.12s…)",
			after.Stream, after.Events, after.Head, m.Events, m.Head)
	}
	return nil
}

// begun is when the stream began, by its id.
func (r *AuditReport) begun() time.Time {
	var at string
	if len(r.Stream) > len(record.AuditPrefix)+15 {
		at = r.Stream[len(record.AuditPrefix) : len(record.AuditPrefix)+15]
	}
	t, err := time.Parse("20060102t150405", at)
	if err != nil {
		return r.Day
	}
	return t
}
