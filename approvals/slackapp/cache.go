package slackapp

import (
	"sync"
	"time"
)

// cache remembers what Slack said for personFor. Failures are not remembered.
type cache[V any] struct {
	now func() time.Time

	mu      sync.Mutex // guards entries
	entries map[string]entry[V]
}

type entry[V any] struct {
	value V
	until time.Time
}

func newCache[V any](now func() time.Time) *cache[V] {
	return &cache[V]{now: now, entries: map[string]entry[V]{}}
}

// get returns what is remembered under a key, or what fetch returns. No lock is held while it fetches.
func (c *cache[V]) get(key string, fetch func() (V, error)) (V, error) {
	c.mu.Lock()
	e, ok := c.entries[key]
	c.mu.Unlock()
	if ok && c.now().Before(e.until) {
		return e.value, nil
	}
	value, err := fetch()
	if err != nil {
		return value, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= cacheSize {
		clear(c.entries)
	}
	c.entries[key] = entry[V]{value, c.now().Add(personFor)}
	return value, nil
}
