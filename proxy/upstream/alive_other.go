//go:build !unix

package upstream

// alive cannot look at an idle connection here; a request that is not taken is sent again on another.
func (c *conn) alive() bool { return true }
