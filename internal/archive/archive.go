package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"gocloud.dev/blob"

	"github.com/jobgate/jobgate/internal/signing"
	"github.com/jobgate/jobgate/proxy/record"
)

var (
	// ErrLocked is wrapped by the error for a spool that another process has.
	ErrLocked = errors.New("the spool is locked")
	// ErrSpool is wrapped by the error for an event that the disk did not take. What it announces must not happen.
	ErrSpool = errors.New("the spool cannot be written")
	// ErrFull is wrapped by the error for an event that was refused because the bucket is away and the spool has reached its limit.
	ErrFull = errors.New("the spool is full: the bucket does not take what is in it")
	// ErrUnknown is wrapped by the error for a session that has no record, or whose archive is closed.
	ErrUnknown = errors.New("no such record")
	// ErrEnded is wrapped by the error for an event after session.ended.
	ErrEnded = errors.New("the record has ended")
	// ErrClosed is returned once the archive is closed.
	ErrClosed = errors.New("the archive is closed")
	// ErrConflict is wrapped by the error for an object that is in the bucket already with other content.
	ErrConflict = errors.New("the bucket holds something else under this name")
)

// What to do when the spool has reached its limit.
const (
	BacklogRefuse   = "refuse"
	BacklogContinue = "continue"
)

// When an event counts as written.
const (
	DurabilityProcess = "process" // it survives this process: write(2), and fdatasync within 20 ms
	DurabilityPower   = "power"   // it survives the machine: fdatasync first
)

// Config says how an Archive works. It is not read again from outside after Open.
type Config struct {
	Dir        string           // folder of the spool, required; made when absent
	Bucket     *blob.Bucket     // required; stays open when the Archive is closed
	Version    string           // of the program, written into audit streams; may be ""
	Prefix     string           // before v1/sessions in the bucket; "" for none
	SyncDir    string           // the folder behind a file:// bucket, whose files are synced before the spool lets go; "" for other buckets
	Signer     *signing.Key     // required, of purpose archive
	Log        *slog.Logger     // nil discards
	Now        func() time.Time // nil is time.Now
	PartBytes  int64            // a part is cut at so many bytes of lines; 0 is 8 MiB
	PartAge    time.Duration    // or when its oldest event is so old; 0 is 10 minutes
	SpoolMax   int64            // bytes of spool above which OnBacklog applies; 0 is 4 GiB
	OnBacklog  string           // BacklogRefuse (also "") or BacklogContinue
	Durability string           // DurabilityProcess (also "") or DurabilityPower
	Retry      time.Duration    // before the first repetition of an upload, doubled up to a minute; 0 is a second

	openFile     func(name string, flag int) (file, error)
	segmentBytes int64
}

func (c Config) goOn() bool { return c.OnBacklog == BacklogContinue }

// check fills in what is not set and refuses what cannot be.
func (c Config) check() (Config, error) {
	switch {
	case c.Dir == "":
		return c, errors.New("open archive: no spool folder is given")
	case c.Bucket == nil:
		return c, errors.New("open archive: no bucket is given")
	case c.Signer == nil:
		return c, errors.New("open archive: no signing key is given")
	case c.OnBacklog != "" && c.OnBacklog != BacklogRefuse && c.OnBacklog != BacklogContinue:
		return c, fmt.Errorf("open archive: on_backlog %q: write %s or %s", c.OnBacklog, BacklogRefuse, BacklogContinue)
	case c.Durability != "" && c.Durability != DurabilityProcess && c.Durability != DurabilityPower:
		return c, fmt.Errorf("open archive: durability %q: write %s or %s", c.Durability, DurabilityProcess, DurabilityPower)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.openFile == nil {
		c.openFile = openOSFile
	}
	c.segmentBytes = cmp.Or(c.segmentBytes, segmentSize)
	c.PartBytes = cmp.Or(c.PartBytes, 8<<20)
	c.PartAge = cmp.Or(c.PartAge, 10*time.Minute)
	c.SpoolMax = cmp.Or(c.SpoolMax, 4<<30)
	c.Retry = cmp.Or(c.Retry, time.Second)
	return c, nil
}

// Archive takes events in and brings records to the bucket. Its methods may be called concurrently.
type Archive struct {
	cfg       Config
	lock      *os.File
	spool     *spool
	up        *uploader
	encoders  *encoders
	recovered []RecoveredSession
	audit     audit

	mu       sync.RWMutex // guards sessions
	sessions map[string]*session
}

// RecoveredSession is a record that the spool held at the start.
type RecoveredSession struct {
	Session  string
	Opened   record.SessionOpened
	InFlight []string                 // calls that were open when the process went away; they have their call.ended by now
	Counts   map[string]record.Counts // the last ones of each connection
	Totals   Totals
	Ended    bool // session.ended was written; the archive is being finished and takes nothing more
}

// Open takes the spool, recovers what is in it, and starts to write and to upload. The context bounds the start only.
func Open(ctx context.Context, cfg Config) (*Archive, error) {
	cfg, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err := lockFolder(cfg.Dir)
	if err != nil {
		return nil, err
	}
	a := &Archive{cfg: cfg, lock: lock, sessions: map[string]*session{}, encoders: newEncoders(runtime.GOMAXPROCS(0))}
	a.up = newUploader(a)
	a.spool = newSpool(cfg, a.up.note, a.snapshot)
	if err := a.recover(); err != nil {
		return nil, errors.Join(err, a.spool.abandon(), lock.Close())
	}
	if err := a.audit.load(cfg.Dir); err != nil {
		return nil, errors.Join(err, a.spool.abandon(), lock.Close())
	}
	a.spool.start()
	if err := a.endInterrupted(ctx); err != nil {
		return nil, errors.Join(err, a.spool.stop(), lock.Close())
	}
	a.up.start()
	return a, nil
}

// Recovered returns the records that the spool held at the start, in the order of their ids.
func (a *Archive) Recovered() []RecoveredSession { return a.recovered }

// Location returns where in the bucket a session's objects are, with a slash at its end.
func (a *Archive) Location(session string, opened time.Time) string {
	return Location(a.cfg.Prefix, session, opened)
}

// Flush seals and uploads everything that is written when it is called, and returns when it is stored or the context ends.
func (a *Archive) Flush(ctx context.Context) error {
	for _, s := range a.all() {
		s.mu.Lock()
		last := s.last
		s.mu.Unlock()
		if last == nil {
			continue
		}
		select {
		case <-last.done:
		case <-ctx.Done():
			return fmt.Errorf("flush archive: %w", ctx.Err())
		}
	}
	return a.up.flush(ctx)
}

// Close stops uploading and writing, and gives the spool back. What is not uploaded stays in it for the next start. Nothing may be
// appended any more.
func (a *Archive) Close(ctx context.Context) error {
	a.up.stop()
	auditErr := a.EndAudit(ctx)
	err := a.spool.putState(ctx, nil, kindClose, Part{})
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return errors.Join(auditErr, err, a.spool.stop(), a.encoders.close(), a.lock.Close())
}

// Stats is how the archive is doing.
type Stats struct {
	SpoolBytes int64            // on the disk
	SpoolMax   int64            // above which OnBacklog applies
	Sessions   int              // records that are not closed in the bucket
	Unsealed   int64            // bytes of lines that are in no part yet
	SpoolError error            // of the last write, nil when it went well
	Failing    map[string]error // by session: why its objects cannot be stored
}

// Stats tells how the archive is doing.
func (a *Archive) Stats() Stats {
	st := Stats{SpoolMax: a.cfg.SpoolMax, Failing: a.up.failing()}
	all := a.all()
	st.Sessions = len(all)
	a.spool.stateMu.Lock()
	defer a.spool.stateMu.Unlock()
	st.SpoolBytes, st.SpoolError = a.spool.bytes.Load(), a.spool.failure
	for _, s := range all {
		st.Unsealed += s.state.unsealed()
	}
	return st
}

func (a *Archive) newSession(id string) *session {
	return &session{id: id, chain: record.NewChain(id), epoch: a.spool.epoch.Load(), state: state{Session: id}}
}

func (a *Archive) session(id string) *session {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.sessions[id]
}

func (a *Archive) addSession(s *session) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions[s.id] != nil {
		return false
	}
	a.sessions[s.id] = s
	return true
}

func (a *Archive) dropSession(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sessions, s.id)
}

func (a *Archive) all() []*session {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := make([]*session, 0, len(a.sessions))
	for _, s := range a.sessions {
		all = append(all, s)
	}
	return all
}
