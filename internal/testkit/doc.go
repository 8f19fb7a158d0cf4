// Package testkit is the outside world in small: a CI provider's OIDC issuer,
// the job APIs and webhooks of GitHub, GitLab and Buildkite, Anthropic's
// Messages API, and an agent that runs in a job. Each listens on a free port
// of 127.0.0.1, needs no account and no network, and ends with Close, after
// which none of its goroutines is left.
//
// Tests use it as their peer, and `jobgate demo` tells its story with it; so
// nothing here imports package testing.
//
//	issuer, err := testkit.NewIssuer(testkit.IssuerConfig{})
//	job := issuer.StartJob(issuer.GitHubClaims(nil))   // job.Env() is what a step sees
//	model, err := testkit.NewModel(testkit.ModelConfig{
//		Script: testkit.ScriptTools(
//			testkit.Step{Use: []testkit.ToolUse{{Name: "Bash", Input: `{"command":"make test"}`}}},
//			testkit.Step{Say: "It printed: {result}"},
//		),
//	})
//	agent, err := testkit.NewAgent(testkit.AgentConfig{
//		BaseURL: "https://jobgate.example.com/anthropic", Rule: "release-agents", Organization: "any",
//		Identity: func(ctx context.Context) (string, error) { return job.Token(ctx, "https://jobgate.example.com") },
//	})
//	text, err := agent.Run(ctx, "Run the tests.")
//
// The emulators are strict where the real services are strict (a missing
// header, a tool use without its result, a thinking block that was changed),
// so that a gateway which breaks a request is noticed.
package testkit
