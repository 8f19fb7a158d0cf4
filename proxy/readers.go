package proxy

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/mask"
)

// livelyReader reads an upstream and notices when it is silent for too long. What else takes time between two reads,
// people who decide or a client that is slow, does not count.
type livelyReader struct {
	io.ReadCloser
	pause  time.Duration
	silent func()
	timer  *time.Timer
	set    time.Time    // when the timer was
	since  atomic.Int64 // when the read under way began, 0 between reads
}

func newLivelyReader(src io.ReadCloser, pause time.Duration, silent func()) *livelyReader {
	r := &livelyReader{ReadCloser: src, pause: pause, silent: silent, set: time.Now()}
	r.timer = time.AfterFunc(pause, r.check)
	return r
}

func (r *livelyReader) Read(b []byte) (int, error) {
	now := time.Now()
	if now.Sub(r.set) > r.pause/8 { // not at every read: that costs
		r.set = now
		r.timer.Reset(r.pause)
	}
	r.since.Store(now.UnixNano())
	n, err := r.ReadCloser.Read(b)
	r.since.Store(0)
	return n, err
}

func (r *livelyReader) check() {
	since := r.since.Load()
	if since == 0 {
		return // the next read sets the timer
	}
	if left := r.pause - time.Since(time.Unix(0, since)); left > r.pause/8 {
		r.timer.Reset(left)
		return
	}
	r.silent()
}

func (r *livelyReader) stop() { r.timer.Stop() }

// maskingReader masks a request's body on its way to the upstream.
type maskingReader struct {
	src    io.Reader
	stream *mask.Stream
	ready  []byte
	err    error
}

func (r *maskingReader) Read(b []byte) (int, error) {
	for len(r.ready) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		chunk := make([]byte, copyBuffer)
		n, err := r.src.Read(chunk)
		r.ready = r.stream.Write(nil, chunk[:n])
		if err != nil {
			r.err = err
			if errors.Is(err, io.EOF) {
				r.ready = r.stream.Close(r.ready)
			}
		}
	}
	n := copy(b, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// strayReader passes a body on as it comes, and ends where the job's token stands in it. What may be the token's
// beginning waits for the rest.
type strayReader struct {
	f     *flight
	src   io.Reader
	ready []byte // may go
	kept  []byte // may be the beginning of the token
	err   error
}

func (r *strayReader) Read(b []byte) (int, error) {
	if len(r.ready) == 0 && len(r.kept) == 0 && r.err == nil {
		n, err := r.src.Read(b) // no copy where nothing waits
		r.take(b[:n], err)
		if len(r.kept) == 0 && r.err == err {
			r.ready = nil
			return n, err
		}
	}
	for len(r.ready) == 0 && r.err == nil {
		chunk := make([]byte, len(b))
		n, err := r.src.Read(chunk)
		r.take(append(r.kept, chunk[:n]...), err)
	}
	if len(r.ready) == 0 {
		return 0, r.err
	}
	n := copy(b, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

func (r *strayReader) take(b []byte, err error) {
	token := r.f.shown
	if r.err = err; bytes.Contains(b, token) {
		refusal := strayBody()
		r.f.cut(refusal)
		r.ready, r.kept, r.err = nil, nil, refusal
		return
	}
	keep := min(len(b), len(token)-1)
	for err != nil && keep > 0 || !bytes.HasPrefix(token, b[len(b)-keep:]) {
		keep--
	}
	r.ready, r.kept = b[:len(b)-keep], bytes.Clone(b[len(b)-keep:])
}

func strayBody() *access.Error {
	return access.Refuse(access.CodeInvalid, "Jobgate: the body holds the access token, which no upstream may see; take it out")
}
