// Package approvals is the desk where people decide.
//
// A rule that asks turns a call or a tool use into an [access.Approval]. [Desk.Ask] writes it into the docket, shows
// it in every channel, and blocks until it is settled:
//
//	pending -> approved | denied | expired | cancelled
//
// Every arrow is one compare-and-swap on (id, version) in the docket, so that of two reviewers at once exactly one
// decides, also across replicas; the other one is told the outcome. Expiry denies, and a client that leaves takes its
// question with it. A no is remembered by session and digest: the same call is answered from memory, a denied one
// until its session ends, an expired one for [ExpiryMemory]. A yes is never remembered.
//
// Channels (package slackapp is one) show questions and outcomes. They may be down: posting and updating are retried
// in the background, and the question stays answerable by [Desk.Vote] from elsewhere. A channel that knows who votes
// checks that person against the rule's approver groups before it votes. A group that is not configured, or that is
// empty, has nobody in it: such a question can be answered by the admin token only. A rule that names no approvers can
// be answered by every full member whom the channel knows.
//
//	desk, err := approvals.New(approvals.Config{Docket: db, Channels: []approvals.Channel{slack}})
//	answer, err := desk.Ask(ctx, question)
//	if err != nil || answer.State != access.Approved {
//		// refuse
//	}
package approvals
