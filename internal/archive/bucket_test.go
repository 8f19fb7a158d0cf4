package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// weather is what a store does to uploads.
type weather int

const (
	fine   weather = iota
	away           // nothing can be reached
	doubly         // an upload succeeds, but its answer is an error
)

// store is a bucket with bad days.
type store struct {
	driver.Bucket // what the archive does not need
	mu            sync.Mutex
	objects       map[string][]byte
	weather       weather
	writes        map[string]int // how often an object was really written
	tried         chan struct{}  // hears of each try that failed
}

var (
	errAway    = errors.New("the bucket is away")
	errThere   = errors.New("it is there already")
	errMissing = errors.New("no such object")
)

func newStore(t testing.TB) (*store, *blob.Bucket) {
	s := &store{objects: map[string][]byte{}, writes: map[string]int{}, tried: make(chan struct{}, 1000)}
	b := blob.NewBucket(s)
	t.Cleanup(func() { b.Close() })
	return s, b
}

func (s *store) set(w weather) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.weather = w
}

func (s *store) ErrorCode(err error) gcerrors.ErrorCode {
	switch {
	case errors.Is(err, errThere):
		return gcerrors.FailedPrecondition
	case errors.Is(err, errMissing):
		return gcerrors.NotFound
	}
	return gcerrors.Unknown
}

func (s *store) As(any) bool             { return false }
func (s *store) ErrorAs(error, any) bool { return false }
func (s *store) Close() error            { return nil }

func (s *store) get(key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.objects[key]
	switch {
	case s.weather == away:
		return nil, errAway
	case !ok:
		return nil, errMissing
	}
	return data, nil
}

func (s *store) Attributes(_ context.Context, key string) (*driver.Attributes, error) {
	data, err := s.get(key)
	return &driver.Attributes{Size: int64(len(data))}, err
}

func (s *store) ListPaged(_ context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	page, seen := &driver.ListPage{}, map[string]bool{}
	for key, data := range s.objects {
		rest, ok := strings.CutPrefix(key, opts.Prefix)
		if !ok {
			continue
		}
		o := &driver.ListObject{Key: key, Size: int64(len(data))}
		if dir, _, cut := strings.Cut(rest, "/"); cut && opts.Delimiter == "/" {
			o = &driver.ListObject{Key: opts.Prefix + dir + "/", IsDir: true}
		}
		if !seen[o.Key] {
			seen[o.Key], page.Objects = true, append(page.Objects, o)
		}
	}
	slices.SortFunc(page.Objects, func(x, y *driver.ListObject) int { return strings.Compare(x.Key, y.Key) })
	return page, nil
}

type reader struct {
	io.Reader
	size int64
}

func (r reader) Close() error                         { return nil }
func (r reader) Attributes() *driver.ReaderAttributes { return &driver.ReaderAttributes{Size: r.size} }
func (r reader) As(any) bool                          { return false }

func (s *store) NewRangeReader(_ context.Context, key string, _, _ int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	data, err := s.get(key)
	if err != nil {
		return nil, err
	}
	return reader{bytes.NewReader(data), int64(len(data))}, nil
}

type writer struct {
	bytes.Buffer
	s         *store
	key       string
	exclusive bool
}

func (s *store) NewTypedWriter(_ context.Context, key, _ string, opts *driver.WriterOptions) (driver.Writer, error) {
	return &writer{s: s, key: key, exclusive: opts.IfNotExist}, nil
}

func (w *writer) Close() error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.weather != fine {
		defer func() { s.tried <- struct{}{} }()
	}
	if s.weather == away {
		return errAway
	}
	if _, ok := s.objects[w.key]; ok && w.exclusive {
		return errThere
	}
	s.objects[w.key] = bytes.Clone(w.Bytes())
	s.writes[w.key]++
	if s.weather == doubly {
		return errAway
	}
	return nil
}
