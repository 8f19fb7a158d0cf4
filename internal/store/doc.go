// Package store keeps rows: mappings, sessions with their jobs' ledgers, access tokens, CI tokens that were used, and
// approvals. It moves rows and compares-and-swaps; what they mean is decided elsewhere. Consumers declare the methods
// they call, and *[DB] has them.
//
//	db, err := store.Open(ctx, store.Config{URL: "sqlite:jobgate.db", Folder: data})
//	err = db.OpenSession(ctx, opening) // session, ledger, token and replay mark: all of it, or nothing
//	defer db.Close()
//
// # One writer
//
// Every change goes through one goroutine that puts what is queued into one transaction, each change in a savepoint of
// its own: a change that is refused undoes itself only, and concurrent exchanges share one commit. A method returns
// after the commit, and a commit returns after the disk has it. Readers use other connections and are not held up.
//
// # Time, secrets, lifetime
//
// Times are integers, nanoseconds since 1970, zero for none. Access tokens are kept as SHA-256, CI tokens as the id or
// hash that names them; neither can be got back. The file has mode 0600 and a lock beside it, which one process holds.
//
// # SQL
//
// One text serves every database; what differs stands in dialect.go. Migrations are embedded, ordered, and applied in
// one transaction each.
package store
