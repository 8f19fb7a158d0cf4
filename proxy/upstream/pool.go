package upstream

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// key names who a connection reaches.
type key struct{ scheme, host string }

// keyOf is for a request that was checked.
func keyOf(u *url.URL) (key, error) {
	host, err := inASCII(u.Host)
	if err != nil {
		return key{}, fmt.Errorf("host %q cannot be called: %w", u.Host, err)
	}
	return key{scheme: u.Scheme, host: host}, nil
}

// address is host and port to dial.
func (k key) address() string {
	host, port, err := net.SplitHostPort(k.host)
	if err != nil {
		host, port = strings.Trim(k.host, "[]"), ""
	}
	switch {
	case port != "":
	case k.scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(host, port)
}

// pool holds the connections that no call uses. The one that was used last is used first, so that those that are not
// needed grow old.
type pool struct {
	max int
	age time.Duration

	mu    sync.Mutex
	idle  map[key][]*conn
	sweep *time.Timer // runs while connections lie here
}

func (p *pool) take(k key) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[k]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	list[len(list)-1] = nil
	p.idle[k] = list[:len(list)-1]
	return c
}

func (p *pool) put(c *conn) {
	c.idle = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle[c.key]) >= p.max {
		_ = c.tcp.Close()
		return
	}
	if p.idle == nil {
		p.idle = make(map[key][]*conn)
	}
	p.idle[c.key] = append(p.idle[c.key], c)
	if p.sweep == nil {
		p.sweep = time.AfterFunc(p.age, p.expire)
	}
}

// expire closes what is older than it may be, and comes again while something is left.
func (p *pool) expire() {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep = nil
	oldest := now
	for k, list := range p.idle {
		old := 0
		for old < len(list) && now.Sub(list[old].idle) >= p.age {
			_ = list[old].tcp.Close()
			old++
		}
		if list = append(list[:0:0], list[old:]...); len(list) == 0 {
			delete(p.idle, k)
			continue
		}
		p.idle[k] = list
		if list[0].idle.Before(oldest) {
			oldest = list[0].idle
		}
	}
	if len(p.idle) > 0 {
		p.sweep = time.AfterFunc(p.age-now.Sub(oldest), p.expire)
	}
}

func (p *pool) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, list := range p.idle {
		for _, c := range list {
			_ = c.tcp.Close()
		}
	}
	p.idle = nil
	if p.sweep != nil {
		p.sweep.Stop()
		p.sweep = nil
	}
}
