//go:build !unix

package upstream

// silent cannot look at an idle connection here. A request of which nothing was taken, or that is safe to repeat, is sent
// again on another.
func (c *conn) silent() bool { return true }
