// Package proxy carries the calls of a job to the upstreams of its grants.
//
// One call goes this way, eight steps in eight lines of [Proxy.ServeHTTP]'s run:
//
//	door      the connection, and exactly one Jobgate token
//	session   awake? granted?
//	describe  the request, parsed by the connection's dialect and noted in the record
//	admit     the one gate: the rules decide, people are asked, all of it is written down
//	send      the credential is put in, and the request leaves
//	respond   tool uses are judged before the job sees them, secrets are masked, the record gets its copy
//	close     usage is counted, the call's end is recorded
//
// There is no second road to an upstream: send takes a permit that only admit makes. The job never holds a credential,
// the upstream never sees the job's token, and what cannot be verified, recorded or decided is refused.
//
// The package knows neither who opens sessions, nor who asks people, nor where records rest: it states what it needs of
// them as [Sessions], [Approver] and [Recorder].
package proxy
