package approvals

import "time"

// ExpiryMemory is how long after its expiry a question is answered from memory: long enough for the client that
// repeats the call at once, short enough for a person who was late and has the job run again.
const ExpiryMemory = 10 * time.Minute

const (
	// pollEvery bounds how long a vote at another replica takes to reach the wait here.
	pollEvery = time.Second
	// sweepEvery and sweepGrace are for questions whose process died: the waiting Ask itself is always earlier.
	sweepEvery = 30 * time.Second
	sweepGrace = 5 * time.Second
	// writeWithin bounds the writes that go on after their caller has left.
	writeWithin = 5 * time.Second

	// tryFor bounds one attempt at a channel; retryFirst doubles up to retryMost between attempts.
	tryFor     = 15 * time.Second
	retryFirst = time.Second
	retryMost  = time.Minute
	// updateFor is how long an outcome is worth showing late. A click on a message that was never updated is answered
	// with the outcome all the same.
	updateFor = time.Hour
	// closeGrace is what Close leaves for the last attempts.
	closeGrace = 5 * time.Second
)
