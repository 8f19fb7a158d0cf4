package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/jobgate/jobgate/proxy/record"
)

// process brings a session as far as it can be brought now: opening, parts that are due, and after its end the manifest. It reports
// whether the session is done.
func (a *Archive) process(ctx context.Context, s *session, flushTo uint64) (done bool, err error) {
	for {
		a.spool.stateMu.Lock()
		st, due := s.state.clone(), a.up.due(s, flushTo, a.cfg.Now())
		a.spool.stateMu.Unlock()
		switch {
		case a.session(s.id) != s:
			return true, nil
		case st.Seq == 0 || !due:
			return false, nil
		case !st.OpeningDone:
			err = a.storeOpening(ctx, s, st)
		case st.unsealed() > 0:
			err = a.storePart(ctx, s, st)
		default:
			err = a.storeManifest(ctx, s, st)
			return err == nil, err
		}
		if err != nil {
			return false, err
		}
	}
}

func (a *Archive) storeOpening(ctx context.Context, s *session, st state) error {
	jws, err := a.cfg.Signer.Sign(typOpening, []byte(st.Opened))
	if err != nil {
		return err
	}
	// An opening is not announced before it is on the disk: a power cut must not leave one in the bucket that the spool knows nothing of.
	if err := a.spool.sync(); err != nil {
		return err
	}
	other, err := a.store(ctx, a.location(st)+openingName, []byte(jws), "application/jose")
	if err != nil && !sameOpening(other, jws) {
		return err
	}
	return a.spool.putState(ctx, s, kindOpening, Part{})
}

// sameOpening reports whether what is in the bucket says the same under another key: the key was replaced after the upload.
func sameOpening(other []byte, jws string) bool {
	x, y := strings.Split(string(other), "."), strings.Split(jws, ".")
	return len(x) == 3 && len(y) == 3 && x[1] == y[1]
}

func (a *Archive) storePart(ctx context.Context, s *session, st state) error {
	// What is uploaded is on the disk before, so an object never holds events that a power cut takes out of the spool: those up to st.Seq.
	if err := a.spool.sync(); err != nil {
		return err
	}
	part := Part{Name: partName(len(st.Parts) + 1), FirstSeq: st.Sealed + 1}
	data, err := a.compress(ctx, s, &part, st.Seq)
	if err != nil {
		return fmt.Errorf("seal %s of session %s: %w", part.Name, s.id, err)
	}
	other, err := a.store(ctx, a.location(st)+part.Name, data, "application/zstd")
	if errors.Is(err, ErrConflict) {
		// An earlier try got through, cut elsewhere or compressed otherwise. If it holds our events it is the part.
		if adopted, ok := a.adopt(s, part, other, st.Seq); ok {
			part, err = adopted, a.syncObject(a.location(st)+part.Name)
		}
	}
	if err != nil {
		return err
	}
	return a.spool.putState(ctx, s, kindPart, part)
}

// compress makes a part of the events that are next, up to PartBytes of them and up to the one numbered last, and fills in what is known of
// it.
func (a *Archive) compress(ctx context.Context, s *session, part *Part, last uint64) ([]byte, error) {
	enc, err := a.encoders.get(ctx)
	if err != nil {
		return nil, err
	}
	defer a.encoders.put(enc)
	var out bytes.Buffer
	enc.Reset(&out)
	for line, err := range a.lines(s, part.FirstSeq, last, &enc.frames) {
		if err != nil {
			return nil, err
		}
		if _, err := enc.Write(line.raw); err != nil {
			return nil, err
		}
		part.LastSeq, part.Bytes = line.seq, part.Bytes+int64(len(line.raw))
		if part.Bytes >= a.cfg.PartBytes {
			break
		}
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	part.measure(out.Bytes())
	return out.Bytes(), nil
}

func (p *Part) measure(object []byte) {
	sum := sha256.Sum256(object)
	p.Size, p.SHA256 = int64(len(object)), hex.EncodeToString(sum[:])
}

// adopt returns the part that an object in the bucket is, if its lines are those of the spool.
func (a *Archive) adopt(s *session, part Part, object []byte, last uint64) (Part, bool) {
	dec, err := newDecoder(bytes.NewReader(object))
	if err != nil {
		return part, false
	}
	defer dec.Close()
	a.spool.stateMu.Lock()
	most := s.state.unsealed()
	a.spool.stateMu.Unlock()
	there, err := io.ReadAll(io.LimitReader(dec, most+1))
	if err != nil || len(there) == 0 {
		return part, false
	}
	part.Bytes = int64(len(there))
	for line, err := range a.lines(s, part.FirstSeq, last, new(frameReader)) {
		rest, same := bytes.CutPrefix(there, line.raw)
		if err != nil || !same {
			return part, false
		}
		if there = rest; len(there) == 0 {
			part.LastSeq = line.seq
			part.measure(object)
			return part, true
		}
	}
	return part, false
}

type spoolLine struct {
	seq uint64
	raw []byte // with its newline; good until the next line is taken
}

// lines reads a session's events back from the spool, from the one numbered first to the one numbered last, with the memory of a reader.
func (a *Archive) lines(s *session, first, last uint64, frames *frameReader) iter.Seq2[spoolLine, error] {
	return func(yield func(spoolLine, error) bool) {
		for next := first; next <= last; {
			r, ok := a.runOf(s, next)
			if !ok {
				yield(spoolLine{}, fmt.Errorf("event %d is not in the spool", next))
				return
			}
			frames.reset(r.seg.f, r.off, r.end)
			for n := r.first; n <= min(r.last, last); n++ {
				fr, err := frames.next()
				if err == nil && (fr.kind != kindEvent || fr.session != s.id) {
					err = errors.New("a frame of something else")
				}
				if err != nil {
					yield(spoolLine{}, fmt.Errorf("%s at offset %d: %w", r.seg.path, frames.off, err))
					return
				}
				if n >= next && !yield(spoolLine{seq: n, raw: fr.body}, nil) {
					return
				}
			}
			next = r.last + 1
		}
	}
}

// runOf returns the run that an event lies in.
func (a *Archive) runOf(s *session, seq uint64) (run, bool) {
	a.spool.stateMu.Lock()
	defer a.spool.stateMu.Unlock()
	i, _ := slices.BinarySearchFunc(s.runs, seq, func(r run, seq uint64) int { return cmp.Compare(r.last, seq) })
	if i == len(s.runs) || s.runs[i].first > seq {
		return run{}, false
	}
	return s.runs[i], true
}

func (a *Archive) storeManifest(ctx context.Context, s *session, st state) error {
	m, err := manifestOf(st)
	if err != nil {
		return fmt.Errorf("write manifest of session %s: %w", s.id, err)
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest of session %s: %w", s.id, err)
	}
	data = append(data, '\n')
	jws, err := a.cfg.Signer.SignDetached(typManifest, data)
	if err != nil {
		return err
	}
	if _, err := a.store(ctx, a.location(st)+manifestName, data, "application/json"); err != nil {
		return err
	}
	if _, err := a.store(ctx, a.location(st)+manifestSig, []byte(jws), "application/jose"); err != nil {
		return err
	}
	if err := a.spool.putState(ctx, s, kindDone, Part{}); err != nil {
		return err
	}
	a.dropSession(s)
	return nil
}

func manifestOf(st state) (any, error) {
	if record.IsAudit(st.Session) {
		return newAuditManifest(st)
	}
	return newManifest(st)
}

func newManifest(st state) (Manifest, error) {
	o, err := parseLine[record.SessionOpened](st.Opened)
	if err != nil {
		return Manifest{}, err
	}
	last, err := record.ParseLine([]byte(st.Ended))
	if err != nil {
		return Manifest{}, err
	}
	var e record.SessionEnded
	if err := last.Decode(&e); err != nil {
		return Manifest{}, err
	}
	return Manifest{
		SchemaVersion: record.SchemaVersion, Session: st.Session,
		Mapping: o.Mapping, Revision: o.Revision, Override: o.Override, Issuer: o.Issuer, IssuerURL: o.IssuerURL, Provider: o.Provider, Subject: o.Subject,
		JobKey: o.JobKey, JobURL: o.JobURL, Claims: o.Claims, Connections: o.Connections, Mode: o.Mode, Door: o.Door,
		Opened: st.OpenedAt, Closes: o.Closes, Ended: last.Time, Reason: e.Reason, By: e.By, Interrupted: e.Interrupted,
		Calls: e.Calls, Denials: e.Denials, Approvals: e.Approvals, Missing: st.Totals.Missing, Counts: e.Counts,
		Parts: st.Parts, Events: st.Seq, Head: st.Head.String(),
	}, nil
}

func (a *Archive) location(st state) string { return Location(a.cfg.Prefix, st.Session, st.OpenedAt) }

// compressor makes a part: it reads frames and compresses what is in them.
type compressor struct {
	*zstd.Encoder
	frames frameReader
}

// partWindow is how far back a part's compression refers. With more of it parts were no smaller, and compressing took longer (4 MiB: by a
// sixth) and four times the memory.
const partWindow = 1 << 20

// encoders lends out a few compressors: an open one takes some 3 MiB, so there is one per core and not one per session.
type encoders struct {
	free chan *compressor // nil where none was made yet
}

func newEncoders(n int) *encoders {
	e := &encoders{free: make(chan *compressor, n)}
	for range n {
		e.free <- nil
	}
	return e
}

func (e *encoders) get(ctx context.Context) (*compressor, error) {
	select {
	case c := <-e.free:
		if c != nil {
			return c, nil
		}
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(partWindow))
		if err != nil {
			e.free <- nil
			return nil, err
		}
		return &compressor{Encoder: enc}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *encoders) put(c *compressor) {
	c.Reset(nil)
	c.frames.reset(nil, 0, 0)
	e.free <- c
}

// close lets the compressors go. Nobody may hold one.
func (e *encoders) close() error {
	var err error
	for range cap(e.free) {
		if c := <-e.free; c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// newDecoder reads compressed lines, and takes no more memory than an honest part needs.
func newDecoder(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
}
