package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/runtimevar"
	"gocloud.dev/runtimevar/httpvar"

	_ "gocloud.dev/runtimevar/constantvar" // a file of mappings is opened by URL
	_ "gocloud.dev/runtimevar/filevar"
)

// urlReader reads one file of mappings by a runtimevar URL. It opens anew each time: an error is then today's.
type urlReader struct {
	url  *url.URL
	name string
	http *httpvar.URLOpener
}

func newURLReader(raw string) (name string, _ *urlReader, err error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" {
		return "", nil, errors.New("it is no URL; write for example https://config.example.com/mappings.yaml, and folder for a folder")
	}
	r := &urlReader{url: u, name: shownURL(u), http: &httpvar.URLOpener{Client: boundedClient()}}
	query := u.Query()
	switch {
	case u.User != nil:
		return "", nil, errors.New("a password does not belong into a URL; set HTTPVAR_AUTH_USERNAME and HTTPVAR_AUTH_PASSWORD in the server's environment")
	case query.Has("decoder"):
		return "", nil, errors.New("the file is read as it is; leave decoder out")
	case query.Has("wait"):
		return "", nil, errors.New("write every beside url, and leave wait out")
	}
	switch u.Scheme {
	case "https", "file", "constant":
	case "http":
		if !loopbackHost(u.Hostname()) {
			return "", nil, errors.New("plain http is for a loopback address: whoever can change the answer decides who gets what; write https")
		}
	case "blob":
		return "", nil, errors.New("write bucket with the bucket's URL, and prefix with the object's key")
	default:
		return "", nil, fmt.Errorf("scheme %q is none of https, http, file and constant; a bucket is written as bucket", u.Scheme)
	}
	query.Set("decoder", "bytes")
	r.url.RawQuery = query.Encode()
	return r.name, r, nil
}

func (r *urlReader) open(ctx context.Context) (*runtimevar.Variable, error) {
	switch r.url.Scheme {
	case "http", "https":
		return r.http.OpenVariableURL(ctx, r.url)
	case "file":
		if info, err := os.Stat(filepath.FromSlash(r.url.Path)); err == nil && info.Size() > maxSourceFile {
			return nil, fmt.Errorf("the file has more than %d bytes", maxSourceFile)
		}
	}
	return runtimevar.DefaultURLMux().OpenVariableURL(ctx, r.url)
}

func (r *urlReader) read(ctx context.Context) ([]sourceFile, string, error) {
	v, err := r.open(ctx)
	if err != nil {
		return nil, "", r.failed(err)
	}
	defer func() { _ = v.Close() }()
	snapshot, err := v.Watch(ctx) // the first tells what is there now, or why not
	if err != nil {
		return nil, "", r.failed(err)
	}
	text, ok := snapshot.Value.([]byte)
	if !ok || len(text) > maxSourceFile {
		return nil, "", fmt.Errorf("read %s: it has more than %d bytes", r.name, maxSourceFile)
	}
	return []sourceFile{{Name: r.name, Text: text}}, "", nil
}

// failed names the source as people may see it: errors of the client hold the URL with its query.
func (r *urlReader) failed(err error) error {
	var status *httpvar.RequestError
	var request *url.Error
	switch {
	case errors.As(err, &status):
		err = fmt.Errorf("the answer is %s", status.Response.Status)
	case errors.As(err, &request):
		err = request.Err
	}
	return fmt.Errorf("read %s: %w", r.name, err)
}

// watch wakes when a file is changed; over the network there is nothing to wait for.
func (r *urlReader) watch(ctx context.Context, wake func()) {
	if r.url.Scheme != "file" {
		return
	}
	v, err := r.open(ctx)
	if err != nil {
		return
	}
	defer func() { _ = v.Close() }()
	for ctx.Err() == nil {
		_, _ = v.Watch(ctx)
		wake()
	}
}

// boundedClient follows no redirect, and reads no more than a file of mappings may have.
func boundedClient() *http.Client {
	return &http.Client{
		Timeout:   sourceTimeout,
		Transport: boundedTransport{http.DefaultTransport},
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			return fmt.Errorf("the answer is a redirect to %s, which is not followed: write where the file is", shownURL(r.URL))
		},
	}
}

type boundedTransport struct{ base http.RoundTripper }

// RoundTrip bounds the body as it comes out of decompression. A body that lasts until the connection ends is refused: when
// that is cut, a part of the file would be taken for the whole, and of a mapping that can be the part without conditions.
func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.ProtoMajor == 1 && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && !resp.Uncompressed { // gzip has an end of its own
		_ = resp.Body.Close()
		return nil, errors.New("the answer says neither how long it is nor where it ends, so that nobody could tell one that was cut short; " +
			"let the server send Content-Length, or chunks")
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxSourceFile)
	return resp, nil
}

// bucketReader reads the mappings of a bucket: each object directly under the prefix whose name is that of a mappings file.
type bucketReader struct {
	url    string
	name   string
	prefix string
	folder string // of a bucket that is a folder
	kept   map[string]keptObject
}

// keptObject is an object that was read, and what the bucket said of it.
type keptObject struct {
	stamp string
	text  []byte
}

func newBucketReader(raw, prefix string) (name string, _ *bucketReader, err error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" {
		return "", nil, errors.New("it is no bucket URL such as s3://bucket?region=eu-central-1")
	}
	if !blob.DefaultURLMux().ValidBucketScheme(u.Scheme) {
		return "", nil, fmt.Errorf("scheme %q is none of azblob, file, gs, mem and s3", u.Scheme)
	}
	r := &bucketReader{url: raw, name: strings.TrimSuffix(shownURL(u), "/") + "/" + prefix, prefix: prefix, kept: make(map[string]keptObject)}
	if u.Scheme == "file" {
		query := u.Query()
		query.Set("metadata", "skip")
		u.RawQuery = query.Encode()
		r.url = u.String()
		r.folder = filepath.Join(filepath.FromSlash(u.Path), filepath.FromSlash(path.Dir(prefix+".")))
	}
	return r.name, r, nil
}

func (r *bucketReader) read(ctx context.Context) ([]sourceFile, string, error) {
	bucket, err := blob.OpenBucket(ctx, r.url)
	if err != nil {
		return nil, "", fmt.Errorf("open the bucket: %w", err)
	}
	defer func() { _ = bucket.Close() }()
	if err := r.listable(); err != nil {
		return nil, "", err
	}
	var files []sourceFile
	kept := make(map[string]keptObject)
	list := bucket.List(&blob.ListOptions{Prefix: r.prefix, Delimiter: "/"})
	for {
		o, err := list.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, "", fmt.Errorf("list the bucket: %w", err)
		}
		if o.IsDir || !isMappingFile(path.Base(o.Key)) {
			continue
		}
		if len(files) == maxSourceFiles {
			return nil, "", fmt.Errorf("%s has more than %d objects", r.name, maxSourceFiles)
		}
		if kept[o.Key], err = r.object(ctx, bucket, o); err != nil {
			return nil, "", fmt.Errorf("read %s: %w", o.Key, err)
		}
		files = append(files, sourceFile{Name: strings.TrimSuffix(r.name, r.prefix) + o.Key, Text: kept[o.Key].text})
	}
	r.kept = kept
	return files, "", nil
}

// object reads an object, unless it is the one that was read before by its hash.
func (r *bucketReader) object(ctx context.Context, bucket *blob.Bucket, o *blob.ListObject) (keptObject, error) {
	stamp := ""
	if len(o.MD5) > 0 {
		stamp = fmt.Sprintf("%x %d %d", o.MD5, o.Size, o.ModTime.UnixNano())
	}
	if before, ok := r.kept[o.Key]; ok && stamp != "" && before.stamp == stamp {
		return before, nil
	}
	in, err := bucket.NewReader(ctx, o.Key, nil)
	if err != nil {
		return keptObject{}, err
	}
	defer func() { _ = in.Close() }()
	text, err := readAtMost(in, maxSourceFile)
	return keptObject{stamp: stamp, text: text}, err
}

// listable is for a bucket that is a folder: its driver passes over what it cannot read, and what is passed over would be
// deleted here.
func (r *bucketReader) listable() error {
	if r.folder == "" {
		return nil
	}
	if _, err := os.ReadDir(r.folder); err != nil {
		return fmt.Errorf("list the bucket's folder: %w", err)
	}
	return nil
}
