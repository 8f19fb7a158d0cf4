// Package archive carries the records of sessions into a bucket: written ahead to a spool on the local disk, cut into compressed parts,
// uploaded once, and closed by a signed manifest. It also reads them back and verifies them, for which a bucket and the public key are
// enough.
//
// It masks nothing: what it is given was masked before. It drops nothing: a full queue blocks, a full disk refuses, and where a
// deployment prefers to go on without a record, a gap event says how much is missing.
//
// # In the bucket
//
//	{prefix}/v1/sessions/dt=2026-11-24/{session}/open.jws                 compact JWS; its payload is the first line of the record
//	                                             events-000001.jsonl.zst  parts: lines of package record, zstd
//	                                             events-000002.jsonl.zst
//	                                             manifest.json            who, what, the parts with sizes and SHA-256, the head of the chain
//	                                             manifest.jws             detached JWS over manifest.json
//
//	{prefix}/v1/audit/dt=2026-11-24/{stream}/…                            the same, of the deployment itself: audit.go
//
// dt is the day of the opening in UTC. Every object is written once (IfNotExist). What is in an object is a function of the events alone,
// so an upload that is repeated after a crash, or after an answer that was lost, finds its own bytes there and is content. Where another
// version of the compressor made other bytes of the same events, the object that is there counts.
//
// # In the spool
//
// One folder, one process (it takes a lock), segments spool-000001.wal, spool-000002.wal, … of 64 MiB:
//
//	segment  = "JGSPOOL1" frame…            the first frame is a snapshot of all sessions
//	frame    = length CRC payload           length of payload and CRC-32C of payload, 4 bytes each, little endian
//	payload  = kind n session body          kind and n are one byte, session is n bytes
//
//	kind 1  event      body: the line
//	     2  snapshot   body: JSON, the state of every session; sessions that it does not name are no more
//	     3  part       body: JSON, a part that lies in the bucket
//	     4  opening    open.jws lies in the bucket
//	     5  done       the manifest lies in the bucket; the session is no more
//	     6  close      the process ended in order
//
// An older segment is deleted when all of its events lie in parts, and a later segment, whose snapshot says so, is on the disk. At the
// start the segments are read again, a torn tail is cut, calls that were in flight are ended as interrupted, and everything goes on.
//
// A file named reserve lies beside the segments. On a disk that is full it is given up, so that "this part is stored" can still be written
// and segments can be deleted.
//
// # Files
//
//	archive.go  the surface         spool.go    the one writer           upload.go  workers, retries
//	append.go   events in           sync.go     to the disk, and away    seal.go    parts and manifest
//	state.go    what is known       fault.go    a write that failed      object.go  one object, once
//	layout.go   names, manifest     segment.go  files                    read.go    list, events
//	recover.go  the start           frame.go    frames                   verify.go  is it whole, and ours
//	audit.go    the audit streams: one a day and a start of the program, in audit_layout.go and audit_verify.go what differs for them
package archive
