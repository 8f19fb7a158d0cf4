package proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/inject"
	"github.com/jobgate/jobgate/proxy/mask"
)

// Masks are the maskers of one session. One engine, one key, three copies: what the job gets, what the record and
// people get, and, where a grant says so, what the model gets.
type Masks struct {
	Held *mask.Set // every secret that Jobgate holds
	Full *mask.Set // the same, and every detector

	generation int
}

// Held is a secret that Jobgate holds, by a name that may be shown.
type Held struct {
	Name   string
	Secret access.Secret
}

// Maskers makes the maskers of sessions. Values stay in it after a rotation: an old key in an answer is still a key.
type Maskers struct {
	key []byte

	mu         sync.RWMutex // guards all below
	secrets    []mask.Secret
	versions   map[string]bool // of credentials that are in secrets
	held, full *mask.Set
	generation int
	made       map[string]Masks // of this generation, by session
}

// keptMasks bounds the sessions whose maskers are kept; those of others are made anew for each call.
const keptMasks = 4096

// NewMaskers compiles the maskers. key makes the placeholders: equal values read equal within a session, and nobody
// without the key can test a guess.
func NewMaskers(key access.Secret, held []Held) (*Maskers, error) {
	m := &Maskers{key: []byte(key.Reveal()), versions: make(map[string]bool)}
	for _, h := range held {
		if !h.Secret.IsZero() {
			m.secrets = append(m.secrets, mask.Secret{Name: h.Name, Value: []byte(h.Secret.Reveal())})
		}
	}
	return m, m.compileLocked()
}

func (m *Maskers) compileLocked() error {
	held, err := mask.Compile(mask.Config{Secrets: m.secrets})
	if err != nil {
		return fmt.Errorf("compile the masker of held secrets: %w", err)
	}
	full, err := mask.Compile(mask.Config{Secrets: m.secrets, Detectors: mask.Detectors()})
	if err != nil {
		return fmt.Errorf("compile the record's masker: %w", err)
	}
	m.held, m.full = held, full
	m.generation++
	m.made = make(map[string]Masks)
	return nil
}

// For returns the maskers of a session.
func (m *Maskers) For(session string) (Masks, error) {
	m.mu.RLock()
	made, known := m.made[session]
	m.mu.RUnlock()
	if known {
		return made, nil
	}
	mac := hmac.New(sha256.New, m.key)
	mac.Write([]byte("jobgate placeholder\x00" + session))
	key := mac.Sum(nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	made = Masks{Held: m.held.WithKey(key), Full: m.full.WithKey(key), generation: m.generation}
	if len(m.made) < keptMasks {
		m.made[session] = made
	}
	return made, nil
}

// forget drops what is kept for a session.
func (m *Maskers) forget(session string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.made, session)
}

// Learn makes sure that a credential is masked before it is used for the first time, and reports whether maskers made
// before are too old. Names of a connection's credential are shown in placeholders.
func (m *Maskers) Learn(connection string, c inject.Credential, used Masks) (stale bool, err error) {
	id := connection + "\x00" + c.Version
	m.mu.RLock()
	known, generation := m.versions[id], m.generation
	m.mu.RUnlock()
	if known {
		return generation != used.generation, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.versions[id] {
		return true, nil
	}
	m.secrets = append(m.secrets, mask.Secret{Name: connection, Value: []byte(c.Secret.Reveal())})
	if err := m.compileLocked(); err != nil {
		m.secrets = m.secrets[:len(m.secrets)-1]
		return true, err
	}
	m.versions[id] = true
	return true, nil
}
