// Package access holds the nouns that the rest of Jobgate speaks of, and the rules about them that need no I/O.
//
// A CI provider's token names an [Identity]. A mapping turns the identity into a [Policy]: [Grant]s on named
// connections, each with its [Rule]s and [Limits]. The exchange opens a [Session] under that policy, a window that
// lasts as long as the job. Inside it every request is a [Call]; the rules give a [Decision]; where the decision asks,
// an [Approval] collects a [Vote].
//
//	token -> Identity -> Policy -> Session -> Call -> Decision -> Approval -> credential -> masked record
//
// The package imports the standard library only. Zero values refuse: the zero [Effect] denies, a [Session] without a
// policy grants nothing, the zero [Window] contains no instant.
package access
