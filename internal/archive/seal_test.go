package archive

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"github.com/jobgate/jobgate/internal/signing"
	"github.com/jobgate/jobgate/proxy/record"
)

// A part holds nothing that was written after the spool was brought to the disk for it: a power cut could take that out of the spool, and
// the part would never fit again.
func TestPartEndsWhereTheDiskDoes(t *testing.T) {
	ctx := context.Background()
	key, err := signing.New(signing.Archive)
	if err != nil {
		t.Fatal(err)
	}
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	a, err := Open(ctx, Config{Dir: filepath.Join(t.TempDir(), "spool"), Bucket: bucket, Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close(ctx)
	at := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	if err := a.Begin(ctx, "ses_1", record.Event{Type: record.TypeSessionOpened, Time: at, Data: record.SessionOpened{}}); err != nil {
		t.Fatal(err)
	}
	event := record.Event{Type: record.TypeGap, Time: at, Data: record.Gap{}}
	for range 200 { // each lies alone, since others write between
		if err := a.Append(ctx, "ses_1", true, event); err != nil {
			t.Fatal(err)
		}
		if err := a.Audit(ctx, record.TypeAct, record.Act{}); err != nil {
			t.Fatal(err)
		}
	}
	s := a.session("ses_1")
	a.spool.stateMu.Lock()
	st := s.state.clone()
	a.spool.stateMu.Unlock()
	if err := a.Append(ctx, "ses_1", true, event, event); err != nil {
		t.Fatal(err)
	}
	if err := a.storePart(ctx, s, st); err != nil {
		t.Fatal(err)
	}
	a.spool.stateMu.Lock()
	defer a.spool.stateMu.Unlock()
	if s.state.Sealed != st.Seq || len(s.state.Parts) != 1 || s.state.Parts[0].LastSeq != st.Seq {
		t.Errorf("sealed up to %d in %+v, want %d", s.state.Sealed, s.state.Parts, st.Seq)
	}
}
