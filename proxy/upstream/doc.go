// Package upstream carries one call to its upstream and the answer back, over HTTP/1.1, on the goroutine of whoever calls.
//
// net/http's Transport hands every call between three goroutines, so that one connection can be written to, read from and
// waited for at once. A gateway's handler does these one after the other, and the hand-overs cost it more than all of the
// call's own work. So Transport writes a request and reads its answer where it is called:
//
//	take an idle connection, or dial  ->  write head and body  ->  read the head  ->  the caller reads the body  ->  give it back at its end
//
// What a body that is not held in memory needs, writing and reading at the same time for as long as the client likes, is
// left to net/http's Transport. Heads are parsed by net/http in both.
package upstream
