// Package clients starts the real programs that Jobgate is tested against:
// the Claude Agent SDK, Anthropic's plain SDK, and act, which runs a GitHub
// workflow on this machine without containers.
//
// The programs are not part of the build. What is missing is a
// [MissingError] that names the command which gets it; a test skips with it:
//
//	kit, err := clients.Find()
//	if missing := (*clients.MissingError)(nil); errors.As(err, &missing) {
//		t.Skip(missing)
//	}
//	run, err := kit.Agent(ctx, clients.AgentRun{Prompt: "go", Home: t.TempDir(), Env: env})
//
// No program sees the environment of the test: what it gets is PATH, a home
// of its own, and what the caller gives.
package clients
