package upstream

import "net"

// records stands under a TLS connection. tls.Conn gives one record for each Read, and a model sends one for each event:
// so it is asked again and again for what has come already, and told to wait no longer once that is used up.
type records struct {
	net.Conn
	buf        []byte
	start, end int
	here       bool // only what has come
}

// Read gives TLS what has come, and waits for more unless that is not wanted.
func (r *records) Read(p []byte) (int, error) {
	if r.start == r.end {
		if r.here {
			return 0, errNothingHere
		}
		if r.buf == nil {
			r.buf = make([]byte, bufferSize)
		}
		n, err := r.Conn.Read(r.buf)
		if n <= 0 {
			return n, err
		}
		r.start, r.end = 0, n
	}
	n := copy(p, r.buf[r.start:r.end])
	r.start += n
	return n, nil
}

// errNothingHere is a net.Error that says that it will pass: after one of these crypto/tls goes on where it was.
var errNothingHere net.Error = nothingHere{}

type nothingHere struct{}

func (nothingHere) Error() string   { return "no more bytes have come" }
func (nothingHere) Timeout() bool   { return true }
func (nothingHere) Temporary() bool { return true }
