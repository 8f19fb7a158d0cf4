package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob"
)

// TestBucketReader reads mappings from a folder, and from every bucket that the environment names.
func TestBucketReader(t *testing.T) {
	for _, url := range append([]string{"file://" + t.TempDir()}, strings.Fields(os.Getenv(bucketsVariable))...) {
		scheme, _, _ := strings.Cut(url, ":")
		t.Run(scheme, func(t *testing.T) {
			ctx := t.Context()
			bucket, err := blob.OpenBucket(ctx, url)
			if err != nil {
				t.Fatal(err)
			}
			defer bucket.Close()
			prefix := "mappings-" + time.Now().UTC().Format("20060102150405.000000000") + "/"
			put := func(key, text string) {
				t.Helper()
				if err := bucket.Upload(ctx, prefix+key, strings.NewReader(text), &blob.WriterOptions{ContentType: "application/yaml"}); err != nil {
					t.Fatal(err)
				}
			}
			_, r, err := newBucketReader(url, prefix)
			if err != nil {
				t.Fatal(err)
			}
			read := func(want ...string) {
				t.Helper()
				files, _, err := r.read(ctx)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, f := range files {
					got = append(got, f.Name[strings.LastIndex(f.Name, prefix)+len(prefix):]+": "+string(f.Text))
				}
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("read %q, want %q", got, want)
				}
			}
			put("a.yaml", "one")
			put("b.yml", "two")
			put("deep/c.yaml", "three")
			put("notes.txt", "four")
			put(".hidden.yaml", "five")
			read("a.yaml: one", "b.yml: two")
			put("a.yaml", "new") // as long as before
			read("a.yaml: new", "b.yml: two")
			if err := bucket.Delete(ctx, prefix+"b.yml"); err != nil {
				t.Fatal(err)
			}
			read("a.yaml: new")
			put("large.yaml", strings.Repeat("x", maxSourceFile+1))
			if _, _, err := r.read(ctx); err == nil || !strings.Contains(err.Error(), "large.yaml: it has more than") {
				t.Errorf("an object that is too large: %v", err)
			}
		})
	}
}

// TestBucketsThatAreAway are no empty sets.
func TestBucketsThatAreAway(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	for _, url := range []string{"file://" + t.TempDir() + "/gone", "s3://gone?region=us-east-1&use_path_style=true&endpoint=http://" + freeAddr(t)} {
		_, r, err := newBucketReader(url, "m/")
		if err != nil {
			t.Fatal(err)
		}
		if files, _, err := r.read(t.Context()); err == nil {
			t.Errorf("%s: %v", url, files)
		}
	}
}
