package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
)

const recordHeader = 5 // type, version, length: RFC 8446 section 5.1

// records stands under a TLS connection. tls.Conn gives one record for each Read, and a model sends one for each event:
// so it is asked again and again for what has come already, and told to wait no longer once that is used up. It gets no
// byte of the next record with the one before, so that all it holds is a part of a record that begun is known here.
type records struct {
	net.Conn
	lent       *[]byte // nil while the connection lies idle
	buf        []byte  // the same
	start, end int
	here       bool  // only what has come
	sent       int64 // bytes that the kernel took

	head  [recordHeader]byte // of the record that is handed up
	known int                // bytes of head
	body  int                // bytes of it that are still to come
}

// Read gives TLS what has come, and waits for more unless that is not wanted.
func (r *records) Read(p []byte) (int, error) {
	if r.start == r.end {
		if r.here {
			return 0, errNothingHere
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := r.hand(p)
	r.start += n
	return n, nil
}

func (r *records) fill() error {
	if r.lent == nil {
		r.lent = buffers.Get().(*[]byte)
		r.buf = *r.lent
	}
	n, err := r.Conn.Read(r.buf)
	switch {
	case n > 0:
		r.start, r.end = 0, n
		return nil
	case errors.Is(err, io.EOF):
		return errTruncated
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

// hand copies at most to the end of the record.
func (r *records) hand(p []byte) int {
	from := r.buf[r.start:r.end]
	n := 0
	if r.body == 0 {
		n = copy(p, from[:min(len(from), recordHeader-r.known)])
		r.known += copy(r.head[r.known:], from[:n])
		if r.known < recordHeader {
			return n
		}
		r.known, r.body = 0, int(r.head[3])<<8|int(r.head[4])
	}
	m := copy(p[n:], from[n:min(len(from), n+r.body)])
	r.body -= m
	return n + m
}

// between reports whether TLS was given whole records, and nothing waits for it.
func (r *records) between() bool { return r.start == r.end && r.known == 0 && r.body == 0 }

// whole reports whether a whole record waits for TLS.
func (r *records) whole() bool {
	waits := r.buf[r.start:r.end]
	if r.known != 0 || r.body != 0 || len(waits) < recordHeader {
		return false
	}
	return len(waits) >= recordHeader+(int(waits[3])<<8|int(waits[4]))
}

// rest gives the buffer back, unless something is in it.
func (r *records) rest() {
	if r.lent != nil && r.start == r.end {
		buffers.Put(r.lent)
		r.lent, r.buf, r.start, r.end = nil, nil, 0, 0
	}
}

// Write counts, so that it is known whether anything of a request left.
func (r *records) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	r.sent += int64(n)
	return n, err
}

// errTruncated is the end of TCP without TLS's goodbye: anybody on the way can make one. crypto/tls takes it for a good
// end where it falls between two records.
var errTruncated = fmt.Errorf("the connection ended without TLS's close_notify: %w", io.ErrUnexpectedEOF)

// errNothingHere is a net.Error that says that it will pass: after one of these crypto/tls goes on where it was.
var errNothingHere net.Error = nothingHere{}

type nothingHere struct{}

func (nothingHere) Error() string   { return "no more bytes have come" }
func (nothingHere) Timeout() bool   { return true }
func (nothingHere) Temporary() bool { return true }
