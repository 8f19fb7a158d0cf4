package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	// Upload, because azureblob panics when what was fed by Write fails. It takes no ContentMD5, which would lead back to Write.
	err = a.cfg.Bucket.Upload(ctx, key, bytes.NewReader(data), &blob.WriterOptions{ContentType: contentType, IfNotExist: true})
	if gcerrors.Code(err) == gcerrors.FailedPrecondition {
		there, err := readObject(ctx, a.cfg.Bucket, key)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(there, data) {
			return there, fmt.Errorf("store %s: %w", key, ErrConflict)
		}
	} else if err != nil {
		return nil, fmt.Errorf("store %s: %w", key, err)
	}
	return nil, a.syncObject(key)
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
	path := filepath.Join(a.cfg.SyncDir, filepath.FromSlash(key))
	f, err := os.Open(path)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	for dir := filepath.Dir(path); err == nil && len(dir) >= len(filepath.Clean(a.cfg.SyncDir)); dir = filepath.Dir(dir) {
		err = syncFolder(dir)
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", key, err)
	}
	return nil
}
