package slackapp

import "time"

// Slack's limits, in UTF-16 units, which are never fewer than the characters that Slack counts:
// https://docs.slack.dev/reference/block-kit/blocks.
const (
	// maxWhole is the longest text that can be approved from a message: what one text of a message may hold, and about
	// as much as a person reads before a yes.
	maxWhole = 3000
	// maxTitle, maxValue, maxReason and maxLine are ours: a title that is longer is not shown whole, the others are for
	// orientation, and the texts of a message together stay far below what Slack takes.
	maxTitle  = 300
	maxValue  = 300
	maxReason = 800
	maxLine   = 100
	maxName   = 80
	// maxLink is of the run's address; a button's or link's address may have 3000 characters.
	maxLink = 1000
	// maxID is of a button's value, which carries the question's id.
	maxID = 2000
)

const (
	// maxBody bounds an interaction; real ones have some kilobytes.
	maxBody = 1 << 20
	// maxAge is how old or new a signature's timestamp may be: Slack's own advice against replays.
	maxAge = 5 * time.Minute
	// maxClicks bounds the clicks that are worked on at once. More are answered 503, which Slack shows to the person.
	maxClicks = 64
	// maxLanes bounds the messages that are written at the same time. Slack takes about one a second and channel.
	maxLanes = 4
	// clickWithin bounds the work on one click, callWithin one request to Slack.
	clickWithin = 30 * time.Second
	callWithin  = 10 * time.Second
	// personFor is how long a person and the members of a user group are believed: short, so that a deactivated account
	// stops approving; long enough for a double click.
	personFor = time.Minute
	// cacheSize bounds what is remembered of people.
	cacheSize = 1000
	// closeGrace is what Close leaves for clicks that are being worked on.
	closeGrace = 5 * time.Second
)
