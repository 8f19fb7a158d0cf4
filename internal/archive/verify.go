package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/jobgate/jobgate/internal/signing"
	"github.com/jobgate/jobgate/proxy/record"
)

// Problem is something that is wrong with an archive, and where.
type Problem struct {
	File    string `json:"file"` // name of the object
	Message string `json:"message"`
}

func (p Problem) String() string { return p.File + ": " + p.Message }

// Report is what Verify found.
type Report struct {
	Session  string               `json:"session"`
	Location string               `json:"location"`
	Finished bool                 `json:"finished"` // there is a manifest; without one the session is still open, or something is missing
	Opened   record.SessionOpened `json:"opened"`   // from the signed opening
	Manifest Manifest             `json:"manifest"` // as it was signed; zero where not Finished
	Parts    int                  `json:"parts"`    // that were read
	Events   uint64               `json:"events"`   // whose chain holds, from the first on
	Head     string               `json:"head"`     // hash of the last of them, in hex
	Problems []Problem            `json:"problems"` // empty where everything that is there holds
}

// OK reports whether the archive is finished and whole.
func (r Report) OK() bool { return r.Finished && len(r.Problems) == 0 }

// Err returns nil when everything that must be there by now is there and holds, and otherwise an error that names the first problem. A
// session whose window is open at the time now need not be finished.
func (r Report) Err(now time.Time) error {
	if len(r.Problems) > 0 {
		return fmt.Errorf("session %s: %s (problems: %d)", r.Session, r.Problems[0], len(r.Problems))
	}
	if !r.Finished && !now.Before(r.Opened.Closes) {
		return fmt.Errorf("session %s: %s: there is none, though the window closed at %s", r.Session, manifestName, r.Opened.Closes.Format(time.RFC3339))
	}
	return nil
}

// Verify checks a session's archive from the bucket and the public keys alone: that the opening and the manifest are signed by one of the
// keys, that every part is there, unchanged, and nothing besides, and that the chain runs unbroken from the opening to the head that was
// signed. What it finds wrong is in the report; the error is for a bucket that cannot be read, or that has no such session.
func Verify(ctx context.Context, bucket *blob.Bucket, prefix, session string, keys *signing.KeySet) (Report, error) {
	e, err := Find(ctx, bucket, prefix, session)
	if err != nil {
		return Report{Session: session}, err
	}
	return VerifyEntry(ctx, bucket, e, keys)
}

// VerifyEntry is Verify for an entry that was found or listed, without looking for it again.
func VerifyEntry(ctx context.Context, bucket *blob.Bucket, e Entry, keys *signing.KeySet) (Report, error) {
	v := newVerification(ctx, bucket, e, keys)
	return v.run()
}

func newVerification(ctx context.Context, bucket *blob.Bucket, e Entry, keys *signing.KeySet) *verification {
	return &verification{ctx: ctx, bucket: bucket, keys: keys, entry: e, chain: record.NewVerifier(e.Session),
		Report: Report{Session: e.Session, Location: e.Location}}
}

// kindOf says what kind of record an id is of.
func kindOf(id string) string {
	if record.IsAudit(id) {
		return "audit stream"
	}
	return "session"
}

// sealed is what a manifest of either kind says of the record itself.
type sealed struct {
	id     string
	parts  []Part
	events uint64
	head   string
}

type verification struct {
	Report
	ctx    context.Context
	bucket *blob.Bucket
	keys   *signing.KeySet
	entry  Entry
	chain  *record.Verifier
	first  []byte // the line that the opening signed
	sealed sealed
	audit  AuditReport // of an audit stream: what Report cannot say
	broken bool        // the chain broke: what follows cannot hold
}

func (v *verification) problem(file, format string, args ...any) {
	v.Problems = append(v.Problems, Problem{File: file, Message: fmt.Sprintf(format, args...)})
}

func (v *verification) run() (Report, error) {
	for _, check := range []func() error{v.opening, v.manifest, v.parts} {
		if err := check(); err != nil {
			return v.Report, fmt.Errorf("verify session %s: %w", v.Session, err)
		}
	}
	for _, name := range v.entry.Other {
		v.problem(name, "does not belong here")
	}
	seq, head := v.chain.Head()
	v.Events, v.Head = seq, hex.EncodeToString(head[:])
	if v.Finished {
		v.end()
	}
	return v.Report, nil
}

// read returns an object, or nil and a problem where there is none.
func (v *verification) read(name string) ([]byte, error) {
	data, err := readObject(v.ctx, v.bucket, v.entry.Location+name)
	if gcerrors.Code(err) == gcerrors.NotFound {
		v.problem(name, "is missing")
		return nil, nil
	}
	return data, err
}

func (v *verification) opening() error {
	jws, err := v.read(openingName)
	if err != nil || jws == nil {
		return err
	}
	payload, err := v.keys.Verify(typOpening, string(jws))
	if err != nil {
		v.problem(openingName, "%v", err)
		return nil
	}
	l, err := record.ParseLine(payload)
	opens, into := record.TypeSessionOpened, any(&v.Opened)
	if record.IsAudit(v.Session) {
		opens, into = record.TypeAuditOpened, &v.audit.Opened
	}
	if err == nil {
		err = l.Decode(into)
	}
	switch {
	case err != nil:
		v.problem(openingName, "%v", err)
	case l.Type != opens || l.Seq != 1:
		v.problem(openingName, "signs event %d, %s, and not the opening", l.Seq, l.Type)
	case l.Session != v.Session:
		v.problem(openingName, "signs the opening of session %s", l.Session)
	case Location("", v.Session, l.Time) != Location("", v.Session, v.entry.Day):
		v.problem(openingName, "the %s was opened on %s and lies under another day", kindOf(v.Session), l.Time.Format(time.DateOnly))
	}
	v.first = payload
	return nil
}

func (v *verification) manifest() error {
	if !v.entry.Manifest {
		if v.entry.Signed {
			v.problem(manifestName, "is missing, though its signature is there")
		}
		return nil
	}
	v.Finished = true
	data, err := v.read(manifestName)
	if err != nil || data == nil {
		return err
	}
	jws, err := v.read(manifestSig)
	if err != nil || jws == nil {
		return err
	}
	if err := v.keys.VerifyDetached(typManifest, string(jws), data); err != nil {
		v.problem(manifestName, "%v", err)
		return nil
	}
	if v.sealed, err = v.parse(data); err != nil {
		v.problem(manifestName, "%v", err)
		return nil
	}
	if id := v.sealed.id; id != v.Session {
		v.sealed, v.Manifest, v.audit.Manifest = sealed{}, Manifest{}, AuditManifest{}
		v.problem(manifestName, "is that of %s %s", kindOf(id), id)
	}
	return nil
}

// parse reads the manifest of the kind that the record is of.
func (v *verification) parse(data []byte) (sealed, error) {
	if record.IsAudit(v.Session) {
		m, err := parseAuditManifest(data)
		if err != nil {
			return sealed{}, err
		}
		v.audit.Manifest = m
		return sealed{m.Stream, m.Parts, m.Events, m.Head}, nil
	}
	m, err := parseManifest(data)
	if err != nil {
		return sealed{}, err
	}
	v.Manifest = m
	return sealed{m.Session, m.Parts, m.Events, m.Head}, nil
}

// parts reads the parts that the manifest names, or without one those that are there.
func (v *verification) parts() error {
	if v.sealed.id == "" {
		for i, name := range v.entry.Parts {
			if name != partName(i+1) {
				v.problem(partName(i+1), "is missing")
				v.broken = true
			}
			if err := v.part(Part{Name: name}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, p := range v.sealed.parts {
		if err := v.part(p); err != nil {
			return err
		}
	}
	for _, name := range v.entry.Parts {
		if !slices.ContainsFunc(v.sealed.parts, func(p Part) bool { return p.Name == name }) {
			v.problem(name, "is not in the manifest")
		}
	}
	return nil
}

// part checks one part's bytes against the manifest, and its lines against the chain: the first says that, the second where it was
// changed.
func (v *verification) part(p Part) error {
	r, err := v.bucket.NewReader(v.ctx, v.entry.Location+p.Name, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		v.problem(p.Name, "is missing")
		v.broken = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", p.Name, err)
	}
	defer r.Close()
	v.Parts++
	sum := sha256.New()
	body := io.TeeReader(r, sum)
	lineErr := v.lines(body)
	n, err := io.Copy(io.Discard, body)
	if err != nil {
		return fmt.Errorf("read %s: %w", p.Name, err)
	}
	switch {
	case p.SHA256 != "" && r.Size() != p.Size:
		v.problem(p.Name, "has %d bytes, the manifest says %d", r.Size(), p.Size)
	case p.SHA256 != "" && hex.EncodeToString(sum.Sum(nil)) != p.SHA256:
		v.problem(p.Name, "was changed: its SHA-256 is not that of the manifest")
	case n > 0 && lineErr == nil:
		v.problem(p.Name, "goes on after its last line")
	}
	if lineErr != nil {
		v.problem(p.Name, "%v", lineErr)
	}
	if seq, _ := v.chain.Head(); lineErr == nil && p.LastSeq != 0 && !v.broken && seq != p.LastSeq {
		v.problem(p.Name, "ends with event %d, the manifest says %d", seq, p.LastSeq)
	}
	return nil
}

func (v *verification) lines(r io.Reader) error {
	for l, err := range decompressed(r) {
		if err != nil {
			v.broken = true
			return err
		}
		if v.broken {
			continue
		}
		if l.Seq == 1 && v.first != nil && !bytes.Equal(l.Raw, v.first) {
			v.broken = true
			return errors.New("the first event is not the opening that was signed")
		}
		if err := v.chain.Check(l); err != nil {
			v.broken = true
			return err
		}
	}
	return nil
}

// end compares where the chain ended to what was signed.
func (v *verification) end() {
	m := v.sealed
	if m.id == "" || v.broken {
		return
	}
	if v.Events != m.events || v.Head != m.head {
		v.problem(manifestName, "the record ends with event %d (%.12s…), the manifest was signed over %d (%.12s…)", v.Events, v.Head, m.events, m.head)
	}
}
