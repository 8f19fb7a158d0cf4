package approvals_test

import (
	"context"
	"fmt"
	"time"

	"github.com/jobgate/jobgate/approvals"
	"github.com/jobgate/jobgate/internal/access"
)

func ExampleDesk() {
	ctx := context.Background()
	desk, err := approvals.New(approvals.Config{Docket: newDocket()})
	if err != nil {
		panic(err)
	}
	defer func() { _ = desk.Close() }()

	ask := func() (access.Approval, error) {
		return desk.Ask(ctx, access.Approval{
			ID: "apr_1", Session: "ses_1", Digest: "8c1f", Title: "Bash", Text: "rm -rf build", Expires: time.Now().Add(time.Minute),
		})
	}
	first := make(chan access.Approval)
	go func() {
		answer, _ := ask()
		first <- answer
	}()

	// A person, once the question is on the desk.
	vote := access.Vote{State: access.Denied, By: "ana", Via: "cli", Reason: "not on a Friday"}
	for _, err := desk.Vote(ctx, "apr_1", vote); err != nil; {
		_, err = desk.Vote(ctx, "apr_1", vote)
	}
	fmt.Println((<-first).Outcome())

	again, err := ask() // answered from memory
	fmt.Println(again.Outcome(), err)
	_, err = desk.Vote(ctx, "apr_1", access.Vote{State: access.Approved, By: "ben", Via: "cli"})
	fmt.Println(err)
	// Output:
	// denied by ana
	// denied by ana <nil>
	// the question was already denied by ana
}
