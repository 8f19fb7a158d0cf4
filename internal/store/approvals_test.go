package store_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/access"
)

func question(id string) access.Approval {
	return access.Approval{
		ID: id, Session: "ses_1", Call: "call_1", ToolUse: "toolu_1", Connection: "anthropic", Mapping: "m", Revision: 3,
		Rule: "commands", Reason: "look first", Approvers: []string{"sre"}, Job: access.Job{Repository: "o/r"},
		Digest: "d1", Title: "Bash", Text: "rm -rf /", Masked: 2, Truncated: true, Asked: t0, Expires: t0.Add(time.Minute),
		State: access.Pending, Version: 1,
	}
}

func TestApprovals(t *testing.T) {
	db := opened(t)
	a := question("apr_1")
	if err := db.CreateApproval(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	wantReason(t, db.CreateApproval(t.Context(), a), access.CodeConflict, "")
	got, err := db.Approval(t.Context(), "apr_1")
	if diff := cmp.Diff(a, got); err != nil || diff != "" {
		t.Errorf("approval: %v, diff (-want +got)\n%s", err, diff)
	}
	if _, found, err := db.SettledApproval(t.Context(), "ses_1", "d1"); found || err != nil {
		t.Errorf("settled = %v, %v, want none", found, err)
	}
	denied, err := a.Settle(access.Vote{State: access.Denied, By: "Ana", Via: "slack", Reason: "no", At: t0.Add(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, db.SettleApproval(t.Context(), denied, 7), access.CodeConflict, "")
	if err := db.SettleApproval(t.Context(), denied, 1); err != nil {
		t.Fatal(err)
	}
	wantReason(t, db.SettleApproval(t.Context(), denied, 1), access.CodeConflict, "")
	got, found, err := db.SettledApproval(t.Context(), "ses_1", "d1")
	if diff := cmp.Diff(denied, got); err != nil || !found || diff != "" {
		t.Errorf("settled: %v %v, diff (-want +got)\n%s", found, err, diff)
	}
}

func TestSettledApprovalIsTheNewestNo(t *testing.T) {
	db := opened(t)
	for i, q := range []struct {
		id    string
		state access.ApprovalState
	}{{"apr_1", access.Denied}, {"apr_2", access.Expired}, {"apr_3", access.Approved}, {"apr_4", access.Cancelled}} {
		a := question(q.id)
		if err := db.CreateApproval(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settled, err := a.Settle(access.Vote{State: q.state, At: t0.Add(time.Duration(i) * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.SettleApproval(t.Context(), settled, a.Version); err != nil {
			t.Fatal(err)
		}
	}
	a, found, err := db.SettledApproval(t.Context(), "ses_1", "d1")
	if err != nil || !found || a.ID != "apr_2" {
		t.Errorf("settled = %q, %v, %v, want apr_2", a.ID, found, err)
	}
	if _, found, _ := db.SettledApproval(t.Context(), "ses_2", "d1"); found {
		t.Error("another session's no was found")
	}
}

func TestApprovalLists(t *testing.T) {
	db := opened(t)
	for i, id := range []string{"apr_1", "apr_2", "apr_3"} {
		a := question(id)
		a.Asked = t0.Add(time.Duration(i) * time.Second)
		if err := db.CreateApproval(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := db.Approval(t.Context(), "apr_2")
	a, _ = a.Settle(access.Vote{State: access.Approved, At: t0})
	if err := db.SettleApproval(t.Context(), a, 1); err != nil {
		t.Fatal(err)
	}
	for state, want := range map[access.ApprovalState][]string{
		access.Pending: {"apr_3", "apr_1"}, access.Approved: {"apr_2"}, "": {"apr_3", "apr_2", "apr_1"}, access.Denied: nil,
	} {
		list, err := db.Approvals(t.Context(), state)
		var ids []string
		for _, a := range list {
			ids = append(ids, a.ID)
		}
		if diff := cmp.Diff(want, ids); err != nil || diff != "" {
			t.Errorf("Approvals(%q): %v, diff (-want +got)\n%s", state, err, diff)
		}
	}
}

func TestApprovalPost(t *testing.T) {
	db := opened(t)
	_, _, err := db.ApprovalPost(t.Context(), "apr_1")
	wantReason(t, err, access.CodeNotFound, "")
	wantReason(t, db.SetApprovalPost(t.Context(), "apr_1", "C1", "1.2"), access.CodeNotFound, "")
	if err := db.CreateApproval(t.Context(), question("apr_1")); err != nil {
		t.Fatal(err)
	}
	if channel, ts, err := db.ApprovalPost(t.Context(), "apr_1"); channel != "" || ts != "" || err != nil {
		t.Errorf("post = %q %q %v, want none", channel, ts, err)
	}
	if err := db.SetApprovalPost(t.Context(), "apr_1", "C1", "1.2"); err != nil {
		t.Fatal(err)
	}
	if channel, ts, err := db.ApprovalPost(t.Context(), "apr_1"); channel != "C1" || ts != "1.2" || err != nil {
		t.Errorf("post = %q %q %v", channel, ts, err)
	}
	wantReason(t, db.SettleApproval(t.Context(), question("apr_9"), 1), access.CodeNotFound, "")
}

func TestOneVoteWins(t *testing.T) {
	db := opened(t)
	a := question("apr_1")
	if err := db.CreateApproval(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	var won atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			settled, _ := a.Settle(access.Vote{State: access.Approved, At: t0})
			if db.SettleApproval(t.Context(), settled, a.Version) == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d votes won, want 1", won.Load())
	}
}
