package store_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/access"
)

// TestExchanges keeps exchanges over a restart: with an identity of their own, with their session's, and without any.
func TestExchanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobgate.db")
	db := open(t, path)
	save(t, db, "m", 1)
	o := opening(1)
	if err := db.OpenSession(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	served := o.Session.Identity
	served.IssuedAt, served.Expires = t0.Add(time.Minute), t0.Add(2*time.Minute)
	refused := access.Identity{Issuer: "github", Claims: access.Claims{"repository_id": "7", "n": json.Number("12345678901234567")}, IssuedAt: t0, Expires: t0.Add(time.Minute)}
	rows := []access.ExchangeRow{
		{ID: "x_1", At: t0, Door: "/oauth/token", Outcome: access.ExchangeOpened, Identity: served, Mapping: "m", Session: o.Session.ID},
		{ID: "x_2", At: t0.Add(time.Second), Outcome: access.ExchangeRefused, Identity: refused, Asked: "m", Scope: []string{"a", "b"}, Code: access.CodeTarget, Reason: "claim_mismatch", Detail: "why"},
		{ID: "x_3", At: t0.Add(2 * time.Second), Outcome: access.ExchangeRefused, Code: access.CodeGrant, Reason: "malformed"},
	}
	for _, r := range rows {
		if err := db.SaveExchange(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	for _, want := range rows {
		if want.Scope == nil {
			want.Scope = []string{}
		}
		got, found, err := db.ExchangeRow(t.Context(), want.ID)
		if diff := cmp.Diff(want, got); err != nil || !found || diff != "" {
			t.Errorf("%s: %v, %v (-want +got)\n%s", want.ID, found, err, diff)
		}
	}
	if _, found, err := db.ExchangeRow(t.Context(), "x_4"); found || err != nil {
		t.Errorf("one that was not: %v, %v", found, err)
	}
	var ids []string
	each := func(r access.ExchangeRow) error { ids = append(ids, r.ID); return nil }
	if err := db.EachExchange(t.Context(), t0.Add(time.Second), 10, each); err != nil {
		t.Fatal(err)
	}
	if err := db.EachExchange(t.Context(), t0, 1, each); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"x_3", "x_2", "x_3"}, ids); diff != "" {
		t.Errorf("newest first (-want +got)\n%s", diff)
	}
}

// Exchanges are forgotten after two weeks.
func TestPruneExchanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobgate.db")
	db := open(t, path)
	for i := range 3 {
		r := access.ExchangeRow{ID: fmt.Sprint("x_", i), At: t0.AddDate(0, 0, -7*i), Outcome: access.ExchangeRefused}
		r.At = r.At.Add(-time.Minute)
		if err := db.SaveExchange(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false} {
		if _, found, err := db.ExchangeRow(t.Context(), fmt.Sprint("x_", i)); err != nil || found != want {
			t.Errorf("of %d weeks ago: %v, %v, want %v", i, found, err, want)
		}
	}
}
