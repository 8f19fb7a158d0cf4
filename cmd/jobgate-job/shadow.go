package main

import (
	"fmt"
	"strings"
)

// shadows are what Claude Code and Anthropic's SDKs prefer to a session, silently.
func shadows() [][2]string {
	return [][2]string{
		{"ANTHROPIC_API_KEY", "an API key"},
		{"ANTHROPIC_AUTH_TOKEN", "a bearer token"},
		{"ANTHROPIC_PROFILE", "a credentials profile"},
		{"CLAUDE_CODE_OAUTH_TOKEN", "an OAuth token"},
		{"CLAUDE_CODE_USE_BEDROCK", "another provider's endpoint"},
		{"CLAUDE_CODE_USE_VERTEX", "another provider's endpoint"},
		{"CLAUDE_CODE_USE_FOUNDRY", "another provider's endpoint"},
	}
}

func foundShadows(env environment) []string {
	var found []string
	for _, s := range shadows() {
		if env.get(s[0]) != "" {
			found = append(found, fmt.Sprintf("%s (%s)", s[0], s[1]))
		}
	}
	return found
}

// refuseShadows is an error where the environment holds a credential or a switch that goes around Jobgate.
func refuseShadows(env environment) error {
	found := foundShadows(env)
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("%s stands in this job's environment: Claude clients prefer it, silently, to a session, and calls would go around Jobgate. "+
		"Take it out of the job's variables (Jobgate holds the credential; the job needs none)", strings.Join(found, ", "))
}
