package upstream_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"testing"
)

// ticket is a NewSessionTicket, RFC 8446 section 4.6.1.
var ticket = []byte{4, 0, 0, 30, 0, 0, 14, 16, 1, 2, 3, 4, 1, 9, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0}

// recordWriter writes a server's TLS 1.3 records, RFC 8446 section 5.2, which crypto/tls would not.
type recordWriter struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// serveRecords does the handshake with crypto/tls, and lets handle write what comes then.
func serveRecords(t *testing.T, handle func(c *tls.Conn, under net.Conn, w *recordWriter)) (url string, trusted *tls.Config) {
	t.Helper()
	certificate, trusted := secureServer(t, http.NotFoundHandler(), nil)
	srv := serveRaw(t, func(_ int, under net.Conn) {
		var keys bytes.Buffer
		c := tls.Server(under, &tls.Config{Certificates: certificate.TLS.Certificates, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, KeyLogWriter: &keys})
		if err := c.Handshake(); err != nil {
			t.Errorf("handshake: %v", err)
			return
		}
		if suite := c.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
			t.Errorf("cipher suite %s was negotiated; this test writes TLS_AES_128_GCM_SHA256", tls.CipherSuiteName(suite))
			return
		}
		handle(c, under, newRecordWriter(t, keys.String()))
	})
	return "https://" + srv.address, trusted
}

func newRecordWriter(t *testing.T, keys string) *recordWriter {
	for line := range strings.Lines(keys) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != "SERVER_TRAFFIC_SECRET_0" {
			continue
		}
		secret, err := hex.DecodeString(fields[2])
		if err != nil {
			t.Error(err)
		}
		w := &recordWriter{secret: secret}
		w.derive()
		return w
	}
	t.Error("crypto/tls logged no secret")
	return nil
}

func (w *recordWriter) derive() {
	block, _ := aes.NewCipher(w.expand("key", 16)) // never fails for 16 bytes
	w.aead, _ = cipher.NewGCM(block)
	w.iv, w.seq = w.expand("iv", 12), 0
}

// expand is HKDF-Expand-Label without context.
func (w *recordWriter) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
	out, _ := hkdf.Expand(sha256.New, w.secret, string(append(append(info, label...), 0)), n)
	return out
}

// next takes the keys that follow a KeyUpdate.
func (w *recordWriter) next() {
	w.secret = w.expand("traffic upd", 32)
	w.derive()
}

func (w *recordWriter) data(b []byte) []byte      { return w.seal(23, b) }
func (w *recordWriter) handshake(b []byte) []byte { return w.seal(22, b) }

func (w *recordWriter) seal(kind byte, b []byte) []byte {
	inner := append(append([]byte(nil), b...), kind)
	out := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+w.aead.Overhead()))
	nonce := append([]byte(nil), w.iv...)
	for i, v := range binary.BigEndian.AppendUint64(nil, w.seq) {
		nonce[4+i] ^= v
	}
	w.seq++
	return w.aead.Seal(out, nonce, inner, out[:5])
}
