package cond

import (
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"github.com/jobgate/jobgate/internal/access"
)

// textFunctions look for a part of a text. What they look for can nearly always be written another way.
var textFunctions = []string{"matches", "contains", "startsWith", "endsWith", "indexOf", "lastIndexOf", "find"}

// Patterns returns the functions that look for a pattern in a tool's input, such as "contains" of
// tool.input.command.contains("curl"), each once and sorted.
func (c *Condition) Patterns() []string {
	var found []string
	findPatterns(c.checked.NativeRep().Expr(), ofToolInput, &found)
	slices.Sort(found)
	return slices.Compact(found)
}

// ClaimPatterns returns likewise the functions that look for a pattern in claims whose name has the prefix.
func (c *Condition) ClaimPatterns(prefix string) []string {
	var found []string
	findPatterns(c.checked.NativeRep().Expr(), func(e ast.Expr) bool { return ofClaim(e, prefix) }, &found)
	slices.Sort(found)
	return slices.Compact(found)
}

// ofClaim reports whether an expression is made of a claim whose name has the prefix.
func ofClaim(e ast.Expr, prefix string) bool {
	found := references{}
	found.walk(e, nil)
	return slices.ContainsFunc(found["claims"], func(name string) bool { return strings.HasPrefix(name, prefix) })
}

func findPatterns(e ast.Expr, of func(ast.Expr) bool, found *[]string) {
	if e.Kind() == ast.CallKind {
		call := e.AsCall()
		subjects := call.Args()
		if call.IsMemberFunction() {
			subjects = []ast.Expr{call.Target()}
		}
		if slices.Contains(textFunctions, call.FunctionName()) && slices.ContainsFunc(subjects, of) {
			*found = append(*found, call.FunctionName())
		}
	}
	for _, child := range children(e) {
		findPatterns(child, of, found)
	}
}

// ofToolInput reports whether an expression is made of the input of a tool use.
func ofToolInput(e ast.Expr) bool {
	if e.Kind() == ast.SelectKind && e.AsSelect().FieldName() == "input" {
		operand := e.AsSelect().Operand()
		if operand.Kind() == ast.IdentKind && strings.TrimPrefix(operand.AsIdent(), ".") == "tool" {
			return true
		}
	}
	return slices.ContainsFunc(children(e), ofToolInput)
}

// children are the expressions right below one.
func children(e ast.Expr) []ast.Expr {
	switch e.Kind() {
	case ast.SelectKind:
		return []ast.Expr{e.AsSelect().Operand()}
	case ast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() {
			return append([]ast.Expr{call.Target()}, call.Args()...)
		}
		return call.Args()
	case ast.ListKind:
		return e.AsList().Elements()
	case ast.MapKind:
		var out []ast.Expr
		for _, entry := range e.AsMap().Entries() {
			out = append(out, entry.AsMapEntry().Key(), entry.AsMapEntry().Value())
		}
		return out
	case ast.ComprehensionKind:
		loop := e.AsComprehension()
		return []ast.Expr{loop.IterRange(), loop.AccuInit(), loop.LoopCondition(), loop.LoopStep(), loop.Result()}
	}
	return nil
}

// Constant returns the condition's value where it is the same whatever is evaluated, and false for one that depends.
func (c *Condition) Constant() (value, constant bool) {
	unknown := make([]*cel.AttributePatternType, 0, len(variables))
	for _, v := range variables {
		unknown = append(unknown, cel.AttributePattern(v.name))
	}
	return c.settled(&activation{}, unknown)
}

// MayMatchCall reports whether the condition could be true, or fail, for a call of this connection, method and path. It
// is false only when these alone settle that it is false.
func (c *Condition) MayMatchCall(call access.Call) bool {
	var unknown []*cel.AttributePatternType
	for _, v := range variables {
		if v.name != "call" {
			unknown = append(unknown, cel.AttributePattern(v.name))
		}
	}
	for name := range fields[callType.TypeName()] {
		if !slices.Contains([]string{"connection", "kind", "method", "path"}, name) {
			unknown = append(unknown, cel.AttributePattern("call").QualString(name))
		}
	}
	value, settled := c.settled(&activation{Input: Input{Call: &call}}, unknown)
	return value || !settled
}

// settled evaluates the condition where some attributes are unknown.
func (c *Condition) settled(a *activation, unknown []*cel.AttributePatternType) (value, settled bool) {
	vars, err := cel.PartialVars(a, unknown...)
	if err != nil {
		return false, false
	}
	out, _, err := c.partial.Eval(vars)
	if b, ok := out.(types.Bool); err == nil && ok {
		return bool(b), true
	}
	return false, false
}
