package proxy

import "time"

// Bounds are the sizes and times that hold for every call. Zero takes the default.
type Bounds struct {
	// Body is the longest request of a connection whose requests are understood: Anthropic takes 32 MB.
	Body int64
	// Held is the longest request or tool use that is held for a decision of people.
	Held int64
	// Answer is the longest answer that must be read whole before it is judged.
	Answer int64
	// Head is how long an upstream may take to its first header. Models think for minutes.
	Head time.Duration
	// Idle is how long an upstream may be silent within an answer.
	Idle time.Duration
	// Client is how long one write to the client, or one read from it, may take.
	Client time.Duration
	// Ping is the pause between signs of life on a stream that is held. Load balancers cut at 30 s and up.
	Ping time.Duration
	// Cut is what a client has to take the reason after its session ended.
	Cut time.Duration
}

func (b Bounds) withDefaults() Bounds {
	size := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	size(&b.Body, 32<<20)
	size(&b.Held, 8<<20)
	size(&b.Answer, 32<<20)
	wait(&b.Head, 10*time.Minute)
	wait(&b.Idle, 10*time.Minute)
	wait(&b.Client, 2*time.Minute)
	wait(&b.Ping, 5*time.Second)
	wait(&b.Cut, time.Second)
	return b
}

const (
	// copyBuffer is read from an upstream at once, so that many small events become one write.
	copyBuffer = 32 << 10
	// peekBody of a streamed request stands in the record.
	peekBody = 64 << 10
	// wholeAnswer is the longest answer of known length that is masked whole, so that it keeps a length.
	wholeAnswer = 256 << 10
	// window of an answer makes one event of the record.
	windowBytes = 64 << 10
	windowTime  = 100 * time.Millisecond
	// askedText is what the record repeats of a question; the call or tool use stands there in full beside it.
	askedText = 64 << 10
	// deniedText is what the job's summary shows of a refusal.
	deniedText = 200
	// baseBody is the longest body that later bodies of the session are recorded as a difference to.
	baseBody = 1 << 20
)
