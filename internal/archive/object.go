package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// uploadTimeout is how long one object may take. A try that takes longer is repeated, and finds what it may have left.
const uploadTimeout = 2 * time.Minute

// maxObject bounds what is read back to be compared.
const maxObject = 256 << 20

// store writes an object once. Where the same bytes are there already it has been done before. Where other bytes are, they are returned
// with an error that wraps ErrConflict.
func (a *Archive) store(ctx context.Context, key string, data []byte, contentType string) (other []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	err = a.upload(ctx, key, data, contentType)
	if gcerrors.Code(err) == gcerrors.FailedPrecondition {
		other, err = a.compare(ctx, key, data, contentType)
	}
	if err != nil {
		return other, fmt.Errorf("store %s: %w", key, err)
	}
	return nil, a.syncObject(key)
}

// compare is content with an object that has the bytes of data, and replaces one that a power cut tore.
func (a *Archive) compare(ctx context.Context, key string, data []byte, contentType string) (other []byte, err error) {
	there, err := readObject(ctx, a.cfg.Bucket, key)
	if err != nil || bytes.Equal(there, data) {
		return nil, err
	}
	if a.cfg.SyncDir == "" || !torn(there, data) {
		return there, ErrConflict
	}
	if err := os.Remove(a.objectPath(key)); err != nil {
		return nil, err
	}
	return nil, a.upload(ctx, key, data, contentType)
}

// upload uses Upload, because azureblob panics when what was fed by Write fails. It sets no ContentMD5, which would lead back to Write.
func (a *Archive) upload(ctx context.Context, key string, data []byte, contentType string) error {
	return a.cfg.Bucket.Upload(ctx, key, bytes.NewReader(data), &blob.WriterOptions{ContentType: contentType, IfNotExist: true})
}

// torn reports whether there is what a power cut leaves of data in a file that was renamed but not synced: a beginning of it, then zeros.
func torn(there, data []byte) bool {
	return bytes.HasPrefix(data, bytes.TrimRight(there, "\x00"))
}

func (a *Archive) objectPath(key string) string {
	return filepath.Join(a.cfg.SyncDir, filepath.FromSlash(key))
}

func readObject(ctx context.Context, bucket *blob.Bucket, key string) ([]byte, error) {
	attrs, err := bucket.Attributes(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if attrs.Size > maxObject {
		return nil, fmt.Errorf("read %s: %d bytes, more than any object of an archive has", key, attrs.Size)
	}
	data, err := bucket.ReadAll(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return data, nil
}

// sweep deletes what an upload to a file:// bucket leaves beside its object when the process is killed. Only unfinished sessions have
// such files, and this process alone writes to the bucket.
func (a *Archive) sweep(location string) error {
	if a.cfg.SyncDir == "" {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(a.cfg.SyncDir, filepath.FromSlash(location), "*.tmp"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return fmt.Errorf("sweep %s: %w", location, err)
	}
	return nil
}

// syncObject brings an object of a file:// bucket to the disk, with the folders that lead to it: nobody else does.
func (a *Archive) syncObject(key string) error {
	if a.cfg.SyncDir == "" {
		return nil
	}
	path := a.objectPath(key)
	err := syncPath(path)
	// The driver keeps the content type in a file beside the object, unless it is told not to.
	if attrs := syncPath(path + ".attrs"); err == nil && !errors.Is(attrs, fs.ErrNotExist) {
		err = attrs
	}
	for dir := filepath.Dir(path); err == nil && len(dir) >= len(filepath.Clean(a.cfg.SyncDir)); dir = filepath.Dir(dir) {
		err = syncPath(dir)
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", key, err)
	}
	return nil
}
