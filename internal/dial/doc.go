// Package dial opens connections to hosts that configuration or documents name, and refuses the addresses behind which
// a machine's own and its network's inner services listen.
//
// The check stands after name resolution, on the very address that is connected to, so that a name which changes its
// answer between check and use is refused, too.
//
//	transport := &http.Transport{DialContext: dial.Dialer{}.DialContext}
package dial
