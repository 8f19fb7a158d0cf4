// Package cond compiles and evaluates conditions: the "when" of mappings and of rules, in CEL.
//
// A condition is type-checked when it is compiled, so that a name that does not exist is found in the configuration
// and not in a job, and it is bounded when it is evaluated. What is in scope depends on where it stands:
//
//	Mapping: claims (map), provider, issuer
//	Rule:    the same, and call{connection kind method path query bytes stream max_tokens features},
//	         session{id mapping age_seconds}, model, tools, tool{id name input}, mcp (map),
//	         usage{requests input_tokens output_tokens}
//
// claims, mcp and tool.input are JSON: what is in them is known only when they are there. An access to what is absent
// is an error, and what an error means is the caller's to say: no match for a mapping, a match for a rule. The standard
// functions of CEL are there, and its extensions for strings, lists and sets.
//
//	c, err := cond.Compile(`tool.name == "Bash" && tool.input.command.startsWith("rm")`, cond.Rule)
//	match, err := c.Eval(ctx, cond.Input{Tool: cond.NewTool(use)})
package cond
