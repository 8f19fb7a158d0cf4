package record

import (
	"crypto/sha256"
	"fmt"
	"io"
)

// Verifier checks lines one after another: one session, numbers without a gap, each bound to the one before. Its zero value is not of
// use; NewVerifier makes one.
type Verifier struct {
	session string
	seq     uint64
	head    [sha256.Size]byte
}

// NewVerifier expects the first line of a session's record.
func NewVerifier(session string) *Verifier { return &Verifier{session: session} }

// Check returns an error that wraps ErrChain where the line does not follow from the one that was checked before it. After an error the
// verifier stands where it stood.
func (v *Verifier) Check(l Line) error {
	switch {
	case l.Session != v.session:
		return fmt.Errorf("%w: event %d belongs to session %s, not %s", ErrChain, l.Seq, l.Session, v.session)
	case l.Seq != v.seq+1:
		return fmt.Errorf("%w: event %d stands where %d belongs", ErrChain, l.Seq, v.seq+1)
	case l.Prev != v.head:
		return fmt.Errorf("%w: event %d was changed, or was not there when %d was written", ErrChain, v.seq, l.Seq)
	}
	v.seq, v.head = l.Seq, l.Hash()
	return nil
}

// Head returns the number and the hash of the last line that was checked.
func (v *Verifier) Head() (seq uint64, head [sha256.Size]byte) { return v.seq, v.head }

// Verify reads a whole record and returns where it ends. The caller compares that to a head that was signed: a record from which the
// last lines were cut is in itself in order.
func Verify(r io.Reader, session string) (seq uint64, head [sha256.Size]byte, err error) {
	lines, v := NewReader(r), NewVerifier(session)
	for {
		l, err := lines.Next()
		if err == io.EOF {
			seq, head = v.Head()
			return seq, head, nil
		}
		if err == nil {
			err = v.Check(l)
		}
		if err != nil {
			seq, head = v.Head()
			return seq, head, err
		}
	}
}
