package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/jobgate/jobgate/proxy/record"
)

// Entry is a session, or an audit stream, as the names and sizes of its objects tell it.
type Entry struct {
	Session  string    `json:"session"`         // or the audit stream's id
	Day      time.Time `json:"day"`             // of the opening, in UTC
	Location string    `json:"location"`        // folder in the bucket, with a slash at its end
	Opening  bool      `json:"opening"`         // open.jws is there
	Manifest bool      `json:"manifest"`        // manifest.json is there
	Signed   bool      `json:"signed"`          // manifest.jws is there
	Parts    []string  `json:"parts"`           // names of the parts, in order
	Other    []string  `json:"other,omitempty"` // names of objects that do not belong there
	Bytes    int64     `json:"bytes"`           // of all objects
}

// Filter narrows a List. Its zero value lets everything through.
type Filter struct {
	Since time.Time // first day of opening, zero for no limit
	Until time.Time // last day of opening, zero for no limit
}

func (f Filter) match(day time.Time) bool {
	return (f.Since.IsZero() || !day.Before(dayOf(f.Since))) && (f.Until.IsZero() || !day.After(dayOf(f.Until)))
}

func dayOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// List yields the sessions of an archive, the newest day first, by id within a day.
func List(ctx context.Context, bucket *blob.Bucket, prefix string, filter Filter) iter.Seq2[Entry, error] {
	return sessionsRoot.list(ctx, bucket, prefix, filter)
}

// ListAudit yields the audit streams, the newest day first, by their beginning within a day.
func ListAudit(ctx context.Context, bucket *blob.Bucket, prefix string, filter Filter) iter.Seq2[Entry, error] {
	return auditRoot.list(ctx, bucket, prefix, filter)
}

func (r root) list(ctx context.Context, bucket *blob.Bucket, prefix string, filter Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		days, err := r.days(ctx, bucket, prefix)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for _, day := range days {
			if !filter.match(day) {
				continue
			}
			for e, err := range listDay(ctx, bucket, r.day(prefix, day), day) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// Find returns the entry of a session or of an audit stream. It returns an error that wraps ErrUnknown where the bucket has none.
func Find(ctx context.Context, bucket *blob.Bucket, prefix, session string) (Entry, error) {
	if !validSession(session) {
		return Entry{}, fmt.Errorf("find session %q: ids have letters, digits, _ and - only", session)
	}
	days, err := rootOf(session).days(ctx, bucket, prefix)
	if err != nil {
		return Entry{}, err
	}
	for _, day := range days {
		for e, err := range listDay(ctx, bucket, Location(prefix, session, day), day) {
			return e, err
		}
	}
	return Entry{}, fmt.Errorf("find %s under %s: %w", session, rootOf(session).under(prefix), ErrUnknown)
}

func (r root) days(ctx context.Context, bucket *blob.Bucket, prefix string) ([]time.Time, error) {
	var days []time.Time
	for obj, err := range objects(ctx, bucket, &blob.ListOptions{Prefix: r.under(prefix), Delimiter: "/"}) {
		if err != nil {
			return nil, err
		}
		day, err := time.Parse("dt="+time.DateOnly, path.Base(obj.Key))
		if err == nil && obj.IsDir {
			days = append(days, day)
		}
	}
	slices.SortFunc(days, func(x, y time.Time) int { return y.Compare(x) })
	return days, nil
}

// listDay gathers the objects under prefix, which arrive in the order of their names, into entries.
func listDay(ctx context.Context, bucket *blob.Bucket, prefix string, day time.Time) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var e Entry
		for obj, err := range objects(ctx, bucket, &blob.ListOptions{Prefix: prefix}) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			dir, name := path.Split(obj.Key)
			if dir != e.Location {
				if e.Session != "" && !yield(e, nil) {
					return
				}
				e = Entry{Session: path.Base(dir), Day: day, Location: dir}
			}
			e.add(name, obj.Size)
		}
		if e.Session != "" {
			yield(e, nil)
		}
	}
}

func (e *Entry) add(name string, size int64) {
	e.Bytes += size
	var n int
	switch _, err := fmt.Sscanf(name, partFormat, &n); {
	case name == openingName:
		e.Opening = true
	case name == manifestName:
		e.Manifest = true
	case name == manifestSig:
		e.Signed = true
	case err == nil && name == partName(n):
		e.Parts = append(e.Parts, name)
	default:
		e.Other = append(e.Other, name)
	}
}

func objects(ctx context.Context, bucket *blob.Bucket, opts *blob.ListOptions) iter.Seq2[*blob.ListObject, error] {
	return func(yield func(*blob.ListObject, error) bool) {
		list := bucket.List(opts)
		for {
			obj, err := list.Next(ctx)
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("list %s: %w", opts.Prefix, err))
				return
			}
			if !yield(obj, nil) {
				return
			}
		}
	}
}

// ReadManifest reads the manifest of a session, unverified. It returns an error that wraps ErrUnknown where there is none, because the
// session is still open or never ended in order.
func ReadManifest(ctx context.Context, bucket *blob.Bucket, e Entry) (Manifest, error) {
	data, err := e.manifest(ctx, bucket)
	if err != nil {
		return Manifest{}, err
	}
	return parseManifest(data)
}

// ReadAuditManifest is ReadManifest for an audit stream.
func ReadAuditManifest(ctx context.Context, bucket *blob.Bucket, e Entry) (AuditManifest, error) {
	data, err := e.manifest(ctx, bucket)
	if err != nil {
		return AuditManifest{}, err
	}
	return parseAuditManifest(data)
}

func (e Entry) manifest(ctx context.Context, bucket *blob.Bucket) ([]byte, error) {
	data, err := readObject(ctx, bucket, e.Location+manifestName)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("read manifest of %s: %w", e.Session, ErrUnknown)
	}
	return data, err
}

// Events yields what is stored of a session's record, in order. It stops with an error where a line is damaged or does not follow from
// the one before; whether the whole is what was signed is for Verify to say.
func Events(ctx context.Context, bucket *blob.Bucket, prefix, session string) iter.Seq2[record.Line, error] {
	return func(yield func(record.Line, error) bool) {
		e, err := Find(ctx, bucket, prefix, session)
		if err != nil {
			yield(record.Line{}, err)
			return
		}
		EntryEvents(ctx, bucket, e)(yield)
	}
}

// EntryEvents is Events for an entry that was found or listed. A file:// bucket is read whole to find one session, so who goes through
// many lists them once.
func EntryEvents(ctx context.Context, bucket *blob.Bucket, e Entry) iter.Seq2[record.Line, error] {
	return func(yield func(record.Line, error) bool) {
		v := record.NewVerifier(e.Session)
		for _, name := range e.Parts {
			for l, err := range partLines(ctx, bucket, e.Location+name) {
				if err == nil {
					err = v.Check(l)
				}
				if err != nil {
					yield(record.Line{}, fmt.Errorf("%s: %w", name, err))
					return
				}
				if !yield(l, nil) {
					return
				}
			}
		}
	}
}

func partLines(ctx context.Context, bucket *blob.Bucket, key string) iter.Seq2[record.Line, error] {
	return func(yield func(record.Line, error) bool) {
		r, err := bucket.NewReader(ctx, key, nil)
		if err != nil {
			yield(record.Line{}, fmt.Errorf("read %s: %w", key, err))
			return
		}
		defer r.Close()
		for l, err := range decompressed(r) {
			if !yield(l, err) {
				return
			}
		}
	}
}

func decompressed(r io.Reader) iter.Seq2[record.Line, error] {
	return func(yield func(record.Line, error) bool) {
		dec, err := newDecoder(r)
		if err != nil {
			yield(record.Line{}, err)
			return
		}
		defer dec.Close()
		lines := record.NewReader(dec)
		for {
			l, err := lines.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
	}
}
