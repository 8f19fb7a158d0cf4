// Package api holds the wire structs of the control plane: what the admin API and the configuration file say, and what
// the command reads. It has no behaviour beyond its encodings, so that small programs can share it.
package api
