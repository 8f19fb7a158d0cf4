// Package dialect knows what each kind of connection speaks: how a request is read, what a refusal looks like to the
// SDK that gets it, where an answer holds a tool use, and how an answer is masked without spoiling it.
//
// The package does no I/O. [Anthropic] reads requests of the Messages API and renders refusals; [HTTP] renders them for
// connections whose body nobody reads. A [Filter] is fed with the bytes of a server-sent event stream and returns the
// bytes that may go out now; [Anthropic.FilterMessage] does the same to an answer that is no stream.
//
// Three promises hold for every answer:
//
//   - What was neither judged nor masked leaves byte for byte as it came: line ends, comments, unknown events, padding.
//   - A tool use that is judged is withheld from its first byte to its verdict, because a client runs it as soon as its
//     block stops. What a lenient client could read in another way than the judge did is refused.
//   - A secret does not pass because it was cut between two events: text is masked as the decoded text of a block.
//
// JSON is read by one strict scanner ([Strict]): what two parsers could understand differently is an error, before
// anything is decided on it.
package dialect
