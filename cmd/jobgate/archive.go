package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gocloud.dev/blob"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/internal/signing"
)

// archiveOptions say which bucket: a flag, or the configuration file.
type archiveOptions struct {
	*options
	bucket, prefix, key string
	audit               bool   // the audit streams in place of the sessions
	day                 string // of them
}

func archiveCommand(o *options) *cobra.Command {
	a := &archiveOptions{options: o}
	c := &cobra.Command{Use: "archive", Short: "Read and verify session archives, from the bucket alone", Args: noArgs, RunE: help}
	c.PersistentFlags().StringVar(&a.bucket, "bucket", "", "the bucket's URL; default: the configuration file's")
	c.PersistentFlags().StringVar(&a.prefix, "prefix", "", "the prefix within the bucket")
	verify := &cobra.Command{Use: "verify [ID...]", Short: "Verify signatures, parts and the chain; without an id, of all sessions, or of all audit streams", RunE: a.verify}
	verify.Flags().StringVar(&a.key, "key", "", "file with the pinned public keys (jobgate-archive.json); default: the server's own key folder")
	ls := &cobra.Command{Use: "ls", Short: "List the archived sessions, or the audit streams, newest first", Args: noArgs, RunE: a.list}
	c.AddCommand(ls, verify)
	a.auditFlags(ls, verify)
	for _, one := range []*cobra.Command{
		{Use: "show ID", Short: "Show what the archive of a session, or of an audit stream, says about it", RunE: a.show},
		{Use: "replay ID", Short: "Tell what happened in a session or in an audit stream, in order", RunE: a.replay},
		{Use: "export ID", Short: "Write the events of a session or of an audit stream as JSON lines", RunE: a.export},
	} {
		one.Args = a.oneOrDay
		a.auditFlags(one)
		c.AddCommand(one)
	}
	return c
}

// open opens the bucket.
func (a *archiveOptions) open(ctx context.Context) (*blob.Bucket, error) {
	if a.bucket == "" {
		cfg, err := loadConfig(a.config)
		if err != nil {
			return nil, fmt.Errorf("%w; or name the bucket with --bucket", err)
		}
		a.bucket, a.prefix = cfg.Archive.Bucket, cfg.Archive.Prefix
		if a.key == "" {
			a.key = filepath.Join(cfg.Data, "keys", string(signing.Archive)+".jwk")
		}
	}
	if folder, ok := strings.CutPrefix(a.bucket, "file://"); ok {
		folder, _, _ = strings.Cut(folder, "?")
		if _, err := os.Stat(folder); err != nil {
			return nil, fmt.Errorf("there is no archive yet: %w", err)
		}
	}
	bucket, _, err := openBucket(ctx, a.bucket)
	return bucket, err
}

func (a *archiveOptions) list(c *cobra.Command, _ []string) error {
	bucket, err := a.open(c.Context())
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }()
	if a.audit {
		return a.listAudit(c.Context(), bucket)
	}
	var rows [][]string
	var entries []archive.Entry
	for e, err := range archive.List(c.Context(), bucket, a.prefix, archive.Filter{}) {
		if err != nil {
			return err
		}
		state := "open, or its end is not archived"
		if e.Manifest && e.Signed {
			state = "finished"
		}
		entries = append(entries, e)
		rows = append(rows, []string{e.Session, e.Day.Format(time.DateOnly), state, strconv.Itoa(len(e.Parts)), strconv.FormatInt(e.Bytes, 10)})
	}
	if a.json() {
		return a.printJSON(map[string]any{"items": entries})
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(a.env.Stdout, "no session is archived yet")
		return err
	}
	return a.table([]string{"SESSION", "DAY", "STATE", "PARTS", "BYTES"}, rows)
}

func (a *archiveOptions) show(c *cobra.Command, args []string) error {
	bucket, err := a.open(c.Context())
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }()
	if a.ofAudit(args) {
		return a.showAudit(c.Context(), bucket, args)
	}
	entry, err := archive.Find(c.Context(), bucket, a.prefix, idOf(args[0]))
	if err != nil {
		return err
	}
	if !entry.Manifest {
		return fmt.Errorf("session %s has no manifest yet: it is open, or its end is not archived; `jobgate archive replay %s` shows what is there", args[0], args[0])
	}
	m, err := archive.ReadManifest(c.Context(), bucket, entry)
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(m)
	}
	for _, row := range [][2]string{
		{"session", m.Session}, {"where", entry.Location}, {"mapping", fmt.Sprintf("%s, revision %d (%s)", m.Mapping, m.Revision, m.Mode)}, {"override", m.Override},
		{"issuer", m.Issuer + " " + m.IssuerURL}, {"subject", m.Subject}, {"job key", m.JobKey}, {"job", m.JobURL},
		{"opened", m.Opened.Format(time.RFC3339) + " at " + m.Door}, {"ended", m.Ended.Format(time.RFC3339) + ": " + access.EndReason(m.Reason).Text()},
		{"calls", fmt.Sprintf("%d, %d denied, %d questions", m.Calls, m.Denials, m.Approvals)},
		{"interrupted", strconv.FormatBool(m.Interrupted)}, {"events", fmt.Sprintf("%d in %s, head %s", m.Events, plural(len(m.Parts), "part"), m.Head)},
	} {
		if row[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(a.env.Stdout, "%-12s %s\n", row[0], line(row[1], 200)); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveOptions) export(c *cobra.Command, args []string) error {
	bucket, err := a.open(c.Context())
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }()
	for l, err := range a.events(c.Context(), bucket, args) {
		if err != nil {
			return err
		}
		text := string(l.Raw) // byte for byte, so that the chain can be followed
		if a.env.terminal() {
			text = escapeJSON(text)
		}
		if _, err := fmt.Fprintln(a.env.Stdout, text); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveOptions) verify(c *cobra.Command, args []string) error {
	bucket, err := a.open(c.Context())
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }()
	keys, err := a.publicKeys()
	if err != nil {
		return err
	}
	if a.ofAudit(args) {
		return a.verifyAudit(c.Context(), bucket, keys, args)
	}
	entries, err := a.entries(c.Context(), bucket, args)
	if err != nil {
		return err
	}
	var reports []archive.Report
	bad := 0
	for _, e := range entries {
		report, err := archive.VerifyEntry(c.Context(), bucket, e, keys)
		if err != nil {
			return err
		}
		reports = append(reports, report)
		if report.Err(time.Now()) != nil {
			bad++
		}
		if !a.json() {
			a.printReport(report)
		}
	}
	if a.json() {
		if err := a.printJSON(map[string]any{"items": reports}); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%s of %d did not verify", plural(bad, "archive"), len(entries))
	}
	return nil
}

// entries finds the named sessions, or all.
func (a *archiveOptions) entries(ctx context.Context, bucket *blob.Bucket, sessions []string) ([]archive.Entry, error) {
	var out []archive.Entry
	if len(sessions) == 0 {
		for e, err := range archive.List(ctx, bucket, a.prefix, archive.Filter{}) {
			if err != nil {
				return nil, err
			}
			out = append(out, e)
		}
	}
	for _, session := range sessions {
		e, err := archive.Find(ctx, bucket, a.prefix, idOf(session))
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func (a *archiveOptions) printReport(r archive.Report) {
	switch {
	case r.OK():
		_, _ = fmt.Fprintf(a.env.Stdout, "%s: good: signed, whole, %d events in %s\n", escape(r.Session), r.Events, plural(r.Parts, "part"))
	case len(r.Problems) == 0:
		_, _ = fmt.Fprintf(a.env.Stdout, "%s: not finished: %d events so far hold; its window closes %s\n", escape(r.Session), r.Events, ago(r.Opened.Closes))
	default:
		for _, p := range r.Problems {
			_, _ = fmt.Fprintf(a.env.Stdout, "%s: BAD: %s\n", escape(r.Session), escape(p.String()))
		}
	}
}

// publicKeys reads the pinned keys; a private key file serves for its public half.
func (a *archiveOptions) publicKeys() (*signing.KeySet, error) {
	if a.key == "" {
		return nil, usageError{errors.New("name the pinned public keys with --key: the file that the server shows at /.well-known/jobgate-archive.json")}
	}
	raw, err := os.ReadFile(filepath.Clean(a.key))
	if err != nil {
		return nil, fmt.Errorf("read the archive's public keys: %w", err)
	}
	if filepath.Ext(a.key) == ".jwk" {
		key, err := signing.Load(filepath.Dir(a.key), signing.Archive)
		if err != nil {
			return nil, err
		}
		return key.KeySet(), nil
	}
	return signing.ParseKeySet(raw, signing.Archive)
}
