// Package inject knows where credentials come from and where in a request they stand. It is the only place that
// reveals a connection's credential: into the outgoing request, and into the list of values that a session's maskers
// look for.
//
// A credential is configured by reference, never as a literal:
//
//	env:NAME     an environment variable of the server, read once
//	file:PATH    a file, looked at again every few seconds, so that a rotated value is used without a restart
//
// or by a URL, which the program that builds a [Source] follows: see [NewFollowed].
package inject
